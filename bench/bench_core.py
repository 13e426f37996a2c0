"""What do the single operations of a fiber cost: spawn, switch, get, select?

Each workflow does one thing many times, in one workflow task, without any store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from bench.shapes import OneRun, one_second
from derecho import as_completed, gather, now, select, spawn, workflow


def echo(number: int) -> int:
    return number


@workflow
def spawns(times: int) -> int:
    """Start a fiber, switch to it and back, take its result: 2 switches."""
    done = 0
    for _ in range(times):
        done += spawn(echo, 1).get()
    return done


@workflow
def spawns_together(times: int) -> int:
    """Start all fibers, then gather them."""
    return sum(gather(*[spawn(echo, 1) for _ in range(times)]))


@workflow
def gets(times: int) -> int:
    """Ask a future that is done: no switch."""
    future = spawn(echo, 1)
    future.get()
    done = 0
    for _ in range(times):
        done += future.get()
    return done


@workflow
def selects(times: int) -> int:
    """Select between two futures, one of which is done: no switch."""
    pending = one_second()
    future = spawn(echo, 1)
    future.get()
    done = 0
    for _ in range(times):
        done += select(pending, future) is future
    return done


@workflow
def selects_that_park(times: int) -> int:
    """Select between a timer and a fiber that has to run first: 2 switches, and the loser is released."""
    pending = one_second()
    done = 0
    for _ in range(times):
        future = spawn(echo, 1)
        done += select(pending, future) is future
    return done


@workflow
def completions(times: int) -> int:
    """Take fibers in the order in which they end."""
    return sum(future.get() for future in as_completed([spawn(echo, 1) for _ in range(times)]))


@workflow
def clock_reads(times: int) -> int:
    """Ask for the workflow time."""
    first = now()
    return sum(now() == first for _ in range(times))


OPERATIONS: Final = [spawns, spawns_together, gets, selects, selects_that_park, completions, clock_reads]


@pytest.mark.benchmark(group="core")
@pytest.mark.parametrize("definition", OPERATIONS, ids=lambda definition: definition.name)
def test_operation(
    benchmark: Any, rate: Callable[..., None], sized: Callable[[int], int], definition: Any
) -> None:
    times = sized(10_000)
    runs: list[OneRun] = []

    def begin() -> tuple[tuple[OneRun], dict[str, Any]]:
        runs.append(OneRun(definition, times))
        return (runs[-1],), {}

    rate(times, "times")
    drafts = benchmark.pedantic(OneRun.begin, setup=begin, rounds=10)
    assert runs[-1].result_of(drafts) == times
    for run in runs:
        run.close()
