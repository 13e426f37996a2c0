"""Replay: commands are compared one by one with what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import derecho
from derecho import NondeterminismError, activity_ref, gather, signal_external, sleep, spawn, timer
from derecho.journal.events import ActivityScheduled, WorkflowCompleted
from tests.core.driver import Run, a, b, hand_made, replay, started, strip


def record(program: Callable[..., Any], *steps: Callable[[Run], object]) -> Run:
    """Run a program live, one task after each step."""
    with Run(program) as run:
        run.task()
        for step in steps:
            step(run)
            run.task()
    return run


def two_activities() -> list[Any]:
    return [a(1), b(2)]


JOURNAL = record(
    two_activities, lambda run: run.complete("a", "x"), lambda run: run.complete("b", "y")
).journal


def mismatch(program: Callable[..., Any], journal: Any = None, **settings: Any) -> NondeterminismError:
    with pytest.raises(NondeterminismError) as caught:
        replay(program, JOURNAL if journal is None else journal, **settings)
    return caught.value


def test_the_code_that_wrote_a_journal_replays_it() -> None:
    replay(two_activities, JOURNAL, strict=True)


def test_an_additional_command_is_an_error_that_names_both_sides() -> None:
    def program() -> None:
        spawn(a, 1)
        sleep(60)

    def with_activity_first() -> list[Any]:
        derecho.signal_external("other", "poke")
        return two_activities()

    error = mismatch(with_activity_first)
    assert error.expected == "activity 'a' scheduled"
    assert error.got == "signal 'poke' sent to workflow 'other'"
    assert error.event_id == 4
    assert error.expected_site.startswith("test_matcher.py:")
    assert error.got_site.startswith("test_matcher.py:")
    assert mismatch(program, JOURNAL).got == "timer of 60 s started"


def test_an_additional_command_at_the_end_of_a_task_is_an_error() -> None:
    def program() -> list[Any]:
        first, _ = a.execute(1), b.execute(2)
        return [first.get()]

    error = mismatch(program)
    assert error.expected == "no further command in this workflow task"
    assert error.got == "activity 'b' scheduled"


def test_a_missing_command_is_an_error_that_says_where_the_workflow_is_blocked() -> None:
    def program() -> Any:
        return derecho.signal_channel("box").receive()

    error = mismatch(program)
    assert error.expected == "activity 'a' scheduled"
    assert error.got == "the workflow is blocked"
    assert error.got_site.startswith("test_matcher.py:")


def test_a_workflow_that_ends_too_early_is_an_error_without_a_misleading_site() -> None:
    error = mismatch(lambda: a(1))
    assert error.expected == "activity 'b' scheduled"
    assert error.got == "workflow completed"
    assert error.got_site == ""


def test_swapped_commands_are_an_error() -> None:
    both = record(lambda: gather(a.execute(), b.execute())).journal
    assert mismatch(lambda: gather(b.execute(), a.execute()), both).got == "activity 'b' scheduled"


def test_a_renamed_activity_is_an_error() -> None:
    error = mismatch(lambda: [activity_ref("renamed")(1), b(2)])
    assert (error.expected, error.got) == ("activity 'a' scheduled", "activity 'renamed' scheduled")


def test_another_kind_of_command_is_an_error() -> None:
    assert mismatch(lambda: sleep(5)).got == "timer of 5 s started"


@pytest.mark.parametrize(("target", "name"), [("order-3", "poke"), ("order-2", "prod")])
def test_another_receiver_or_name_of_a_signal_is_an_error(target: str, name: str) -> None:
    sent = record(lambda: [signal_external("order-2", "poke"), a()]).journal
    mismatch(lambda: [signal_external(target, name), a()], sent)


def test_cancelling_another_timer_is_an_error() -> None:
    def program(which: int) -> None:
        timers = [timer(5), timer(6)]
        timers[which].cancel()
        a()

    recorded = record(lambda: program(0)).journal
    replay(lambda: program(0), recorded)
    assert mismatch(lambda: program(1), recorded).got.startswith("timer of event")


def test_a_different_input_warns_and_goes_on(caplog: Any) -> None:
    def program() -> list[Any]:
        return [a("other"), b(2)]

    replay(program, JOURNAL)
    assert "input differs from the recorded one at event 4" in caplog.text


def test_a_different_input_is_an_error_when_strict() -> None:
    error = mismatch(lambda: [a("other"), b(2)], strict=True)
    assert error.got == "activity 'a' scheduled, with another input"


@pytest.mark.parametrize(
    ("recorded", "changed", "what"),
    [
        (lambda: sleep(5), lambda: sleep(6), "duration"),
        (lambda: [signal_external("x", "y", 1), a()], lambda: [signal_external("x", "y", 2), a()], "payload"),
        (lambda: 1, lambda: 2, "result"),
        (lambda: int("x"), lambda: int("y"), "error"),
    ],
)
def test_other_differences_of_content_warn_and_are_errors_when_strict(
    caplog: Any, recorded: Any, changed: Any, what: str
) -> None:
    journal = record(recorded).journal
    replay(changed, journal)
    assert f"{what} differs" in caplog.text
    assert f"another {what}" in mismatch(changed, journal, strict=True).got


def test_code_cannot_catch_a_mismatch_and_no_finally_block_of_it_runs_on() -> None:
    seen: list[str] = []

    def program() -> None:
        while True:
            try:
                sleep(5)
            except BaseException as error:
                seen.append(type(error).__name__)
                raise

    mismatch(program)
    assert seen == ["Eviction"]


def test_the_first_mismatch_is_the_one_that_is_reported() -> None:
    def program() -> None:
        spawn(sleep, 5)
        spawn(sleep, 6)
        a.execute(1).get()

    # Main goes first, then parks; both fibers then disagree.
    assert mismatch(program).got == "timer of 5 s started"


def test_an_undecodable_result_blocks_the_run_and_code_cannot_catch_it(drive: Any) -> None:
    run = drive(lambda: a(1)).complete("a", "text").task()

    def program() -> Any:
        try:
            return activity_ref("a", returns=int)()
        except BaseException:
            return "text"

    with pytest.raises(derecho.DerechoError, match="result of activity 'a'"):
        replay(program, run.journal)


def test_an_undecodable_result_blocks_a_live_task_too(drive: Any) -> None:
    run = drive(lambda: activity_ref("a", returns=int)(1)).complete("a", "text")
    with pytest.raises(derecho.DerechoError, match="result of activity 'a'"):
        run.task()
    assert len(run.all_commands) == 1


def test_an_outcome_of_no_command_blocks_the_run(drive: Any) -> None:
    run = drive(two_activities).complete("a", 1).task()
    [*_, outcome] = [event for event in run.journal if event.type == "activity_completed"]
    with pytest.raises(derecho.JournalError, match="answers event 4, which is no command without an outcome"):
        run.arrive(type(outcome)(scheduled_by_id=4, result=b"1")).task()


def test_a_hand_made_journal_replays() -> None:
    scheduled = ActivityScheduled(name="a", input=b"1", scheduled_at_ns=0)
    journal = hand_made(([started()], [scheduled]))
    replay(two_activities, journal, strict=True)
    ended = hand_made(([started()], [WorkflowCompleted(result=b"5")]))
    replay(lambda: 5, ended, strict=True)


def test_in_a_foreign_journal_fibers_woken_by_one_task_run_by_creation() -> None:
    seen: list[str] = []

    def waits(activity: Any) -> None:
        activity.execute().get()
        seen.append(activity.name)

    def main() -> list[str]:
        derecho.gather(spawn(waits, a), spawn(waits, b))
        return seen

    journal = record(main, lambda run: run.complete("b").complete("a")).journal
    assert seen == ["b", "a"]
    seen.clear()
    replay(main, strip(journal))
    assert seen == ["a", "b"]


def test_replaying_emits_nothing(drive: Any) -> None:
    run = drive(two_activities)
    recorded = [event for event in run.journal if isinstance(event, ActivityScheduled)]
    scheduler = derecho._core.Scheduler(two_activities, run.live.env)
    try:
        assert scheduler.advance([run.journal[0]], 0, recorded=tuple(recorded)) == []
        assert scheduler.replaying
    finally:
        scheduler.close()


def test_a_mismatch_found_when_the_run_ends_stops_the_scheduler(bare: Any) -> None:
    scheduler = bare(lambda: None)
    with pytest.raises(derecho._core.Mismatch):
        scheduler.advance([started()], 0, recorded=[])
    with pytest.raises(RuntimeError, match="running, failed or closed"):
        scheduler.advance([], 0)
