"""What an event means: ids, what wakes a run, what a task was shown, which work follows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derecho.journal.commit import (
    Draft,
    Head,
    TaskDraft,
    TaskEvents,
    WorkflowStatus,
    append_external,
    append_task,
    append_terminal,
    refuses_close,
    status_after,
)
from derecho.journal.events import (
    ActivityCompleted,
    ActivityScheduled,
    ActivityStarted,
    Event,
    Failure,
    SignalExternalScheduled,
    SignalReceived,
    TimerCancelled,
    TimerFired,
    TimerScheduled,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowFailed,
    WorkflowStarted,
    WorkflowTaskCompleted,
    WorkflowTaskScheduled,
    WorkflowTaskStarted,
)
from derecho.journal.lifecycle import check_journal

NOW_NS = 1_700_000_000_000_000_000


class Run:
    """A run without a store: its head and its journal."""

    def __init__(self) -> None:
        self.head = Head()
        self.journal: list[Event] = []
        self.command = 0
        self.arrive(WorkflowStarted(workflow_type="order", args=b"", started_at_ns=NOW_NS, run_id="r-1"))

    def arrive(self, *events: Event) -> list[Event]:
        written = append_external(self.head, events)
        self.journal += written
        return written

    def draft(self, *commands: Draft | Event, shown: int = 0) -> TaskDraft:
        drafts = [command if isinstance(command, Draft) else Draft(event=command) for command in commands]
        first = self.command + 1
        for number, draft in enumerate(drafts, first):
            object.__setattr__(draft.event, "command", number)
            draft.answers = draft.answers and first + draft.answers - 1
        visible_through = shown or self.head.last_event_id
        return TaskDraft(worker_id="a", started_at_ns=NOW_NS, visible_through=visible_through, drafts=drafts)

    def commit(self, *commands: Draft | Event, shown: int = 0, **delivered: bool) -> TaskEvents:
        task = self.draft(*commands, shown=shown)
        known = {int(number.lstrip("_")) + self.command: value for number, value in delivered.items()}
        self.command += len(commands)
        changes = append_task(self.head, task, known)
        self.journal += changes.events
        return changes


def timer() -> TimerScheduled:
    return TimerScheduled(duration_ns=1, fire_at_ns=NOW_NS + 1)


def activity() -> ActivityScheduled:
    return ActivityScheduled(name="charge", input=b"", scheduled_at_ns=NOW_NS)


def signal(name: str = "go") -> SignalReceived:
    return SignalReceived(signal_name=name, payload=b"", sent_at_ns=NOW_NS)


def cancel() -> WorkflowCancelRequested:
    return WorkflowCancelRequested(requested_at_ns=NOW_NS)


# --- external events ------------------------------------------------------------------------------


def test_the_first_event_wakes_the_run() -> None:
    run = Run()
    assert [type(event) for event in run.journal] == [WorkflowStarted, WorkflowTaskScheduled]
    assert [event.id for event in run.journal] == [1, 2]
    assert (run.head.task_scheduled_id, run.head.last_external_id, run.head.is_ready) == (2, 1, True)


def test_at_most_one_task_is_pending() -> None:
    run = Run()
    run.commit()
    woken = run.arrive(signal())
    assert [type(event) for event in woken] == [SignalReceived, WorkflowTaskScheduled]
    assert [type(event) for event in run.arrive(signal(), signal())] == [SignalReceived, SignalReceived]


def test_an_outcome_comes_with_the_start_of_its_attempt() -> None:
    run = Run()
    [scheduled] = run.commit(activity()).activities
    began = ActivityStarted(scheduled_by_id=scheduled.id, worker_id="a", started_at_ns=NOW_NS, attempt=1)
    written = run.arrive(began, ActivityCompleted(scheduled_by_id=scheduled.id, result=b""))
    assert [event.id for event in written] == [6, 7, 8]
    assert (run.head.last_external_id, run.head.last_request_id) == (7, 0)


def test_only_signals_and_cancel_requests_are_requests() -> None:
    run = Run()
    assert run.head.last_request_id == 0
    run.arrive(signal())
    assert run.head.last_request_id == 3
    run.arrive(cancel())
    assert (run.head.last_request_id, run.head.status) == (4, WorkflowStatus.CANCELLING)
    run.arrive(TimerFired(scheduled_by_id=1, fired_at_ns=NOW_NS))
    assert (run.head.last_request_id, run.head.last_external_id) == (4, 5)


def test_nothing_arrives_at_a_closed_run() -> None:
    run = Run()
    run.commit(WorkflowCompleted(result=b""))
    with pytest.raises(AssertionError, match="COMPLETED"):
        run.arrive(signal())
    with pytest.raises(AssertionError, match="COMPLETED"):
        append_terminal(run.head, WorkflowFailed(error=None, terminated=True))
    with pytest.raises(AssertionError, match="COMPLETED"):
        run.commit()


# --- tasks ----------------------------------------------------------------------------------------


def test_a_task_is_written_as_start_commands_completion() -> None:
    run = Run()
    changes = run.commit(activity(), timer())
    assert [event.id for event in changes.events] == [3, 4, 5, 6]
    assert changes.command_ids == [4, 5]
    started, completed = changes.events[0], changes.events[-1]
    assert isinstance(started, WorkflowTaskStarted)
    assert (started.scheduled_by_id, started.visible_through) == (2, 2)
    assert isinstance(completed, WorkflowTaskCompleted)
    assert completed.scheduled_by_id == 2
    assert (changes.activities, changes.timers) == ([changes.events[1]], [changes.events[2]])
    assert (run.head.task_scheduled_id, run.head.is_ready) == (0, False)


def test_events_that_came_meanwhile_have_smaller_ids_and_are_left_to_the_next_task() -> None:
    run = Run()
    run.arrive(signal())
    changes = run.commit(activity(), shown=2)
    assert changes.command_ids == [5]
    assert run.head.visible_through == 2
    assert isinstance(changes.events[-1], WorkflowTaskScheduled)
    assert changes.events[-1].id == run.head.task_scheduled_id == 7
    assert run.head.is_ready


def test_a_task_that_saw_everything_schedules_no_other() -> None:
    run = Run()
    run.arrive(signal())
    run.commit(shown=3)
    assert (run.head.is_ready, run.head.task_scheduled_id) == (False, 0)


@pytest.mark.parametrize("shown", [1, 4])
def test_a_task_cannot_have_seen_less_than_the_last_one_nor_more_than_there_is(shown: int) -> None:
    run = Run()
    run.head.visible_through = 2
    run.head.last_event_id = 3
    with pytest.raises(AssertionError, match="outside"):
        run.commit(shown=shown)


def test_a_task_that_nothing_scheduled_cannot_be_committed() -> None:
    run = Run()
    run.commit()
    with pytest.raises(AssertionError, match="nothing scheduled"):
        run.commit()


def test_a_refused_commit_changes_nothing() -> None:
    run = Run()
    run.arrive(signal())
    head = (run.head.last_event_id, run.head.visible_through, run.head.task_scheduled_id)
    with pytest.raises(KeyError):
        run.commit(Draft(event=TimerCancelled(), answers=7))
    assert (run.head.last_event_id, run.head.visible_through, run.head.task_scheduled_id) == head


def test_a_draft_may_be_committed_again_with_other_ids() -> None:
    """A group that failed is tried again member by member; meanwhile other events may have come."""
    run = Run()
    task = run.draft(timer(), Draft(event=TimerCancelled(), answers=1), timer(), shown=2)
    first = Head(last_event_id=2, last_external_id=1, task_scheduled_id=2)
    append_task(first, task, {})
    run.arrive(signal())
    changes = append_task(run.head, task, {})
    assert changes.command_ids == [5, 6, 7]
    assert [event.scheduled_by_id for event in changes.events[1:4]] == [0, 5, 0]
    assert [event.id for event in changes.timers] == [7]


# --- timers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrivals", [0, 1, 5])
def test_a_timer_that_ends_in_its_own_task_is_named_by_its_real_id(arrivals: int) -> None:
    """B20: also when other events took ids since the task began."""
    run = Run()
    for _ in range(arrivals):
        run.arrive(signal())
    changes = run.commit(timer(), timer(), Draft(event=TimerCancelled(), answers=2), timer(), shown=2)
    first, second, cancelled, third = changes.command_ids
    assert first == 4 + arrivals
    assert run.journal[cancelled - 1].scheduled_by_id == second
    assert [event.id for event in changes.timers] == [first, third]
    assert changes.timers_cancelled == []


def test_a_timer_of_an_earlier_task_is_cancelled_by_its_id() -> None:
    run = Run()
    [kept, dropped] = run.commit(timer(), timer()).command_ids
    run.arrive(signal())
    changes = run.commit(timer(), TimerCancelled(scheduled_by_id=dropped))
    assert (changes.timers_cancelled, [event.id for event in changes.timers]) == ([dropped], [10])
    assert kept not in changes.timers_cancelled


def test_cancelling_many_timers_in_one_task_is_not_quadratic() -> None:
    run = Run()
    number = 20_000
    pairs = [
        command
        for place in range(number)
        for command in (timer(), Draft(event=TimerCancelled(), answers=2 * place + 1))
    ]
    changes = run.commit(*pairs)
    assert (changes.timers, changes.timers_cancelled) == ([], [])
    assert len(changes.command_ids) == 2 * number


# --- messages -------------------------------------------------------------------------------------


def test_a_message_is_recorded_with_what_became_of_it() -> None:
    run = Run()
    events = [SignalExternalScheduled(target_workflow_id=to, signal_name="go", payload=b"") for to in "vw"]
    changes = run.commit(*events, _1=True, _2=False)
    assert [event.delivered for event in changes.signals] == [True, False]


# --- the end --------------------------------------------------------------------------------------


ENDS = {
    WorkflowStatus.COMPLETED: WorkflowCompleted(result=b""),
    WorkflowStatus.FAILED: WorkflowFailed(error=Failure(kind="cancelled", message="the child was cancelled")),
    WorkflowStatus.CANCELLED: WorkflowCancelled(),
    WorkflowStatus.CONTINUED_AS_NEW: WorkflowContinuedAsNew(new_input=b""),
    WorkflowStatus.TERMINATED: WorkflowFailed(error=None, terminated=True),
}


@pytest.mark.parametrize("status", ENDS)
def test_the_status_follows_from_the_end(status: WorkflowStatus) -> None:
    assert status_after(ENDS[status]) is status
    assert not status.is_open


def test_a_closed_run_is_never_ready() -> None:
    run = Run()
    run.arrive(TimerFired(scheduled_by_id=1, fired_at_ns=NOW_NS))
    changes = run.commit(activity(), WorkflowCompleted(result=b""), shown=2)
    assert isinstance(changes.terminal, WorkflowCompleted)
    assert isinstance(changes.events[-1], WorkflowTaskCompleted)
    assert (run.head.is_ready, run.head.task_scheduled_id) == (False, 0)


def test_no_command_follows_the_end() -> None:
    run = Run()
    with pytest.raises(AssertionError, match="after the end"):
        run.commit(WorkflowCompleted(result=b""), activity())


def test_an_end_from_outside_needs_no_task() -> None:
    run = Run()
    [end] = append_terminal(run.head, WorkflowFailed(error=None, terminated=True))
    assert (end.id, run.head.status, run.head.is_ready) == (3, WorkflowStatus.TERMINATED, False)


@pytest.mark.parametrize("status", [s for s in ENDS if s is not WorkflowStatus.TERMINATED])
def test_closing_is_refused_while_a_request_is_unseen(status: WorkflowStatus) -> None:
    """B53."""
    for request in (signal, cancel):
        run = Run()
        run.arrive(request())
        assert refuses_close(run.head, run.draft(ENDS[status], shown=2))
        assert not refuses_close(run.head, run.draft(ENDS[status], shown=3))
        assert not refuses_close(run.head, run.draft(activity(), shown=2))


def test_closing_is_not_refused_for_other_unseen_events() -> None:
    run = Run()
    run.arrive(signal())
    run.arrive(TimerFired(scheduled_by_id=1, fired_at_ns=NOW_NS))
    assert not refuses_close(run.head, run.draft(WorkflowCompleted(result=b""), shown=3))


# --- any schedule ---------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["signal", "cancel", "task", "late task", "timers"]), max_size=40))
def test_any_schedule_gives_a_legal_journal(steps: list[str]) -> None:
    run = Run()
    shown = run.head.last_event_id
    for step in steps:
        if step == "signal":
            run.arrive(signal())
        elif step == "cancel":
            run.arrive(cancel())
        elif run.head.is_ready:
            if step == "timers":
                run.commit(timer(), Draft(event=TimerCancelled(), answers=1), timer(), shown=shown)
            else:
                run.commit(activity(), shown=shown if step == "late task" else 0)
            shown = run.head.last_event_id
        check_journal(run.journal)
        assert [event.id for event in run.journal] == list(range(1, run.head.last_event_id + 1))
        assert run.head.is_ready == (run.head.task_scheduled_id != 0)
