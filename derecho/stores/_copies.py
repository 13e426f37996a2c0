"""Copies of rows, for stores that keep rows as objects.

Written out by hand: ten times as fast as `copy.copy`, and a workflow of three steps makes thirty of them.
"""

from __future__ import annotations

from derecho.stores.base import ActivityRow, RunRow


def copy_of_run(row: RunRow) -> RunRow:
    copy = RunRow.__new__(RunRow)
    copy.status = row.status
    copy.last_event_id = row.last_event_id
    copy.last_external_id = row.last_external_id
    copy.last_request_id = row.last_request_id
    copy.visible_through = row.visible_through
    copy.task_scheduled_id = row.task_scheduled_id
    copy.run_id = row.run_id
    copy.workflow_id = row.workflow_id
    copy.workflow_type = row.workflow_type
    copy.chain_id = row.chain_id
    copy.started_at_ns = row.started_at_ns
    copy.closed_at_ns = row.closed_at_ns
    copy.workflow_time_ns = row.workflow_time_ns
    copy.token = row.token
    copy.commit_no = row.commit_no
    copy.lease_owner = row.lease_owner
    copy.lease_until_ns = row.lease_until_ns
    copy.sticky_until_ns = row.sticky_until_ns
    copy.ready_at_ns = row.ready_at_ns
    copy.attempt = row.attempt
    copy.blocked_reason = row.blocked_reason
    copy.blocked_since_ns = row.blocked_since_ns
    copy.refusals = row.refusals
    copy.refused_at_ns = row.refused_at_ns
    copy.cancel_deadline_ns = row.cancel_deadline_ns
    return copy


def copy_of_activity(row: ActivityRow) -> ActivityRow:
    copy = ActivityRow.__new__(ActivityRow)
    copy.run_id = row.run_id
    copy.scheduled_id = row.scheduled_id
    copy.workflow_id = row.workflow_id
    copy.name = row.name
    copy.input = row.input
    copy.scheduled_at_ns = row.scheduled_at_ns
    copy.retry_policy = row.retry_policy
    copy.start_deadline_ns = row.start_deadline_ns
    copy.close_deadline_ns = row.close_deadline_ns
    copy.start_to_close_ns = row.start_to_close_ns
    copy.heartbeat_ns = row.heartbeat_ns
    copy.claimed = row.claimed
    copy.attempt = row.attempt
    copy.lost = row.lost
    copy.token = row.token
    copy.lease_owner = row.lease_owner
    copy.lease_until_ns = row.lease_until_ns
    copy.not_before_ns = row.not_before_ns
    copy.started_at_ns = row.started_at_ns
    copy.heartbeat_at_ns = row.heartbeat_at_ns
    copy.heartbeat_details = row.heartbeat_details
    copy.cancel_requested = row.cancel_requested
    copy.due_ns = row.due_ns
    return copy
