"""Code that no longer fits its journal: the run is blocked and visible, everything else goes on, the fix resumes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import derecho
from derecho import Engine, NondeterminismError, WorkflowStatus, activity, replay, workflow
from derecho.journal import ActivityScheduled
from derecho.stores.base import STICKY_NS
from tests.rig import Rig


@activity
def reserve(order: str) -> str:
    return f"reserved {order}"


@activity
def charge(order: str) -> str:
    return f"charged {order}"


@activity
def ship(order: str) -> str:
    return f"shipped {order}"


@activity(name="charge_v2")
def renamed_charge(order: str) -> str:
    return f"charged {order}"


def original(order: str) -> list[str]:
    done = [reserve(order)]
    derecho.signal_channel("go").receive()
    done.append(charge(order))
    return done


def with_reserve_renamed(order: str) -> list[str]:
    done = [renamed_charge(order)]
    derecho.signal_channel("go").receive()
    done.append(charge(order))
    return done


def with_two_swapped(order: str) -> list[str]:
    done = [charge(order)]
    derecho.signal_channel("go").receive()
    done.append(reserve(order))
    return done


def with_one_removed(order: str) -> list[str]:
    derecho.signal_channel("go").receive()
    return [charge(order)]


def with_one_added(order: str) -> list[str]:
    first = ship.execute(order)
    done = [reserve(order), first.get()]
    derecho.signal_channel("go").receive()
    done.append(charge(order))
    return done


def with_one_more_in_the_same_task(order: str) -> list[str]:
    future = reserve.execute(order)
    ship.execute(order)
    done = [future.get()]
    derecho.signal_channel("go").receive()
    return [*done, charge(order)]


ACTIVITIES = [reserve, charge, ship, renamed_charge]
CHANGES: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "renamed": (with_reserve_renamed, "activity 'reserve' scheduled", "activity 'charge_v2' scheduled"),
    "swapped": (with_two_swapped, "activity 'reserve' scheduled", "activity 'charge' scheduled"),
    "removed": (with_one_removed, "activity 'reserve' scheduled", "the workflow is blocked"),
    "added before": (with_one_added, "activity 'reserve' scheduled", "activity 'ship' scheduled"),
    "added after": (
        with_one_more_in_the_same_task,
        "no further command in this workflow task",
        "activity 'ship' scheduled",
    ),
}


def _deploy(rig: Rig, fn: Callable[[str], Any], worker_id: str) -> Engine:
    """Replace all engines by one with this code, as a deploy does."""
    for engine in rig.engines:
        engine.workflow_worker.close()
    rig.engines.clear()
    rig.clock.advance(STICKY_NS / 1e9)  # The runs were live in the former process; now anyone may take them.
    return rig.engine([workflow(name="order")(fn)], ACTIVITIES, worker_id=worker_id)


def _line_of(fn: Callable[..., Any], offset: int) -> str:
    return f"test_nondeterminism.py:{fn.__code__.co_firstlineno + offset}"


@pytest.mark.parametrize("change", CHANGES)
def test_changed_code_blocks_its_run_until_the_code_is_put_back(change: str) -> None:
    changed, expected, got = CHANGES[change]
    with Rig() as rig:
        client = _deploy(rig, original, "before").client
        run = client.start_workflow("order", "o-1", "o-1")
        rig.settle()
        written = rig.journal("o-1")

        _deploy(rig, changed, "broken")
        other = rig.engines[0].client.start_workflow("order", "o-2", "o-2")
        run.signal("go")
        other.signal("go")
        rig.settle()

        shown = run.describe()
        assert shown.status is WorkflowStatus.RUNNING
        assert "NondeterminismError" in shown.blocked_reason
        assert expected in shown.blocked_reason
        assert got in shown.blocked_reason
        assert shown.blocked_since is not None
        assert rig.journal("o-1")[: len(written)] == written
        assert other.status() is WorkflowStatus.COMPLETED, "the other runs go on"

        _deploy(rig, original, "mended")
        rig.settle()
        assert run.get() == ["reserved o-1", "charged o-1"]
        assert run.describe().blocked_reason == ""


@pytest.mark.parametrize("change", CHANGES)
def test_the_error_names_the_event_both_sides_and_both_places(change: str) -> None:
    changed, expected, got = CHANGES[change]
    with Rig() as rig:
        client = _deploy(rig, original, "before").client
        client.start_workflow("order", "o-1", "o-1")
        rig.settle()
        events = rig.journal("o-1")
    recorded = next(event for event in events if isinstance(event, ActivityScheduled))
    with pytest.raises(NondeterminismError) as caught:
        replay(workflow(name="order")(changed), events)
    error = caught.value
    assert error.workflow_id == "o-1"
    assert error.run_id
    assert error.event_id == recorded.id + (change == "added after")
    assert error.expected == expected
    assert error.got == got
    assert error.expected_site == ("" if change == "added after" else _line_of(original, 1))
    # Where the code stands now: at the other command, or at the wait it is blocked in.
    offset = {"renamed": 1, "swapped": 1, "removed": 1, "added before": 1, "added after": 2}[change]
    assert error.got_site == _line_of(changed, offset)
    for part in (expected, got, error.got_site, "event", "o-1"):
        assert part in str(error)


def test_a_blocked_run_is_tried_again_with_growing_pauses_by_the_same_process() -> None:
    with Rig() as rig:
        client = _deploy(rig, original, "before").client
        run = client.start_workflow("order", "o-1", "o-1")
        rig.settle()
        engine = _deploy(rig, with_two_swapped, "broken")
        run.signal("go")
        attempts = []
        for seconds in (0, 0.5, 0.6, 1, 1.1, 2, 2.1):
            rig.clock.advance(seconds)
            attempts.append(engine.workflow_worker.process())
        assert attempts == [1, 0, 1, 0, 1, 0, 1], "after 1 s, 2 s, 4 s"


def test_another_input_warns_and_is_an_error_only_when_strict(caplog: pytest.LogCaptureFixture) -> None:
    def other_input(order: str) -> list[str]:
        done = [reserve(order + "!")]
        derecho.signal_channel("go").receive()
        return done

    with Rig() as rig:
        client = _deploy(rig, original, "before").client
        client.start_workflow("order", "o-1", "o-1")
        rig.settle()
        events = rig.journal("o-1")
    definition = workflow(name="order")(other_input)
    assert replay(definition, events).complete is False
    assert "input differs" in caplog.text
    with pytest.raises(NondeterminismError, match="another input"):
        replay(definition, events, strict=True)


def test_a_workflow_whose_arguments_cannot_be_decoded_any_more_is_blocked_and_can_be_terminated() -> None:
    def takes_a_number(order: int) -> None: ...

    with Rig() as rig:
        client = _deploy(rig, original, "before").client
        run = client.start_workflow("order", "o-1", "o-1")
        _deploy(rig, takes_a_number, "broken")
        rig.settle()
        assert run.status() is WorkflowStatus.RUNNING
        assert "argument 1 of workflow 'order'" in run.describe().blocked_reason
        run.terminate("give up")
        assert run.status() is WorkflowStatus.TERMINATED


def test_a_result_that_cannot_be_decoded_any_more_blocks_and_is_not_the_workflows_to_catch() -> None:
    def reads_a_number(order: str) -> list[str]:
        reference = derecho.activity_ref("reserve", returns=int)
        try:
            reference(order)
        except Exception:
            return ["caught"]
        return ["never"]

    with Rig() as rig:
        run = _deploy(rig, reads_a_number, "broken").client.start_workflow("order", "o-1", "o-1")
        rig.settle()
        assert run.status() is WorkflowStatus.RUNNING
        assert "result of activity 'reserve'" in run.describe().blocked_reason
