"""Drive one run by hand: say what arrives, run workflow tasks, read the commands. No store, no engine, no clock.

`Run` keeps a legal journal with the functions that the stores use, so that whatever was run live can be replayed.
`bare` makes a scheduler on a stub of its surroundings, for what happens below the journal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

from derecho import _core, activity_ref, workflow
from derecho.authoring.definitions import Activity, Workflow
from derecho.journal.commit import Draft, Head, TaskDraft, append_external, append_task
from derecho.journal.events import (
    TERMINAL_EVENTS,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    CommandEvent,
    Event,
    Failure,
    SideEffectRecorded,
    SignalExternalScheduled,
    SignalReceived,
    TimerCancelled,
    TimerFired,
    TimerScheduled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowStarted,
    WorkflowTaskStarted,
)
from derecho.replayer import LiveRun, RunSettings, open_run

S = 1_000_000_000
START_NS = 1_900_000_000 * S

a: Activity[..., Any] = activity_ref("a")
b: Activity[..., Any] = activity_ref("b")
c: Activity[..., Any] = activity_ref("c")


def definition_of(program: Callable[..., Any], *, cooperative: bool = False) -> Workflow[..., Any]:
    """Return a program as a workflow; its name does not matter."""
    return workflow(name="program", cancellation="cooperative" if cooperative else "raise")(program)


def started(*args: Any, run_id: str = "run-1") -> WorkflowStarted:
    """Return the first event of a run of a program with these arguments."""
    data = json.dumps({"$args": args, "$kwargs": {}}).encode()
    return WorkflowStarted(
        workflow_type="program", args=data, started_at_ns=START_NS, workflow_id="order-1", run_id=run_id
    )


def describe(event: CommandEvent) -> str:
    """Return a command in a few words."""
    match event:
        case ActivityScheduled():
            return f"activity {event.name}"
        case TimerScheduled():
            return f"timer {event.duration_ns / S:g}"
        case TimerCancelled():
            return "timer cancelled"
        case SideEffectRecorded():
            return "side effect"
        case SignalExternalScheduled():
            return f"signal {event.signal_name} to {event.target_workflow_id}"
        case WorkflowCompleted():
            return f"completed {event.result.decode()}"
        case WorkflowFailed(error=Failure() as failure):
            return f"failed {failure.describe()}"
        case _:
            return event.type.removeprefix("workflow_")


class Run:
    """A run, its journal, and the world around it."""

    def __init__(
        self,
        program: Callable[..., Any],
        *args: Any,
        cooperative: bool = False,
        run_id: str = "run-1",
        **settings: Any,
    ) -> None:
        self.definition = definition_of(program, cooperative=cooperative)
        self.settings = RunSettings(**settings)
        self.head = Head()
        self.journal: list[Event] = []
        self.unseen: list[Event] = []
        self.commands: list[str] = []
        self.all_commands: list[list[str]] = []
        self.now_ns = START_NS
        self._open: dict[int, CommandEvent] = {}
        self.arrive(started(*args, run_id=run_id))
        first = self.journal[0]
        assert isinstance(first, WorkflowStarted)
        self.live = LiveRun(self.definition, first, self.settings)

    # What the run is.

    @property
    def scheduler(self) -> _core.Scheduler:
        return self.live.scheduler

    @property
    def ended(self) -> str:
        """How the run ended; an empty string while it is open."""
        last = self.all_commands[-1][-1:] if self.all_commands else []
        return last[0] if last and self.scheduler.closed else ""

    @property
    def result(self) -> Any:
        """What the workflow function returned."""
        assert self.ended.startswith("completed "), self.ended or "the run is open"
        return json.loads(self.ended.removeprefix("completed "))

    # What happens outside; it becomes visible with the next task.

    def arrive(self, *events: Event) -> Self:
        self.journal += append_external(self.head, events)
        self.unseen += events
        return self

    def signal(self, name: str, *values: Any) -> Self:
        """Let a signal arrive for each value."""
        for value in values:
            self.signal_raw(name, json.dumps(value).encode())
        return self

    def signal_raw(self, name: str, payload: bytes) -> Self:
        return self.arrive(SignalReceived(signal_name=name, payload=payload, sent_at_ns=self.now_ns))

    def cancel(self, reason: str = "") -> Self:
        return self.arrive(WorkflowCancelRequested(reason=reason, requested_at_ns=self.now_ns))

    def complete(self, name: str, value: Any = None) -> Self:
        """Let the oldest outstanding activity of this name return."""
        return self.complete_raw(name, json.dumps(value).encode())

    def complete_raw(self, name: str, result: bytes) -> Self:
        scheduled = self._take(lambda event: isinstance(event, ActivityScheduled) and event.name == name)
        return self.arrive(
            self._attempted(scheduled), ActivityCompleted(scheduled_by_id=scheduled, result=result)
        )

    def fail(self, name: str, message: str = "broken", attempt: int = 1) -> Self:
        """Let the oldest outstanding activity of this name fail for good."""
        scheduled = self._take(lambda event: isinstance(event, ActivityScheduled) and event.name == name)
        failure = Failure(kind="application", type="ValueError", message=message)
        outcome = ActivityFailed(scheduled_by_id=scheduled, error=failure)
        return self.arrive(self._attempted(scheduled, attempt), outcome)

    def fire(self, duration_s: float) -> Self:
        """Let the oldest outstanding timer of this duration fire, at its time."""
        scheduled = self._take(
            lambda event: isinstance(event, TimerScheduled) and event.duration_ns == int(duration_s * S)
        )
        timer = next(event for event in self.journal if event.id == scheduled)
        assert isinstance(timer, TimerScheduled)
        self.now_ns = max(self.now_ns, timer.fire_at_ns)
        return self.arrive(TimerFired(scheduled_by_id=scheduled, fired_at_ns=timer.fire_at_ns))

    def _attempted(self, scheduled_by_id: int, attempt: int = 1) -> ActivityStarted:
        return ActivityStarted(
            scheduled_by_id=scheduled_by_id, worker_id="worker", started_at_ns=self.now_ns, attempt=attempt
        )

    def _take(self, fits: Callable[[CommandEvent], bool]) -> int:
        event_id = next(event_id for event_id, event in self._open.items() if fits(event))
        del self._open[event_id]
        return event_id

    # Workflow tasks.

    def task(self, *, meanwhile: Callable[[], object] | None = None) -> Self:
        """Run a workflow task on all that has arrived, and commit it.

        Args:
            meanwhile: what arrives while the task runs, so that it does not see it.
        """
        visible, self.unseen = self.unseen, []
        draft = self.live.run_task(visible, self.now_ns, "worker")
        if meanwhile is not None:
            meanwhile()
        written = append_task(self.head, draft, {d.event.command: True for d in draft.drafts})
        self.journal += written.events
        self.live.committed(draft, written.command_ids, self.live.commit_no + 1)
        commands = [draft.event for draft in draft.drafts]
        for event in commands:
            self._open[event.id] = event
            if isinstance(event, TimerCancelled):
                self._open.pop(event.scheduled_by_id, None)
        self.commands = [describe(event) for event in commands]
        self.all_commands.append(self.commands)
        return self

    def close(self) -> None:
        """Evict the run."""
        self.live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def drive(program: Callable[..., Any], *args: Any, **settings: Any) -> Run:
    """Return a run whose first task has run."""
    return Run(program, *args, **settings).task()


def replay(
    program: Callable[..., Any], journal: Sequence[Event], *, cooperative: bool = False, **settings: Any
) -> None:
    """Replay a journal cold against a program, which need not be the one that wrote it."""
    definition = definition_of(program, cooperative=cooperative)
    live, _ = open_run(definition, journal, RunSettings(**settings))
    live.close()


def hand_made(*tasks: tuple[Iterable[Event], Iterable[CommandEvent]], foreign: bool = False) -> list[Event]:
    """Return the journal of a list of tasks: what each was shown, and the commands that it gave.

    A TimerCancelled or an outcome names its command in `scheduled_by_id` by event id: count them.
    """
    head, journal = Head(), []
    for arrivals, commands in tasks:
        journal += append_external(head, list(arrivals))
        events = list(commands)
        for number, event in enumerate(events, start=1):
            object.__setattr__(event, "command", number)
        draft = TaskDraft(
            worker_id="worker",
            started_at_ns=START_NS,
            visible_through=head.last_external_id,
            drafts=[Draft(event=event) for event in events],
        )
        delivered = {event.command: True for event in events}
        journal += append_task(head, draft, delivered).events
    return strip(journal) if foreign else journal


def strip(journal: Iterable[Event]) -> list[Event]:
    """Return a journal as the original writes it: no task says what it was shown."""
    return [
        replace(event, visible_through=0) if isinstance(event, WorkflowTaskStarted) else event
        for event in journal
    ]


def cuts(journal: Sequence[Event]) -> list[int]:
    """Return where a journal can be cut between two tasks: before each but the first WorkflowTaskStarted."""
    starts = [index for index, event in enumerate(journal) if isinstance(event, WorkflowTaskStarted)]
    return starts[1:]


def next_task(
    definition: Workflow[..., Any], journal: Sequence[Event], cut: int
) -> tuple[list[str], list[CommandEvent]]:
    """Replay the journal before `cut` cold, run the task there as a new one; return its commands."""
    task = journal[cut]
    assert isinstance(task, WorkflowTaskStarted)
    live, unseen = open_run(definition, journal[:cut], RunSettings())
    try:
        visible = [event for event in unseen if event.id <= task.visible_through]
        draft = live.run_task(visible, task.started_at_ns, "worker")
        events = [draft.event for draft in draft.drafts]
    finally:
        live.close()
    return [describe(event) for event in events], events


def recorded_task(journal: Sequence[Event], cut: int) -> list[CommandEvent]:
    """Return the commands of the task that begins at `cut`."""
    commands: list[CommandEvent] = []
    for event in journal[cut + 1 :]:
        if not isinstance(event, CommandEvent):
            break
        commands.append(event)
        if isinstance(event, TERMINAL_EVENTS):
            break
    return commands


# --- below the journal


class StubEnvironment:
    """The least that a scheduler needs of its surroundings; keeps what it was told."""

    def __init__(self) -> None:
        self.failed: list[tuple[int, BaseException]] = []
        self.skipped: list[int] = []
        self.is_mute = False

    def duration_ns(self, duration: Any, what: str) -> int:
        return int(duration * S)

    def moment(self, moment_ns: int) -> int:
        return moment_ns

    def site(self) -> str:
        return "stub"

    def blocked_at(self) -> str:
        return "stub"

    def cancel_reason(self) -> str:
        return "stub"

    def cancel_info(self, event: Any) -> str:
        return "stub"

    def signal_skipped(self, name: str, event_id: int, error: Exception) -> None:
        self.skipped.append(event_id)

    def fiber_failed(self, number: int, error: BaseException) -> None:
        self.failed.append((number, error))

    def run_side_effect(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, None]:
        return fn(*args, **kwargs), None

    def side_effect_value(self, result: Any) -> Any:
        return result

    def side_effect_error(self, failure: Any) -> Exception:
        return RuntimeError(failure)

    def close(self, value: Any, error: BaseException | None, untaken: list[BaseException]) -> tuple[int, Any]:
        return (WorkflowCompleted.code, value) if error is None else (WorkflowFailed.code, error)


def bare(main: Callable[[], Any], env: Any = None, **options: Any) -> _core.Scheduler:
    """Return a scheduler on a stub of its surroundings."""
    return _core.Scheduler(main, env or StubEnvironment(), **options)


def first_event() -> WorkflowStarted:
    """Return the event that lets the main fiber begin."""
    return replace(started(), id=1)


def begin(scheduler: _core.Scheduler) -> list[_core.Command]:
    """Run the first task of a bare scheduler."""
    return scheduler.advance([first_event()], START_NS)
