"""The contract between stores and everything else: the rows, a transaction over them, and the store itself.

A store keeps rows and runs transactions. What the transactions do is written once, in `derecho.stores.transactions`,
over the small `Tx` protocol below; so a new store implements `Tx`, `SharedStore._transact_all`, and a few reads.

Fencing. A run row has a `token` that grows with every claim and a `commit_no` that grows with every commit; a
commit must name both. An activity row has a token for each attempt. A late writer finds another number and changes
nothing. No write anywhere is made without its token.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from derecho.journal.commit import Head, TaskDraft, WorkflowStatus
from derecho.journal.events import Event, Failure
from derecho.stores.bell import Bell

CLAIM_BATCH_MAX: Final = 1000
LIST_LIMIT_MAX: Final = 1000
# After a commit the run prefers the worker that holds it live for so long, then anyone may take it (B4).
STICKY_NS: Final = 2_000_000_000
# After so many refused attempts to close, signals of clients are turned away for a while (semantics.md).
CLOSE_REFUSALS_MAX: Final = 3
CLOSING_NS: Final = 5_000_000_000
# Attempts lost with their worker do not count as the activity's own, but they have a limit of their own.
LOST_ATTEMPTS_MAX: Final = 20

# --- rows -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class RunRow(Head):
    """One run: the unit of work, of locking and of fencing.

    Attributes:
        chain_id: run id of the first run of the chain.
        workflow_time_ns: the workflow time of its last task; never goes back.
        token: grows with every claim. commit_no: grows with every commit.
        lease_owner, lease_until_ns: who may run its next task until when; 0 = nobody.
        sticky_until_ns: until when `lease_owner`, which holds it live, is preferred.
        attempt: failed attempts of the pending task. blocked_reason, blocked_since_ns: why it cannot go on.
        refusals, refused_at_ns: how often closing was refused since the last commit, and when.
        cancel_deadline_ns: the moment of the forced end that a cancel request asked for; 0 = none.
        ready_at_ns: when it became ready; claims go by it.
    """

    run_id: str
    workflow_id: str
    workflow_type: str
    chain_id: str
    started_at_ns: int
    closed_at_ns: int = 0
    workflow_time_ns: int = 0
    token: int = 0
    commit_no: int = 0
    lease_owner: str = ""
    lease_until_ns: int = 0
    sticky_until_ns: int = 0
    ready_at_ns: int = 0
    attempt: int = 0
    blocked_reason: str = ""
    blocked_since_ns: int = 0
    refusals: int = 0
    refused_at_ns: int = 0
    cancel_deadline_ns: int = 0


@dataclass(slots=True, kw_only=True)
class ActivityRow:
    """One scheduled activity, updated in place by all its attempts; deleted when its outcome is recorded.

    Attributes:
        scheduled_id: the event id of its ActivityScheduled.
        start_deadline_ns, close_deadline_ns: moments, 0 = none (schedule-to-start, schedule-to-close).
        start_to_close_ns, heartbeat_ns: durations, 0 = no limit.
        claimed: whether an attempt is under way.
        attempt: number of the current attempt, or of the last one if none is under way.
        lost: how many of the attempts were lost with their worker.
        token: grows with every attempt, release and loss.
        not_before_ns: when the next attempt may begin.
        started_at_ns: when the current attempt began; 0 before the first.
        heartbeat_at_ns, heartbeat_details: of the last heartbeat.
        due_ns: the next moment at which the timeout worker has to look at this row; 0 = never.
    """

    run_id: str
    scheduled_id: int
    workflow_id: str
    name: str
    input: bytes
    scheduled_at_ns: int
    retry_policy: Mapping[str, Any] | None = None
    start_deadline_ns: int = 0
    close_deadline_ns: int = 0
    start_to_close_ns: int = 0
    heartbeat_ns: int = 0
    claimed: bool = False
    attempt: int = 0
    lost: int = 0
    token: int = 0
    lease_owner: str = ""
    lease_until_ns: int = 0
    not_before_ns: int = 0
    started_at_ns: int = 0
    heartbeat_at_ns: int = 0
    heartbeat_details: bytes = b""
    cancel_requested: bool = False
    due_ns: int = 0


@dataclass(slots=True, kw_only=True)
class TimerRow:
    """A started timer; deleted in the transaction that appends TimerFired, or that cancels it."""

    run_id: str
    scheduled_id: int
    due_ns: int


# --- what goes in and comes out ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Ask for a new run. `run_id` is made by the store's id generator before the transaction begins."""

    workflow_id: str
    workflow_type: str
    args: bytes
    request_id: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A leased run: the right to run its pending workflow task.

    Attributes:
        now_ns: the store's clock at the claim. run: a copy of the row as of then.
    """

    run: RunRow
    now_ns: int


@dataclass(slots=True, kw_only=True)
class TaskCommit:
    """The one write of a workflow task.

    Attributes:
        token, commit_no: as claimed; anything else in the row means fenced.
        stuck_reason: why the run can never move by itself again, or empty.
    """

    run_id: str
    token: int
    commit_no: int
    task: TaskDraft
    stuck_reason: str = ""


class CommitOutcome(enum.Enum):
    """What became of a workflow task."""

    DONE = "done"
    FENCED = "fenced"  # another worker took over, or the run is closed; nothing was written
    REFUSED = "refused"  # it would close, but a signal or cancel request came that it did not see


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The answer to a `TaskCommit`; the ids are only given if it is DONE."""

    outcome: CommitOutcome
    command_ids: Sequence[int] = ()
    commit_no: int = 0


@dataclass(frozen=True, slots=True)
class ActivityToken:
    """The right of one attempt to write."""

    run_id: str
    scheduled_id: int
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityResult:
    """The attempt returned; `result` is encoded."""

    result: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """The attempt raised.

    Attributes:
        failure: what is recorded if it was the last one.
        names: the error's kind and class names over its MRO, for `non_retryable_errors`.
        details: the last heartbeat details if they were not written yet.
    """

    failure: Failure
    names: tuple[str, ...] = ()
    details: bytes = b""


Outcome: TypeAlias = ActivityResult | AttemptFailed


class LeaseState(enum.Enum):
    """What a worker learns when it renews a lease or records a heartbeat."""

    HELD = "held"
    CANCEL_REQUESTED = "cancel_requested"
    LOST = "lost"  # the attempt or the task is another's, or its run is closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The next moment at which each kind of work may exist; 0 = nothing waits. Leases of others count."""

    runs_ns: int = 0
    activities_ns: int = 0
    timers_ns: int = 0
    timeouts_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs a listing or a count is about; None = all."""

    workflow_type: str | None = None
    status: WorkflowStatus | None = None
    workflow_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Runs, newest first, and the (started_at_ns, run_id) to go on after; None at the end."""

    runs: list[RunRow] = field(default_factory=list)
    next_after: tuple[int, str] | None = None


# --- a transaction ----------------------------------------------------------------------------------------------


class Tx(Protocol):
    """Rows under one transaction, with all rows that it reads locked against other writers.

    Members of a group commit share a transaction one after another: each sees what the earlier ones wrote. A verb
    checks everything first and then writes, so a member that is refused has written nothing.
    A row that was read is the transaction's own copy: change its fields, then `save_...` it. Nothing is consumed by
    reading it.
    """

    now_ns: int

    def run(self, run_id: str) -> RunRow | None: ...
    def open_run(self, workflow_id: str) -> RunRow | None: ...
    def newest_run(self, workflow_id: str) -> RunRow | None: ...
    def insert_run(self, row: RunRow) -> None: ...
    def save_run(self, row: RunRow) -> None: ...

    def ready_runs(
        self, worker_id: str, names: Collection[str] | None, limit: int, passed_over: Collection[str]
    ) -> list[RunRow]:
        """Return runs to claim, longest ready first.

        Selection: open, something unseen, no lease that still holds, not sticky to another worker, its workflow
        type in `names` (None = any), its run id not in `passed_over`.
        """
        ...

    def cancels_due(self, limit: int) -> list[RunRow]:
        """Return open runs whose `cancel_deadline_ns` has come."""
        ...

    def append(self, run_id: str, events: Sequence[Event], *, is_task: bool) -> None:
        """Write events with dense ids as the next part of a journal; `is_task` for a workflow task's own."""
        ...

    def request(self, workflow_id: str, operation: str, request_id: str) -> str | None:
        """Return the run id that this request was answered with before, if it was."""
        ...

    def insert_request(self, workflow_id: str, operation: str, request_id: str, run_id: str) -> None: ...

    def insert_activities(self, rows: Sequence[ActivityRow]) -> None: ...
    def activity(self, run_id: str, scheduled_id: int) -> ActivityRow | None: ...
    def save_activity(self, row: ActivityRow) -> None: ...
    def delete_activity(self, row: ActivityRow) -> None: ...

    def ready_activities(self, names: Collection[str] | None, limit: int) -> list[ActivityRow]:
        """Return activities to claim (not claimed, `not_before_ns` come, name in `names`), longest due first."""
        ...

    def due_activities(self, limit: int) -> list[ActivityRow]:
        """Return activities whose `due_ns` has come, longest due first."""
        ...

    def insert_timers(self, rows: Sequence[TimerRow]) -> None: ...
    def due_timers(self, limit: int) -> list[TimerRow]:
        """Return timers whose time has come, by due moment; reads only."""
        ...

    def delete_timer(self, run_id: str, scheduled_id: int) -> bool:
        """Delete a timer; return whether it was there."""
        ...

    def delete_work(self, run_id: str) -> None:
        """Delete all activities and timers of a run that closes."""
        ...

    def ring(self, topic: str) -> None:
        """Ring the store's bell for this topic after the transaction is committed, and only then."""
        ...


# --- the store --------------------------------------------------------------------------------------------------


class Store(Protocol):
    """What workers and clients ask of a store. All methods may be called from any thread.

    Every method is one transaction (or one read) and raises `StoreError` if the database cannot do it; transient
    trouble (a busy file, a lost connection) is retried inside first.
    """

    bell: Bell

    def now_ns(self) -> int:
        """Return the store's clock: the only clock that leases, timers and timeouts are judged by."""
        ...

    def new_id(self) -> str:
        """Return a fresh run id."""
        ...

    # Clients.
    def start_runs(self, requests: Sequence[StartRequest]) -> list[str | Exception]: ...
    def signal(self, workflow_id: str, run_id: str, name: str, payload: bytes, request_id: str) -> str: ...
    def cancel(self, workflow_id: str, run_id: str, reason: str, timeout_ns: int, request_id: str) -> str: ...
    def terminate(self, workflow_id: str, run_id: str, reason: str, request_id: str) -> str: ...
    def find_run(self, workflow_id: str, run_id: str = "") -> RunRow | None: ...
    def list_runs(self, which: RunFilter, limit: int, after: tuple[int, str] | None) -> RunPage: ...
    def count_runs(self, which: RunFilter) -> int: ...
    def load_events(self, run_id: str, after_id: int = 0, *, external_only: bool = False) -> list[Event]: ...

    # Workflow worker.
    def claim_runs(
        self,
        worker_id: str,
        names: Collection[str] | None,
        limit: int,
        lease_ns: int,
        passed_over: Collection[str] = (),
    ) -> list[Claim]: ...
    def commit_tasks(self, commits: Sequence[TaskCommit]) -> list[Committed | Exception]: ...
    def fail_task(self, run_id: str, token: int, reason: str) -> bool: ...
    def release_runs(self, held: Sequence[tuple[str, int]]) -> None: ...
    def renew_runs(self, held: Sequence[tuple[str, int]], lease_ns: int) -> list[LeaseState]: ...

    # Activity worker.
    def claim_activities(
        self, worker_id: str, names: Collection[str] | None, limit: int, lease_ns: int
    ) -> list[ActivityRow]: ...
    def finish_activity(self, attempt: ActivityToken, outcome: Outcome) -> bool: ...
    def release_activities(self, attempts: Sequence[ActivityToken]) -> None: ...
    def heartbeat(self, attempt: ActivityToken, details: bytes) -> LeaseState: ...
    def renew_activities(self, attempts: Sequence[ActivityToken], lease_ns: int) -> list[LeaseState]: ...

    # Timer worker and timeout worker.
    def fire_timers(self, limit: int) -> int: ...
    def expire(self, limit: int) -> int: ...
    def next_due(self, worker_id: str) -> Due: ...

    def close(self) -> None:
        """Finish what is being written and let go of the database. Any later call raises StoreError."""
        ...
