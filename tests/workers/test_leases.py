"""The lease keeper: what lives is not taken over, what is lost is noticed, whatever the process is busy with."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from derecho.activities import activity_info, heartbeat
from derecho.authoring.definitions import activity
from derecho.errors import ActivityCancelledError, StoreError
from derecho.journal.events import ActivityCompleted, ActivityStarted
from derecho.stores.base import ActivityToken, LeaseState
from derecho.stores.memory import MemoryStore
from derecho.testing.conformance import scene
from derecho.workers.leases import LEASES, RENEW_BATCH_MAX, LeaseKeeper
from derecho.workers.loop import IDLE_MAX_S, run_worker
from derecho.workers.runner import ThreadRunner


class Held:
    """An attempt, as far as the keeper cares."""

    def __init__(self, token: ActivityToken) -> None:
        self.token = token
        self.learnt: list[LeaseState] = []

    def learn(self, state: LeaseState) -> None:
        self.learnt.append(state)

    def flush(self, now_ns: int) -> int:
        return 0


def test_an_activity_of_ten_times_its_lease_runs_once(bench: Any) -> None:
    keeper = bench.keeper()
    calls: list[int] = []

    @activity(name="charge")
    def long(cents: int) -> None:
        calls.append(activity_info().attempt)
        for _ in range(150):
            bench.clock.advance(1)
            keeper.process()
            assert bench.timeouts.process() == 0
            assert other.process() == 0
        heartbeat()

    bench.schedule(bench.activity())
    other = bench.worker(long, name="other")
    worker = bench.worker(long, leases=keeper)
    assert worker.process() == 1
    assert calls == [1]
    assert bench.the(ActivityCompleted)
    assert worker.late_results == 0


def test_a_lost_attempt_is_retried_by_another_worker_and_its_late_result_changes_nothing(bench: Any) -> None:
    keeper = bench.keeper()

    @activity(name="charge")
    def frozen(cents: int) -> str:
        if activity_info().attempt == 1:
            bench.clock.advance(15)  # The whole process stands still, the keeper too.
            bench.timeouts.process()
            bench.clock.advance(2)
            assert other.process() == 1
            assert keeper.process() == 1
            with pytest.raises(ActivityCancelledError):
                heartbeat()
        return f"attempt {activity_info().attempt}"

    bench.schedule(bench.activity())
    other = bench.worker(frozen, name="other")
    worker = bench.worker(frozen, leases=keeper)
    assert worker.process() == 1
    assert bench.the(ActivityCompleted).result == b'"attempt 2"'
    assert bench.the(ActivityStarted).worker_id == "other"
    assert (worker.late_results, other.late_results) == (1, 0)


def test_a_renewal_tells_the_attempt_that_it_was_asked_to_cancel(bench: Any) -> None:
    keeper = bench.keeper()
    [scheduled_id] = bench.schedule(bench.activity())

    @activity(name="charge")
    def asked(cents: int) -> str:
        def change(row: Any) -> None:
            row.cancel_requested = True

        heartbeat()
        bench.change(scheduled_id, change)
        bench.clock.advance(5)
        keeper.process()
        heartbeat()
        return "not reached"

    bench.worker(asked, leases=keeper).process()
    assert not scene.events_of(bench.store, ActivityCompleted)


def test_leases_are_renewed_at_a_third_of_their_length(bench: Any) -> None:
    keeper = bench.keeper()
    [scheduled_id] = bench.schedule(bench.activity())
    held = Held(scene.token(scene.attempt(bench.store)))
    keeper.process()
    keeper.hold(held)
    assert keeper.process() == 0
    assert keeper.idle_s() == IDLE_MAX_S  # So that a clock that jumps is noticed.
    bench.clock.advance(4.75)
    assert keeper.process() == 0
    assert keeper.idle_s() == 0.25
    bench.clock.advance(0.25)
    assert keeper.process() == 1
    assert held.learnt == [LeaseState.HELD]
    assert bench.row(scheduled_id).lease_until_ns == bench.clock.now_ns() + 15 * scene.S
    keeper.drop(held)
    bench.clock.advance(5)
    assert keeper.process() == 0


def test_a_clock_that_is_set_back_brings_a_renewal_forward(bench: Any) -> None:
    keeper = bench.keeper()
    bench.schedule(bench.activity())
    held = Held(scene.token(scene.attempt(bench.store)))
    keeper.hold(held)
    keeper.process()
    bench.clock.set(bench.clock.now().replace(year=2019))
    assert keeper.process() == 1


def test_runs_in_flight_are_renewed_and_a_lost_one_is_remembered_until_it_is_dropped(bench: Any) -> None:
    keeper = bench.keeper()
    run_id = scene.start(bench.store)
    claim = scene.claim(bench.store, lease_s=10)
    token = claim.run.token
    keeper.hold_run(run_id, token)
    for _ in range(10):
        bench.clock.advance(4)
        assert keeper.process() == 1
        assert scene.claimed(bench.store, "other") == []
    assert not keeper.lost(run_id, token)
    bench.clock.advance(10)
    assert scene.claimed(bench.store, "other") == ["w"]
    keeper.process()
    assert keeper.lost(run_id, token)
    assert not keeper.lost(run_id, token + 1)
    keeper.drop_run(run_id, token)
    assert not keeper.lost(run_id, token)


def test_a_new_claim_of_a_lost_run_is_not_lost(bench: Any) -> None:
    keeper = bench.keeper()
    run_id = scene.start(bench.store)
    keeper.hold_run(run_id, 99)
    assert keeper.process() == 1
    assert keeper.lost(run_id, 99)
    claim = scene.claim(bench.store)
    keeper.hold_run(run_id, claim.run.token)
    assert not keeper.lost(run_id, claim.run.token)


def test_an_answer_about_an_older_claim_says_nothing_about_the_new_one(bench: Any) -> None:
    class Slow(MemoryStore):
        def renew_runs(self, held: Sequence[tuple[str, int]], lease_ns: int) -> list[LeaseState]:
            states = super().renew_runs(held, lease_ns)
            keeper.drop_run("run", 1)
            keeper.hold_run("run", 2)
            return states

    keeper = LeaseKeeper(Slow(bench.clock), run_lease_ns=scene.S, activity_lease_ns=scene.S)
    keeper.hold_run("run", 1)
    keeper.process()
    assert not keeper.lost("run", 1)
    assert not keeper.lost("run", 2)
    bench.clock.advance(1)
    assert keeper.process() == 1  # It is still held.


class Failing(MemoryStore):
    """Fails to renew what it is told to."""

    fails: tuple[str, ...] = ()
    batches: list[int]

    def renew_runs(self, held: Sequence[tuple[str, int]], lease_ns: int) -> list[LeaseState]:
        if "runs" in self.fails:
            raise StoreError("no disk today")
        return super().renew_runs(held, lease_ns)

    def renew_activities(self, attempts: Sequence[ActivityToken], lease_ns: int) -> list[LeaseState]:
        self.batches.append(len(attempts))
        if "activities" in self.fails:
            raise StoreError("no disk today")
        return super().renew_activities(attempts, lease_ns)


@pytest.fixture
def failing(bench: Any) -> Failing:
    store = Failing(bench.clock)
    store.batches = []
    return store


def test_trouble_with_one_kind_does_not_keep_the_other_from_renewal_and_is_tried_again_soon(
    bench: Any, failing: Failing
) -> None:
    keeper = LeaseKeeper(failing, run_lease_ns=12 * scene.S, activity_lease_ns=12 * scene.S)
    run_id = scene.start(failing)
    claim = scene.claim(failing)
    keeper.hold_run(run_id, claim.run.token)
    held = Held(ActivityToken("nobody", 1, 1))
    keeper.hold(held)
    failing.fails = ("activities",)
    assert keeper.process() == 1
    assert held.learnt == []
    failing.fails = ()
    bench.clock.advance(1)  # A quarter of the usual rhythm.
    assert keeper.process() == 1
    assert held.learnt == [LeaseState.LOST]


def test_many_leases_are_renewed_in_batches(failing: Failing) -> None:
    keeper = LeaseKeeper(failing, run_lease_ns=scene.S, activity_lease_ns=scene.S)
    for number in range(RENEW_BATCH_MAX + 1):
        keeper.hold(Held(ActivityToken("nobody", number, 1)))
    assert keeper.process() == RENEW_BATCH_MAX + 1
    assert failing.batches == [RENEW_BATCH_MAX, 1]


def test_a_busy_interpreter_and_a_blocked_event_loop_do_not_stop_the_renewals(bench: Any) -> None:
    """Real threads and the machine's clock: leases of 0.15 s are renewed."""
    renewed = threading.Semaphore(0)

    class Telling(MemoryStore):
        def renew_activities(self, attempts: Sequence[ActivityToken], lease_ns: int) -> list[LeaseState]:
            states = super().renew_activities(attempts, lease_ns)
            if attempts:
                renewed.release()
            return states

    @activity(name="charge")
    async def blocking(cents: int) -> str:
        hog = threading.Thread(target=spin)
        hog.start()
        for _ in range(3):
            assert renewed.acquire(timeout=30)  # Blocks the loop itself.
        spinning.clear()
        hog.join()
        return "alive"

    def spin() -> None:
        while spinning.is_set():
            sum(range(100))

    spinning = threading.Event()
    spinning.set()
    store = Telling()
    scene.start(store)
    scene.turn(store, bench.activity())
    keeper = LeaseKeeper(store, run_lease_ns=scene.S, activity_lease_ns=3 * scene.S // 20)
    worker = bench.worker(blocking, store=store, runner=ThreadRunner(1), leases=keeper)
    stop = threading.Event()
    thread = threading.Thread(target=run_worker, args=(keeper, stop))
    thread.start()
    try:
        assert worker.process() == 1
        worker.stop(30)
    finally:
        spinning.clear()
        stop.set()
        store.bell.ring([LEASES])
        thread.join()
    assert scene.the(store, ActivityCompleted).result == b'"alive"'


def test_a_heartbeat_that_waits_wakes_the_keeper(bench: Any) -> None:
    keeper = bench.keeper()
    assert keeper.topic == LEASES
    bell = keeper.bell
    bell.watch(LEASES)
    try:

        @activity(name="charge")
        def beating(cents: int) -> None:
            heartbeat(1)
            seen = bell.seq(LEASES)
            heartbeat(2)
            heartbeat(3)
            assert bell.seq(LEASES) == seen + 1  # Once is enough.
            keeper.process()
            assert keeper.idle_s() == 0.1
            bench.clock.advance(0.1)
            keeper.process()
            assert keeper.idle_s() > 0.1

        [scheduled_id] = bench.schedule(bench.activity(heartbeat_timeout=0.3))
        worker = bench.worker(beating, leases=keeper)
        worker.process()
        assert bench.the(ActivityCompleted).scheduled_by_id == scheduled_id
    finally:
        bell.unwatch(LEASES)
