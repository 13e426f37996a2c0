"""Cases: the limits of activities. A timeout is the end of an attempt, or of them all."""

from __future__ import annotations

from derecho.journal.events import ActivityFailed, ActivityScheduled, ActivityStarted
from derecho.policies import RetryPolicy
from derecho.stores.base import LeaseState, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    S,
    activity,
    attempt,
    attempts,
    claimed,
    events_of,
    expect,
    fail,
    finish,
    start,
    the,
    token,
    turn,
)

ALWAYS = RetryPolicy(initial_interval=1, backoff_coefficient=1)


def _scheduled(store: Store, *commands: ActivityScheduled) -> None:
    start(store)
    turn(store, *commands)


def _timeout_kind(store: Store) -> str:
    error = the(store, ActivityFailed).error
    if error is None:
        raise AssertionError("a failure without an error")
    expect(error.kind, "timeout", "kind of the failure")
    return error.details.get("timeout_kind", "")


def case_an_activity_that_nobody_picks_up_times_out(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=ALWAYS, schedule_to_start_timeout=5))
    clock.advance(4.999999999)
    expect(store.expire(10), 0, "activities that changed before the time")
    clock.advance(0.000000001)
    expect((store.expire(10), store.expire(10)), (1, 0), "activities that changed")
    expect((_timeout_kind(store), events_of(store, ActivityStarted)), ("schedule_to_start", []), "outcome")
    expect((attempts(store), claimed(store)), ([], ["w"]), "attempts and claims")


def case_schedule_to_start_is_over_with_the_first_attempt(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=ALWAYS, schedule_to_start_timeout=5))
    fail(store, attempt(store))
    clock.advance(60)
    expect((store.expire(10), len(attempts(store))), (0, 1), "activities that changed, and attempts")


def case_an_attempt_that_takes_too_long_is_tried_again(store: Store, clock: FakeClock) -> None:
    """B28 and B25: a timeout is a failed attempt, and the old limit is not the next attempt's."""
    _scheduled(store, activity(retry=ALWAYS, start_to_close_timeout=5))
    late = attempt(store)
    clock.advance(5)
    expect(
        (store.expire(10), finish(store, late)), (1, False), "activities that changed, and the late answer"
    )
    clock.advance(2)
    work = attempt(store)
    clock.advance(4)
    expect((work.attempt, store.expire(10), finish(store, work)), (2, 0, True), "second attempt")


def case_the_last_attempt_that_takes_too_long_is_final(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=RetryPolicy.none(), start_to_close_timeout=5))
    attempt(store, "b")
    clock.advance(5)
    expect((store.expire(10), _timeout_kind(store)), (1, "start_to_close"), "outcome")
    expect(the(store, ActivityStarted).worker_id, "b", "whose attempt it was")


def case_an_activity_may_refuse_to_retry_timeouts(store: Store, clock: FakeClock) -> None:
    policy = RetryPolicy(non_retryable_errors=("timeout",))
    _scheduled(store, activity(retry=policy, start_to_close_timeout=5))
    attempt(store)
    clock.advance(5)
    expect((store.expire(10), _timeout_kind(store)), (1, "start_to_close"), "outcome")


def case_an_attempt_that_falls_silent_times_out(store: Store, clock: FakeClock) -> None:
    """B26: each heartbeat gives it more time, and no other sign of life does."""
    _scheduled(store, activity(heartbeat_timeout=5))
    work = attempt(store, lease_s=60)
    for _ in range(3):
        clock.advance(4)
        expect(store.heartbeat(token(work), b""), LeaseState.HELD, "heartbeat")
        expect(store.expire(10), 0, "activities that changed")
    clock.advance(4)
    store.renew_activities([token(work)], 60 * S)
    clock.advance(1)
    expect((store.expire(10), _timeout_kind(store)), (1, "heartbeat"), "outcome")


def case_schedule_to_close_ends_a_running_attempt(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=ALWAYS, schedule_to_close_timeout=5))
    work = attempt(store)
    clock.advance(5)
    expect((store.expire(10), _timeout_kind(store)), (1, "schedule_to_close"), "outcome")
    expect((the(store, ActivityStarted).attempt, finish(store, work)), (1, False), "attempt and late answer")


def case_schedule_to_close_ends_the_wait_for_an_attempt(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=ALWAYS, schedule_to_close_timeout=5))
    clock.advance(5)
    expect((store.expire(10), _timeout_kind(store)), (1, "schedule_to_close"), "outcome")
    expect((events_of(store, ActivityStarted), attempts(store)), ([], []), "attempts")


def case_an_attempt_that_could_only_begin_too_late_is_not_made(store: Store, clock: FakeClock) -> None:
    policy = RetryPolicy(initial_interval=10)
    _scheduled(store, activity(retry=policy, schedule_to_close_timeout=5))
    fail(store, attempt(store))
    error = the(store, ActivityFailed).error
    expect(error.kind if error else None, "application", "kind of the failure, at once")


def case_what_came_first_decides_how_an_attempt_ended(store: Store, clock: FakeClock) -> None:
    """A worker that died long before the limit: the attempt is lost, and another follows without a policy."""
    _scheduled(store, activity(start_to_close_timeout=60))
    attempt(store, lease_s=15)
    clock.advance(100)
    expect((store.expire(10), events_of(store, ActivityFailed)), (1, []), "activities that changed, outcomes")
    clock.advance(2)
    expect(attempt(store).attempt, 2, "attempt")


def case_timeouts_beyond_the_limit_are_left(store: Store, clock: FakeClock) -> None:
    """B8: looking at them consumes nothing."""
    _scheduled(store, *[activity(schedule_to_start_timeout=5)] * 5)
    clock.advance(5)
    numbers = [store.expire(2) for _ in range(4)]
    expect(numbers, [2, 2, 1, 0], "activities that changed")
    expect(len(events_of(store, ActivityFailed)), 5, "outcomes")


def case_next_due_tells_when_an_activity_times_out(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(schedule_to_start_timeout=5, heartbeat_timeout=2))
    now_ns = clock.now_ns()
    expect(store.next_due("a").timeouts_ns, now_ns + 5 * S, "while it waits")
    expect(0 < store.next_due("a").activities_ns <= now_ns, True, "whether an attempt may begin")
    work = attempt(store)
    expect(store.next_due("a").timeouts_ns, now_ns + 2 * S, "while it runs")
    clock.advance(1)
    store.heartbeat(token(work), b"")
    expect(store.next_due("a").timeouts_ns, now_ns + 3 * S, "after a heartbeat")
    expect(store.next_due("a").activities_ns, 0, "attempts to begin")
    finish(store, work)
    expect(store.next_due("a").timeouts_ns, 0, "when it is over")
    turn(store, activity(retry=ALWAYS, heartbeat_timeout=2))
    fail(store, attempt(store))
    expect(store.next_due("a").timeouts_ns, 0, "while the next attempt waits")
