"""`replay`: the journals of real runs, our own and the original's, against code."""

from __future__ import annotations

from pathlib import Path

import pytest

import derecho
from derecho import (
    JournalError,
    WorkflowNotFoundError,
    activity,
    activity_ref,
    replay,
    replay_from_store,
    workflow,
)
from derecho.journal import ActivityCompleted, ActivityScheduled, dump_events, load_events
from tests.rig import Rig

SAMPLES = Path(__file__).parent.parent / "journal" / "samples"


@activity
def double(number: int) -> int:
    return 2 * number


@workflow
def quadruple(number: int) -> int:
    return double(double(number))


@workflow(name="order")
def go_order(order: dict[str, object]) -> dict[str, object]:
    """The workflow that recorded the original's sample, in Python."""
    reserved = activity_ref("reserve", returns=int)(order["items"])
    receipt = activity_ref("charge", returns=str)(700 * reserved)
    tracking = activity_ref("ship", returns=str)(receipt)
    return {"tracking": tracking, "total": 700 * reserved}


@workflow(name="approval")
def go_approval(name: str) -> str:
    """The workflow that recorded the original's sample, in Python."""
    deadline = derecho.timer(3600)
    approval = derecho.signal_channel("approval", str).receive_future()
    assert derecho.select(approval, deadline) is approval
    deadline.cancel()
    return f"{name}:approved:{approval.get()}:{derecho.side_effect(lambda: 'drawn again')}"


def test_an_order_that_the_original_recorded_replays_here() -> None:
    # Not strict: the original wrote the keys of the result in the order of its struct, we sort them.
    result = replay(go_order, load_events((SAMPLES / "order-1.json").read_bytes()))
    assert result.complete
    assert result.new_events == []
    assert result.result == {"tracking": "track-txn-2.1µs", "total": 2100}


def test_an_approval_that_the_original_recorded_replays_here_with_its_recorded_side_effect() -> None:
    result = replay(go_approval, load_events((SAMPLES / "approval-1.json").read_bytes()), strict=True)
    assert result.result == "ann:approved:bob:random-42"


def test_a_journal_replays_after_a_round_trip_through_json_and_from_the_store() -> None:
    with Rig() as rig:
        run = rig.engine([quadruple], [double]).client.start_workflow(quadruple, "q", 3)
        rig.settle()
        assert replay(quadruple, load_events(dump_events(run.events())), strict=True).result == 12
        assert replay_from_store(rig.store, "q", run.run_id, quadruple).result == 12
        with pytest.raises(WorkflowNotFoundError, match="nobody"):
            replay_from_store(rig.store, "nobody", "", quadruple)


def test_an_incomplete_journal_gives_what_the_workflow_would_do_next() -> None:
    with Rig() as rig:
        run = rig.engine([quadruple], [double]).client.start_workflow(quadruple, "q", 3)
        rig.settle()
        events = run.events()
    cut = next(index for index, event in enumerate(events) if isinstance(event, ActivityCompleted)) + 1
    result = replay(quadruple, events[:cut])
    assert not result.complete
    [asked] = [event for event in result.new_events if isinstance(event, ActivityScheduled)]
    assert (asked.name, asked.input) == ("double", b"6")
    waiting = [event for event in events[:cut] if event.id <= 5]
    assert replay(quadruple, waiting).new_events == []


def test_a_failed_run_gives_its_recorded_failure() -> None:
    @workflow
    def fails() -> None:
        raise ValueError("on purpose")

    with Rig() as rig:
        run = rig.engine([fails]).client.start_workflow(fails, "f")
        rig.settle()
        result = replay(fails, run.events())
    assert result.complete
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ValueError", "on purpose")


def test_an_outcome_of_nothing_is_a_journal_error() -> None:
    with Rig() as rig:
        run = rig.engine([quadruple], [double]).client.start_workflow(quadruple, "q", 3)
        rig.settle()
        events = run.events()
    twice = [event for event in events if event.id <= 8]
    outcome = next(event for event in twice if isinstance(event, ActivityCompleted))
    with pytest.raises(JournalError, match="no command without an outcome"):
        replay(quadruple, [*twice, outcome])


def test_a_journal_of_a_later_version_is_refused_by_its_kind() -> None:
    data = b'[{"id":1,"type":"workflow_started","workflow_type":"q","args":"MQ==","started_at":"2030-01-01T00:00:00Z"},'
    data += b'{"id":2,"type":"workflow_paused"}]'
    with pytest.raises(JournalError, match="workflow_paused"):
        replay(quadruple, load_events(data))
