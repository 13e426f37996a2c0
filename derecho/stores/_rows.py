"""Rows as tuples of columns and back, for stores that speak SQL.

Columns that never change come first, so that an update needs only the rest. A tuple is immutable and
nobody's own: a store may keep it, and each reader gets a row made from it. Written out by hand: these run
several times for each step of each run, and a loop over the fields costs three times as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from derecho.journal.commit import WorkflowStatus
from derecho.stores.base import ActivityRow, RunRow

Columns = tuple[Any, ...]

RUN_FIXED: Final = ("seq", "run_id", "workflow_id", "workflow_type", "chain_id", "started_at_ns")
# The first two are what indexes of open runs hang on, and seldom change: an update without them is cheaper.
RUN_STATE: Final = (
    "status",
    "cancel_deadline_ns",
    "last_event_id",
    "last_external_id",
    "last_request_id",
    "visible_through",
    "task_scheduled_id",
    "closed_at_ns",
    "workflow_time_ns",
    "token",
    "commit_no",
    "lease_owner",
    "lease_until_ns",
    "sticky_until_ns",
    "ready_at_ns",
    "attempt",
    "blocked_reason",
    "blocked_since_ns",
    "refusals",
    "refused_at_ns",
)
ACTIVITY_FIXED: Final = (
    "seq",
    "run",
    "scheduled_id",
    "run_id",
    "workflow_id",
    "name",
    "input",
    "scheduled_at_ns",
    "retry_policy",
    "start_deadline_ns",
    "close_deadline_ns",
    "start_to_close_ns",
    "heartbeat_ns",
)
ACTIVITY_STATE: Final = (
    "claimed",
    "attempt",
    "lost",
    "token",
    "lease_owner",
    "lease_until_ns",
    "not_before_ns",
    "started_at_ns",
    "heartbeat_at_ns",
    "heartbeat_details",
    "cancel_requested",
    "due_ns",
)
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "run": RUN_FIXED + RUN_STATE,
    "run_state": RUN_STATE,
    "run_progress": RUN_STATE[2:],
    "activity": ACTIVITY_FIXED + ACTIVITY_STATE,
    "activity_state": ACTIVITY_STATE,
}
RUN_FIXED_COUNT: Final = len(RUN_FIXED)
ACTIVITY_FIXED_COUNT: Final = len(ACTIVITY_FIXED)

_STATUSES: Final = tuple(WorkflowStatus)  # By number: a lookup instead of a call of the enum.


def run_from(columns: Columns) -> RunRow:
    """Make a run row."""
    row = RunRow.__new__(RunRow)
    (
        _,
        row.run_id,
        row.workflow_id,
        row.workflow_type,
        row.chain_id,
        row.started_at_ns,
        status,
        row.cancel_deadline_ns,
        row.last_event_id,
        row.last_external_id,
        row.last_request_id,
        row.visible_through,
        row.task_scheduled_id,
        row.closed_at_ns,
        row.workflow_time_ns,
        row.token,
        row.commit_no,
        row.lease_owner,
        row.lease_until_ns,
        row.sticky_until_ns,
        row.ready_at_ns,
        row.attempt,
        row.blocked_reason,
        row.blocked_since_ns,
        row.refusals,
        row.refused_at_ns,
    ) = columns
    row.status = _STATUSES[status]
    return row


def run_columns(row: RunRow, seq: int) -> Columns:
    """Return a run row's columns; `seq` is its number in the store."""
    return (
        seq,
        row.run_id,
        row.workflow_id,
        row.workflow_type,
        row.chain_id,
        row.started_at_ns,
        row.status.value,
        row.cancel_deadline_ns,
        row.last_event_id,
        row.last_external_id,
        row.last_request_id,
        row.visible_through,
        row.task_scheduled_id,
        row.closed_at_ns,
        row.workflow_time_ns,
        row.token,
        row.commit_no,
        row.lease_owner,
        row.lease_until_ns,
        row.sticky_until_ns,
        row.ready_at_ns,
        row.attempt,
        row.blocked_reason,
        row.blocked_since_ns,
        row.refusals,
        row.refused_at_ns,
    )


def activity_from(columns: Columns, policy: Mapping[str, Any] | None) -> ActivityRow:
    """Make an activity row; `policy` is what the column `retry_policy` says, decoded."""
    row = ActivityRow.__new__(ActivityRow)
    (
        _,
        _,
        row.scheduled_id,
        row.run_id,
        row.workflow_id,
        row.name,
        row.input,
        row.scheduled_at_ns,
        _,
        row.start_deadline_ns,
        row.close_deadline_ns,
        row.start_to_close_ns,
        row.heartbeat_ns,
        claimed,
        row.attempt,
        row.lost,
        row.token,
        row.lease_owner,
        row.lease_until_ns,
        row.not_before_ns,
        row.started_at_ns,
        row.heartbeat_at_ns,
        row.heartbeat_details,
        cancel_requested,
        row.due_ns,
    ) = columns
    row.retry_policy = policy
    row.claimed = claimed == 1
    row.cancel_requested = cancel_requested == 1
    return row


def activity_columns(row: ActivityRow, seq: int, run: int, policy: str) -> Columns:
    """Return a new activity row's columns: its number, its run's, its retry policy as text, its own."""
    fixed = (
        seq,
        run,
        row.scheduled_id,
        row.run_id,
        row.workflow_id,
        row.name,
        row.input,
        row.scheduled_at_ns,
        policy,
        row.start_deadline_ns,
        row.close_deadline_ns,
        row.start_to_close_ns,
        row.heartbeat_ns,
    )
    return fixed + activity_state(row)


def activity_state(row: ActivityRow) -> Columns:
    """Return the columns of an activity row that change."""
    return (
        1 if row.claimed else 0,
        row.attempt,
        row.lost,
        row.token,
        row.lease_owner,
        row.lease_until_ns,
        row.not_before_ns,
        row.started_at_ns,
        row.heartbeat_at_ns,
        row.heartbeat_details,
        1 if row.cancel_requested else 0,
        row.due_ns,
    )
