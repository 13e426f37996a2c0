"""The rules that every journal keeps: one small state machine over its events. Pure; linear in their number.

Beginning and end
    Ids are dense from 1. WorkflowStarted comes first and once. At most one event ends the run, and nothing
    follows it but the WorkflowTaskCompleted of its own task.
Workflow tasks
    A WorkflowTaskStarted answers a pending WorkflowTaskScheduled, a WorkflowTaskCompleted a task that runs.
    What a task was shown (`visible_through`) lies before it and never shrinks; the signals it skipped are
    among that.
Commands
    They stand inside a task and their numbers grow; only terminate and a forced cancel end a run from
    outside.
Outcomes
    Each answers an earlier command of the right kind, and a command has at most one. The outcome of a child
    that an earlier run of the chain started answers no command, and names the child. A timer has one fire or
    one cancellation that counts: a fire that the cancelling task was not shown has lost, and is legal.

Journals of the original have no `visible_through`: there a task was shown everything before its own start. In
such a journal several tasks may be pending or run at once, an activity may start again late, and a terminated
run says so only by the kind of its error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from derecho.errors import JournalError
from derecho.journal.events import (
    TERMINAL_EVENTS,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    ChildWorkflowCompleted,
    ChildWorkflowFailed,
    ChildWorkflowScheduled,
    ChildWorkflowStarted,
    CommandEvent,
    Event,
    SignalReceived,
    TimerCancelled,
    TimerFired,
    TimerScheduled,
    UnknownEvent,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowStarted,
    WorkflowTaskCompleted,
    WorkflowTaskScheduled,
    WorkflowTaskStarted,
)

__all__ = ["check_journal"]


def check_journal(events: Sequence[Event]) -> None:
    """Check that the journal is legal.

    Raises:
        JournalError: it is not; the message names the event by id and kind, and the rule.
    """
    if not events:
        raise JournalError("the journal holds no event; a journal begins with workflow_started")
    checker = _Checker(events, lenient=_is_foreign(events))
    for place, event in enumerate(events, 1):
        checker.check(place, event)


def _is_foreign(events: Sequence[Event]) -> bool:
    """Tell whether the original began the journal: it writes neither `visible_through` nor `run_id`."""
    for event in events:
        if isinstance(event, WorkflowTaskStarted):
            return event.visible_through == 0
    first = events[0]
    return isinstance(first, WorkflowStarted) and not first.run_id


def _break(event: Event, rule: str) -> NoReturn:
    kind = event.unknown_type if isinstance(event, UnknownEvent) else event.type
    raise JournalError(f"event {event.id} ({kind}): {rule}")


class _Checker:
    """What has been seen so far.

    Attributes:
        end: the event that ended the run.
        pending: the WorkflowTaskScheduled that no task has answered yet, by id.
        running: the WorkflowTaskStarted without their completion, by the id of what they answer.
        outcomes: the event that settled a command, by the command's id: outcomes, fires, cancellations.
        fires, child_starts: TimerFired and ChildWorkflowStarted, by the command's id.
        inherited: the outcomes of children that an earlier run of the chain started, by the child's ids.
    """

    def __init__(self, events: Sequence[Event], *, lenient: bool) -> None:
        self.events = events
        self.lenient = lenient
        self.end: Event | None = None
        self.pending: dict[int, Event] = {}
        self.running: dict[int, WorkflowTaskStarted] = {}
        self.visible_through = 0
        self.command = 0
        self.outcomes: dict[int, Event] = {}
        self.fires: dict[int, Event] = {}
        self.child_starts: dict[int, Event] = {}
        self.inherited: dict[tuple[str, str], Event] = {}

    def check(self, place: int, event: Event) -> None:
        if event.id != place:
            _break(event, f"stands where event {place} is due; ids are dense, from 1")
        if isinstance(event, WorkflowStarted) != (place == 1):
            _break(event, "a journal begins with workflow_started, and has only one")
        if self.end is not None and not isinstance(event, WorkflowTaskCompleted):
            _break(event, f"comes after event {self.end.id} ({self.end.type}), which ended the run")
        if isinstance(event, CommandEvent):
            self._command(event)
        if move := _MOVES.get(type(event)):
            move(self, event)

    # Commands.

    def _command(self, event: CommandEvent) -> None:
        if not self.running and not self._ends_from_outside(event):
            _break(event, "a command stands between the start and the completion of a workflow task")
        if event.command and event.command <= self.command:
            _break(event, f"is command {event.command} after command {self.command}; their numbers grow")
        self.command = event.command or self.command

    def _ends_from_outside(self, event: CommandEvent) -> bool:
        if isinstance(event, WorkflowFailed):
            by_kind = self.lenient and event.error is not None and event.error.kind == "cancelled"
            return event.terminated or by_kind
        return isinstance(event, WorkflowCancelled) and event.forced

    def terminal(self, event: Event) -> None:
        self.end = event

    # Workflow tasks.

    def task_scheduled(self, event: Event) -> None:
        if self.pending and not self.lenient:
            _break(event, f"event {next(iter(self.pending))} is pending already; at most one task is")
        self.pending[event.id] = event

    def task_started(self, event: WorkflowTaskStarted) -> None:
        scheduled = self._answered(event, WorkflowTaskScheduled)
        if self.pending.pop(scheduled.id, None) is None:
            _break(event, f"event {scheduled.id} was answered by another task")
        if self.running and not self.lenient:
            _break(event, f"the task that answers event {next(iter(self.running))} has not completed")
        if event.visible_through >= event.id:
            _break(event, f"was shown events through {event.visible_through}, which is not before it")
        if event.visible_through < self.visible_through:
            shown = f"events through {event.visible_through}, an earlier task through {self.visible_through}"
            _break(event, f"was shown {shown}; visible_through never shrinks")
        self.visible_through = event.visible_through
        self.running[scheduled.id] = event

    def task_completed(self, event: WorkflowTaskCompleted) -> None:
        task = self.running.pop(event.scheduled_by_id, None)
        if task is None:
            _break(event, f"no task runs that answers event {event.scheduled_by_id}")
        if self.end is not None:
            self.running.clear()  # Only one completion may follow the end.
        for signal_id in event.skipped:
            if (
                not 0 < signal_id <= _shown_through(task)
                or type(self.events[signal_id - 1]) is not SignalReceived
            ):
                _break(event, f"skipped event {signal_id}, which is not a signal that the task was shown")

    # Outcomes.

    def _answered(self, event: Event, kind: type[Event]) -> Event:
        """Return the earlier event that this one answers."""
        target_id = event.scheduled_by_id
        if not 0 < target_id < event.id:
            _break(event, f"answers event {target_id}, which is not an earlier {kind.type}")
        target = self.events[target_id - 1]
        if type(target) is not kind:
            _break(event, f"answers event {target_id}, a {target.type or 'foreign kind'}, not a {kind.type}")
        return target

    def _settle(self, event: Event, command: Event) -> None:
        settled = self.outcomes.setdefault(command.id, event)
        if settled is not event:
            _break(
                event,
                f"event {command.id} ({command.type}) has its outcome, event {settled.id} ({settled.type})",
            )

    def activity_started(self, event: Event) -> None:
        command = self._answered(event, ActivityScheduled)
        if command.id in self.outcomes and not self.lenient:
            _break(event, f"the activity of event {command.id} is over")

    def activity_ended(self, event: Event) -> None:
        self._settle(event, self._answered(event, ActivityScheduled))

    def timer_fired(self, event: Event) -> None:
        command = self._answered(event, TimerScheduled)
        first = self.fires.setdefault(command.id, event)
        if first is not event:
            _break(event, f"timer {command.id} fired before, in event {first.id}")
        # After a cancellation it has lost: no task that saw it cancelled anything.
        self.outcomes.setdefault(command.id, event)

    def timer_cancelled(self, event: Event) -> None:
        command = self._answered(event, TimerScheduled)
        fire = self.fires.get(command.id)
        if fire is not None and self.outcomes[command.id] is fire:
            if fire.id <= min(map(_shown_through, self.running.values())):
                _break(event, f"timer {command.id} fired in event {fire.id}, and its task was shown that")
            del self.outcomes[command.id]
        self._settle(event, command)

    def child_started(self, event: Event) -> None:
        command = self._answered(event, ChildWorkflowScheduled)
        first = self.child_starts.setdefault(command.id, event)
        if first is not event:
            _break(event, f"the child of event {command.id} started before, in event {first.id}")
        if command.id in self.outcomes:
            _break(event, f"the child of event {command.id} is over")

    def child_ended(self, event: ChildWorkflowCompleted | ChildWorkflowFailed) -> None:
        if event.scheduled_by_id:
            command = self._answered(event, ChildWorkflowScheduled)
            assert isinstance(command, ChildWorkflowScheduled)
            if event.child_workflow_id not in ("", command.workflow_id):
                _break(event, f"is of {event.child_workflow_id!r}; event {command.id} began another child")
            self._settle(event, command)
            return
        if not event.child_workflow_id:
            _break(event, "answers no command and names no child")
        first = self.inherited.setdefault((event.child_workflow_id, event.child_run_id), event)
        if first is not event:
            _break(event, f"event {first.id} is the outcome of the same child")


def _shown_through(task: WorkflowTaskStarted) -> int:
    return task.visible_through or task.id


_MOVES: Final[Mapping[type[Event], Callable[..., None]]] = {
    **dict.fromkeys(TERMINAL_EVENTS, _Checker.terminal),
    WorkflowTaskScheduled: _Checker.task_scheduled,
    WorkflowTaskStarted: _Checker.task_started,
    WorkflowTaskCompleted: _Checker.task_completed,
    ActivityStarted: _Checker.activity_started,
    ActivityCompleted: _Checker.activity_ended,
    ActivityFailed: _Checker.activity_ended,
    TimerFired: _Checker.timer_fired,
    TimerCancelled: _Checker.timer_cancelled,
    ChildWorkflowStarted: _Checker.child_started,
    ChildWorkflowCompleted: _Checker.child_ended,
    ChildWorkflowFailed: _Checker.child_ended,
}
