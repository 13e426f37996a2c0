"""Do many parked fibers of one run wake in linear time?

Target P8: 10,000 fibers parked on futures are woken in O(n), at most 3 us each.
"""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any

import pytest

from bench.shapes import OneRun, one_second
from derecho import gather, spawn, wait_for, workflow


@workflow
def crowd(fibers: int) -> int:
    """Park fibers on one future; all wake at once."""
    gate = one_second()

    def parked(number: int) -> int:
        gate.get()
        return number

    return sum(gather(*[spawn(parked, number) for number in range(fibers)]))


@workflow
def queue(fibers: int) -> int:
    """Park each fiber on the one before it; they wake one after the other."""
    last: Any = spawn(one_second().get)

    def behind(before: Any, number: int) -> int:
        before.get()
        return number

    for number in range(fibers):
        last = spawn(behind, last, number)
    last.get()
    return fibers


@workflow
def waiters(fibers: int) -> int:
    """Park fibers on conditions; each makes the next one true."""
    gate = one_second()
    reached = 0

    def waiting(number: int) -> None:
        nonlocal reached
        wait_for(lambda: reached == number)
        reached += 1

    spawned = [spawn(waiting, number + 1) for number in range(fibers)]
    gate.get()
    reached = 1
    gather(*spawned)
    return reached - 1


def timed_wake(definition: Any, fibers: int) -> float:
    """Return the CPU seconds of the one task in which all fibers wake and end."""
    run = OneRun(definition, fibers)
    try:
        run.begin()
        begun = thread_time()
        result = run.fire()
        took = thread_time() - begun
    finally:
        run.close()
    assert result == (fibers * (fibers - 1) // 2 if definition is crowd else fibers)
    return took


@pytest.mark.benchmark(group="fibers")
@pytest.mark.parametrize("definition", [crowd, queue], ids=lambda definition: definition.name)
@pytest.mark.parametrize("fibers", [1000, 10_000])
def test_wake(
    benchmark: Any, rate: Callable[..., None], sized: Callable[[int], int], definition: Any, fibers: int
) -> None:
    fibers = sized(fibers)
    runs: list[OneRun] = []

    def park() -> tuple[tuple[OneRun], dict[str, Any]]:
        runs.append(OneRun(definition, fibers))
        runs[-1].begin()
        return (runs[-1],), {}

    rate(fibers, "fibers")
    result = benchmark.pedantic(OneRun.fire, setup=park, rounds=10)
    for run in runs:
        run.close()
    assert result == (fibers * (fibers - 1) // 2 if definition is crowd else fibers)


@pytest.mark.benchmark(group="fibers")
@pytest.mark.parametrize("definition", [crowd, queue], ids=lambda definition: definition.name)
def test_cost_of_a_wake_does_not_grow(
    benchmark: Any, figure: Callable[[str], None], sized: Callable[[int], int], definition: Any
) -> None:
    few, many = sized(1000), sized(10_000)
    base = min(timed_wake(definition, few) for _ in range(5))
    took = min(timed_wake(definition, many) for _ in range(2))
    benchmark.pedantic(timed_wake, (definition, many), rounds=1)
    figure(
        f"{many:,} fibers cost {took / base:.1f} times what {few:,} cost ({took / many * 1e6:.2f} us each)"
    )


@pytest.mark.benchmark(group="fibers")
def test_conditions(benchmark: Any, rate: Callable[..., None], sized: Callable[[int], int]) -> None:
    """Conditions are looked at again whenever a fiber went on: quadratic by design, so kept small."""
    fibers = sized(300)
    rate(fibers, "fibers")
    benchmark.pedantic(timed_wake, (waiters, fibers), rounds=5)
