"""The rows and indexes of the memory store, and the `Tx` over them; `derecho.stores.memory` holds the lock.

Rows
    A row that was saved is never changed again: a verb changes its own copy and saves that. So copying a
    saved row needs no lock, and taking a change back means putting the old row in its place.
All or nothing
    Each write leaves a note of how it is taken back; a verb that raises is undone from its notes, newest
    first. A verb that is refused before its first write has left no notes, and pays nothing.
Order
    Equal moments go by age (timers: by run and number), so that the same calls give the same journals.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import count
from typing import Any, Final, TypeVar

from derecho.journal.commit import WorkflowStatus
from derecho.journal.events import Event
from derecho.stores._agenda import Agenda, put_back, take_due
from derecho.stores._copies import copy_of_activity, copy_of_run
from derecho.stores.base import ActivityRow, RunRow, TimerRow

T = TypeVar("T")

_OPEN_MAX: Final = WorkflowStatus.CANCELLING


class Work:
    """An activity and its age."""

    __slots__ = ("row", "seq")

    def __init__(self, seq: int, row: ActivityRow) -> None:
        self.seq = seq
        self.row = row


class Life:
    """A run and all that belongs to it.

    Attributes:
        seq: its age.
        older: the run before it with the same workflow id.
        status: the one that it is counted under.
        queue: where it waits to be claimed, if it does.
        release: where it waits for a lease, or for the preference of a worker, to run out.
        by_task: for each event, whether a workflow task wrote it.
    """

    __slots__ = (
        "activities",
        "by_task",
        "journal",
        "older",
        "queue",
        "release",
        "row",
        "seq",
        "status",
        "timers",
    )

    def __init__(self, seq: int, row: RunRow, older: Life | None) -> None:
        self.seq = seq
        self.row = row
        self.older = older
        self.status = row.status
        self.queue: Agenda[Life] | None = None
        self.release: Agenda[Life] | None = None
        self.journal: list[Event] = []
        self.by_task = bytearray()
        # Most runs have neither most of the time, and the collector feels two more containers for each.
        self.activities = _NO_ACTIVITIES
        self.timers = _NO_TIMERS


_NO_ACTIVITIES: Final[dict[int, Work]] = {}
_NO_TIMERS: Final[dict[int, TimerRow]] = {}


class Tables:
    """All rows and indexes, and the `Tx` over them."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.rung: list[str] = []
        self._undo: list[tuple[Callable[..., Any], Any, Any]] = []
        self._age = count(1)
        self.lives: dict[str, Life] = {}
        self.newest: dict[str, Life] = {}
        self.listed: list[tuple[int, str]] = []
        self.counts: dict[tuple[str, WorkflowStatus], int] = {}
        self._requests: dict[tuple[str, str, str], str] = {}
        # Ready runs by preferred worker ("" = none) and type; what a lease or that preference keeps from others.
        self.ready: dict[str, dict[str, Agenda[Life]]] = {}
        self.leases: Agenda[Life] = Agenda()
        self.preferences: dict[str, Agenda[Life]] = {}
        self.cancels: Agenda[Life] = Agenda()
        self.waiting: dict[str, Agenda[Work]] = {}
        self.limits: Agenda[Work] = Agenda()
        self.timers: Agenda[TimerRow] = Agenda()

    # All or nothing.

    def begin(self) -> None:
        self._undo.clear()

    def take_back(self) -> None:
        while self._undo:
            undo, first, second = self._undo.pop()
            undo(first, second)

    def ring(self, topic: str) -> None:
        self.rung.append(topic)

    # Runs.

    def run(self, run_id: str) -> RunRow | None:
        life = self.lives.get(run_id)
        return copy_of_run(life.row) if life is not None else None

    def open_run(self, workflow_id: str) -> RunRow | None:
        # A new run begins only when the last one is closed, so the open one is the newest.
        row = self.newest_run(workflow_id)
        return row if row is not None and row.status <= _OPEN_MAX else None

    def newest_run(self, workflow_id: str) -> RunRow | None:
        life = self.newest.get(workflow_id)
        return copy_of_run(life.row) if life is not None else None

    def insert_run(self, row: RunRow) -> None:
        life = Life(next(self._age), row, self.newest.get(row.workflow_id))
        self._undo.append((self._forget_run, life, None))
        self.lives[row.run_id] = self.newest[row.workflow_id] = life
        insort(self.listed, (row.started_at_ns, row.run_id))
        self._count(life, 1)
        self._place_run(life)

    def _forget_run(self, life: Life, _: None) -> None:
        row = life.row
        del self.lives[row.run_id], self.newest[row.workflow_id]
        if life.older is not None:
            self.newest[row.workflow_id] = life.older
        del self.listed[bisect_left(self.listed, (row.started_at_ns, row.run_id))]
        self._count(life, -1)
        _drop(life.queue, life)
        _drop(life.release, life)

    def save_run(self, row: RunRow) -> None:
        life = self.lives[row.run_id]
        self._undo.append((self._set_run, life, life.row))
        self._set_run(life, row)

    def _set_run(self, life: Life, row: RunRow) -> None:
        life.row = row
        if life.status is not row.status:
            self._count(life, -1)
            life.status = row.status
            self._count(life, 1)
        if row.cancel_deadline_ns:
            self.cancels.put(row.cancel_deadline_ns, life.seq, life)
        else:
            self.cancels.drop(life.seq)
        self._place_run(life)

    def _count(self, life: Life, change: int) -> None:
        kind = (life.row.workflow_type, life.status)
        self.counts[kind] = self.counts.get(kind, 0) + change

    def _place_run(self, life: Life) -> None:
        row = life.row
        queue = release = None
        until_ns = 0
        if row.last_external_id > row.visible_through and row.status <= _OPEN_MAX:
            if row.lease_until_ns > self.now_ns:
                release, until_ns = self.leases, row.lease_until_ns
            elif row.sticky_until_ns > self.now_ns:
                release, until_ns = _agenda(self.preferences, row.lease_owner), row.sticky_until_ns
                queue = self._queue(row.lease_owner, row.workflow_type)
            else:
                queue = self._queue("", row.workflow_type)
        if life.queue is not queue:
            _drop(life.queue, life)
            life.queue = queue
        if life.release is not release:
            _drop(life.release, life)
            life.release = release
        if queue is not None:
            queue.put(row.ready_at_ns, life.seq, life)
        if release is not None:
            release.put(until_ns, life.seq, life)

    def _queue(self, owner: str, workflow_type: str) -> Agenda[Life]:
        by_type = self.ready.get(owner)
        if by_type is None:
            by_type = self.ready[owner] = {}
        return _agenda(by_type, workflow_type)

    def chain(self, workflow_id: str) -> Iterable[Life]:
        """Return all runs of a workflow id, newest first."""
        life = self.newest.get(workflow_id)
        while life is not None:
            yield life
            life = life.older

    def ready_runs(
        self, worker_id: str, names: Collection[str] | None, limit: int, passed_over: Collection[str]
    ) -> list[RunRow]:
        self._let_go(self.leases)
        for owner, agenda in self.preferences.items():
            if owner != worker_id:  # Its own runs stay in its queue: it takes them from there.
                self._let_go(agenda)
        queues = [
            queue
            for owner in dict.fromkeys(("", worker_id))
            for queue in _named(self.ready.get(owner), names)
        ]
        skips = (lambda life: life.row.run_id in passed_over) if passed_over else None
        lives = [entry[2] for _, entry in take_due(queues, self.now_ns, limit, skips)]
        for life in lives:
            # Not back into the queue it came from: a preference may have run out since it was put there.
            self._place_run(life)
        return [copy_of_run(life.row) for life in lives]

    def _let_go(self, release: Agenda[Life]) -> None:
        while (front := release.front()) is not None and front[0] <= self.now_ns:
            release.pop()
            self._place_run(front[2])

    def cancels_due(self, limit: int) -> list[RunRow]:
        return [copy_of_run(life.row) for life in self._look([self.cancels], limit)]

    def _look(self, agendas: Iterable[Agenda[T]], limit: int) -> list[T]:
        """Return the first items whose moment has come; they stay where they are."""
        found = take_due(agendas, self.now_ns, limit)
        put_back(found)
        return [entry[2] for _, entry in found]

    # Journals and requests.

    def append(self, run_id: str, events: Sequence[Event], *, is_task: bool) -> None:
        life = self.lives[run_id]
        journal = life.journal
        known = len(journal)
        self._undo.append((_cut, life, known))
        journal.extend(events)
        life.by_task.extend(b"\1" * len(events) if is_task else bytes(len(events)))
        assert events[0].id == known + 1, f"run {run_id}: event {events[0].id} after event {known}"
        assert events[-1].id == len(journal), f"run {run_id}: event {events[-1].id} at place {len(journal)}"

    def request(self, workflow_id: str, operation: str, request_id: str) -> str | None:
        return self._requests.get((workflow_id, operation, request_id))

    def insert_request(self, workflow_id: str, operation: str, request_id: str, run_id: str) -> None:
        request = (workflow_id, operation, request_id)
        self._undo.append((self._requests.pop, request, None))
        self._requests[request] = run_id

    # Activities.

    def insert_activities(self, rows: Sequence[ActivityRow]) -> None:
        for row in rows:
            life = self.lives[row.run_id]
            if life.activities is _NO_ACTIVITIES:
                life.activities = {}
            self._add_work(life, Work(next(self._age), row))
            self._undo.append((self._remove_work, life, life.activities[row.scheduled_id]))

    def activity(self, run_id: str, scheduled_id: int) -> ActivityRow | None:
        life = self.lives.get(run_id)
        work = life.activities.get(scheduled_id) if life is not None else None
        return copy_of_activity(work.row) if work is not None else None

    def save_activity(self, row: ActivityRow) -> None:
        work = self.lives[row.run_id].activities[row.scheduled_id]
        self._undo.append((self._set_activity, work, work.row))
        self._set_activity(work, row)

    def delete_activity(self, row: ActivityRow) -> None:
        life = self.lives[row.run_id]
        work = life.activities[row.scheduled_id]
        self._undo.append((self._add_work, life, work))
        self._remove_work(life, work)

    def ready_activities(self, names: Collection[str] | None, limit: int) -> list[ActivityRow]:
        return [copy_of_activity(work.row) for work in self._look(_named(self.waiting, names), limit)]

    def due_activities(self, limit: int) -> list[ActivityRow]:
        return [copy_of_activity(work.row) for work in self._look([self.limits], limit)]

    def _set_activity(self, work: Work, row: ActivityRow) -> None:
        work.row = row
        agenda = _agenda(self.waiting, row.name)
        if row.claimed:
            agenda.drop(work.seq)
        else:
            agenda.put(row.not_before_ns, work.seq, work)
        if row.due_ns:
            self.limits.put(row.due_ns, work.seq, work)
        else:
            self.limits.drop(work.seq)

    def _add_work(self, life: Life, work: Work) -> None:
        life.activities[work.row.scheduled_id] = work
        self._set_activity(work, work.row)

    def _remove_work(self, life: Life, work: Work) -> None:
        del life.activities[work.row.scheduled_id]
        self.waiting[work.row.name].drop(work.seq)
        self.limits.drop(work.seq)

    # Timers.

    def insert_timers(self, rows: Sequence[TimerRow]) -> None:
        for row in rows:
            life = self.lives[row.run_id]
            if life.timers is _NO_TIMERS:
                life.timers = {}
            self._undo.append((self._remove_timer, life, row))
            self._add_timer(life, row)

    def due_timers(self, limit: int) -> list[TimerRow]:
        return self._look([self.timers], limit)

    def delete_timer(self, run_id: str, scheduled_id: int) -> bool:
        life = self.lives.get(run_id)
        row = life.timers.get(scheduled_id) if life is not None else None
        if life is None or row is None:
            return False
        self._undo.append((self._add_timer, life, row))
        self._remove_timer(life, row)
        return True

    def _add_timer(self, life: Life, row: TimerRow) -> None:
        life.timers[row.scheduled_id] = row
        self.timers.put(row.due_ns, (row.run_id, row.scheduled_id), row)

    def _remove_timer(self, life: Life, row: TimerRow) -> None:
        del life.timers[row.scheduled_id]
        self.timers.drop((row.run_id, row.scheduled_id))

    def delete_work(self, run_id: str) -> None:
        life = self.lives[run_id]
        for work in [*life.activities.values()]:
            self.delete_activity(work.row)
        for timer_id in [*life.timers]:
            self.delete_timer(run_id, timer_id)


def _agenda(agendas: dict[str, Agenda[T]], name: str) -> Agenda[T]:
    agenda = agendas.get(name)
    if agenda is None:
        agenda = agendas[name] = Agenda()
    return agenda


def _drop(agenda: Agenda[Life] | None, life: Life) -> None:
    if agenda is not None:
        agenda.drop(life.seq)


def _named(agendas: dict[str, Agenda[T]] | None, names: Collection[str] | None) -> Iterable[Agenda[T]]:
    if not agendas:
        return ()
    return agendas.values() if names is None else [agendas[name] for name in names if name in agendas]


def _cut(life: Life, length: int) -> None:
    del life.journal[length:], life.by_task[length:]
