"""The store in an SQLite file: for one machine, any number of processes.

Writing goes through `derecho.stores._writer`, one thread and one connection for each file; reading through
connections of its own. Any thread may call; what one call has acknowledged, every later read sees.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from derecho.clock import Clock
from derecho.errors import JournalError, StoreError
from derecho.journal.codec import decode_row
from derecho.journal.events import Event, WorkflowTaskScheduled
from derecho.stores._rows import Columns, run_from
from derecho.stores._sqlite_sharing import let_go, share_file
from derecho.stores._sqlite_tx import QUERIES
from derecho.stores.base import LIST_LIMIT_MAX, Due, RunFilter, RunPage, RunRow
from derecho.stores.shared import SharedStore, Verb

# Longer reads are cut into pieces: no read transaction may last, the log cannot be reused under it.
_JOURNAL_ROWS_MAX: Final = 2000
_WINDOW: Final = 10_000
_NEWEST: Final = (2**63 - 1, "")
_OLDEST: Final = (-1, "")


class SQLiteStore(SharedStore):
    """Runs, journals and work in an SQLite file.

    Several stores, also in several processes, may use one file. After a fork the child opens its own.

    Args:
        path: of the file; made, for its owner alone, if it is not there. Not on a network file system.
        durability: "full": what was acknowledged survives power loss. "normal": it survives any crash of the
            program, but the last moments before a power loss may be lost; faster by the time of a disk sync.
        clock: for tests; all stores of a file must have the same.
        new_id: for tests; makes run ids.

    Raises:
        StoreError: the file cannot be used; the message says why and what to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal"] = "full",
        clock: Clock | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        if durability not in ("full", "normal"):
            raise ValueError(f"durability must be 'full' or 'normal', not {durability!r}")
        super().__init__(clock, new_id)
        self._path = os.path.abspath(path) if os.fspath(path) not in ("", ":memory:") else os.fspath(path)
        self._full = durability == "full"
        self._pid = os.getpid()
        self._closed = False
        self._file = share_file(self._path, self.bell)

    def close(self) -> None:
        """Finish what is being written, let go of the file and wake who waits; a second call does nothing."""
        self._check_process()
        if not self._closed:
            self._closed = True
            let_go(self._file, self.bell)
            self.bell.ring(self.bell.watched())

    # Reading.

    def find_run(self, workflow_id: str, run_id: str = "") -> RunRow | None:
        """Return a run, or the newest of the workflow id."""
        rows = (
            self._read("run", run_id=run_id) if run_id else self._read("newest_run", workflow_id=workflow_id)
        )
        found = [run_from(columns) for columns in rows]
        return found[0] if found and found[0].workflow_id == workflow_id else None

    def list_runs(self, which: RunFilter, limit: int, after: tuple[int, str] | None) -> RunPage:
        """Return a page of matching runs, newest first; pages are not a snapshot of one moment."""
        limit = min(limit, LIST_LIMIT_MAX)
        # One more than asked for tells whether there is a next page.
        if which.workflow_id is not None:
            found = self._runs_of_workflow(which, after)[: limit + 1]
        elif which == RunFilter():
            started_at_ns, run_id = after or _NEWEST
            found = self._read("list_runs", started_at_ns=started_at_ns, run_id=run_id, limit=limit + 1)
        else:
            found = []
            begin = after or _NEWEST
            while begin != _OLDEST and len(found) <= limit:
                rows, begin = self._window(which, begin, "list_matching", limit=limit + 1 - len(found))
                found += rows
        runs = [run_from(columns) for columns in found[:limit]]
        more = len(found) > limit and runs
        return RunPage(runs=runs, next_after=(runs[-1].started_at_ns, runs[-1].run_id) if more else None)

    def count_runs(self, which: RunFilter) -> int:
        """Return how many runs match; not a snapshot of one moment when there are many."""
        if which.workflow_id is not None:
            return len(self._runs_of_workflow(which, None))
        if which == RunFilter():
            [[count]] = self._read("count_all")
            return int(count)
        total = 0
        begin = _NEWEST
        while begin != _OLDEST:
            [[count]], begin = self._window(which, begin, "count_matching")
            total += count
        return total

    def load_events(self, run_id: str, after_id: int = 0, *, external_only: bool = False) -> list[Event]:
        """Return a run's events after one of them, in order; nothing for an unknown run.

        Args:
            external_only: leave out what workflow tasks wrote, which a live run knows already, and every
                WorkflowTaskScheduled, which tells it nothing.

        Raises:
            JournalError: the stored journal has a gap; nothing of this library makes one.
        """
        query = "journal_external" if external_only else "journal"
        events: list[Event] = []
        last_read = after_id
        while True:
            rows = self._read(query, run_id=run_id, after_id=last_read, limit=_JOURNAL_ROWS_MAX)
            for first_id, last_id, body in rows:
                found = decode_row(body)
                if external_only:
                    found = [event for event in found if type(event) is not WorkflowTaskScheduled]
                if first_id > last_read + 1 and not external_only:
                    raise JournalError(f"run {run_id}: events {last_read + 1} to {first_id - 1} are missing")
                events += (
                    found if first_id > last_read else [event for event in found if event.id > last_read]
                )
                last_read = last_id
            if len(rows) < _JOURNAL_ROWS_MAX:
                return events

    def next_due(self, worker_id: str) -> Due:
        """Return the next moment at which each kind of work may exist."""
        [moments] = self._read("next_due", now_ns=self.now_ns(), worker_id=worker_id)
        ready_ns, sticky_ns, lease_ns, timer_ns, due_ns, cancel_ns = moments
        waiting_ns = [first_ns for _, first_ns in self._read("waiting_names")]
        return Due(
            runs_ns=_first(ready_ns, sticky_ns, lease_ns),
            activities_ns=_first(*waiting_ns),
            timers_ns=_first(timer_ns),
            timeouts_ns=_first(due_ns, cancel_ns),
        )

    def _runs_of_workflow(self, which: RunFilter, after: tuple[int, str] | None) -> list[Columns]:
        """Return the matching runs of one workflow id, newest first; they are few, so no index is kept."""
        begin = after or _NEWEST
        found = []
        for columns in self._read("runs_of_workflow", workflow_id=which.workflow_id):
            row = run_from(columns)
            fits = which.workflow_type in (None, row.workflow_type) and which.status in (None, row.status)
            if fits and (row.started_at_ns, row.run_id) < begin:
                found.append(columns)
        return sorted(found, key=_by_start, reverse=True)

    def _window(
        self, which: RunFilter, begin: tuple[int, str], query: str, **more: Any
    ) -> tuple[list[Any], tuple[int, str]]:
        """Run a filtered query over the next part of the listing; return its rows and the part's end."""
        started_at_ns, run_id = begin
        ends = self._read("window", started_at_ns=started_at_ns, run_id=run_id, offset=_WINDOW - 1)
        until = ends[0] if ends else _OLDEST
        rows = self._read(
            query,
            started_at_ns=started_at_ns,
            run_id=run_id,
            until_ns=until[0],
            until_id=until[1],
            any_type=which.workflow_type is None,
            workflow_type=which.workflow_type or "",
            any_status=which.status is None,
            status=0 if which.status is None else which.status.value,
            **more,
        )
        return rows, until

    def _read(self, name: str, **args: Any) -> list[Any]:
        self._check_usable()
        query = QUERIES[name]
        return self._file.read(query.text, query.args(**args))

    # Writing.

    def _transact_all(self, verbs: Sequence[Verb[Any]], *, durable: bool) -> list[Any]:
        self._check_usable()
        return self._file.writer.ask(verbs, self._clock, sync=durable and self._full)

    def _check_usable(self) -> None:
        self._check_process()
        if self._closed:
            raise StoreError(f"{self._path}: this store is closed; open a new SQLiteStore")

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError(
                f"{self._path}: this store was opened in process {self._pid} and is not for others. "
                "After a fork, open a new SQLiteStore in the child"
            )


def _by_start(columns: Columns) -> tuple[int, str]:
    return columns[5], columns[1]


def _first(*moments_ns: int | None) -> int:
    return min((moment_ns for moment_ns in moments_ns if moment_ns), default=0)
