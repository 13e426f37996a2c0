"""What follows when an attempt of an activity ends without a result. Pure decisions, made under the row's lock."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from derecho.journal.events import Failure
from derecho.policies import RetryPolicy
from derecho.stores.base import LOST_ATTEMPTS_MAX, ActivityRow, AttemptFailed

_JITTER: Final = 0.2
_LOST_RETRY: Final = RetryPolicy(initial_interval=1.0, max_interval=60.0)


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, not before that moment."""

    not_before_ns: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Record this failure as the activity's outcome; `began` = an attempt had begun."""

    failure: Failure
    began: bool = True


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt is lost with its worker: try again whatever the policy says, and do not count it."""

    not_before_ns: int


Decision = Retry | GiveUp | Lost


def refresh_due(row: ActivityRow) -> None:
    """Work out when the timeout worker has to look at a row again; call it after every change of the row."""
    moments = [row.close_deadline_ns]
    if row.claimed:
        moments.append(row.lease_until_ns)
        if row.start_to_close_ns:
            moments.append(row.started_at_ns + row.start_to_close_ns)
        if row.heartbeat_ns:
            moments.append(row.heartbeat_at_ns + row.heartbeat_ns)
    elif not row.started_at_ns:  # Not `attempt`: a released attempt is not counted, but it was a pickup.
        moments.append(row.start_deadline_ns)
    row.due_ns = min((moment for moment in moments if moment), default=0)


def after_failure(row: ActivityRow, failed: AttemptFailed, now_ns: int) -> Decision:
    """Decide what follows a failed attempt, by the activity's own policy.

    The delay that the activity asked for itself (RetryAfter) goes before the policy's, but needs one that allows
    the attempt. An attempt that could only begin after schedule-to-close is not made.
    """
    failure = failed.failure
    attempts = row.attempt - row.lost
    if failure.non_retryable or row.cancel_requested or row.retry_policy is None:
        return GiveUp(failure)
    policy = RetryPolicy.from_payload(row.retry_policy)
    if not policy.should_retry(failed.names or (failure.kind, failure.type), attempts):
        return GiveUp(failure)
    if failure.next_retry_delay_ns:
        delay_ns = failure.next_retry_delay_ns
    else:
        delay_ns = _jittered(row, policy.next_delay(attempts))
    not_before_ns = now_ns + delay_ns
    if row.close_deadline_ns and not_before_ns >= row.close_deadline_ns:
        return GiveUp(failure)
    return Retry(not_before_ns)


def when_due(row: ActivityRow, now_ns: int) -> Decision | None:
    """Decide what follows now that a row's `due_ns` has come; None = nothing yet, somebody renewed it."""
    if row.close_deadline_ns and row.close_deadline_ns <= now_ns:
        return GiveUp(_timeout("schedule_to_close", row), began=row.claimed)
    if not row.claimed:
        if not row.started_at_ns and row.start_deadline_ns and row.start_deadline_ns <= now_ns:
            return GiveUp(_timeout("schedule_to_start", row), began=False)
        return None
    # What came first counts: of a worker that died long before a limit, the loss.
    limits = [(row.lease_until_ns, "")]
    if row.start_to_close_ns:
        limits.append((row.started_at_ns + row.start_to_close_ns, "start_to_close"))
    if row.heartbeat_ns:
        limits.append((row.heartbeat_at_ns + row.heartbeat_ns, "heartbeat"))
    moment_ns, timeout_kind = min(limits)
    if moment_ns > now_ns:
        return None
    return _attempt_timed_out(timeout_kind, row, now_ns) if timeout_kind else _after_loss(row, now_ns)


def _after_loss(row: ActivityRow, now_ns: int) -> Decision:
    if row.lost + 1 >= LOST_ATTEMPTS_MAX:
        message = (
            f"{LOST_ATTEMPTS_MAX} attempts were lost with their worker; the activity may be what kills it"
        )
        return GiveUp(Failure(kind="panic", type="WorkerLost", message=message))
    not_before_ns = now_ns + _jittered(row, _LOST_RETRY.next_delay(row.lost + 1))
    return Lost(not_before_ns)


def _attempt_timed_out(timeout_kind: str, row: ActivityRow, now_ns: int) -> Decision:
    failure = _timeout(timeout_kind, row)
    return after_failure(
        row, AttemptFailed(failure=failure, names=("timeout", "ActivityTimeoutError")), now_ns
    )


def _timeout(timeout_kind: str, row: ActivityRow) -> Failure:
    message = f"activity {row.name!r} ran out of time ({timeout_kind})"
    return Failure(kind="timeout", message=message, details={"timeout_kind": timeout_kind})


def _jittered(row: ActivityRow, delay_s: float) -> int:
    """Spread a delay by 20% (B36). By the row's own numbers and not by chance, so that any schedule can be repeated."""
    seed = zlib.crc32(f"{row.run_id}/{row.scheduled_id}/{row.attempt}".encode())
    return round(delay_s * (1 + _JITTER * (2 * seed / 0xFFFFFFFF - 1)) * 1_000_000_000)
