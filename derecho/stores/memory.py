"""A store in the memory of one process: for tests, for trying things out, and as the model of the others.

Every verb is the one of `derecho.stores.transactions` and `derecho.stores.work`; `derecho.stores._memory_tx`
holds the rows. One lock, held for one group of verbs. Claims, reads and commits cost the same with 30,000
runs as with 200; only a listing, or a count by workflow id, walks, and only over what it lists.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from derecho.clock import Clock
from derecho.errors import StoreError
from derecho.journal.events import Event, WorkflowTaskScheduled
from derecho.stores._agenda import Agenda
from derecho.stores._copies import copy_of_activity, copy_of_run
from derecho.stores._memory_tx import Life, Tables
from derecho.stores.base import LIST_LIMIT_MAX, ActivityRow, Claim, Due, RunFilter, RunPage, RunRow
from derecho.stores.shared import SharedStore, Verb

__all__ = ["MemoryStore"]

# A listing looks at so many runs under the lock; if too few match, the page is short and says where to go on.
LIST_WINDOW_MAX: Final = 10_000


class MemoryStore(SharedStore):
    """Keep everything in memory; all is gone with the process.

    Args:
        clock: the store's clock; the machine's if None.
        new_id: makes run ids; time-ordered ones if None.
    """

    def __init__(self, clock: Clock | None = None, new_id: Callable[[], str] | None = None) -> None:
        super().__init__(clock, new_id)
        self._lock = threading.Lock()
        self._tables = Tables()
        self._closed = False

    def _transact_all(self, verbs: Sequence[Verb[Any]], *, durable: bool) -> list[Any]:
        del durable  # Nothing here outlives the process.
        answers: list[Any] = []
        rung: list[str] = []
        try:
            with self._lock:
                tables = self._opened()
                tables.now_ns = self._clock.now_ns()
                tables.rung = rung
                answers.extend([_all_or_nothing(tables, verb) for verb in verbs])
        finally:
            # The lock is released: whoever wakes finds the store free. Also if a later verb was interrupted.
            if rung:
                self.bell.ring(dict.fromkeys(rung))
        return answers

    def _opened(self) -> Tables:
        if self._closed:
            raise StoreError(
                "this MemoryStore is closed; make a new one, or close it after its engine has stopped"
            )
        return self._tables

    # Nobody outside shares a row with the store. Saved rows never change, so the copies need no lock.

    def claim_runs(
        self,
        worker_id: str,
        names: Collection[str] | None,
        limit: int,
        lease_ns: int,
        passed_over: Collection[str] = (),
    ) -> list[Claim]:
        claims = super().claim_runs(worker_id, names, limit, lease_ns, passed_over)
        return [Claim(run=copy_of_run(claim.run), now_ns=claim.now_ns) for claim in claims]

    def claim_activities(
        self, worker_id: str, names: Collection[str] | None, limit: int, lease_ns: int
    ) -> list[ActivityRow]:
        rows = super().claim_activities(worker_id, names, limit, lease_ns)
        return [copy_of_activity(row) for row in rows]

    # Reads.

    def find_run(self, workflow_id: str, run_id: str = "") -> RunRow | None:
        """Return the newest run of a workflow id, or the named one if it is of this id."""
        with self._lock:
            tables = self._opened()
            life = tables.lives.get(run_id) if run_id else tables.newest.get(workflow_id)
            return copy_of_run(life.row) if life is not None and life.row.workflow_id == workflow_id else None

    def list_runs(self, which: RunFilter, limit: int, after: tuple[int, str] | None) -> RunPage:
        """Return runs from the newest on by (started_at_ns, run_id), both falling; a page may be short."""
        with self._lock:
            tables = self._opened()
            keys = tables.listed
            if which.workflow_id is not None:
                keys = sorted(
                    (life.row.started_at_ns, life.row.run_id) for life in tables.chain(which.workflow_id)
                )
            end = len(keys) if after is None else bisect_left(keys, after)
            page = RunPage()
            for place in range(end - 1, max(end - LIST_WINDOW_MAX, 0) - 1, -1):
                life = tables.lives[keys[place][1]]
                if _matches(life, which):
                    page.runs.append(copy_of_run(life.row))
                    if len(page.runs) >= min(limit, LIST_LIMIT_MAX):
                        break
            else:
                place = max(end - LIST_WINDOW_MAX, 0)
            return RunPage(runs=page.runs, next_after=keys[place] if 0 < place < end else None)

    def count_runs(self, which: RunFilter) -> int:
        """Return how many runs match."""
        with self._lock:
            tables = self._opened()
            if which.workflow_id is not None:
                return sum(_matches(life, which) for life in tables.chain(which.workflow_id))
            return sum(
                number
                for (workflow_type, status), number in tables.counts.items()
                if which.workflow_type in (None, workflow_type) and which.status in (None, status)
            )

    def load_events(self, run_id: str, after_id: int = 0, *, external_only: bool = False) -> list[Event]:
        """Return a journal from an event on; nothing for an unknown run.

        Args:
            external_only: leave out what workflow tasks wrote, which a live run knows already, and every
                WorkflowTaskScheduled, which tells it nothing.
        """
        with self._lock:
            life = self._opened().lives.get(run_id)
            if life is None:
                return []
            events = life.journal[after_id:]
            if external_only:
                marked = zip(events, life.by_task[after_id:], strict=True)
                events = [e for e, by_task in marked if not by_task and type(e) is not WorkflowTaskScheduled]
            return events

    def next_due(self, worker_id: str) -> Due:
        """Return the next moment of each kind of work; a moment that has passed means work that waits now."""
        with self._lock:
            tables = self._opened()
            agendas = [tables.leases]
            for owner in dict.fromkeys(("", worker_id)):
                agendas += tables.ready.get(owner, {}).values()
            agendas += [agenda for owner, agenda in tables.preferences.items() if owner != worker_id]
            return Due(
                runs_ns=_first_ns(*agendas),
                activities_ns=_first_ns(*tables.waiting.values()),
                timers_ns=_first_ns(tables.timers),
                timeouts_ns=_first_ns(tables.limits, tables.cancels),
            )

    def close(self) -> None:
        """Refuse all further calls and wake who waits."""
        with self._lock:
            self._closed = True
        self.bell.ring(self.bell.watched())


def _all_or_nothing(tables: Tables, verb: Verb[Any]) -> Any:
    """Run one verb; if it raises, it leaves no trace. What is no Exception is no answer, and goes on."""
    rung = len(tables.rung)
    tables.begin()
    try:
        return verb(tables)
    except BaseException as error:
        tables.take_back()
        del tables.rung[rung:]
        if not isinstance(error, Exception):
            raise
        return error


def _matches(life: Life, which: RunFilter) -> bool:
    return which.workflow_type in (None, life.row.workflow_type) and which.status in (None, life.row.status)


def _first_ns(*agendas: Agenda[Any]) -> int:
    fronts = [front[0] for agenda in agendas if (front := agenda.front()) is not None]
    return min(fronts, default=0)
