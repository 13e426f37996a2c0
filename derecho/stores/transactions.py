"""The transactions on runs: start, signal, cancel, terminate, claim, commit, fail. Written once for every store.

Each function runs under one `Tx`. It checks everything before its first write, so that a member of a group that
is refused leaves nothing behind. `derecho.stores.work` holds the transactions on activities and timers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from derecho.errors import RunClosingError, WorkflowAlreadyRunningError, WorkflowNotFoundError
from derecho.journal.commit import (
    TaskEvents,
    append_external,
    append_task,
    append_terminal,
    refuses_close,
)
from derecho.journal.events import (
    ActivityScheduled,
    CommandEvent,
    Event,
    Failure,
    SignalExternalScheduled,
    SignalReceived,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowFailed,
    WorkflowStarted,
)
from derecho.stores.attempts import refresh_due
from derecho.stores.base import (
    CLOSE_REFUSALS_MAX,
    CLOSING_NS,
    STICKY_NS,
    ActivityRow,
    Claim,
    CommitOutcome,
    Committed,
    LeaseState,
    RunRow,
    StartRequest,
    TaskCommit,
    TimerRow,
    Tx,
)
from derecho.stores.bell import ACTIVITIES, LOOK_NS, RUNS, TIMEOUTS, TIMERS

# --- clients ----------------------------------------------------------------------------------------------------


def start(tx: Tx, request: StartRequest) -> str:
    """Start a run, or find the one that this request started before; return its run id.

    Raises:
        WorkflowAlreadyRunningError: the workflow id has an open run that another request started.
    """
    answered = tx.request(request.workflow_id, "start", request.request_id)
    if answered is not None:
        return answered
    taken = tx.open_run(request.workflow_id)
    if taken is not None:
        raise WorkflowAlreadyRunningError(request.workflow_id, taken.run_id)
    row = RunRow(
        run_id=request.run_id,
        workflow_id=request.workflow_id,
        workflow_type=request.workflow_type,
        chain_id=request.run_id,
        started_at_ns=tx.now_ns,
    )
    started = WorkflowStarted(
        workflow_type=request.workflow_type,
        args=request.args,
        started_at_ns=tx.now_ns,
        workflow_id=request.workflow_id,
        run_id=request.run_id,
        chain_id=request.run_id,
        request_id=request.request_id,
    )
    written = append_external(row, [started])
    row.ready_at_ns = tx.now_ns
    tx.insert_run(row)
    tx.append(row.run_id, written, is_task=False)
    tx.insert_request(request.workflow_id, "start", request.request_id, row.run_id)
    tx.ring(RUNS)
    return row.run_id


def signal(tx: Tx, workflow_id: str, run_id: str, name: str, payload: bytes, request_id: str) -> str:
    """Append a signal to the open run of a workflow id; return the id of the run that took it.

    Raises:
        WorkflowNotFoundError: no open run (or not this one).
        RunClosingError: the run tries to close and would never come to it.
    """
    answered = tx.request(workflow_id, "signal", request_id)
    if answered is not None:
        return answered
    row = _open(tx, workflow_id, run_id)
    if row.refusals >= CLOSE_REFUSALS_MAX and tx.now_ns < row.refused_at_ns + CLOSING_NS:
        raise RunClosingError(workflow_id)
    arrived = SignalReceived(signal_name=name, payload=payload, sent_at_ns=tx.now_ns, request_id=request_id)
    arrive(tx, row, [arrived])
    tx.insert_request(workflow_id, "signal", request_id, row.run_id)
    return row.run_id


def cancel(tx: Tx, workflow_id: str, run_id: str, reason: str, timeout_ns: int, request_id: str) -> str:
    """Ask the open run to cancel; return its id. A deadline that is already set is only brought forward.

    Raises:
        WorkflowNotFoundError: no open run (or not this one).
    """
    answered = tx.request(workflow_id, "cancel", request_id)
    if answered is not None:
        return answered
    row = _open(tx, workflow_id, run_id)
    deadline_ns = tx.now_ns + timeout_ns if timeout_ns else 0
    if deadline_ns and (not row.cancel_deadline_ns or deadline_ns < row.cancel_deadline_ns):
        row.cancel_deadline_ns = deadline_ns
        ring_if_soon(tx, TIMEOUTS, [deadline_ns])
    asked = WorkflowCancelRequested(
        reason=reason,
        requested_at_ns=tx.now_ns,
        cancel_timeout_ns=timeout_ns,
        deadline_ns=deadline_ns,
        request_id=request_id,
    )
    arrive(tx, row, [asked])
    tx.insert_request(workflow_id, "cancel", request_id, row.run_id)
    return row.run_id


def terminate(tx: Tx, workflow_id: str, run_id: str, reason: str, request_id: str) -> str:
    """End the open run without any worker; return its id. Whoever runs it is fenced.

    Raises:
        WorkflowNotFoundError: no open run (or not this one).
    """
    answered = tx.request(workflow_id, "terminate", request_id)
    if answered is not None:
        return answered
    row = _open(tx, workflow_id, run_id)
    failure = Failure(kind="cancelled", message=reason or "terminated")
    _end_from_outside(tx, row, WorkflowFailed(error=failure, terminated=True))
    tx.insert_request(workflow_id, "terminate", request_id, row.run_id)
    return row.run_id


def end_overdue_cancel(tx: Tx, run_id: str) -> bool:
    """End a run whose cancel request had a deadline that has come."""
    row = tx.run(run_id)
    if row is None or not row.status.is_open or not 0 < row.cancel_deadline_ns <= tx.now_ns:
        return False
    _end_from_outside(tx, row, WorkflowCancelled(forced=True))
    return True


# --- the workflow worker ----------------------------------------------------------------------------------------


def claim_runs(
    tx: Tx,
    worker_id: str,
    names: Collection[str] | None,
    limit: int,
    lease_ns: int,
    passed_over: Collection[str],
) -> list[Claim]:
    """Lease ready runs to a worker; each claim makes every older token worthless."""
    claims = []
    for row in tx.ready_runs(worker_id, names, limit, passed_over):
        row.token += 1
        row.lease_owner = worker_id
        row.lease_until_ns = tx.now_ns + lease_ns
        tx.save_run(row)
        claims.append(Claim(run=row, now_ns=tx.now_ns))
    return claims


def commit_task(tx: Tx, commit: TaskCommit) -> Committed:
    """Write a workflow task: events, work, messages, close; or nothing at all if it is fenced or refused."""
    row = tx.run(commit.run_id)
    if (
        row is None
        or not row.status.is_open
        or row.token != commit.token
        or row.commit_no != commit.commit_no
    ):
        return Committed(outcome=CommitOutcome.FENCED)
    if refuses_close(row, commit.task):
        row.refusals += 1
        row.refused_at_ns = tx.now_ns
        _let_go(row)
        tx.save_run(row)
        tx.ring(RUNS)
        return Committed(outcome=CommitOutcome.REFUSED)
    targets = _targets(tx, row, commit)
    delivered = {number: target is not None for number, target in targets.items()}
    changes = append_task(row, commit.task, delivered)
    row.commit_no += 1
    row.workflow_time_ns = commit.task.started_at_ns
    row.attempt = 0
    row.refusals = 0
    row.blocked_reason = commit.stuck_reason
    row.blocked_since_ns = tx.now_ns if commit.stuck_reason else 0
    row.lease_until_ns = 0
    row.sticky_until_ns = tx.now_ns + STICKY_NS
    row.ready_at_ns = tx.now_ns
    tx.append(row.run_id, changes.events, is_task=True)
    _write_work(tx, row, changes)
    if changes.terminal is not None:
        _closed(tx, row)
    elif row.is_ready:
        tx.ring(RUNS)
    tx.save_run(row)
    _deliver(tx, changes.signals, targets)
    return Committed(outcome=CommitOutcome.DONE, command_ids=changes.command_ids, commit_no=row.commit_no)


def fail_task(tx: Tx, run_id: str, token: int, reason: str) -> bool:
    """Record that a workflow task could not be run, and let go of the run.

    Returns:
        False if it was fenced, or its lease was let go already: a watchdog may be slower than the task's commit.
    """
    row = tx.run(run_id)
    if row is None or row.token != token or not row.status.is_open or not row.lease_until_ns:
        return False
    row.attempt += 1
    row.blocked_reason = reason
    row.blocked_since_ns = row.blocked_since_ns or tx.now_ns
    _let_go(row)
    tx.save_run(row)
    tx.ring(RUNS)
    return True


def release_runs(tx: Tx, held: Sequence[tuple[str, int]]) -> None:
    """Let go of claimed runs whose task was not run, as if they had never been claimed."""
    for run_id, token in held:
        row = tx.run(run_id)
        if row is not None and row.token == token and row.status.is_open:
            _let_go(row)
            tx.save_run(row)
            tx.ring(RUNS)


def renew_runs(tx: Tx, held: Sequence[tuple[str, int]], lease_ns: int) -> list[LeaseState]:
    """Hold claimed runs longer; say for each whether it is still held."""
    states = []
    for run_id, token in held:
        row = tx.run(run_id)
        # A lease that was let go of stays so: a renewal that crossed the commit would lock up an idle run.
        if row is None or row.token != token or not row.lease_until_ns or not row.status.is_open:
            states.append(LeaseState.LOST)
            continue
        row.lease_until_ns = tx.now_ns + lease_ns
        tx.save_run(row)
        states.append(LeaseState.HELD)
    return states


# --- shared -----------------------------------------------------------------------------------------------------


def arrive(tx: Tx, row: RunRow, arrived: Sequence[Event]) -> None:
    """Append external events to an open run and wake it if it was idle."""
    if not row.is_ready:
        row.ready_at_ns = tx.now_ns
    written = append_external(row, arrived)
    tx.append(row.run_id, written, is_task=False)
    tx.save_run(row)
    tx.ring(RUNS)


def ring_if_soon(tx: Tx, topic: str, due_ns: Iterable[int]) -> None:
    """Ring for work that is due before its worker would look by itself; 0 = never due."""
    soon_ns = tx.now_ns + LOOK_NS
    if any(0 < moment_ns < soon_ns for moment_ns in due_ns):
        tx.ring(topic)


def _open(tx: Tx, workflow_id: str, run_id: str) -> RunRow:
    row = tx.open_run(workflow_id)
    if row is None:
        known = tx.newest_run(workflow_id) is not None
        raise WorkflowNotFoundError(
            workflow_id, run_id, detail="has no open run: it is closed" if known else ""
        )
    if run_id and row.run_id != run_id:
        raise WorkflowNotFoundError(workflow_id, run_id, detail=f"is not open; the open run is {row.run_id}")
    return row


def _let_go(row: RunRow) -> None:
    row.lease_until_ns = 0
    row.sticky_until_ns = 0


def _end_from_outside(tx: Tx, row: RunRow, terminal: CommandEvent) -> None:
    tx.append(row.run_id, append_terminal(row, terminal), is_task=False)
    row.token += 1
    row.lease_until_ns = 0
    _closed(tx, row)
    tx.save_run(row)


def _closed(tx: Tx, row: RunRow) -> None:
    row.closed_at_ns = tx.now_ns
    row.cancel_deadline_ns = 0
    tx.delete_work(row.run_id)
    tx.ring(row.run_id)


def _targets(tx: Tx, row: RunRow, commit: TaskCommit) -> dict[int, RunRow | None]:
    """Find the open runs that the task's signals go to, by command number, in one order for all (no deadlocks).

    A run's signal to itself in its closing task is undelivered.
    """
    sent = [draft.event for draft in commit.task.drafts if isinstance(draft.event, SignalExternalScheduled)]
    found: dict[str, RunRow | None] = {}
    for workflow_id in sorted({event.target_workflow_id for event in sent}):
        found[workflow_id] = row if workflow_id == row.workflow_id else tx.open_run(workflow_id)
    if commit.task.terminal is not None:
        found[row.workflow_id] = None
    return {event.command: found[event.target_workflow_id] for event in sent}


def _deliver(tx: Tx, sent: Sequence[SignalExternalScheduled], targets: dict[int, RunRow | None]) -> None:
    for event in sent:
        target = targets[event.command]
        if target is not None:
            arrived = SignalReceived(
                signal_name=event.signal_name, payload=event.payload, sent_at_ns=tx.now_ns
            )
            arrive(tx, target, [arrived])


def _write_work(tx: Tx, row: RunRow, changes: TaskEvents) -> None:
    for timer_id in changes.timers_cancelled:
        tx.delete_timer(row.run_id, timer_id)
    if changes.terminal is not None:
        return  # What the closing task asked for besides is not done: the run is over.
    if changes.activities:
        rows = [_activity_row(tx, row, event) for event in changes.activities]
        tx.insert_activities(rows)
        tx.ring(ACTIVITIES)
        ring_if_soon(tx, TIMEOUTS, [row.due_ns for row in rows])
    if changes.timers:
        # A timer never fires early by the store's clock, also when the commit took long (G7).
        timers = [
            TimerRow(
                run_id=row.run_id,
                scheduled_id=event.id,
                due_ns=max(event.fire_at_ns, tx.now_ns + event.duration_ns),
            )
            for event in changes.timers
        ]
        tx.insert_timers(timers)
        ring_if_soon(tx, TIMERS, [timer.due_ns for timer in timers])


def _activity_row(tx: Tx, run: RunRow, event: ActivityScheduled) -> ActivityRow:
    limits = event.timeout_policy or {}
    to_start_ns = limits.get("schedule_to_start_timeout", 0)
    to_close_ns = limits.get("schedule_to_close_timeout", 0)
    row = ActivityRow(
        run_id=run.run_id,
        scheduled_id=event.id,
        workflow_id=run.workflow_id,
        name=event.name,
        input=event.input,
        scheduled_at_ns=tx.now_ns,
        retry_policy=event.retry_policy,
        start_deadline_ns=tx.now_ns + to_start_ns if to_start_ns else 0,
        close_deadline_ns=tx.now_ns + to_close_ns if to_close_ns else 0,
        start_to_close_ns=limits.get("start_to_close_timeout", 0),
        heartbeat_ns=limits.get("heartbeat_timeout", 0),
        not_before_ns=tx.now_ns,
    )
    refresh_due(row)
    return row
