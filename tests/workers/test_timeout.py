"""The timeout worker with activity workers: the four limits, lost workers, overdue cancels."""

from __future__ import annotations

from typing import Any

import pytest

from derecho.activities import activity_info, heartbeat
from derecho.authoring.definitions import activity
from derecho.errors import ActivityCancelledError
from derecho.journal.commit import WorkflowStatus
from derecho.journal.events import (
    ActivityCompleted,
    ActivityFailed,
    ActivityStarted,
    Failure,
    WorkflowCancelled,
)
from derecho.policies import RetryPolicy
from derecho.stores.base import LOST_ATTEMPTS_MAX
from derecho.stores.bell import TIMEOUTS
from derecho.testing.conformance import scene
from derecho.workers.loop import IDLE_MAX_S

AT_ONCE = RetryPolicy(initial_interval=0, max_attempts=3)


@activity(name="charge")
def number(cents: int) -> int:
    return activity_info().attempt


def failure(bench: Any) -> Failure:
    error = bench.the(ActivityFailed).error
    assert error is not None
    return error


def timeout_of(bench: Any) -> tuple[str, str]:
    return failure(bench).kind, failure(bench).details["timeout_kind"]


def slow(bench: Any, seconds: float, *, beats: bool = False, keeper: Any = None) -> Any:
    """Return an activity whose first attempt takes so long while all other workers work."""

    @activity(name="charge")
    def attempt(cents: int) -> int:
        if activity_info().attempt == 1:
            for _ in range(10):
                bench.clock.advance(seconds / 10)
                if keeper is not None:
                    keeper.process()
                bench.timeouts.process()
                if beats:
                    heartbeat()
        return activity_info().attempt

    return attempt


def test_schedule_to_start_ends_what_nobody_picked_up(bench: Any) -> None:
    bench.schedule(bench.activity(schedule_to_start_timeout=60, retry=AT_ONCE))
    bench.clock.advance(59)
    assert bench.timeouts.process() == 0
    bench.clock.advance(1)
    assert bench.timeouts.process() == 1
    assert timeout_of(bench) == ("timeout", "schedule_to_start")
    assert not scene.events_of(bench.store, ActivityStarted)
    assert bench.worker(number).process() == 0


def test_schedule_to_start_is_about_the_first_pick_up_only(bench: Any) -> None:
    [scheduled_id] = bench.schedule(
        bench.activity(schedule_to_start_timeout=5, start_to_close_timeout=2, retry=AT_ONCE)
    )
    scene.attempt(bench.store)
    bench.clock.advance(2)
    assert bench.timeouts.process() == 1
    bench.clock.advance(60)
    assert bench.timeouts.process() == 0
    assert bench.row(scheduled_id).attempt == 1
    assert bench.worker(number).process() == 1
    assert bench.the(ActivityCompleted).result == b"2"


def test_start_to_close_is_a_failed_attempt_and_the_late_result_changes_nothing(bench: Any) -> None:
    keeper = bench.keeper()
    worker = bench.worker(slow(bench, 10, keeper=keeper), leases=keeper)
    bench.schedule(bench.activity(start_to_close_timeout=5, retry=AT_ONCE))
    assert [worker.process() for _ in range(3)] == [1, 1, 0]
    assert bench.the(ActivityCompleted).result == b"2"
    assert worker.late_results == 1


def test_start_to_close_of_the_last_attempt_is_the_outcome(bench: Any) -> None:
    bench.schedule(bench.activity(start_to_close_timeout=5))
    worker = bench.worker(slow(bench, 10))
    worker.process()
    assert timeout_of(bench) == ("timeout", "start_to_close")
    assert bench.the(ActivityStarted).attempt == 1
    assert worker.process() == 0


def test_a_policy_can_refuse_to_retry_timeouts(bench: Any) -> None:
    bench.schedule(
        bench.activity(start_to_close_timeout=5, retry=RetryPolicy(non_retryable_errors=("timeout",)))
    )
    bench.worker(slow(bench, 10)).process()
    assert timeout_of(bench) == ("timeout", "start_to_close")


def test_silence_longer_than_the_heartbeat_timeout_is_a_failed_attempt(bench: Any) -> None:
    bench.schedule(bench.activity(heartbeat_timeout=3, retry=AT_ONCE))
    worker = bench.worker(slow(bench, 10))
    assert [worker.process() for _ in range(3)] == [1, 1, 0]
    assert bench.the(ActivityCompleted).result == b"2"


def test_heartbeats_keep_an_attempt_alive(bench: Any) -> None:
    bench.schedule(bench.activity(heartbeat_timeout=3, retry=AT_ONCE))
    keeper = bench.keeper()
    worker = bench.worker(slow(bench, 20, beats=True, keeper=keeper), leases=keeper)
    worker.process()
    assert bench.the(ActivityCompleted).result == b"1"
    assert worker.late_results == 0


def test_an_attempt_that_timed_out_learns_it_from_its_heartbeat(bench: Any) -> None:
    @activity(name="charge")
    def sleepy(cents: int) -> None:
        heartbeat()
        bench.clock.advance(10)
        bench.timeouts.process()
        with pytest.raises(ActivityCancelledError, match="nobody waits"):
            heartbeat()

    bench.schedule(bench.activity(heartbeat_timeout=3))
    bench.worker(sleepy).process()
    assert timeout_of(bench) == ("timeout", "heartbeat")


def test_a_heartbeat_between_two_windows_is_written_in_time_by_the_lease_keeper(bench: Any) -> None:
    """A heartbeat at 0 is written, one at 0.9 s waits; the next, at 3.8 s, is within 3 s of that one only."""
    keeper = bench.keeper()

    @activity(name="charge")
    def uneven(cents: int) -> None:
        heartbeat(1)
        bench.clock.advance(0.9)
        heartbeat(2)
        assert keeper.idle_s() <= 0.1 or keeper.process() == 0
        bench.clock.advance(0.1)
        keeper.process()
        for _ in range(2):
            bench.clock.advance(1.4)
            assert bench.timeouts.process() == 0
        heartbeat(3)

    bench.schedule(bench.activity(heartbeat_timeout=3))
    bench.worker(uneven, leases=keeper).process()
    assert bench.the(ActivityCompleted)


def test_schedule_to_close_ends_it_between_attempts(bench: Any) -> None:
    @activity(name="charge")
    def failing(cents: int) -> None:
        raise ValueError

    bench.schedule(bench.activity(schedule_to_close_timeout=20, retry=RetryPolicy(initial_interval=8)))
    worker = bench.worker(failing)
    for _ in range(30):
        worker.process()
        bench.timeouts.process()
        bench.clock.advance(1)
    assert (
        failure(bench).kind == "application"
    )  # A third attempt would have come too late, so none was waited for.
    assert bench.the(ActivityStarted).attempt == 2


def test_schedule_to_close_ends_a_running_attempt_for_good(bench: Any) -> None:
    bench.schedule(bench.activity(schedule_to_close_timeout=5, retry=AT_ONCE))
    worker = bench.worker(slow(bench, 10))
    worker.process()
    assert timeout_of(bench) == ("timeout", "schedule_to_close")
    assert worker.process() == 0
    assert worker.late_results == 1


def test_an_activity_of_a_dead_worker_is_done_by_another_though_no_timeout_is_set(bench: Any) -> None:
    bench.schedule(bench.activity())
    dead = scene.attempt(bench.store, "dead")
    bench.clock.advance(14)
    assert bench.timeouts.process() == 0
    bench.clock.advance(1)
    assert bench.timeouts.process() == 1
    bench.clock.advance(2)
    assert bench.worker(number, name="alive").process() == 1
    assert not scene.finish(bench.store, dead)
    started = bench.the(ActivityStarted)
    assert (started.worker_id, started.attempt) == ("alive", 2)


def test_lost_attempts_do_not_count_for_the_policy_but_have_a_limit(bench: Any) -> None:
    bench.schedule(bench.activity(retry=RetryPolicy(max_attempts=1)))
    for _ in range(LOST_ATTEMPTS_MAX):
        scene.attempt(bench.store, "dying")
        bench.clock.advance(15)
        assert bench.timeouts.process() == 1
        bench.clock.advance(100)
    assert failure(bench).type == "WorkerLost"


def test_an_overdue_cancel_ends_the_run_without_its_code(bench: Any) -> None:
    bench.schedule(bench.activity())
    scene.cancel(bench.store, timeout_s=30)
    bench.clock.advance(29)
    assert bench.timeouts.process() == 0
    bench.clock.advance(1)
    assert bench.timeouts.process() == 1
    assert bench.the(WorkflowCancelled).forced
    assert scene.row(bench.store).status is WorkflowStatus.CANCELLED


def test_the_worker_rests_until_the_next_limit(bench: Any) -> None:
    worker = bench.timeouts
    assert worker.topic == TIMEOUTS
    assert worker.bell is bench.store.bell
    assert worker.idle_s() == IDLE_MAX_S
    bench.schedule(bench.activity(schedule_to_start_timeout=0.5))
    worker.process()
    assert worker.idle_s() == 0.5
    bench.clock.advance(0.5)
    assert worker.idle_s() == 0
