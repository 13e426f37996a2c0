"""The workflow worker: claims ready runs, runs their workflow tasks, commits them as one group.

A batch is claimed, run and committed by one thread. A task that cannot be run (nondeterminism, undecodable input,
a livelock, the watchdog) persists nothing and is let go with its reason; this process then leaves the run out of
its claims for a growing while, and another process, with mended code, may claim it at once. A live run is kept only
if its last task was committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from derecho.errors import DerechoError
from derecho.journal.commit import TaskDraft
from derecho.registry import claimable_names
from derecho.replayer import LiveRun, RunSettings, open_run
from derecho.stores.base import Claim, CommitOutcome, Committed, RunRow, Store, TaskCommit
from derecho.stores.bell import RUNS, Bell
from derecho.workers.cache import RunCache
from derecho.workers.loop import IDLE_MAX_S

CLAIM_MAX: Final = 64
_BACKOFF_FIRST_NS: Final = 1_000_000_000
_BACKOFF_MAX_NS: Final = 60_000_000_000

log = logging.getLogger("derecho.worker.workflow")


class Leases(Protocol):
    """Keeps the leases of runs in flight alive while they wait for their turn."""

    def hold_run(self, run_id: str, token: int) -> None: ...
    def drop_run(self, run_id: str, token: int) -> None: ...


@dataclass(slots=True)
class _Task:
    """A workflow task in flight."""

    claim: Claim
    live: LiveRun
    draft: TaskDraft


class WorkflowWorker:
    """Does workflow tasks, on the one thread that calls `process`."""

    topic = RUNS

    def __init__(
        self,
        store: Store,
        resolver: Any,
        *,
        worker_id: str,
        settings: RunSettings,
        cache_size: int,
        lease_ns: int,
        leases: Leases | None = None,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._settings = settings
        self._worker_id = worker_id
        self._lease_ns = lease_ns
        self._leases = leases
        self.backoff = Backoff(store.now_ns)
        self.cache = RunCache(cache_size)
        # Read by the watchdog, from its own thread: what is being executed, and which claims hang on it.
        self.executing: LiveRun | None = None
        self.in_flight: dict[str, int] = {}
        self.abandoned = False

    @property
    def bell(self) -> Bell:
        return self._store.bell

    def idle_s(self) -> float:
        """Return the seconds until a run may become claimable without a ring: a lease or a back-off ends."""
        due_ns = [
            moment
            for moment in (self._store.next_due(self._worker_id).runs_ns, self.backoff.next_ns())
            if moment
        ]
        return (min(due_ns) - self._store.now_ns()) / 1e9 if due_ns else IDLE_MAX_S

    @property
    def backed_off_until_ns(self) -> int:
        """When the first run that failed here may be tried again; 0 = there is none."""
        return self.backoff.next_ns()

    def process(self) -> int:
        """Claim a batch of ready runs, run their tasks and commit them; return how many were claimed."""
        claims = self._store.claim_runs(
            self._worker_id,
            claimable_names(self._resolver, "workflow"),
            CLAIM_MAX,
            self._lease_ns,
            self.backoff.held(),
        )
        self._hold(claims)
        try:
            tasks = self._attempt_all(claims)
            if tasks and not self.abandoned:
                self._commit(tasks)
            else:
                _close_all(tasks)
        finally:
            self._drop(claims)
        return len(claims)

    def close(self) -> None:
        """Evict all live runs. Call it on the thread that ran them."""
        self.cache.clear()

    # --- one task

    def _attempt_all(self, claims: Sequence[Claim]) -> list[_Task]:
        tasks: list[_Task] = []
        try:
            for claim in claims:
                task = self._attempt(claim)
                if task is not None:
                    tasks.append(task)
        except BaseException:
            # The store fails, or Ctrl-C: the fibers of those that ran already must not stay behind.
            _close_all(tasks)
            raise
        return tasks

    def _attempt(self, claim: Claim) -> _Task | None:
        """Run one task; None if it could not be run, which is then recorded and backed off."""
        row = claim.run
        if self.abandoned:
            return None
        definition = self._resolve(row.workflow_type)
        if definition is None:
            self._store.release_runs([(row.run_id, row.token)])
            self.backoff.fail(row.run_id, row.attempt + 1)
            return None
        live = self.cache.take(row.run_id)
        try:
            live, visible = self._bring_up(definition, row, live)
            self.executing = live
            draft = live.run_task(visible, claim.now_ns, self._worker_id)
        except Exception as error:  # Whatever it is, it is this run's trouble and nobody else's (G6).
            if live is not None:
                live.close()
            self._block(row, error)
            return None
        except BaseException:
            # Ctrl-C in hand-driven workflow code: nothing of the task may be left, and the caller must see it.
            if live is not None:
                live.close()
            self._store.release_runs([(row.run_id, row.token)])
            raise
        finally:
            self.executing = None
        return _Task(claim, live, draft)

    def _resolve(self, name: str) -> Any | None:
        try:
            return self._resolver.resolve_workflow(name)
        except Exception:  # User code: as if it did not know the name.
            log.exception("the resolver failed on workflow %r", name)
            return None

    def _bring_up(self, definition: Any, row: RunRow, live: LiveRun | None) -> tuple[LiveRun, Sequence[Any]]:
        """Return the live run of a claimed row and what its next task is to be shown: cached, or replayed."""
        if live is not None:
            if live.commit_no == row.commit_no:
                return live, self._store.load_events(row.run_id, live.visible_through, external_only=True)
            live.close()
        events = self._store.load_events(row.run_id)
        live, visible = open_run(definition, events, self._settings, self._watched)
        live.commit_no = row.commit_no
        live.task_time_ns = max(live.task_time_ns, row.workflow_time_ns)
        return live, visible

    def _watched(self, live: LiveRun) -> None:
        self.executing = live

    def _block(self, row: RunRow, error: Exception) -> None:
        if self.abandoned:
            return
        reason = f"{type(error).__name__}: {error}"
        trace = None if isinstance(error, DerechoError) else error
        log.error(
            "workflow %r (run %s) cannot go on: %s",
            row.workflow_id,
            row.run_id,
            reason,
            exc_info=trace,
            extra=_ids(row),
        )
        self._store.fail_task(row.run_id, row.token, reason)
        self.backoff.fail(row.run_id, row.attempt + 1)

    # --- the commit of a batch

    def _commit(self, tasks: list[_Task]) -> None:
        commits = [
            TaskCommit(
                run_id=task.claim.run.run_id,
                token=task.claim.run.token,
                commit_no=task.claim.run.commit_no,
                task=task.draft,
                stuck_reason=task.live.stuck_reason,
            )
            for task in tasks
        ]
        try:
            answers: Sequence[Committed | Exception] = self._store.commit_tasks(commits)
        except BaseException:
            # Whether anything was written is unknown: what is in memory is worth nothing now.
            _close_all(tasks)
            raise
        settled = 0
        try:
            for task, answer in zip(tasks, answers, strict=True):
                self._settle(task, answer)
                settled += 1
        except BaseException:
            _close_all(tasks[settled:])
            raise

    def _settle(self, task: _Task, answer: Committed | Exception) -> None:
        row, live = task.claim.run, task.live
        if isinstance(answer, Committed) and answer.outcome is CommitOutcome.DONE:
            self.backoff.clear(row.run_id)
            live.committed(task.draft, answer.command_ids, answer.commit_no)
            if live.stuck_reason:
                log.warning("workflow %r is stuck: %s", row.workflow_id, live.stuck_reason, extra=_ids(row))
            if task.draft.terminal is None:
                self.cache.put(live)
                return
            unread = live.unread_signals
            if unread:
                log.warning(
                    "workflow %r ended with %d unread signals", row.workflow_id, unread, extra=_ids(row)
                )
        elif isinstance(answer, Exception):
            live.close()
            self._block(row, answer)
            return
        else:
            log.info("workflow task of %r was %s", row.workflow_id, answer.outcome.value, extra=_ids(row))
        live.close()

    # --- leases

    def _hold(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.in_flight[claim.run.run_id] = claim.run.token
            if self._leases is not None:
                self._leases.hold_run(claim.run.run_id, claim.run.token)

    def _drop(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.in_flight.pop(claim.run.run_id, None)
            if self._leases is not None:
                self._leases.drop_run(claim.run.run_id, claim.run.token)


class Backoff:
    """Which runs this process leaves alone until when, because their task just failed here."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._until: dict[str, int] = {}

    def fail(self, run_id: str, attempt: int) -> None:
        """Leave a run alone for 1 s, doubled with every attempt up to 60 s."""
        delay_ns = min(_BACKOFF_FIRST_NS << min(attempt - 1, 6), _BACKOFF_MAX_NS)
        self._until[run_id] = self._now_ns() + delay_ns

    def clear(self, run_id: str) -> None:
        """Forget a run: it goes on."""
        self._until.pop(run_id, None)

    def held(self) -> Collection[str]:
        """Return the runs to leave alone now."""
        if not self._until:
            return ()
        now_ns = self._now_ns()
        self._until = {run_id: until for run_id, until in self._until.items() if until > now_ns}
        return self._until.keys()

    def next_ns(self) -> int:
        """Return when the first of them may be tried again; 0 = there is none."""
        return min(self._until.values(), default=0)


def _close_all(tasks: Sequence[_Task]) -> None:
    for task in tasks:
        task.live.close()


def _ids(row: RunRow) -> dict[str, str]:
    return {"workflow_id": row.workflow_id, "run_id": row.run_id, "workflow_type": row.workflow_type}
