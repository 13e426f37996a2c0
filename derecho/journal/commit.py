"""What an event means, written once: ids, what wakes a run, which work follows from a workflow task.

Pure: no I/O, no clock. Every store calls these functions inside its transaction, with the run's `Head` locked, and
then writes the rows they name. Two ways lead into a journal:

- `append_external`: something happened outside (a signal, an outcome, a fired timer). It takes the next ids at
  once, and wakes the run if it was idle.
- `append_task`: a workflow task is committed. Its commands get their ids only now, because external events may
  have taken ids while it ran; such events have smaller ids than the commands, but the task did not see them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from derecho.journal.events import (
    TERMINAL_EVENTS,
    ActivityScheduled,
    CommandEvent,
    Event,
    SignalExternalScheduled,
    SignalReceived,
    TimerCancelled,
    TimerScheduled,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowFailed,
    WorkflowTaskCompleted,
    WorkflowTaskScheduled,
    WorkflowTaskStarted,
)


class WorkflowStatus(enum.IntEnum):
    """Where a run stands; a stored column, never guessed from the journal."""

    RUNNING = 0
    CANCELLING = 1
    COMPLETED = 2
    FAILED = 3
    CANCELLED = 4
    TERMINATED = 5
    CONTINUED_AS_NEW = 6

    @property
    def is_open(self) -> bool:
        """Tell whether the run can still change."""
        return self <= WorkflowStatus.CANCELLING


@dataclass(slots=True, kw_only=True)
class Head:
    """Where the journal of a run stands: what decides which event may come next.

    Attributes:
        status: of the run.
        last_event_id: the newest event.
        last_external_id: the newest event that a workflow task has to be shown.
        last_request_id: the newest signal or cancel request, which a closing task must not leave unseen.
        visible_through: what the last committed task was shown.
        task_scheduled_id: the pending WorkflowTaskScheduled, 0 = none.
    """

    status: WorkflowStatus = WorkflowStatus.RUNNING
    last_event_id: int = 0
    last_external_id: int = 0
    last_request_id: int = 0
    visible_through: int = 0
    task_scheduled_id: int = 0

    @property
    def is_ready(self) -> bool:
        """Tell whether there is something that no workflow task has seen."""
        return self.status.is_open and self.last_external_id > self.visible_through


@dataclass(slots=True, kw_only=True)
class Draft:
    """A command event before its commit: without an id.

    Attributes:
        event: the event; it is stamped in place, so a draft belongs to one commit.
        answers: the number of a command of the same task whose event id is this event's `scheduled_by_id`.
    """

    event: CommandEvent
    answers: int = 0


@dataclass(slots=True, kw_only=True)
class TaskDraft:
    """What a workflow task decided.

    Attributes:
        worker_id: who ran it.
        started_at_ns: its workflow time.
        visible_through: the last event that it was shown.
        drafts: its commands, in order.
        skipped: signals that could not be decoded.
    """

    worker_id: str
    started_at_ns: int
    visible_through: int
    drafts: list[Draft] = field(default_factory=list)
    skipped: tuple[int, ...] = ()

    @property
    def terminal(self) -> CommandEvent | None:
        """The event that ends the run, if this task does."""
        last = self.drafts[-1].event if self.drafts else None
        return last if isinstance(last, TERMINAL_EVENTS) else None


@dataclass(slots=True, kw_only=True)
class TaskEvents:
    """A workflow task as written: its events, and the work that follows from them.

    Attributes:
        events: WorkflowTaskStarted, the commands, WorkflowTaskCompleted and, if events were left unseen,
            the next WorkflowTaskScheduled.
        command_ids: the event ids of the commands, in order.
    """

    events: list[Event]
    command_ids: list[int] = field(default_factory=list)
    activities: list[ActivityScheduled] = field(default_factory=list)
    timers: list[TimerScheduled] = field(default_factory=list)
    timers_cancelled: list[int] = field(default_factory=list)
    signals: list[SignalExternalScheduled] = field(default_factory=list)
    terminal: CommandEvent | None = None


_STATUS_OF: Final[Mapping[type[Event], WorkflowStatus]] = {
    WorkflowCompleted: WorkflowStatus.COMPLETED,
    WorkflowFailed: WorkflowStatus.FAILED,
    WorkflowCancelled: WorkflowStatus.CANCELLED,
    WorkflowContinuedAsNew: WorkflowStatus.CONTINUED_AS_NEW,
}


def stamp(event: Event, event_id: int, scheduled_by_id: int | None = None) -> None:
    """Give an event that is not published yet its place; the only place where an event is written to."""
    object.__setattr__(event, "id", event_id)
    if scheduled_by_id is not None:
        object.__setattr__(event, "scheduled_by_id", scheduled_by_id)


def status_after(terminal: Event) -> WorkflowStatus:
    """Return the status that a terminal event leaves the run in."""
    if isinstance(terminal, WorkflowFailed) and terminal.terminated:
        return WorkflowStatus.TERMINATED
    return _STATUS_OF[type(terminal)]


def append_external(head: Head, arrived: Sequence[Event]) -> list[Event]:
    """Number events that arrived from outside, and wake the run if it was idle.

    Args:
        head: of the run, which must be open; updated.
        arrived: the events, in order, without ids.

    Returns:
        What is to be written: the events and, if none was pending, a WorkflowTaskScheduled.
    """
    assert head.status.is_open, f"an event arrived at a closed run ({head.status.name})"
    written = list(arrived)
    next_id = head.last_event_id
    for event in written:
        next_id += 1
        stamp(event, next_id)
        if isinstance(event, SignalReceived | WorkflowCancelRequested):
            head.last_request_id = next_id
            if isinstance(event, WorkflowCancelRequested):
                head.status = WorkflowStatus.CANCELLING
    head.last_external_id = head.last_event_id = next_id
    _wake(head, written)
    return written


def append_terminal(head: Head, terminal: CommandEvent) -> list[Event]:
    """Close a run from outside any workflow task: terminate, or the deadline of a cancel request."""
    assert head.status.is_open, f"a closed run ({head.status.name}) cannot be closed again"
    head.last_event_id += 1
    stamp(terminal, head.last_event_id)
    _close(head, terminal)
    return [terminal]


def refuses_close(head: Head, task: TaskDraft) -> bool:
    """Tell whether a closing task must run again, because a signal or a cancel request came that it did not see."""
    return task.terminal is not None and head.last_request_id > task.visible_through


def append_task(head: Head, task: TaskDraft, delivered: Mapping[int, bool]) -> TaskEvents:
    """Number a workflow task's events and name the work that follows from them.

    Args:
        head: of the run, which must be open and have a pending WorkflowTaskScheduled; updated.
        task: what was decided; its events are stamped.
        delivered: for each signal to another run, by command number, whether an open run took it.
    """
    assert head.status.is_open, f"a workflow task cannot be committed to a closed run ({head.status.name})"
    assert head.visible_through <= task.visible_through <= head.last_event_id, (
        f"visible_through {task.visible_through} outside {head.visible_through}..{head.last_event_id}"
    )
    scheduled_id = head.task_scheduled_id
    assert scheduled_id, "a workflow task is committed that nothing scheduled"
    next_id = head.last_event_id + 1
    started = WorkflowTaskStarted(
        id=next_id,
        scheduled_by_id=scheduled_id,
        worker_id=task.worker_id,
        started_at_ns=task.started_at_ns,
        visible_through=task.visible_through,
    )
    changes = TaskEvents(events=[started])
    ids: dict[int, int] = {}
    for draft in task.drafts:
        next_id += 1
        event = draft.event
        stamp(event, next_id, ids[draft.answers] if draft.answers else None)
        ids[event.command] = next_id
        changes.command_ids.append(next_id)
        changes.events.append(event)
        _follow(changes, event, delivered)
    if changes.timers_cancelled:
        _leave_out_ended_timers(changes)
    next_id += 1
    changes.events.append(
        WorkflowTaskCompleted(id=next_id, scheduled_by_id=scheduled_id, skipped=task.skipped)
    )
    head.last_event_id = next_id
    head.visible_through = task.visible_through
    head.task_scheduled_id = 0
    if changes.terminal is not None:
        _close(head, changes.terminal)
    elif head.last_external_id > head.visible_through:
        _wake(head, changes.events)
    return changes


def _follow(changes: TaskEvents, event: CommandEvent, delivered: Mapping[int, bool]) -> None:
    """Sort one command by the work that it causes. The one switch over kinds of commands."""
    assert changes.terminal is None, f"a command after the end of the run: {event.type}"
    if isinstance(event, ActivityScheduled):
        changes.activities.append(event)
    elif isinstance(event, TimerScheduled):
        changes.timers.append(event)
    elif isinstance(event, TimerCancelled):
        changes.timers_cancelled.append(event.scheduled_by_id)
    elif isinstance(event, SignalExternalScheduled):
        object.__setattr__(event, "delivered", delivered[event.command])
        changes.signals.append(event)
    elif isinstance(event, TERMINAL_EVENTS):
        changes.terminal = event


def _leave_out_ended_timers(changes: TaskEvents) -> None:
    """See to it that a timer which was started and cancelled in this very task never becomes a row."""
    cancelled = frozenset(changes.timers_cancelled)
    changes.timers = [timer for timer in changes.timers if timer.id not in cancelled]
    first_id = changes.events[0].id
    changes.timers_cancelled = [timer_id for timer_id in changes.timers_cancelled if timer_id < first_id]


def _wake(head: Head, written: list[Event]) -> None:
    if head.task_scheduled_id == 0:
        head.last_event_id += 1
        head.task_scheduled_id = head.last_event_id
        written.append(WorkflowTaskScheduled(id=head.last_event_id))


def _close(head: Head, terminal: CommandEvent) -> None:
    head.status = status_after(terminal)
    head.task_scheduled_id = 0
