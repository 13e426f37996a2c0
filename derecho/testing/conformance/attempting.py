"""Cases: activities and their attempts, good and bad, late and lost."""

from __future__ import annotations

from derecho.journal.events import ActivityCompleted, ActivityFailed, ActivityScheduled, ActivityStarted
from derecho.policies import RetryPolicy
from derecho.stores.base import LOST_ATTEMPTS_MAX, LeaseState, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    S,
    activity,
    attempt,
    attempts,
    claim,
    claimed,
    commit,
    completed,
    events_of,
    expect,
    fail,
    finish,
    journal,
    kinds,
    start,
    terminate,
    the,
    token,
    turn,
)

TWICE = RetryPolicy(initial_interval=10, max_attempts=2)
ALWAYS = RetryPolicy(initial_interval=10, backoff_coefficient=1)


def _scheduled(store: Store, *commands: ActivityScheduled, workflow_id: str = "w") -> None:
    start(store, workflow_id)
    turn(store, *commands)


def case_a_scheduled_activity_can_be_attempted(store: Store, clock: FakeClock) -> None:
    run_id = start(store)
    [scheduled_id] = turn(store, activity("charge", input=b"\x00\xff", retry=TWICE, start_to_close_timeout=5))
    scheduled_at_ns = clock.now_ns()
    clock.advance(1)
    work = attempt(store, "b")
    wanted = (run_id, "w", scheduled_id, "charge", b"\x00\xff", TWICE.to_payload())
    got = (work.run_id, work.workflow_id, work.scheduled_id, work.name, work.input, work.retry_policy)
    expect(got, wanted, "activity")
    expect((work.claimed, work.attempt, work.lease_owner), (True, 1, "b"), "attempt")
    now_ns = clock.now_ns()
    expect((work.scheduled_at_ns, work.started_at_ns), (scheduled_at_ns, now_ns), "moments")
    expect((work.lease_until_ns, work.start_to_close_ns), (now_ns + 15 * S, 5 * S), "lease and limit")


def case_an_activity_is_attempted_by_one_worker(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity())
    attempt(store, "a")
    expect((attempts(store, "a"), attempts(store, "b")), ([], []), "further attempts")


def case_a_result_is_recorded_once(store: Store, clock: FakeClock) -> None:
    """B29; and G3: the attempt and its outcome are written together."""
    _scheduled(store, activity())
    work = attempt(store, "b")
    clock.advance(1)
    expect((finish(store, work, b"\xff"), finish(store, work, b"again")), (True, False), "answers")
    wanted = ["activity_started", "activity_completed", "workflow_task_scheduled"]
    expect(kinds(journal(store)[5:]), wanted, "journal")
    began, ended = the(store, ActivityStarted), the(store, ActivityCompleted)
    wanted_start = (4, "b", work.started_at_ns, 1)
    expect(
        (began.scheduled_by_id, began.worker_id, began.started_at_ns, began.attempt), wanted_start, "start"
    )
    expect((ended.scheduled_by_id, ended.result), (4, b"\xff"), "outcome")
    clock.advance(1000)
    expect((claimed(store), attempts(store), store.expire(10)), (["w"], [], 0), "what is left")


def case_a_worker_attempts_only_what_it_knows(store: Store, clock: FakeClock) -> None:
    """B11: what it does not know stays for others."""
    _scheduled(store, activity("charge"), activity("ship"), activity("charge"))
    expect(attempts(store, names=()), [], "attempts of a worker that knows nothing")
    expect(attempts(store, names=("x",)), [], "attempts of a worker that knows others")
    expect([work.name for work in attempts(store, names=("x", "ship"))], ["ship"], "attempts")
    expect([work.name for work in attempts(store, names=None)], ["charge", "charge"], "attempts of any name")


def case_no_more_attempts_begin_than_the_limit(store: Store, clock: FakeClock) -> None:
    _scheduled(store, *[activity()] * 5)
    numbers = [len(attempts(store, limit=limit)) for limit in (2, 2, 2, 2)]
    expect(numbers, [2, 2, 1, 0], "number of attempts")


def case_attempts_begin_longest_due_first(store: Store, clock: FakeClock) -> None:
    for number in range(4):
        _scheduled(store, activity(f"step {number % 2}"), workflow_id=f"w{number}")
        clock.advance(1)
    expect([work.workflow_id for work in attempts(store, limit=2)], ["w0", "w1"], "first attempts")
    expect([work.workflow_id for work in attempts(store)], ["w2", "w3"], "further attempts")


def case_outcomes_are_recorded_as_they_arrive(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity("first"), activity("second"))
    first, second = sorted(attempts(store), key=lambda work: work.scheduled_id)
    expect((finish(store, second), finish(store, first)), (True, True), "answers")
    got = [event.scheduled_by_id for event in events_of(store, ActivityCompleted)]
    expect(got, [second.scheduled_id, first.scheduled_id], "order of the outcomes")
    expect(kinds(journal(store)).count("workflow_task_scheduled"), 2, "tasks scheduled")


def case_a_failure_without_a_policy_is_final(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity())
    expect(fail(store, attempt(store)), True, "answer")
    error = the(store, ActivityFailed).error
    expect(
        (error.kind, error.type, error.message) if error else None,
        ("application", "ValueError", "no"),
        "error",
    )
    expect((the(store, ActivityStarted).attempt, claimed(store)), (1, ["w"]), "attempt and claims")


def case_a_failed_attempt_is_tried_again_after_a_delay(store: Store, clock: FakeClock) -> None:
    """B25 and B27: in the same row, and nothing of it is in the journal."""
    _scheduled(store, activity(retry=TWICE))
    first = attempt(store)
    expect(fail(store, first), True, "answer")
    due_ns = store.next_due("a").activities_ns
    expect(
        8 * S <= due_ns - clock.now_ns() <= 12 * S, True, "whether the delay is 10 s, give or take a fifth"
    )
    expect((attempts(store), len(journal(store))), ([], 5), "attempts and events before it")
    clock.advance((due_ns - clock.now_ns() - 1) / S)
    expect(attempts(store), [], "attempts just before it")
    clock.advance(0.000000001)
    second = attempt(store, "b")
    expect((second.scheduled_id, second.attempt), (first.scheduled_id, 2), "second attempt")
    expect(finish(store, second), True, "answer")
    expect((the(store, ActivityStarted).attempt, the(store, ActivityStarted).worker_id), (2, "b"), "start")


def case_a_delay_never_grows_short_again(store: Store, clock: FakeClock) -> None:
    """B37: however many attempts fail."""
    _scheduled(store, activity(retry=RetryPolicy(initial_interval=1, max_interval=100)))
    for number in range(80):
        fail(store, attempt(store))
        delay_ns = store.next_due("a").activities_ns - clock.now_ns()
        longest_s = min(2**number, 100)
        expect(
            0.8 * longest_s * S <= delay_ns <= 1.2 * longest_s * S, True, f"whether {delay_ns} ns is right"
        )
        clock.advance(120)


def case_the_last_failure_is_final(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=TWICE))
    fail(store, attempt(store))
    clock.advance(12)
    fail(store, attempt(store))
    expect((the(store, ActivityStarted).attempt, len(events_of(store, ActivityFailed))), (2, 1), "outcome")
    clock.advance(1000)
    expect(attempts(store), [], "attempts")


def case_some_failures_are_not_tried_again(store: Store, clock: FakeClock) -> None:
    picky = RetryPolicy(non_retryable_errors=("LookupError",))
    _scheduled(store, activity(retry=ALWAYS), activity(retry=picky), activity(retry=picky))
    works = sorted(attempts(store), key=lambda work: work.scheduled_id)
    fail(store, works[0], non_retryable=True)
    fail(store, works[1], names=("application", "KeyError", "LookupError"))
    fail(store, works[2])
    wanted = [work.scheduled_id for work in works[:2]]
    expect([event.scheduled_by_id for event in events_of(store, ActivityFailed)], wanted, "final failures")


def case_an_activity_may_choose_its_delay(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=TWICE))
    fail(store, attempt(store), delay_s=100)
    expect(store.next_due("a").activities_ns, clock.now_ns() + 100 * S, "next attempt")


def case_a_late_result_of_an_old_attempt_changes_nothing(store: Store, clock: FakeClock) -> None:
    """B25 and B29: neither while the next attempt waits nor while it runs nor after it ended."""
    _scheduled(store, activity(retry=TWICE))
    old = attempt(store)
    fail(store, old)
    before = journal(store)
    expect((finish(store, old), fail(store, old)), (False, False), "answers while the next attempt waits")
    clock.advance(12)
    new = attempt(store)
    expect((finish(store, old), fail(store, old)), (False, False), "answers while it runs")
    expect((journal(store), attempts(store)), (before, []), "journal and attempts")
    expect((finish(store, new), finish(store, old)), (True, False), "answers of both")


def case_an_old_attempt_keeps_nothing_alive(store: Store, clock: FakeClock) -> None:
    """B26: its heartbeats and renewals are not the new attempt's, and change nothing of it."""
    _scheduled(store, activity(retry=TWICE, heartbeat_timeout=5))
    old = attempt(store)
    fail(store, old)
    clock.advance(12)
    new = attempt(store)
    clock.advance(3)
    expect(store.heartbeat(token(old), b"old"), LeaseState.LOST, "heartbeat of the old attempt")
    expect(store.renew_activities([token(old)], 60 * S), [LeaseState.LOST], "its renewal")
    store.release_activities([token(old)])
    expect(attempts(store), [], "attempts after its release")
    clock.advance(2)
    expect((store.expire(10), finish(store, new)), (1, False), "what became of the new attempt")


def case_a_dead_workers_activity_is_attempted_elsewhere(store: Store, clock: FakeClock) -> None:
    """B24: without any timeout and without any policy."""
    _scheduled(store, activity())
    lost = attempt(store, "a", lease_s=15)
    clock.advance(14.999999999)
    expect(store.expire(10), 0, "activities that changed before the lease ran out")
    clock.advance(0.000000001)
    expect((store.expire(10), store.expire(10)), (1, 0), "activities that changed")
    expect(finish(store, lost), False, "answer to the worker that came back")
    clock.advance(2)
    work = attempt(store, "b")
    expect((work.attempt, work.lost), (2, 1), "attempt")
    expect((finish(store, work), the(store, ActivityStarted).attempt), (True, 2), "outcome")


def case_a_lost_attempt_does_not_count(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=TWICE))
    for _ in range(3):
        attempt(store)
        clock.advance(100)
        expect(store.expire(10), 1, "activities that changed")
        clock.advance(100)
    fail(store, attempt(store))
    expect(events_of(store, ActivityFailed), [], "outcome after one failure and three losses")
    clock.advance(100)
    fail(store, attempt(store))
    expect(the(store, ActivityStarted).attempt, 5, "attempts in all")


def case_an_activity_that_kills_its_worker_ends(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=ALWAYS))
    for number in range(LOST_ATTEMPTS_MAX):
        expect((attempt(store).attempt, events_of(store, ActivityFailed)), (number + 1, []), "attempt")
        clock.advance(100)
        store.expire(10)
        clock.advance(100)
    expect((len(events_of(store, ActivityFailed)), attempts(store)), (1, []), "outcome and attempts")


def case_a_renewed_attempt_is_not_lost(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity())
    work = attempt(store, lease_s=15)
    for _ in range(4):
        clock.advance(14)
        expect(store.renew_activities([token(work)], 15 * S), [LeaseState.HELD], "renewal")
        expect(store.expire(10), 0, "activities that changed")
    expect(finish(store, work), True, "answer")


def case_a_heartbeat_is_not_a_renewal(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity())
    work = attempt(store, lease_s=15)
    clock.advance(10)
    expect(store.heartbeat(token(work), b""), LeaseState.HELD, "heartbeat")
    clock.advance(5)
    expect(store.expire(10), 1, "activities that changed")


def case_details_reach_the_next_attempt(store: Store, clock: FakeClock) -> None:
    _scheduled(store, activity(retry=ALWAYS))
    work = attempt(store)
    expect(work.heartbeat_details, b"", "details of the first attempt")
    expect(store.heartbeat(token(work), b"\x00half"), LeaseState.HELD, "heartbeat")
    fail(store, work)
    clock.advance(12)
    work = attempt(store)
    expect(work.heartbeat_details, b"\x00half", "details that a heartbeat left")
    fail(store, work, details=b"most")
    clock.advance(12)
    expect(attempt(store).heartbeat_details, b"most", "details that a failure left")


def case_a_released_attempt_is_not_consumed(store: Store, clock: FakeClock) -> None:
    """It is attempted again at once, and a schedule-to-start limit, met by its first pickup, stays met."""
    _scheduled(store, activity(retry=TWICE, schedule_to_start_timeout=5))
    first = attempt(store, "a")
    clock.advance(10)
    store.release_activities([token(first)])
    expect(store.expire(10), 0, "activities that changed")
    again = attempt(store, "b")
    expect((again.attempt, again.lease_owner), (1, "b"), "attempt")
    expect((finish(store, first), finish(store, again)), (False, True), "answers")


def case_an_activity_of_a_closed_run_is_over(store: Store, clock: FakeClock) -> None:
    """B23 and B29."""
    _scheduled(store, activity(), activity())
    running = attempts(store, limit=1)[0]
    terminate(store)
    before = journal(store)
    expect((finish(store, running), fail(store, running)), (False, False), "answers")
    expect(store.heartbeat(token(running), b""), LeaseState.LOST, "heartbeat")
    expect(store.renew_activities([token(running)], S), [LeaseState.LOST], "renewal")
    expect((attempts(store), journal(store)), ([], before), "attempts and journal")


def case_a_result_during_a_task_is_left_to_the_next(store: Store, clock: FakeClock) -> None:
    """B1."""
    _scheduled(store, activity(), activity())
    works = attempts(store)
    finish(store, works[0])
    of = claim(store)
    finish(store, works[1])
    commit(store, of, activity())
    expect(claimed(store), ["w"], "claims")
    expect(kinds(journal(store)).count("activity_completed"), 2, "outcomes")


def case_attempts_of_equal_number_in_two_runs_are_two(store: Store, clock: FakeClock) -> None:
    for workflow_id in "vw":
        _scheduled(store, activity(), workflow_id=workflow_id)
    works = attempts(store)
    expect([work.scheduled_id for work in works], [4, 4], "event ids")
    expect([finish(store, work) for work in works], [True, True], "answers")
    expect(sorted(claimed(store)), ["v", "w"], "claims")
    counts = [kinds(journal(store, workflow_id)).count("activity_completed") for workflow_id in "vw"]
    expect(counts, [1, 1], "outcomes")


def case_an_activity_of_a_completed_run_is_not_attempted(store: Store, clock: FakeClock) -> None:
    start(store)
    turn(store, activity(), completed())
    expect(attempts(store), [], "attempts")
