"""The transactions on activities and timers. Written once for every store, each under one `Tx`.

An activity has one row, updated in place (B25); a write names the row and the token of its attempt, so a late
result of an old attempt changes nothing (B26, B29). A timer's row goes in the transaction that appends its
TimerFired (B7). Nothing is consumed by reading it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from derecho.journal.events import ActivityCompleted, ActivityFailed, ActivityStarted, Event, TimerFired
from derecho.stores.attempts import Decision, GiveUp, Lost, after_failure, refresh_due, when_due
from derecho.stores.base import (
    ActivityResult,
    ActivityRow,
    ActivityToken,
    LeaseState,
    Outcome,
    TimerRow,
    Tx,
)
from derecho.stores.bell import ACTIVITIES, TIMEOUTS
from derecho.stores.transactions import arrive, ring_if_soon


def claim_activities(
    tx: Tx, worker_id: str, names: Collection[str] | None, limit: int, lease_ns: int
) -> list[ActivityRow]:
    """Begin the next attempt of activities that wait for one."""
    rows = tx.ready_activities(names, limit)
    for row in rows:
        row.claimed = True
        row.attempt += 1
        row.token += 1
        row.lease_owner = worker_id
        row.lease_until_ns = tx.now_ns + lease_ns
        row.started_at_ns = row.heartbeat_at_ns = tx.now_ns
        refresh_due(row)
        tx.save_activity(row)
    ring_if_soon(tx, TIMEOUTS, [row.due_ns for row in rows])
    return rows


def finish_activity(tx: Tx, attempt: ActivityToken, outcome: Outcome) -> bool:
    """Record how an attempt ended; return False if it was no longer the current one, and nothing was written."""
    row = _held(tx, attempt)
    if row is None:
        return False
    if isinstance(outcome, ActivityResult):
        _record(tx, row, ActivityCompleted(scheduled_by_id=row.scheduled_id, result=outcome.result))
        return True
    if outcome.details:
        row.heartbeat_details = outcome.details
    _follow(tx, row, after_failure(row, outcome, tx.now_ns))
    return True


def release_activities(tx: Tx, attempts: Sequence[ActivityToken]) -> None:
    """Give up attempts without consuming them: this worker shuts down."""
    for attempt in attempts:
        row = _held(tx, attempt)
        if row is not None:
            row.attempt -= 1
            _requeue(tx, row, tx.now_ns)


def heartbeat(tx: Tx, attempt: ActivityToken, details: bytes) -> LeaseState:
    """Record that an attempt is alive, and the details for the next one if it is not to be the last."""
    row = _held(tx, attempt)
    if row is None:
        return LeaseState.LOST
    row.heartbeat_at_ns = tx.now_ns
    row.heartbeat_details = details
    refresh_due(row)
    tx.save_activity(row)
    return LeaseState.CANCEL_REQUESTED if row.cancel_requested else LeaseState.HELD


def renew_activities(tx: Tx, attempts: Sequence[ActivityToken], lease_ns: int) -> list[LeaseState]:
    """Hold claimed activities longer; say for each whether it is still held and still wanted."""
    states = []
    for attempt in attempts:
        row = _held(tx, attempt)
        if row is None:
            states.append(LeaseState.LOST)
            continue
        row.lease_until_ns = tx.now_ns + lease_ns
        refresh_due(row)
        tx.save_activity(row)
        states.append(LeaseState.CANCEL_REQUESTED if row.cancel_requested else LeaseState.HELD)
    return states


def fire_timer(tx: Tx, timer: TimerRow) -> bool:
    """Fire one timer whose time has come: delete the row and append the event in one transaction."""
    run = tx.run(timer.run_id)
    if not tx.delete_timer(timer.run_id, timer.scheduled_id) or run is None or not run.status.is_open:
        return False
    arrive(tx, run, [TimerFired(scheduled_by_id=timer.scheduled_id, fired_at_ns=tx.now_ns)])
    return True


def expire_activity(tx: Tx, run_id: str, scheduled_id: int) -> bool:
    """Deal with one activity that ran out of time or lost its worker; return whether that is so."""
    row = tx.activity(run_id, scheduled_id)
    if row is None or not row.due_ns or row.due_ns > tx.now_ns:
        return False  # Somebody was faster.
    decision = when_due(row, tx.now_ns)
    if decision is None:
        refresh_due(row)
        tx.save_activity(row)
        return False
    _follow(tx, row, decision)
    return True


def _held(tx: Tx, attempt: ActivityToken) -> ActivityRow | None:
    row = tx.activity(attempt.run_id, attempt.scheduled_id)
    return row if row is not None and row.claimed and row.token == attempt.token else None


def _follow(tx: Tx, row: ActivityRow, decision: Decision) -> None:
    if isinstance(decision, GiveUp):
        failed = ActivityFailed(scheduled_by_id=row.scheduled_id, error=decision.failure)
        _record(tx, row, failed, began=decision.began)
        return
    if isinstance(decision, Lost):
        row.lost += 1
    _requeue(tx, row, decision.not_before_ns)


def _requeue(tx: Tx, row: ActivityRow, not_before_ns: int) -> None:
    row.claimed = False
    row.token += 1
    row.lease_until_ns = 0
    row.not_before_ns = not_before_ns
    refresh_due(row)
    tx.save_activity(row)
    tx.ring(ACTIVITIES)
    ring_if_soon(tx, TIMEOUTS, [row.due_ns])


def _record(tx: Tx, row: ActivityRow, outcome: Event, *, began: bool = True) -> None:
    run = tx.run(row.run_id)
    tx.delete_activity(row)
    if run is None or not run.status.is_open:
        return
    arrived: list[Event] = []
    if began:
        started = ActivityStarted(
            scheduled_by_id=row.scheduled_id,
            worker_id=row.lease_owner,
            started_at_ns=row.started_at_ns,
            attempt=row.attempt,
        )
        arrived.append(started)
    arrive(tx, run, [*arrived, outcome])
