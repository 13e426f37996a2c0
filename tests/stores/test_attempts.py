"""What follows when an attempt ends without a result: retries, backoff, jitter, limits, losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derecho.journal.events import Failure
from derecho.policies import RetryPolicy
from derecho.stores.attempts import GiveUp, Lost, Retry, after_failure, refresh_due, when_due
from derecho.stores.base import LOST_ATTEMPTS_MAX, ActivityRow, AttemptFailed

S = 1_000_000_000
NOW_NS = 1_700_000_000 * S
ROW = ActivityRow(
    run_id="r-1", scheduled_id=4, workflow_id="w", name="charge", input=b"", scheduled_at_ns=NOW_NS - 100 * S
)
FAILED = AttemptFailed(failure=Failure(kind="application", type="ValueError", message="no"))


def running(**fields: object) -> ActivityRow:
    """Return a row whose first attempt began now, with a lease of 15 s."""
    began = {"claimed": True, "attempt": 1, "started_at_ns": NOW_NS, "heartbeat_at_ns": NOW_NS}
    row = replace(ROW, **(began | {"lease_until_ns": NOW_NS + 15 * S} | fields))
    refresh_due(row)
    return row


def payload(**fields: object) -> dict[str, object]:
    return RetryPolicy(**fields).to_payload()


# --- failures -------------------------------------------------------------------------------------


def test_without_a_policy_the_first_failure_is_final() -> None:
    assert after_failure(running(), FAILED, NOW_NS) == GiveUp(FAILED.failure)


def test_attempts_are_counted_without_the_lost_ones() -> None:
    policy = payload(max_attempts=3)
    assert isinstance(after_failure(running(attempt=2, retry_policy=policy), FAILED, NOW_NS), Retry)
    assert isinstance(after_failure(running(attempt=3, retry_policy=policy), FAILED, NOW_NS), GiveUp)
    assert isinstance(after_failure(running(attempt=12, lost=10, retry_policy=policy), FAILED, NOW_NS), Retry)
    assert isinstance(
        after_failure(running(attempt=13, lost=10, retry_policy=policy), FAILED, NOW_NS), GiveUp
    )


@pytest.mark.parametrize(
    ("names", "is_final"),
    [
        (("application", "KeyError", "LookupError", "Exception"), True),
        (("timeout", "ActivityTimeoutError"), True),
        (("application", "OSError"), False),
        ((), True),  # Nothing but the failure itself is known: its kind and type are matched.
    ],
)
def test_some_errors_are_not_retried(names: tuple[str, ...], is_final: bool) -> None:
    row = running(retry_policy=payload(non_retryable_errors=("LookupError", "timeout", "ValueError")))
    decision = after_failure(row, replace(FAILED, names=names), NOW_NS)
    assert isinstance(decision, GiveUp) == is_final


def test_an_attempt_may_say_that_it_is_the_last() -> None:
    failed = replace(FAILED, failure=replace(FAILED.failure, non_retryable=True))
    assert after_failure(running(retry_policy=payload()), failed, NOW_NS) == GiveUp(failed.failure)


def test_an_attempt_may_choose_the_delay_exactly() -> None:
    failed = replace(FAILED, failure=replace(FAILED.failure, next_retry_delay_ns=7))
    assert after_failure(running(retry_policy=payload()), failed, NOW_NS) == Retry(NOW_NS + 7)
    assert after_failure(running(), failed, NOW_NS) == GiveUp(failed.failure)
    spent = running(retry_policy=payload(max_attempts=1))
    assert after_failure(spent, failed, NOW_NS) == GiveUp(failed.failure)


def test_an_attempt_beyond_schedule_to_close_is_not_made() -> None:
    row = running(retry_policy=payload(initial_interval=10))
    retry = after_failure(row, FAILED, NOW_NS)
    assert isinstance(retry, Retry)
    for room_ns, kind in ((0, GiveUp), (1, Retry)):
        row.close_deadline_ns = retry.not_before_ns + room_ns
        assert isinstance(after_failure(row, FAILED, NOW_NS), kind)


@given(
    attempt=st.integers(1, 10**6),
    initial_s=st.floats(0, 10**6),
    coefficient=st.floats(1, 1e300),
    factor=st.floats(1, 10**3),
)
def test_no_attempt_number_makes_the_delay_leave_its_bounds(
    attempt: int, initial_s: float, coefficient: float, factor: float
) -> None:
    """B37: neither negative nor beyond the longest interval, a fifth of jitter aside."""
    policy = payload(
        initial_interval=initial_s, backoff_coefficient=coefficient, max_interval=initial_s * factor
    )
    decision = after_failure(running(attempt=attempt, retry_policy=policy), FAILED, NOW_NS)
    assert isinstance(decision, Retry)
    delay_s = (decision.not_before_ns - NOW_NS) / S
    assert 0.8 * initial_s - 1e-5 <= delay_s <= 1.2 * initial_s * factor + 1e-5


@given(attempt=st.integers(1, 10**6))
def test_a_later_delay_is_never_much_shorter(attempt: int) -> None:
    rows = [running(attempt=number, retry_policy=payload()) for number in (attempt, attempt + 1)]
    first, second = (after_failure(row, FAILED, NOW_NS) for row in rows)
    assert isinstance(first, Retry)
    assert isinstance(second, Retry)
    assert (second.not_before_ns - NOW_NS) >= (first.not_before_ns - NOW_NS) * 0.8 / 1.2


def test_the_jitter_spreads_over_two_fifths() -> None:
    """B36: runs that failed together do not come back together; the same row always waits as long."""
    policy = payload(initial_interval=10)
    delays_s = []
    for number in range(1000):
        row = running(run_id=f"r-{number}", retry_policy=policy)
        decisions = {after_failure(row, FAILED, NOW_NS) for _ in range(2)}
        [decision] = decisions
        delays_s.append((decision.not_before_ns - NOW_NS) / S)
    assert min(delays_s) < 8.1
    assert max(delays_s) > 11.9
    assert 9.8 < sum(delays_s) / len(delays_s) < 10.2
    assert len(set(delays_s)) > 990


# --- limits ---------------------------------------------------------------------------------------


def test_a_row_without_limits_is_never_due_while_it_waits() -> None:
    row = replace(ROW)
    refresh_due(row)
    assert row.due_ns == 0


def test_a_row_is_due_at_the_first_of_its_limits() -> None:
    assert running().due_ns == NOW_NS + 15 * S
    assert running(start_to_close_ns=9 * S).due_ns == NOW_NS + 9 * S
    assert running(start_to_close_ns=9 * S, heartbeat_ns=8 * S).due_ns == NOW_NS + 8 * S
    assert running(heartbeat_ns=8 * S, close_deadline_ns=NOW_NS + 7).due_ns == NOW_NS + 7
    waiting = replace(ROW, start_deadline_ns=NOW_NS + 5, close_deadline_ns=NOW_NS + 7)
    refresh_due(waiting)
    assert waiting.due_ns == NOW_NS + 5


def test_limits_of_an_attempt_do_not_hold_between_attempts() -> None:
    row = running(start_to_close_ns=S, heartbeat_ns=S, start_deadline_ns=NOW_NS + S)
    row.claimed = False
    refresh_due(row)
    assert row.due_ns == 0
    assert when_due(row, NOW_NS + 1000 * S) is None


def test_schedule_to_start_was_met_by_an_attempt_that_was_released() -> None:
    row = running(start_deadline_ns=NOW_NS + S)
    row.claimed, row.attempt = False, 0
    refresh_due(row)
    assert row.due_ns == 0
    assert when_due(row, NOW_NS + 1000 * S) is None


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        ({"start_to_close_ns": 5 * S}, "start_to_close"),
        ({"heartbeat_ns": 5 * S}, "heartbeat"),
        ({"close_deadline_ns": NOW_NS + 5 * S}, "schedule_to_close"),
    ],
)
def test_a_limit_that_is_reached_is_named(limit: dict[str, int], kind: str) -> None:
    row = running(**limit)
    assert when_due(row, NOW_NS + 5 * S - 1) is None
    decision = when_due(row, NOW_NS + 5 * S)
    assert isinstance(decision, GiveUp)
    assert (decision.failure.kind, decision.failure.details) == ("timeout", {"timeout_kind": kind})
    assert decision.began


def test_schedule_to_start_ends_what_never_began() -> None:
    row = replace(ROW, start_deadline_ns=NOW_NS, retry_policy=payload())
    decision = when_due(row, NOW_NS)
    assert isinstance(decision, GiveUp)
    assert not decision.began
    assert decision.failure.details == {"timeout_kind": "schedule_to_start"}


def test_schedule_to_close_goes_before_all_policies() -> None:
    row = running(close_deadline_ns=NOW_NS + S, start_to_close_ns=S, retry_policy=payload())
    assert isinstance(when_due(row, NOW_NS + S), GiveUp)


def test_timeouts_of_an_attempt_are_retried_by_policy() -> None:
    for limit in ({"start_to_close_ns": S}, {"heartbeat_ns": S}):
        assert isinstance(when_due(running(**limit, retry_policy=payload()), NOW_NS + S), Retry)
        picky = payload(non_retryable_errors=("timeout",))
        assert isinstance(when_due(running(**limit, retry_policy=picky), NOW_NS + S), GiveUp)


def test_what_came_first_counts() -> None:
    late_ns = NOW_NS + 1000 * S
    assert isinstance(when_due(running(start_to_close_ns=16 * S), late_ns), Lost)
    assert isinstance(when_due(running(start_to_close_ns=14 * S), late_ns), GiveUp)


def test_a_lost_attempt_is_tried_again_without_any_policy_and_with_growing_delays() -> None:
    delays_s = []
    for lost in range(LOST_ATTEMPTS_MAX - 1):
        row = running(attempt=lost + 1, lost=lost, lease_until_ns=NOW_NS)
        decision = when_due(row, NOW_NS)
        assert isinstance(decision, Lost)
        delays_s.append((decision.not_before_ns - NOW_NS) / S)
    assert 0.8 <= delays_s[0] <= 1.2
    assert all(48 <= delay_s <= 72 for delay_s in delays_s[6:])
    last = when_due(
        running(attempt=LOST_ATTEMPTS_MAX, lost=LOST_ATTEMPTS_MAX - 1, lease_until_ns=NOW_NS), NOW_NS
    )
    assert isinstance(last, GiveUp)
    assert (last.failure.kind, last.failure.type) == ("panic", "WorkerLost")


@given(
    claimed=st.booleans(),
    attempt=st.integers(0, 3),
    moments=st.tuples(*[st.integers(0, 50)] * 4),
    durations=st.tuples(*[st.integers(0, 50)] * 2),
    late_ns=st.integers(0, 60),
)
def test_a_row_that_is_due_has_a_decision_and_no_other_row_has(
    claimed: bool, attempt: int, moments: tuple[int, ...], durations: tuple[int, ...], late_ns: int
) -> None:
    """Otherwise the timeout worker would look at it for ever, or never."""
    lease_ns, start_ns, close_ns, began_ns = moments
    row = replace(
        ROW,
        claimed=claimed,
        attempt=max(attempt, 1) if claimed else attempt,
        started_at_ns=NOW_NS + began_ns if claimed or attempt else 0,
        heartbeat_at_ns=NOW_NS + began_ns if claimed or attempt else 0,
        lease_until_ns=NOW_NS + lease_ns if claimed else 0,
        start_deadline_ns=NOW_NS + start_ns if start_ns else 0,
        close_deadline_ns=NOW_NS + close_ns if close_ns else 0,
        start_to_close_ns=durations[0],
        heartbeat_ns=durations[1],
    )
    refresh_due(row)
    now_ns = NOW_NS + late_ns
    assert (when_due(row, now_ns) is not None) == (0 < row.due_ns <= now_ns)
