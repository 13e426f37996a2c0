"""Does a step cost more in a long run? Ten thousand steps in one run cost about ten times what a thousand cost.

Target P3: at least 15,000 steps/s in sequence and 30,000 fanned out, on the memory store.
"""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any

import pytest

from bench.shapes import ACTIVITIES, WORKFLOWS, doubled_sum, fan_out, run_by_hand, sequence
from derecho import Engine, MemoryStore
from derecho.authoring.definitions import Workflow


def run_in_threads(definition: Workflow[..., Any], steps: int) -> Any:
    """Run one workflow in a started engine, and return its result."""
    store = MemoryStore()
    with Engine(store, workflows=WORKFLOWS, activities=ACTIVITIES) as engine:
        result = engine.client.start_workflow(definition, "long", steps).get(timeout=120)
    store.close()
    return result


def cpu_s(definition: Workflow[..., Any], steps: int) -> float:
    """Return the CPU seconds of one run on one thread."""
    begun = thread_time()
    result, _ = run_by_hand(definition, steps)
    took = thread_time() - begun
    assert result == doubled_sum(steps)
    return took


@pytest.mark.benchmark(group="long run")
@pytest.mark.parametrize("definition", [sequence, fan_out], ids=lambda definition: definition.name)
@pytest.mark.parametrize(("steps", "rounds"), [(1000, 3), (10_000, 1)])
def test_steps_of_one_run(
    benchmark: Any,
    rate: Callable[..., None],
    sized: Callable[[int], int],
    definition: Workflow[..., Any],
    steps: int,
    rounds: int,
) -> None:
    steps = sized(steps)
    rate(steps, "steps")
    result = benchmark.pedantic(run_in_threads, (definition, steps), rounds=rounds)
    assert result == doubled_sum(steps)


@pytest.mark.benchmark(group="long run")
@pytest.mark.parametrize("definition", [sequence, fan_out], ids=lambda definition: definition.name)
def test_cost_of_a_step_does_not_grow(
    benchmark: Any,
    figure: Callable[[str], None],
    sized: Callable[[int], int],
    definition: Workflow[..., Any],
) -> None:
    """Driven by hand, in CPU time: threads make the times of one run to the next differ."""
    few, many = sized(1000), sized(10_000)
    base = min(cpu_s(definition, few) for _ in range(3))
    took = benchmark.pedantic(cpu_s, (definition, many), rounds=1)
    figure(
        f"{many:,} steps cost {took / base:.1f} times what {few:,} cost ({base / few * 1e6:.0f} us a step)"
    )
