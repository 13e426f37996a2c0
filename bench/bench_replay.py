"""How fast is a journal replayed, and does a long one cost more per event than a short one?

Target P1: at least 4 million events/s for long journals, 2 million for one of 64 events.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from bench.shapes import doubled_sum, fan_out, run_by_hand, sequence
from derecho import replay
from derecho.authoring.definitions import Workflow
from derecho.journal import Event, dump_events, load_events


@cache
def journal_of(definition: Workflow[..., Any], steps: int) -> list[Event]:
    """Return the journal that the real engine writes."""
    result, events = run_by_hand(definition, steps)
    assert result == doubled_sum(steps)
    return events


@pytest.mark.benchmark(group="replay")
@pytest.mark.parametrize("steps", [10, 100, 1000, 3000])
def test_replay_in_sequence(
    benchmark: Any, rate: Callable[..., None], sized: Callable[[int], int], steps: int
) -> None:
    """65, 605, 6,005 and 18,005 events."""
    steps = sized(steps)
    events = journal_of(sequence, steps)
    rate(len(events), "events")
    result = benchmark.pedantic(replay, (sequence, events), rounds=max(10, 3000 // steps), warmup_rounds=2)
    assert result.complete
    assert result.result == doubled_sum(steps)


@pytest.mark.benchmark(group="replay")
def test_replay_fanned_out(benchmark: Any, rate: Callable[..., None], sized: Callable[[int], int]) -> None:
    steps = sized(1000)
    events = journal_of(fan_out, steps)
    rate(len(events), "events")
    result = benchmark.pedantic(replay, (fan_out, events), rounds=10, warmup_rounds=2)
    assert result.result == doubled_sum(steps)


@pytest.mark.benchmark(group="replay")
def test_read_and_replay(benchmark: Any, rate: Callable[..., None], sized: Callable[[int], int]) -> None:
    """The JSON of 6,005 events, as CI reads it from a file."""
    steps = sized(1000)
    events = journal_of(sequence, steps)
    data = dump_events(events)
    rate(len(events), "events")
    result = benchmark.pedantic(lambda: replay(sequence, load_events(data)), rounds=10, warmup_rounds=1)
    assert result.result == doubled_sum(steps)
