"""The facts a journal is made of: one frozen record per kind of event, and one table of all kinds.

The kinds and the JSON names are those of the Go original, so that journals can be exchanged; fields of our own are
left out of the JSON when empty. A field says in its metadata how it is written (`derecho.journal.codec` reads it),
and each class carries a `code`, the number under which the compiled core knows the kind.

Moments and durations are integer nanoseconds (`_ns`); payloads are the encoded bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final

from derecho.clock import to_datetime

# How a field is written in JSON. `metadata={"json": (key, form)}`; without metadata: the field's own name, as it is.
MOMENT: Final = "moment"  # integer nanoseconds <-> RFC 3339 with nanoseconds
BYTES: Final = "bytes"  # bytes <-> base64
FAILURE: Final = "failure"  # Failure <-> object
PLAIN: Final = "plain"

_NO_EXTRA: Final[Mapping[str, Any]] = {}


def _moment(key: str, **default: Any) -> Any:
    return field(metadata={"json": (key, MOMENT)}, **default)


def _bytes(**default: Any) -> Any:
    return field(metadata={"json": (None, BYTES)}, **default)


def _duration(key: str, **default: Any) -> Any:
    return field(metadata={"json": (key, PLAIN)}, **default)


def _always(**default: Any) -> Any:
    """Mark a field that the original writes even when it is empty."""
    return field(metadata={"json": (None, PLAIN), "always": True}, **default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something failed, in the form that is recorded.

    Attributes:
        kind: "application", "timeout", "cancelled", "cancel_timeout", "nondeterminism" or "panic".
        message: the text of the error; no stack, no paths, no ids, so that replay anywhere sees the same.
        type: the class name of the exception (a field of our own).
        details: further facts as text.
        non_retryable: no further attempt may be made.
        next_retry_delay_ns: the delay that the activity asked for; 0 = the policy's.
    """

    kind: str
    message: str
    type: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    non_retryable: bool = False
    next_retry_delay_ns: int = field(default=0, metadata={"json": ("next_retry_delay", PLAIN)})
    extra: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """Return one line for people: the type, if known, and the message."""
        text = f"{self.type}: {self.message}" if self.type else self.message
        return text or self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An immutable fact in a journal.

    Attributes:
        id: dense 1-based position in the journal; 0 while it is not written yet.
        scheduled_by_id: the event that this one answers, or 0.
        extra: keys of the JSON that this version does not know, kept for the round trip.
    """

    type: ClassVar[str] = ""
    code: ClassVar[int] = 0

    id: int = _always(default=0)
    scheduled_by_id: int = 0
    extra: Mapping[str, Any] = field(default_factory=lambda: _NO_EXTRA, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEvent(Event):
    """An event that workflow code asked for.

    Attributes:
        command: the number of the command in its run, from 1; 0 in foreign journals.
        site: "file:line" of the workflow code that asked, as of the first execution.
    """

    command: int = 0
    site: str = ""


# The life of a run.


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStarted(Event):
    """The run exists.

    Attributes:
        parent: workflow_id, run_id and event id of the parent's command, if a workflow started this one.
        chain_id: the first run of the chain that continue-as-new makes.
    """

    type: ClassVar[str] = "workflow_started"
    code: ClassVar[int] = 1

    workflow_type: str = _always()
    args: bytes = _bytes()
    started_at_ns: int = _moment("started_at")
    workflow_id: str = ""
    run_id: str = ""
    chain_id: str = ""
    parent: Mapping[str, Any] | None = None
    request_id: str = ""

    @property
    def started_at(self) -> datetime:
        return to_datetime(self.started_at_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCompleted(CommandEvent):
    """The workflow function returned."""

    type: ClassVar[str] = "workflow_completed"
    code: ClassVar[int] = 2

    result: bytes = _bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFailed(CommandEvent):
    """The workflow function raised, or the run was terminated (`terminated`, then outside any task)."""

    type: ClassVar[str] = "workflow_failed"
    code: ClassVar[int] = 3

    error: Failure | None = field(metadata={"json": (None, FAILURE), "always": True})
    terminated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCancelRequested(Event):
    """Somebody asked the run to cancel; `deadline_ns` is the moment of its forced end, 0 = never."""

    type: ClassVar[str] = "workflow_cancel_requested"
    code: ClassVar[int] = 4

    reason: str = ""
    requested_at_ns: int = _moment("requested_at")
    cancel_timeout_ns: int = _duration("cancel_timeout", default=0)
    deadline_ns: int = _moment("deadline", default=0)
    request_id: str = ""

    @property
    def requested_at(self) -> datetime:
        return to_datetime(self.requested_at_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCancelled(CommandEvent):
    """The run ended because of a request to cancel; `forced` if its deadline came first."""

    type: ClassVar[str] = "workflow_cancelled"
    code: ClassVar[int] = 5

    forced: bool = False
    remaining_fibers: int = 0
    error: Failure | None = field(default=None, metadata={"json": (None, FAILURE)})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowContinuedAsNew(CommandEvent):
    """The run ended and goes on as a new run with a fresh journal."""

    type: ClassVar[str] = "workflow_continued_as_new"
    code: ClassVar[int] = 6

    new_input: bytes = _bytes()
    new_run_id: str = ""


# Workflow tasks.


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTaskScheduled(Event):
    """The run has something new to look at."""

    type: ClassVar[str] = "workflow_task_scheduled"
    code: ClassVar[int] = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTaskStarted(Event):
    """A worker ran the workflow code.

    Attributes:
        started_at_ns: the workflow time of this task.
        visible_through: the last event that the task was shown; 0 in journals of the original, where it is
            this event's own id.
    """

    type: ClassVar[str] = "workflow_task_started"
    code: ClassVar[int] = 8

    worker_id: str = _always()
    started_at_ns: int = _moment("started_at")
    visible_through: int = 0

    @property
    def started_at(self) -> datetime:
        return to_datetime(self.started_at_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTaskCompleted(Event):
    """All fibers were blocked or done; `skipped` are signals that could not be decoded."""

    type: ClassVar[str] = "workflow_task_completed"
    code: ClassVar[int] = 9

    skipped: tuple[int, ...] = ()


# Activities.


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityScheduled(CommandEvent):
    """Workflow code asked for an activity; the policies are in their payload form (durations in nanoseconds)."""

    type: ClassVar[str] = "activity_scheduled"
    code: ClassVar[int] = 10

    name: str = _always()
    input: bytes = _bytes()
    retry_policy: Mapping[str, Any] | None = None
    timeout_policy: Mapping[str, Any] | None = None
    scheduled_at_ns: int = _moment("scheduled_at")

    @property
    def scheduled_at(self) -> datetime:
        return to_datetime(self.scheduled_at_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityStarted(Event):
    """The attempt whose outcome follows began; written together with the outcome."""

    type: ClassVar[str] = "activity_started"
    code: ClassVar[int] = 11

    worker_id: str = _always()
    started_at_ns: int = _moment("started_at")
    attempt: int = 0

    @property
    def started_at(self) -> datetime:
        return to_datetime(self.started_at_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityCompleted(Event):
    """The activity returned."""

    type: ClassVar[str] = "activity_completed"
    code: ClassVar[int] = 12

    result: bytes = _bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityFailed(Event):
    """The activity failed for good."""

    type: ClassVar[str] = "activity_failed"
    code: ClassVar[int] = 13

    error: Failure | None = field(metadata={"json": (None, FAILURE), "always": True})


# Timers.


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerScheduled(CommandEvent):
    """Workflow code started a timer."""

    type: ClassVar[str] = "timer_scheduled"
    code: ClassVar[int] = 14

    duration_ns: int = field(metadata={"json": ("duration", PLAIN), "always": True})
    fire_at_ns: int = _moment("fire_at")

    @property
    def fire_at(self) -> datetime:
        return to_datetime(self.fire_at_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(Event):
    """The timer's time came."""

    type: ClassVar[str] = "timer_fired"
    code: ClassVar[int] = 15

    fired_at_ns: int = _moment("fired_at")

    @property
    def fired_at(self) -> datetime:
        return to_datetime(self.fired_at_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerCancelled(CommandEvent):
    """Workflow code cancelled a timer before it saw it fire."""

    type: ClassVar[str] = "timer_cancelled"
    code: ClassVar[int] = 16


# Small things.


@dataclass(frozen=True, slots=True, kw_only=True)
class SideEffectRecorded(CommandEvent):
    """The value (or the error) that a side effect gave, once and for all replays."""

    type: ClassVar[str] = "side_effect_recorded"
    code: ClassVar[int] = 17

    result: bytes = _bytes(default=b"")
    error: Failure | None = field(default=None, metadata={"json": (None, FAILURE)})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReceived(Event):
    """A signal arrived."""

    type: ClassVar[str] = "signal_received"
    code: ClassVar[int] = 18

    signal_name: str = _always()
    payload: bytes = _bytes()
    sent_at_ns: int = _moment("sent_at")
    request_id: str = ""

    @property
    def sent_at(self) -> datetime:
        return to_datetime(self.sent_at_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalExternalScheduled(CommandEvent):
    """Workflow code sent a signal to another workflow; `delivered` tells whether an open run took it."""

    type: ClassVar[str] = "signal_external_scheduled"
    code: ClassVar[int] = 19

    target_workflow_id: str = _always()
    signal_name: str = _always()
    payload: bytes = _bytes()
    delivered: bool | None = None


# Children.


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildWorkflowScheduled(CommandEvent):
    """Workflow code asked for a child workflow."""

    type: ClassVar[str] = "child_workflow_scheduled"
    code: ClassVar[int] = 20

    workflow_type: str = _always()
    workflow_id: str = _always()
    input: bytes = _bytes()
    parent_workflow_id: str = _always(default="")
    parent_run_id: str = _always(default="")
    parent_close_policy: int = _always(default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildWorkflowStarted(Event):
    """The child's run exists."""

    type: ClassVar[str] = "child_workflow_started"
    code: ClassVar[int] = 21

    child_run_id: str = _always()
    started_at_ns: int = _moment("started_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildWorkflowCompleted(Event):
    """The child returned."""

    type: ClassVar[str] = "child_workflow_completed"
    code: ClassVar[int] = 22

    child_workflow_id: str = _always()
    child_run_id: str = _always()
    result: bytes = _bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildWorkflowFailed(Event):
    """The child failed, was cancelled or terminated, or could not be started."""

    type: ClassVar[str] = "child_workflow_failed"
    code: ClassVar[int] = 23

    child_workflow_id: str = _always()
    child_run_id: str = _always()
    error: Failure | None = field(metadata={"json": (None, FAILURE), "always": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """An event of a kind that this version does not know; it survives a round trip, and replay refuses it."""

    code: ClassVar[int] = 0

    unknown_type: str = field(default="", metadata={"json": ("type", PLAIN), "always": True})


EVENT_TYPES: Final[Mapping[str, type[Event]]] = {
    cls.type: cls
    for cls in (
        WorkflowStarted,
        WorkflowCompleted,
        WorkflowFailed,
        WorkflowCancelRequested,
        WorkflowCancelled,
        WorkflowContinuedAsNew,
        WorkflowTaskScheduled,
        WorkflowTaskStarted,
        WorkflowTaskCompleted,
        ActivityScheduled,
        ActivityStarted,
        ActivityCompleted,
        ActivityFailed,
        TimerScheduled,
        TimerFired,
        TimerCancelled,
        SideEffectRecorded,
        SignalReceived,
        SignalExternalScheduled,
        ChildWorkflowScheduled,
        ChildWorkflowStarted,
        ChildWorkflowCompleted,
        ChildWorkflowFailed,
    )
}

# What ends a run. A terminated or force-cancelled run gets its terminal event outside any workflow task.
TERMINAL_EVENTS: Final = (WorkflowCompleted, WorkflowFailed, WorkflowCancelled, WorkflowContinuedAsNew)
