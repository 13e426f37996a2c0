"""Turn a journal into workflow tasks, and workflow tasks into a live run. Pure: no I/O, no clock.

Replay walks the journal task by task: for each recorded task, set the workflow time, make the events that the task
was shown visible, run the fibers, and compare their commands with the recorded ones. Cold start, `replay()`, checks
in CI: all are this one path. Made visible any other way, time, signals and results would appear to workflow code
in another order than they did live (B15-B18).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import derecho._core as _core
from derecho.authoring.definitions import Workflow
from derecho.authoring.environment import Environment
from derecho.errors import DerechoError, JournalError, NondeterminismError, WorkflowNotFoundError
from derecho.journal.commit import Draft, Head, TaskDraft, append_task
from derecho.journal.events import (
    TERMINAL_EVENTS,
    ActivityScheduled,
    ChildWorkflowScheduled,
    CommandEvent,
    Event,
    Failure,
    SideEffectRecorded,
    SignalExternalScheduled,
    TimerCancelled,
    TimerFired,
    TimerScheduled,
    UnknownEvent,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowStarted,
    WorkflowTaskCompleted,
    WorkflowTaskScheduled,
    WorkflowTaskStarted,
)
from derecho.payloads import Codec, JSONCodec
from derecho.policies import RetryPolicy
from derecho.stores.base import Store

log: Final = logging.getLogger("derecho.replay")


@dataclass(slots=True)
class RecordedTask:
    """One workflow task of a journal.

    Attributes:
        visible: what it was shown that no earlier task was.
        by_creation: it is the original's, where fibers that events wake run by creation.
    """

    started: WorkflowTaskStarted
    visible: Sequence[Event]
    commands: list[CommandEvent] = field(default_factory=list)
    skipped: frozenset[int] = frozenset()
    by_creation: bool = False


class JournalReader:
    """Splits a journal into its tasks; afterwards `unseen` holds what none of them was shown."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self.unseen: list[Event] = []
        self.visible_through = 0
        self.ended_by: CommandEvent | None = None

    def tasks(self) -> Iterator[RecordedTask]:
        """Yield the recorded tasks in order. Linear in the length of the journal."""
        task: RecordedTask | None = None
        for event in self._events:
            if isinstance(event, CommandEvent):
                if isinstance(event, TERMINAL_EVENTS):
                    self.ended_by = event
                if task is None:
                    return  # Terminated, or cancelled by force: not a command of any task.
                task.commands.append(event)
            elif isinstance(event, WorkflowTaskStarted):
                task = RecordedTask(event, (), by_creation=not event.visible_through)
            elif isinstance(event, WorkflowTaskCompleted):
                if task is not None:
                    task.skipped = frozenset(event.skipped)
                    yield self._shown(task)
                    task = None
            elif isinstance(event, UnknownEvent):
                raise JournalError(
                    f"event {event.id} is of kind {event.unknown_type!r}, which this version cannot replay"
                )
            elif not isinstance(event, WorkflowTaskScheduled):
                self.unseen.append(event)
        if task is not None and task.commands:
            yield self._shown(task)  # Foreign journals may end without WorkflowTaskCompleted.

    def _shown(self, task: RecordedTask) -> RecordedTask:
        # In the original's journals a task saw all that was written before it started.
        through = task.started.visible_through or task.started.id
        count = 0
        while count < len(self.unseen) and self.unseen[count].id <= through:
            count += 1
        task.visible = self.unseen[:count]
        del self.unseen[:count]
        self.visible_through = through
        return task


@dataclass(slots=True, kw_only=True)
class RunSettings:
    """What runs need of their engine."""

    codec: Codec = field(default_factory=JSONCodec)
    default_retry: RetryPolicy | None = None
    logger: logging.Logger | None = None
    strict: bool = False
    pool: _core.Pool | None = None


class LiveRun:
    """A run in memory: its fibers stand where the journal says. It belongs to the thread that made it."""

    __slots__ = ("commit_no", "env", "run_id", "scheduler", "task_time_ns", "visible_through", "workflow_id")

    def __init__(
        self, definition: Workflow[..., Any], started: WorkflowStarted, settings: RunSettings
    ) -> None:
        """Prepare the run; nothing of the user's runs yet.

        Raises:
            CodecError: the recorded arguments cannot be decoded.
        """
        self.workflow_id = started.workflow_id or "replay"
        self.run_id = started.run_id or "replay"
        self.commit_no = 0
        self.visible_through = 0
        self.task_time_ns = 0
        codec = settings.codec
        args, kwargs = definition.signature.decode_args(codec, started.args)
        self.env = Environment(
            started, codec=codec, default_retry=settings.default_retry, logger=settings.logger
        )

        def main() -> bytes:
            return definition.signature.encode_result(codec, definition.fn(*args, **kwargs))

        self.scheduler = _core.Scheduler(
            main,
            self.env,
            pool=settings.pool,
            raises_cancel=definition.cancellation == "raise",
            strict=settings.strict,
        )
        self.env.scheduler = self.scheduler

    def replay(self, task: RecordedTask) -> None:
        """Run a recorded task.

        Raises:
            NondeterminismError: the code does not ask again for what is recorded.
            DerechoError: something recorded cannot be used by this code.
        """
        self._advance(task.visible, task.started.started_at_ns, task)
        for event_id, what in self.scheduler.differences:
            log.warning(
                "%s differs from the recorded one at event %d", what, event_id, extra=self.env.log_extra()
            )

    def run_task(self, visible: Sequence[Event], time_ns: int, worker_id: str) -> TaskDraft:
        """Run a new task and return what it decided; `committed` must follow, or the run be closed.

        Args:
            visible: the events that no earlier task was shown.
            time_ns: the store's clock; the workflow time never goes below the last one nor a visible timer's fire.
        """
        fired_ns = max((event.fired_at_ns for event in visible if isinstance(event, TimerFired)), default=0)
        time_ns = max(time_ns, self.task_time_ns, fired_ns)
        commands = self._advance(visible, time_ns, None)
        return TaskDraft(
            worker_id=worker_id,
            started_at_ns=time_ns,
            visible_through=visible[-1].id if visible else self.visible_through,
            drafts=[draft_of(command, time_ns) for command in commands],
            skipped=tuple(self.scheduler.skipped),
        )

    def committed(self, task: TaskDraft, command_ids: Sequence[int], commit_no: int) -> None:
        """Take over the ids that the commands of the last task were given."""
        self.scheduler.committed(command_ids)
        self.visible_through = task.visible_through
        self.commit_no = commit_no

    @property
    def stuck_reason(self) -> str:
        """Why the run can never move by itself, as of its last task; or empty."""
        stuck = self.scheduler.stuck
        return f"stuck: {stuck}; parked at {self.env.blocked_at()}" if stuck else ""

    @property
    def unread_signals(self) -> int:
        """How many visible signals nobody has received."""
        return self.scheduler.unread()

    def close(self) -> None:
        """Evict the run: unwind its fibers, with nothing recorded. Call it on the run's thread."""
        self.scheduler.close()

    def _advance(
        self, visible: Sequence[Event], time_ns: int, task: RecordedTask | None
    ) -> list[_core.Command]:
        self.task_time_ns = time_ns
        try:
            if task is None:
                return self.scheduler.advance(visible, time_ns)
            self.scheduler.advance(
                visible, time_ns, recorded=task.commands, skipped=task.skipped, by_creation=task.by_creation
            )
            return []
        except _core.Mismatch as mismatch:
            raise self._nondeterminism(mismatch, task) from None
        except (_core.Undecodable, _core.Livelock) as error:
            raise DerechoError(str(error)) from error.__cause__
        except ValueError as error:
            # What user code raises never comes out here: the core says that an event has no place in this journal.
            raise JournalError(str(error)) from error

    def _nondeterminism(self, mismatch: _core.Mismatch, task: RecordedTask | None) -> NondeterminismError:
        event, command = mismatch.event, mismatch.command
        if event is not None:
            event_id = event.id
        else:
            event_id = (
                task.commands[-1].id + 1 if task and task.commands else task.started.id + 1 if task else 0
            )
        got = describe_command(command) if command is not None else "the workflow is blocked"
        return NondeterminismError(
            workflow_id=self.workflow_id,
            run_id=self.run_id,
            event_id=event_id,
            expected=describe_event(event)
            if event is not None
            else "no further command in this workflow task",
            got=f"{got}, with {mismatch.detail}" if mismatch.detail else got,
            expected_site=getattr(event, "site", ""),
            got_site=mismatch.blocked_at,
        )


def open_run(
    definition: Workflow[..., Any],
    events: Sequence[Event],
    settings: RunSettings,
    on_open: Callable[[LiveRun], None] | None = None,
) -> tuple[LiveRun, list[Event]]:
    """Replay a journal into a live run, and return it with the events that no task was shown yet.

    Args:
        on_open: is told the run before its first line is replayed.

    Raises:
        NondeterminismError, CodecError, DerechoError: the code and the journal do not fit; nothing is left behind.
    """
    if not events or not isinstance(events[0], WorkflowStarted):
        raise JournalError("a journal begins with workflow_started")
    live = LiveRun(definition, events[0], settings)
    if on_open is not None:
        on_open(live)
    reader = JournalReader(events)
    try:
        for task in reader.tasks():
            live.replay(task)
    except BaseException:
        live.close()
        raise
    live.visible_through = reader.visible_through
    return live, reader.unseen


def draft_of(command: _core.Command, time_ns: int) -> Draft:
    """Return the event that a command becomes, before its commit."""
    return Draft(event=_event_of(command, time_ns), answers=_answered_number(command))


def _answered_number(command: _core.Command) -> int:
    timer = command.answers
    return timer.number if timer is not None and not timer.event_id else 0


def _event_of(command: _core.Command, time_ns: int) -> CommandEvent:
    code = command.code
    place: dict[str, Any] = {"command": command.number, "site": command.site or ""}
    if code == ActivityScheduled.code:
        retry, timeouts = command.options
        return ActivityScheduled(
            name=command.name,
            input=command.payload,
            retry_policy=retry,
            timeout_policy=timeouts,
            scheduled_at_ns=time_ns,
            **place,
        )
    if code == TimerScheduled.code:
        return TimerScheduled(
            duration_ns=command.duration_ns, fire_at_ns=time_ns + command.duration_ns, **place
        )
    if code == TimerCancelled.code:
        assert command.answers is not None
        return TimerCancelled(scheduled_by_id=command.answers.event_id, **place)
    if code == SideEffectRecorded.code:
        return SideEffectRecorded(result=command.payload, error=command.options, **place)
    if code == SignalExternalScheduled.code:
        return SignalExternalScheduled(
            target_workflow_id=command.target, signal_name=command.name, payload=command.payload, **place
        )
    if code == WorkflowCompleted.code:
        return WorkflowCompleted(result=command.payload, **place)
    if code == WorkflowFailed.code:
        return WorkflowFailed(error=command.payload, **place)
    assert code == WorkflowCancelled.code, f"no event for a command of code {code}"
    return WorkflowCancelled(**place)


def describe_event(event: CommandEvent) -> str:
    """Return a recorded command in words."""
    if isinstance(event, ActivityScheduled):
        return f"activity {event.name!r} scheduled"
    if isinstance(event, SignalExternalScheduled):
        return f"signal {event.signal_name!r} sent to workflow {event.target_workflow_id!r}"
    if isinstance(event, ChildWorkflowScheduled):
        return f"child workflow {event.workflow_type!r} ({event.workflow_id!r}) scheduled"
    if isinstance(event, TimerScheduled):
        return f"timer of {event.duration_ns / 1e9:g} s started"
    if isinstance(event, TimerCancelled):
        return f"timer of event {event.scheduled_by_id} cancelled"
    return event.type.replace("_", " ")


def describe_command(command: _core.Command) -> str:
    """Return what the code asks for, in the words of `describe_event`."""
    return describe_event(_event_of(command, 0))


# --- verification ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What a replay found.

    Attributes:
        new_events: what the workflow would do next, if the journal is not complete.
        complete: whether the journal has a terminal event.
        result: the decoded result, if the workflow completed.
        error: the recorded failure, if it failed.
    """

    new_events: list[Event]
    complete: bool
    result: Any = None
    error: Failure | None = None


def replay(workflow: Workflow[..., Any], events: Sequence[Event], *, strict: bool = False) -> ReplayResult:
    """Replay a journal against workflow code; run it in CI with journals of real runs, on every change.

    Args:
        events: a journal, complete or not; from `Run.events()` or `derecho.journal.load_events()`.
        strict: whether a different input, duration, result or error text is an error too, and not only a warning.

    Raises:
        NondeterminismError: the code does not ask again for what is recorded.
        JournalError, CodecError: the journal cannot be replayed at all.
    """
    live, unseen = open_run(workflow, events, RunSettings(strict=strict, pool=_core.Pool()))
    try:
        terminal = next((event for event in reversed(events) if isinstance(event, TERMINAL_EVENTS)), None)
        if terminal is not None:
            result = None
            if isinstance(terminal, WorkflowCompleted):
                result = workflow.signature.decode_result(live.env.codec, terminal.result)
            error = terminal.error if isinstance(terminal, WorkflowFailed) else None
            return ReplayResult(new_events=[], complete=True, result=result, error=error)
        new_events: list[Event] = []
        if unseen:
            task = live.run_task(unseen, _time_of(unseen[-1]), "replay")
            head = Head(
                last_event_id=events[-1].id,
                visible_through=live.visible_through,
                task_scheduled_id=_pending_task(events),
            )
            delivered = {draft.event.command: False for draft in task.drafts}
            new_events = append_task(head, task, delivered).events
        return ReplayResult(new_events=new_events, complete=False)
    finally:
        live.close()
        live.scheduler.pool.close()


def replay_from_store(
    store: Store, workflow_id: str, run_id: str, workflow: Workflow[..., Any], *, strict: bool = False
) -> ReplayResult:
    """Replay a stored run; see `replay`.

    Raises:
        WorkflowNotFoundError: the store has no such run.
    """
    if store.find_run(workflow_id, run_id) is None:
        raise WorkflowNotFoundError(workflow_id, run_id)
    return replay(workflow, store.load_events(run_id), strict=strict)


def _time_of(event: Event) -> int:
    for name in ("fired_at_ns", "sent_at_ns", "requested_at_ns", "started_at_ns"):
        if hasattr(event, name):
            moment_ns: int = getattr(event, name)
            return moment_ns
    return 0


def _pending_task(events: Sequence[Event]) -> int:
    scheduled = [event.id for event in events if isinstance(event, WorkflowTaskScheduled)]
    return scheduled[-1] if scheduled else 0
