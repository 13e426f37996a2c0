"""A row that cannot be dealt with never holds up the others (G6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import derecho
from derecho import RetryPolicy, activity, workflow
from derecho.stores import work
from derecho.stores.base import Store, TimerRow, Tx
from derecho.stores.memory import MemoryStore
from derecho.stores.sqlite import SQLiteStore
from derecho.testing.clock import FakeClock
from tests.rig import Rig


@activity(schedule_to_close_timeout=5)
def never_runs() -> None: ...


@workflow
def waits_for_an_activity() -> str:
    try:
        never_runs()
    except derecho.ActivityTimeoutError as error:
        return error.timeout_kind
    return "ran"


@workflow
def sleeps() -> str:
    derecho.sleep(5)
    return "woke"


@pytest.fixture(params=["memory", "sqlite"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    makers: dict[str, Callable[[FakeClock], Store]] = {
        "memory": MemoryStore,
        "sqlite": lambda clock: SQLiteStore(tmp_path / "a.db", clock=clock),
    }
    with Rig(makers[request.param]) as made:
        yield made


def test_a_timer_that_cannot_be_fired_does_not_hold_up_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = rig.engine([sleeps]).client
    poisoned = client.start_workflow(sleeps, "poisoned")
    others = [client.start_workflow(sleeps, f"other {n}") for n in range(3)]
    rig.settle()
    fire = work.fire_timer

    def breaks(tx: Tx, timer: TimerRow) -> bool:
        done = fire(tx, timer)
        if timer.run_id == poisoned.run_id:
            raise ValueError("planted, after its writes")
        return done

    monkeypatch.setattr(work, "fire_timer", breaks)
    rig.clock.advance(5)
    rig.settle()
    assert [run.get(block=False) for run in others] == ["woke"] * 3
    assert poisoned.status() is derecho.WorkflowStatus.RUNNING
    assert "could not be dealt with" in caplog.text
    monkeypatch.undo()
    rig.settle()
    assert poisoned.get(block=False) == "woke"


def test_an_activity_that_cannot_be_expired_does_not_hold_up_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = rig.engine([waits_for_an_activity]).client
    poisoned = client.start_workflow(waits_for_an_activity, "poisoned")
    other = client.start_workflow(waits_for_an_activity, "other")
    rig.settle()
    expire = work.expire_activity

    def breaks(tx: Tx, run_id: str, scheduled_id: int) -> bool:
        if run_id == poisoned.run_id:
            raise ValueError("planted")
        return expire(tx, run_id, scheduled_id)

    monkeypatch.setattr(work, "expire_activity", breaks)
    rig.clock.advance(5)
    rig.settle()
    assert other.get(block=False) == "schedule_to_close"
    monkeypatch.undo()
    rig.settle()
    assert poisoned.get(block=False) == "schedule_to_close"


def test_a_cancelled_activity_is_not_tried_again(rig: Rig) -> None:
    """Its outcome is not wanted any more: a failed attempt is the last."""

    @activity(retry=RetryPolicy())
    def fails() -> None:
        raise ValueError("no")

    @workflow
    def calls() -> int:
        try:
            fails()
        except derecho.ActivityError as error:
            return error.attempts
        return 0

    run = rig.engine([calls]).client.start_workflow(calls, "a")
    rig.settle()

    def ask_to_cancel(tx: Tx) -> None:
        [row] = tx.ready_activities(None, 1)
        row.cancel_requested = True
        tx.save_activity(row)

    rig.store._transact(ask_to_cancel, durable=False)  # type: ignore[attr-defined]  # No verb asks yet.
    rig.engine([calls], [fails])
    rig.settle()
    assert run.get(block=False) == 1
