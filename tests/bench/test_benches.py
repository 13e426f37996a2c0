"""The benches still run, and what they are there to show holds: cost grows with size, and not faster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent.parent
if not (ROOT / "bench").exists():
    pytest.skip("benches are in a checkout only; these tests run against a wheel", allow_module_level=True)

sys.path.insert(0, str(ROOT))
try:
    from bench.bench_fibers import crowd, queue, timed_wake
    from bench.bench_long import cpu_s
    from bench.shapes import fan_out, sequence
finally:
    sys.path.remove(str(ROOT))

# Ten times the size costs about ten times as much, a hundred times if it is quadratic. The bound is between, as
# a machine that does other things may double either.
RATIO_MAX: Final = 30


@pytest.mark.process
@pytest.mark.slow
def test_every_bench_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "bench", "--benchmark-disable", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_there_is_a_file_for_every_question() -> None:
    told = (ROOT / "bench" / "README.md").read_text("utf-8")
    for path in (ROOT / "bench").glob("bench_*.py"):
        assert f"`{path.name}`" in told, f"bench/README.md does not say what {path.name} asks"


@pytest.mark.slow
@pytest.mark.parametrize("definition", [sequence, fan_out], ids=lambda definition: definition.name)
def test_ten_times_the_steps_cost_about_ten_times_as_much(definition: Any) -> None:
    assert ratio(lambda steps: cpu_s(definition, steps), 200) < RATIO_MAX


@pytest.mark.slow
@pytest.mark.parametrize("definition", [crowd, queue], ids=lambda definition: definition.name)
def test_ten_times_the_fibers_cost_about_ten_times_as_much(definition: Any) -> None:
    # Both sizes above the pool of idle greenlets: beyond it a fiber also pays for the memory of its stack.
    assert ratio(lambda fibers: timed_wake(definition, fibers), 2000) < RATIO_MAX


def test_quadratic_cost_is_found() -> None:
    """Plant it: the cost is the size squared."""
    assert ratio(lambda size: size * size, 100) > RATIO_MAX


def ratio(cost: Callable[[int], float], size: int) -> float:
    """Return how much ten times a size costs more, by the best of a few measurements."""
    base = min(cost(size) for _ in range(5))
    return min(cost(10 * size) for _ in range(3)) / base
