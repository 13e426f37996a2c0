"""Bugs to plant: one by one, each has to turn its law red. The test of the tests.

A plant changes the engine by `put(owner, name, value)`: monkeypatch's `setattr` in tests, the plain one in a
process of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from derecho.authoring.environment import Environment, RunRandom
from derecho.errors import StoreError
from derecho.journal import Event, TimerFired, WorkflowTaskScheduled
from derecho.replayer import JournalReader, LiveRun, RecordedTask
from derecho.stores import transactions, work
from derecho.stores.sqlite import SQLiteStore
from derecho.workers import workflow as workflow_worker
from derecho.workers.workflow import WorkflowWorker
from tests.laws.lives import Handle

Put = Callable[[Any, str, Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A bug, the law that finds it, and shapes that show it."""

    law: str
    shapes: tuple[str, ...]
    plant: Callable[[Put], None]


PLANTS: Final[dict[str, Plant]] = {}


def plant(law: str, *shapes: str) -> Callable[[Callable[[Put], None]], Callable[[Put], None]]:
    """Enter the decorated function into the table, under its name."""

    def enter(put: Callable[[Put], None]) -> Callable[[Put], None]:
        PLANTS[put.__name__] = Plant(law=law, shapes=shapes, plant=put)
        return put

    return enter


# --- what replay is shown (R1, R2) ----------------------------------------------------------------------------------


def _showing(shows: Callable[[RecordedTask, Event], bool]) -> Any:
    """Return a `JournalReader._shown` that shows a task whatever `shows` says of the events unseen so far."""

    def shown(self: JournalReader, task: RecordedTask) -> RecordedTask:
        task.visible = [event for event in self.unseen if shows(task, event)]
        self.unseen[:] = [event for event in self.unseen if not shows(task, event)]
        self.visible_through = task.started.visible_through
        return task

    return shown


@plant("R1", "get_timeout_both_ways", "try_receive_loops", "signals_before_and_during")
def every_event_is_visible_at_once(put: Put) -> None:
    """One boundary for the whole journal (B15)."""

    def tasks(self: JournalReader, tasks: Any = JournalReader.tasks) -> Any:
        recorded = list(tasks(self))
        every = [event for task in recorded for event in task.visible]
        for task in recorded:
            task.visible, every = every, []
        return iter(recorded)

    put(JournalReader, "tasks", tasks)


@plant("R1", "unseen_while_it_runs", "signals_while_it_runs")
def what_came_while_it_ran_is_visible(put: Put) -> None:
    """`visible_through` ignored: a task sees all that stands before it in the journal."""
    put(JournalReader, "_shown", _showing(lambda task, event: event.id < task.started.id))


@plant("R1", "fire_loses_to_cancel")
def a_fire_is_visible_to_the_task_that_cancels(put: Put) -> None:
    """Live it lost to the cancellation, on replay it comes first (B19)."""

    def shows(task: RecordedTask, event: Event) -> bool:
        limit = task.started.id if isinstance(event, TimerFired) else task.started.visible_through
        return event.id <= limit

    put(JournalReader, "_shown", _showing(shows))


@plant("R1", "undecodable_signals")
def recorded_skips_are_forgotten(put: Put) -> None:
    def replay(self: LiveRun, task: RecordedTask, replay: Any = LiveRun.replay) -> None:
        task.skipped = frozenset()
        replay(self, task)

    put(LiveRun, "replay", replay)


@plant("R1", "sequence", "by_completion")
def workflow_time_is_that_of_the_last_task(put: Put) -> None:
    """now() tells earlier code the time of the current task (B16)."""

    def tasks(self: JournalReader, tasks: Any = JournalReader.tasks) -> Any:
        recorded = list(tasks(self))
        for task in recorded:
            task.started = recorded[-1].started
        return iter(recorded)

    put(JournalReader, "tasks", tasks)


@plant("R2", "sequence", "by_completion", "select_both_ways")
def workflow_time_of_replay_is_zero(put: Put) -> None:
    """Finished journals hide it where only the last task shows the time; a cut does not."""

    def replay(self: LiveRun, task: RecordedTask, advance: Any = LiveRun._advance) -> None:
        advance(self, task.visible, 0, task)

    put(LiveRun, "replay", replay)


@plant("R1", "side_effects")
def side_effects_are_executed_again(put: Put) -> None:
    fresh = itertools.count(100)

    def value(self: Environment, *recorded: Any) -> Any:
        return next(fresh) if self.scheduler.replaying else original(self, *recorded)

    original = Environment.side_effect_value
    put(Environment, "side_effect_value", value)


@plant("R2", "chance", "chance_in_fibers")
def chance_begins_again_after_replay(put: Put) -> None:
    """What was drawn before the cut is drawn again after it."""

    def run_random(self: Environment, run_random: Any = Environment.run_random) -> RunRandom:
        if not self.scheduler.replaying:
            self.random = None
        return run_random(self)

    put(Environment, "run_random", run_random)


@plant("R2", "signal_iteration", "closing_refused", "cancel_then_signal")
def unseen_events_are_dropped(put: Put) -> None:
    """A cold run loses what arrived and was not seen yet (B1)."""

    def tasks(self: JournalReader, tasks: Any = JournalReader.tasks) -> Any:
        yield from tasks(self)
        del self.unseen[1:]

    put(JournalReader, "tasks", tasks)


@plant("R2", "burst_among_fibers", "signals_before_and_during", "select_among_channels", "signal_then_cancel")
def live_applies_a_batch_backwards(put: Put) -> None:
    """Replay goes by event id, the live run by another order."""

    def advance(
        self: LiveRun, visible: Sequence[Event], time_ns: int, task: Any, advance: Any = LiveRun._advance
    ) -> Any:
        if task is None and len(visible) > 1 and visible[0].id != 1:
            visible = visible[::-1]
        return advance(self, visible, time_ns, task)

    put(LiveRun, "_advance", advance)


# --- another process (R3) -------------------------------------------------------------------------------------------


@plant("R3", "burst_among_fibers", "select_among_channels", "signals_before_and_during")
def a_batch_is_a_set(put: Put) -> None:
    """Events of a batch are applied in the order of a hash: the same all through one process, and in no other."""

    def advance(
        self: LiveRun, visible: Sequence[Event], time_ns: int, task: Any, advance: Any = LiveRun._advance
    ) -> Any:
        if visible and visible[0].id != 1:
            visible = sorted(visible, key=lambda event: hash(f"{event.id}"))
        return advance(self, visible, time_ns, task)

    put(LiveRun, "_advance", advance)


@plant("R3", "chance")
def chance_is_seeded_by_a_hash(put: Put) -> None:
    def init(self: RunRandom, seed: str, init: Any = RunRandom.__init__) -> None:
        init(self, str(hash(seed)))

    put(RunRandom, "__init__", init)


# --- crashes and errors (R4) ----------------------------------------------------------------------------------------


def _tears(put: Put, call: str, half: Callable[[Any, Any], None]) -> None:
    """Make one call of the store two transactions: a fault before it finds the first of them done."""

    def tear(self: Handle, name: str, args: tuple[Any, ...]) -> None:
        if name == call:
            self.inner._transact(lambda tx: half(tx, args[0]), durable=False)

    put(Handle, "tear", tear)


@plant("R4", "sequence", "fire_wins_over_cancel")
def timers_are_deleted_before_they_fire(put: Put) -> None:
    """A crash between the two loses the timer (B7)."""

    def half(tx: Any, limit: int) -> None:
        for timer in tx.due_timers(limit):
            tx.delete_timer(timer.run_id, timer.scheduled_id)

    _tears(put, "fire_timers", half)


@plant("R4", "sequence", "fan_out")
def a_commit_is_two_writes(put: Put) -> None:
    """The journal first, then the work that follows from it: a crash between them loses the work (B9)."""

    def half(tx: Any, commits: Sequence[Any]) -> None:
        for commit in commits:
            with monkeypatched(transactions, "_write_work", lambda *_: None):
                transactions.commit_task(tx, commit)

    _tears(put, "commit_tasks", half)


@plant("R4", "sequence", "by_completion")
def activities_are_deleted_before_their_outcome(put: Put) -> None:
    """A crash between the two loses the activity (B8)."""

    def half(tx: Any, attempt: Any) -> None:
        row = tx.activity(attempt.run_id, attempt.scheduled_id)
        if row is not None:
            tx.delete_activity(row)

    _tears(put, "finish_activity", half)


@plant("R4", "sequence", "fan_out")
def an_outcome_is_delivered_twice(put: Put) -> None:
    """The activity stays although its outcome is recorded: what is offered again is taken again (B29)."""

    def record(tx: Any, row: Any, outcome: Any, *, began: bool = True, record: Any = work._record) -> None:
        record(tx, row, outcome, began=began)
        tx.insert_activities([row])

    put(work, "_record", record)


@plant("R4", "signals_before_and_during", "selects_in_a_loop", "try_receive_loops")
def request_ids_are_forgotten(put: Put) -> None:
    """A signal that a client sends again because it got no answer comes twice (B55)."""
    numbers = itertools.count()

    def signal(tx: Any, workflow_id: str, run_id: str, name: str, payload: bytes, request_id: str) -> str:
        return original(tx, workflow_id, run_id, name, payload, f"{request_id}-{next(numbers)}")

    original = transactions.signal
    put(transactions, "signal", signal)


@plant("R4", "try_receive_loops", "signals_before_and_during", "wait_for_fibers")
def a_run_survives_its_failed_commit(put: Put) -> None:
    """A live run whose last task was not committed is used again."""

    def commit(self: WorkflowWorker, tasks: list[Any], commit: Any = WorkflowWorker._commit) -> None:
        with monkeypatched(workflow_worker, "_close_all", lambda tasks: None):
            try:
                commit(self, tasks)
            except StoreError:
                for task in tasks:
                    self.cache.put(task.live)
                raise
            except BaseException:
                for task in tasks:
                    task.live.close()
                raise

    put(WorkflowWorker, "_commit", commit)


@plant("R4", "sequence", "nested_fibers")
def commits_are_not_fenced(put: Put) -> None:
    """A process that stood still commits its task although another has done it (B5)."""

    def commit_task(tx: Any, commit: Any, commit_task: Any = transactions.commit_task) -> Any:
        row = tx.run(commit.run_id)
        if row.commit_no != commit.commit_no:
            # It would not even trip over the assertions that a journal makes of every task.
            commit.task.visible_through = row.visible_through
            if not row.task_scheduled_id:
                row.last_event_id += 1
                row.task_scheduled_id = row.last_event_id
                tx.append(row.run_id, [WorkflowTaskScheduled(id=row.last_event_id)], is_task=False)
                tx.save_run(row)
        return commit_task(tx, replace(commit, token=row.token, commit_no=row.commit_no))

    put(transactions, "commit_task", commit_task)


@plant("R4", "sequence", "select_both_ways")
def a_cached_run_is_never_out_of_date(put: Put) -> None:
    """A live run is used although another process has done tasks of it since."""

    def bring_up(self: WorkflowWorker, definition: Any, row: Any, live: Any) -> Any:
        if live is not None:
            live.commit_no = row.commit_no
        return original(self, definition, row, live)

    original = WorkflowWorker._bring_up
    put(WorkflowWorker, "_bring_up", bring_up)


@plant("R4", "closing_refused")
def the_end_is_never_refused(put: Put) -> None:
    """A run ends although a signal came that it did not see (B53)."""
    put(transactions, "refuses_close", lambda head, task: False)


# --- stores and caches (R5) -----------------------------------------------------------------------------------------


@plant("R5", "sequence", "by_completion")
def a_cold_run_knows_no_time(put: Put) -> None:
    """The workflow time is that of the live task, and lost on replay."""

    def replay(self: LiveRun, task: RecordedTask) -> None:
        self._advance(task.visible, 0, task)

    put(LiveRun, "replay", replay)


@plant("R5", "burst_among_fibers", "signal_iteration")
def one_store_gives_events_in_another_order(put: Put) -> None:
    def load_events(
        self: SQLiteStore, run_id: str, after_id: int = 0, *, external_only: bool = False
    ) -> list[Event]:
        events = original(self, run_id, after_id, external_only=external_only)
        return events[::-1] if external_only else events

    original = SQLiteStore.load_events
    put(SQLiteStore, "load_events", load_events)


@contextmanager
def monkeypatched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute for a while."""
    former = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, former)
