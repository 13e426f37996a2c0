"""Which journals are legal. Every rule has a planted violation."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from derecho.errors import JournalError
from derecho.journal import (
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    ChildWorkflowCompleted,
    ChildWorkflowFailed,
    ChildWorkflowScheduled,
    ChildWorkflowStarted,
    Event,
    Failure,
    SideEffectRecorded,
    SignalReceived,
    TimerCancelled,
    TimerFired,
    TimerScheduled,
    UnknownEvent,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowFailed,
    WorkflowStarted,
    WorkflowTaskCompleted,
    WorkflowTaskScheduled,
    WorkflowTaskStarted,
    check_journal,
    load_events,
)
from tests.journal.strategies import journals, numbered

Edit = Callable[[list[Event]], list[Event]]

CANCELLED = Failure(kind="cancelled", message="")
BROKEN = Failure(kind="application", message="")


def begun(run_id: str = "r-1") -> Event:
    return WorkflowStarted(workflow_type="order", args=b"", started_at_ns=0, run_id=run_id)


def woken() -> Event:
    return WorkflowTaskScheduled()


def task(answers: int, *, shown: int) -> Event:
    return WorkflowTaskStarted(scheduled_by_id=answers, worker_id="w", started_at_ns=0, visible_through=shown)


def done(answers: int, *skipped: int) -> Event:
    return WorkflowTaskCompleted(scheduled_by_id=answers, skipped=skipped)


def activity(command: int = 0) -> Event:
    return ActivityScheduled(command=command, name="a", input=b"", scheduled_at_ns=0)


def attempt(answers: int) -> Event:
    return ActivityStarted(scheduled_by_id=answers, worker_id="w", started_at_ns=0)


def result(answers: int) -> Event:
    return ActivityCompleted(scheduled_by_id=answers, result=b"")


def timer(command: int = 0) -> Event:
    return TimerScheduled(command=command, duration_ns=0, fire_at_ns=0)


def fired(answers: int) -> Event:
    return TimerFired(scheduled_by_id=answers, fired_at_ns=0)


def child(command: int = 0) -> Event:
    return ChildWorkflowScheduled(command=command, workflow_type="c", workflow_id="c-1", input=b"")


def child_begun(answers: int) -> Event:
    return ChildWorkflowStarted(scheduled_by_id=answers, child_run_id="r-2", started_at_ns=0)


def child_done(answers: int, workflow_id: str = "c-1", run_id: str = "r-2") -> Event:
    return ChildWorkflowCompleted(
        scheduled_by_id=answers, child_workflow_id=workflow_id, child_run_id=run_id, result=b""
    )


def child_failed(answers: int) -> Event:
    return ChildWorkflowFailed(
        scheduled_by_id=answers, child_workflow_id="c-1", child_run_id="r-2", error=BROKEN
    )


def signal() -> Event:
    return SignalReceived(signal_name="s", payload=b"", sent_at_ns=0)


def completed(command: int = 0) -> Event:
    return WorkflowCompleted(command=command, result=b"")


def order() -> list[Event]:
    """Return a legal journal with everything in it; the comments are the ids."""
    return numbered(
        [
            begun(),  # 1
            woken(),  # 2
            task(2, shown=1),  # 3
            activity(1),  # 4
            timer(2),  # 5
            child(3),  # 6
            timer(4),  # 7
            done(2),  # 8
            child_begun(6),  # 9
            woken(),  # 10
            signal(),  # 11
            attempt(4),  # 12
            result(4),  # 13
            fired(7),  # 14
            task(10, shown=14),  # 15
            SideEffectRecorded(command=5, result=b""),  # 16
            TimerCancelled(command=6, scheduled_by_id=5),  # 17
            done(10, 11),  # 18
            child_done(6),  # 19
            woken(),  # 20
            task(20, shown=20),  # 21
            completed(7),  # 22
            done(20),  # 23
        ]
    )


def foreign() -> list[Event]:
    """Return a legal journal of the original in which two tasks run at once."""
    return numbered(
        [
            begun(run_id=""),  # 1
            woken(),  # 2
            task(2, shown=0),  # 3
            activity(),  # 4
            timer(),  # 5
            done(2),  # 6
            attempt(4),  # 7
            result(4),  # 8
            woken(),  # 9
            fired(5),  # 10
            woken(),  # 11
            task(9, shown=0),  # 12
            signal(),  # 13
            task(11, shown=0),  # 14
            activity(),  # 15
            done(9),  # 16
            completed(),  # 17
            done(11),  # 18
        ]
    )


def change(event_id: int, **fields: Any) -> Edit:
    def edit(events: list[Event]) -> list[Event]:
        events[event_id - 1] = dataclasses.replace(events[event_id - 1], **fields)
        return events

    return edit


def swap_in(event_id: int, *events_instead: Event) -> Edit:
    return lambda events: numbered([*events[: event_id - 1], *events_instead, *events[event_id:]])


def cut_after(event_id: int, *then: Event) -> Edit:
    return lambda events: numbered([*events[:event_id], *then])


# Legal.


def test_a_journal_with_everything_in_it_is_legal() -> None:
    check_journal(order())


def test_every_prefix_of_a_legal_journal_is_legal() -> None:
    for events in (order(), foreign()):
        for length in range(1, len(events) + 1):
            check_journal(events[:length])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "samples").glob("*.json")), ids=lambda p: p.stem
)
def test_journals_of_the_original_are_legal(path: Path) -> None:
    check_journal(load_events(path.read_bytes()))


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(cut_after(22), id="the completion of the last task is missing"),
        pytest.param(cut_after(9, WorkflowFailed(error=CANCELLED, terminated=True)), id="terminated"),
        pytest.param(cut_after(1, WorkflowFailed(error=CANCELLED, terminated=True)), id="terminated at once"),
        pytest.param(cut_after(9, WorkflowCancelled(forced=True)), id="force-cancelled"),
        pytest.param(cut_after(21, WorkflowFailed(error=BROKEN, command=7), done(20)), id="failed"),
        pytest.param(cut_after(21, WorkflowContinuedAsNew(new_input=b""), done(20)), id="continued as new"),
        pytest.param(cut_after(9, WorkflowCancelRequested(requested_at_ns=0)), id="asked to cancel"),
        pytest.param(change(15, visible_through=11), id="the last event that was shown is skipped"),
        pytest.param(
            cut_after(9, UnknownEvent(unknown_type="moon_landed")), id="of a kind that is not known"
        ),
        pytest.param(
            cut_after(9, child_done(0, "c-0", "r-0"), child_done(0, "c-0", "r-1")),
            id="children of earlier runs",
        ),
        pytest.param(
            cut_after(
                9,
                ChildWorkflowFailed(
                    scheduled_by_id=0, child_workflow_id="c-0", child_run_id="", error=BROKEN
                ),
            ),
            id="a child of an earlier run that never started",
        ),
        pytest.param(
            cut_after(16, fired(5), TimerCancelled(scheduled_by_id=5)), id="a fire that lost: appended late"
        ),
        pytest.param(
            cut_after(
                10, fired(5), task(10, shown=10), TimerCancelled(scheduled_by_id=5, command=5), done(10)
            ),
            id="a fire that lost: not shown to the task",
        ),
        pytest.param(cut_after(18, fired(5)), id="a fire that lost: after the cancellation"),
        pytest.param(swap_in(19, child_failed(6)), id="a child that failed"),
        pytest.param(
            cut_after(15, timer(5), TimerCancelled(command=6, scheduled_by_id=16)),
            id="begun and cancelled at once",
        ),
    ],
)
def test_these_are_legal_too(edit: Edit) -> None:
    check_journal(edit(order()))


def test_the_journal_of_a_run_that_continues_another_is_legal() -> None:
    check_journal(
        numbered(
            [
                begun(),
                signal(),
                WorkflowCancelRequested(requested_at_ns=0),
                child_done(0),
                woken(),
                task(5, shown=4),
                completed(1),
                done(5),
            ]
        )
    )


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda events: events, id="two tasks pending, then running"),
        pytest.param(cut_after(14, attempt(4)), id="an activity starts again after its outcome"),
        pytest.param(cut_after(6, WorkflowFailed(error=CANCELLED)), id="terminated by its parent"),
        pytest.param(cut_after(2, WorkflowFailed(error=CANCELLED)), id="terminated before its first task"),
        pytest.param(
            cut_after(9, task(9, shown=0), fired(5), TimerCancelled(scheduled_by_id=5)), id="a fire that lost"
        ),
        pytest.param(
            cut_after(
                6,
                woken(),
                woken(),
                task(7, shown=0),
                fired(5),
                task(8, shown=0),
                TimerCancelled(scheduled_by_id=5),
            ),
            id="a fire that lost against the older of two tasks",
        ),
    ],
)
def test_journals_of_the_original_may_do_more(edit: Edit) -> None:
    check_journal(edit(foreign()))


# Planted violations: what is changed, which event is named, and the rule.

VIOLATIONS = [
    # Beginning and end.
    ("a gap in the ids", change(5, id=6), "event 6 (timer_scheduled): stands where event 5 is due"),
    ("ids from zero", change(1, id=0), "event 0 (workflow_started): stands where event 1 is due"),
    ("no beginning", swap_in(1, signal()), "event 1 (signal_received): a journal begins with"),
    ("two beginnings", swap_in(9, begun()), "event 9 (workflow_started): a journal begins with"),
    (
        "two ends",
        swap_in(23, completed(8)),
        "event 23 (workflow_completed): comes after event 22 (workflow_completed)",
    ),
    (
        "a command after the end",
        swap_in(23, activity(8)),
        "event 23 (activity_scheduled): comes after event 22",
    ),
    ("a signal after the end", cut_after(23, signal()), "event 24 (signal_received): comes after event 22"),
    (
        "a task after the end",
        cut_after(23, woken()),
        "event 24 (workflow_task_scheduled): comes after event 22",
    ),
    (
        "an unknown kind after the end",
        cut_after(23, UnknownEvent(unknown_type="moon")),
        "event 24 (moon): comes after",
    ),
    (
        "two completions after the end",
        cut_after(23, done(20)),
        "event 24 (workflow_task_completed): no task runs",
    ),
    (
        "the completion of another task after the end",
        change(23, scheduled_by_id=10),
        "event 23 (workflow_task_comp",
    ),
    (
        "a completion after the end from outside",
        cut_after(9, WorkflowFailed(error=CANCELLED, terminated=True), done(2)),
        "event 11 (workflow_task_completed): no task runs that answers event 2",
    ),
    # Workflow tasks.
    (
        "two tasks pending",
        cut_after(10, woken()),
        "event 11 (workflow_task_scheduled): event 10 is pending already",
    ),
    (
        "two tasks pending at the start",
        cut_after(2, woken()),
        "event 3 (workflow_task_scheduled): event 2 is pending",
    ),
    (
        "a task that answers nothing",
        change(15, scheduled_by_id=0),
        "answers event 0, which is not an earlier",
    ),
    (
        "a task that answers a later event",
        change(15, scheduled_by_id=20),
        "answers event 20, which is not an earlier",
    ),
    (
        "a task that answers another kind",
        change(15, scheduled_by_id=11),
        "answers event 11, a signal_received, not a",
    ),
    ("a task answered twice", change(15, scheduled_by_id=2), "event 2 was answered by another task"),
    (
        "two tasks at once",
        cut_after(16, woken(), task(17, shown=14)),
        "event 18 (workflow_task_started): the task that answers event 10 has not completed",
    ),
    (
        "a task that was shown itself",
        change(15, visible_through=15),
        "was shown events through 15, which is not before",
    ),
    (
        "a task that was shown the future",
        change(21, visible_through=23),
        "was shown events through 23, which is not",
    ),
    (
        "a task that was shown less",
        change(21, visible_through=13),
        "event 21 (workflow_task_started): was shown events",
    ),
    (
        "a task that does not say what it was shown",
        change(21, visible_through=0),
        "visible_through never shrinks",
    ),
    (
        "a completion without a task",
        cut_after(9, done(2)),
        "event 10 (workflow_task_completed): no task runs",
    ),
    ("a completion that answers nothing", change(18, scheduled_by_id=0), "no task runs that answers event 0"),
    (
        "a skipped event that is no signal",
        change(18, skipped=(11, 13)),
        "skipped event 13, which is not a signal",
    ),
    (
        "a skipped signal that was not shown",
        change(15, visible_through=10),
        "skipped event 11, which is not a signal",
    ),
    (
        "a skipped event that does not exist",
        change(18, skipped=(0,)),
        "skipped event 0, which is not a signal",
    ),
    (
        "a skipped event that does not exist, before a signal",
        cut_after(17, done(10, 0), signal()),
        "skipped event 0, which is not a signal",
    ),
    ("a skipped event of the future", change(18, skipped=(99,)), "skipped event 99, which is not a signal"),
    # Commands.
    (
        "a command outside a task",
        cut_after(9, activity(9)),
        "event 10 (activity_scheduled): a command stands between",
    ),
    (
        "an end outside a task",
        cut_after(9, completed(9)),
        "event 10 (workflow_completed): a command stands between",
    ),
    (
        "a failure outside a task",
        cut_after(9, WorkflowFailed(error=CANCELLED)),
        "event 10 (workflow_failed): a command",
    ),
    (
        "a cancellation outside a task",
        cut_after(9, WorkflowCancelled()),
        "event 10 (workflow_cancelled): a command",
    ),
    (
        "a cancelled timer outside a task",
        cut_after(9, TimerCancelled(scheduled_by_id=5)),
        "a command stands between",
    ),
    (
        "a command number twice",
        change(5, command=1),
        "event 5 (timer_scheduled): is command 1 after command 1",
    ),
    (
        "command numbers that shrink",
        change(16, command=3),
        "is command 3 after command 4; their numbers grow",
    ),
    # Outcomes.
    (
        "an outcome of nothing",
        change(13, scheduled_by_id=0),
        "event 13 (activity_completed): answers event 0",
    ),
    ("an outcome of itself", change(13, scheduled_by_id=13), "answers event 13, which is not an earlier"),
    (
        "an outcome of a later event",
        change(13, scheduled_by_id=16),
        "answers event 16, which is not an earlier",
    ),
    ("a negative reference", change(13, scheduled_by_id=-19), "answers event -19, which is not an earlier"),
    (
        "a reference beyond the journal",
        change(13, scheduled_by_id=99),
        "answers event 99, which is not an earlier",
    ),
    (
        "an activity's outcome for a timer",
        change(13, scheduled_by_id=5),
        "answers event 5, a timer_scheduled, not a",
    ),
    (
        "an activity's failure for a timer",
        swap_in(13, ActivityFailed(scheduled_by_id=5, error=None)),
        "event 13 (activ",
    ),
    (
        "a timer's outcome for an activity",
        change(14, scheduled_by_id=4),
        "event 14 (timer_fired): answers event 4",
    ),
    (
        "a cancellation of an activity",
        change(17, scheduled_by_id=4),
        "event 17 (timer_cancelled): answers event 4",
    ),
    (
        "a child's outcome for an activity",
        change(19, scheduled_by_id=4),
        "event 19 (child_workflow_completed): answers",
    ),
    (
        "a child's start for an activity",
        change(9, scheduled_by_id=4),
        "event 9 (child_workflow_started): answers event",
    ),
    (
        "a child's start for no command",
        change(9, scheduled_by_id=0),
        "event 9 (child_workflow_started): answers event",
    ),
    ("an attempt at a timer", change(12, scheduled_by_id=5), "event 12 (activity_started): answers event 5"),
    (
        "two results",
        swap_in(14, result(4)),
        "event 4 (activity_scheduled) has its outcome, event 13 (activity_comp",
    ),
    (
        "a result and a failure",
        swap_in(14, ActivityFailed(scheduled_by_id=4, error=BROKEN)),
        "event 14 (activity_failed): event 4 (activity_scheduled) has its outcome, event 13",
    ),
    (
        "an attempt after the outcome",
        swap_in(14, attempt(4)),
        "event 14 (activity_started): the activity of event 4",
    ),
    ("two fires", swap_in(19, fired(7)), "event 19 (timer_fired): timer 7 fired before, in event 14"),
    (
        "two fires that both lost",
        cut_after(18, fired(5), fired(5)),
        "event 20 (timer_fired): timer 5 fired before",
    ),
    (
        "two cancellations",
        swap_in(18, TimerCancelled(scheduled_by_id=5)),
        "event 18 (timer_cancelled): event 5 (timer_scheduled) has its outcome, event 17 (timer_cancelled)",
    ),
    (
        "two cancellations with a lost fire between them",
        cut_after(17, fired(5), TimerCancelled(scheduled_by_id=5)),
        "event 19 (timer_cancelled): event 5 (timer_scheduled) has its outcome, event 17 (timer_cancelled)",
    ),
    (
        "a cancellation of a fire that was shown",
        change(17, scheduled_by_id=7),
        "timer 7 fired in event 14, and its task",
    ),
    ("two starts of a child", swap_in(11, child_begun(6)), "the child of event 6 started before, in event 9"),
    (
        "two outcomes of a child",
        swap_in(20, child_done(6)),
        "event 6 (child_workflow_scheduled) has its outcome",
    ),
    (
        "two outcomes of a child, the second a failure",
        swap_in(20, child_failed(6)),
        "event 20 (child_workflow_failed): event 6 (child_workflow_scheduled) has its outcome",
    ),
    (
        "a child that starts after its end",
        cut_after(8, child_done(6), child_begun(6)),
        "event 10 (child_workflow_started): the child of event 6 is over",
    ),
    (
        "the outcome of another child",
        change(19, child_workflow_id="c-2"),
        "is of 'c-2'; event 6 began another child",
    ),
    (
        "an outcome of nobody",
        cut_after(9, child_done(0, "")),
        "event 10 (child_workflow_completed): answers no command",
    ),
    (
        "two outcomes of a child of an earlier run",
        cut_after(9, child_done(0, "c-0"), child_done(0, "c-0")),
        "event 11 (child_workflow_completed): event 10 is the outcome of the same child",
    ),
]


@pytest.mark.parametrize(("edit", "told"), [pytest.param(*rest, id=name) for name, *rest in VIOLATIONS])
def test_a_violation_is_refused_by_event_and_rule(edit: Edit, told: str) -> None:
    with pytest.raises(JournalError) as caught:
        check_journal(edit(order()))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        pytest.param(
            swap_in(18, signal()), "event 18 (signal_received): comes after event 17", id="after the end"
        ),
        pytest.param(
            cut_after(18, done(9)), "event 19 (workflow_task_completed): no task runs", id="done twice"
        ),
        pytest.param(
            swap_in(16, completed(), done(9), done(11)),
            "event 18 (workflow_task_completed): no task runs",
            id="two completions after the end",
        ),
        pytest.param(
            swap_in(10, result(4)), "event 4 (activity_scheduled) has its outcome", id="two results"
        ),
        pytest.param(
            swap_in(15, TimerCancelled(scheduled_by_id=5)),
            "timer 5 fired in event 10",
            id="a fire that was shown",
        ),
        pytest.param(cut_after(6, activity()), "a command stands between", id="outside a task"),
        pytest.param(
            cut_after(6, WorkflowFailed(error=BROKEN)), "a command stands between", id="fails outside"
        ),
        pytest.param(
            cut_after(6, WorkflowFailed(error=None)), "a command stands between", id="fails silently"
        ),
        pytest.param(cut_after(6, WorkflowCancelled()), "a command stands between", id="cancelled outside"),
        pytest.param(
            change(14, scheduled_by_id=9), "event 9 was answered by another task", id="answered twice"
        ),
    ],
)
def test_journals_of_the_original_keep_the_other_rules(edit: Edit, told: str) -> None:
    with pytest.raises(JournalError) as caught:
        check_journal(edit(foreign()))
    assert told in str(caught.value)


def test_an_empty_journal_is_not_legal() -> None:
    with pytest.raises(JournalError, match="holds no event"):
        check_journal([])


@given(journals())
def test_a_heap_of_events_is_legal_or_refused_but_never_breaks_the_checker(events: list[Event]) -> None:
    try:
        check_journal(
            [
                dataclasses.replace(begun(), id=1),
                *[dataclasses.replace(event, id=event.id + 1) for event in events],
            ]
        )
    except JournalError:
        pass
