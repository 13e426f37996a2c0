"""The activity worker, by hand on one thread: what it claims, what it records, what heartbeats do."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from derecho.activities import activity_info, heartbeat
from derecho.authoring.definitions import activity
from derecho.errors import ActivityCancelledError, CodecError, NonRetryableError, RetryAfter, StoreError
from derecho.journal.events import ActivityCompleted, ActivityFailed, ActivityStarted, Failure
from derecho.policies import RetryPolicy
from derecho.stores.base import LeaseState
from derecho.stores.bell import ACTIVITIES
from derecho.testing.conformance import scene
from derecho.workers.loop import IDLE_MAX_S

RETRY = RetryPolicy(initial_interval=10, max_attempts=5)


@activity
def charge(cents: int) -> str:
    return f"charged {cents}"


def failing(*errors: BaseException, name: str = "charge") -> Any:
    """Return an activity that raises these on its first attempts, and then returns the number of the attempt."""

    @activity(name=name)
    def attempt(cents: int) -> int:
        number = activity_info().attempt
        if number <= len(errors):
            raise errors[number - 1]
        return number

    return attempt


def error_of(bench: Any) -> Failure:
    error = bench.the(ActivityFailed).error
    assert error is not None
    return error


# Claims.


def test_an_activity_is_claimed_run_and_recorded(bench: Any) -> None:
    [scheduled_id] = bench.schedule(bench.activity(input=b"42"))
    worker = bench.worker(charge, name="worker-7")
    assert worker.process() == 1
    assert worker.process() == 0
    completed = bench.the(ActivityCompleted)
    assert (completed.scheduled_by_id, completed.result) == (scheduled_id, b'"charged 42"')
    started = bench.the(ActivityStarted)
    assert (started.attempt, started.worker_id) == (1, "worker-7")
    assert worker.late_results == 0


def test_several_activities_run_one_after_the_other(bench: Any) -> None:
    order: list[int] = []

    @activity(name="charge")
    def note(number: int) -> None:
        order.append(number)

    bench.schedule(*(bench.activity(input=b"%d" % number) for number in range(5)))
    worker = bench.worker(note)
    while worker.process():
        pass
    assert order == [0, 1, 2, 3, 4]


def test_a_worker_leaves_what_is_not_registered_to_others(bench: Any) -> None:
    [_, scheduled_id] = bench.schedule(bench.activity("charge"), bench.activity("ship"))
    worker = bench.worker(charge)
    assert worker.process() == 1
    assert worker.process() == 0
    assert bench.row(scheduled_id).attempt == 0
    assert worker.idle_s() == IDLE_MAX_S  # Though something is due: no hot loop.


def test_a_worker_without_activities_asks_for_none(bench: Any) -> None:
    bench.schedule(bench.activity())
    assert bench.worker().process() == 0


class Directory:
    """A resolver that cannot list what it knows."""

    def __init__(self, **known: Any) -> None:
        self.known = known
        self.asked: list[str] = []

    def resolve_activity(self, name: str) -> Any | None:
        self.asked.append(name)
        return self.known.get(name)


def test_what_a_resolver_does_not_know_goes_back_untouched_and_is_left_out_for_a_while(bench: Any) -> None:
    [ship_id, _] = bench.schedule(bench.activity("ship"), bench.activity("charge"))
    directory = Directory(charge=charge)
    worker = bench.worker(resolver=directory)
    bench.clock.advance(0.001)
    assert worker.process() == 0  # One at a time, and the older is the one nobody knows.
    row = bench.row(ship_id)
    assert (row.claimed, row.attempt) == (False, 0)
    assert worker.process() == 0
    assert directory.asked == ["ship"]
    assert worker.idle_s() == IDLE_MAX_S
    assert worker.backed_off_until_ns == bench.clock.now_ns() + scene.S
    bench.clock.advance(1)
    assert worker.process() == 1  # The unknown one went to the end of the queue.
    assert worker.process() == 0
    assert directory.asked == ["ship", "charge", "ship"]
    assert worker.backed_off_until_ns == bench.clock.now_ns() + 2 * scene.S


def test_known_names_are_claimed_while_an_unknown_one_is_left_out(bench: Any) -> None:
    bench.schedule(*(bench.activity(name) for name in ("charge", "ship", "charge", "charge")))
    worker = bench.worker(resolver=Directory(charge=charge))
    assert [worker.process() for _ in range(5)] == [1, 0, 1, 1, 0]


def test_a_resolver_that_raises_costs_nothing_but_time(bench: Any) -> None:
    class Broken:
        def resolve_activity(self, name: str) -> Any:
            raise RuntimeError("no directory today")

    [scheduled_id] = bench.schedule(bench.activity())
    worker = bench.worker(resolver=Broken())
    assert worker.process() == 0
    assert not bench.row(scheduled_id).claimed


def test_the_wait_ends_when_the_next_attempt_is_due(bench: Any) -> None:
    bench.schedule(bench.activity(retry=RETRY))
    worker = bench.worker(failing(RetryAfter(0.25)))
    assert worker.idle_s() == 0
    worker.process()
    assert worker.process() == 0
    assert worker.idle_s() == 0.25
    bench.clock.advance(0.25)
    assert worker.idle_s() == 0
    assert worker.process() == 1


def test_the_worker_listens_to_its_topic(bench: Any) -> None:
    worker = bench.worker(charge)
    assert worker.topic == ACTIVITIES
    assert worker.bell is bench.store.bell


# Failures.


def test_an_exception_fails_the_activity_if_there_is_no_policy(bench: Any) -> None:
    bench.schedule(bench.activity())
    worker = bench.worker(failing(ValueError("no such card")))
    assert worker.process() == 1
    assert worker.process() == 0
    error = error_of(bench)
    assert (error.kind, error.type, error.message) == ("application", "ValueError", "no such card")


def test_a_policy_brings_further_attempts_with_backoff(bench: Any) -> None:
    bench.schedule(bench.activity(retry=RETRY))
    worker = bench.worker(failing(ValueError(), ValueError()))
    assert worker.process() == 1
    assert worker.process() == 0
    bench.clock.advance(12)  # 10 s and the jitter.
    assert worker.process() == 1
    bench.clock.advance(12)
    assert worker.process() == 0
    bench.clock.advance(12)
    assert worker.process() == 1
    assert bench.the(ActivityCompleted).result == b"3"
    assert bench.the(ActivityStarted).attempt == 3


def test_the_last_allowed_attempt_ends_it(bench: Any) -> None:
    bench.schedule(bench.activity(retry=RetryPolicy(initial_interval=0, max_attempts=3)))
    worker = bench.worker(failing(*(ValueError(f"failure {n}") for n in range(1, 9))))
    assert [worker.process() for _ in range(4)] == [1, 1, 1, 0]
    assert error_of(bench).message == "failure 3"


def test_a_retry_after_goes_before_the_policy(bench: Any) -> None:
    bench.schedule(bench.activity(retry=RETRY))
    worker = bench.worker(failing(RetryAfter(300)))
    worker.process()
    bench.clock.advance(299)
    assert worker.process() == 0
    bench.clock.advance(1)
    assert worker.process() == 1
    assert bench.the(ActivityCompleted).result == b"2"


def test_a_non_retryable_error_ends_it(bench: Any) -> None:
    bench.schedule(bench.activity(retry=RETRY))
    bench.worker(failing(NonRetryableError("card stolen"))).process()
    error = error_of(bench)
    assert (error.type, error.message, error.non_retryable) == ("NonRetryableError", "card stolen", True)


@pytest.mark.parametrize("listed", ["LookupError", "application"])
def test_an_error_listed_by_a_base_class_or_by_kind_ends_it(bench: Any, listed: str) -> None:
    bench.schedule(bench.activity(retry=RetryPolicy(non_retryable_errors=(listed,))))
    bench.worker(failing(KeyError("x"))).process()
    assert error_of(bench).type == "KeyError"


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
def test_what_is_no_exception_is_a_failed_attempt_of_the_kind_panic(bench: Any, error: BaseException) -> None:
    bench.schedule(bench.activity())
    worker = bench.worker(failing(error))
    assert worker.process() == 1
    assert (error_of(bench).kind, error_of(bench).type) == ("panic", type(error).__name__)


def test_running_out_of_memory_is_a_failed_attempt(bench: Any) -> None:
    bench.schedule(bench.activity(retry=RetryPolicy(initial_interval=0)))
    worker = bench.worker(failing(MemoryError()))
    assert [worker.process() for _ in range(3)] == [1, 1, 0]
    assert bench.the(ActivityCompleted).result == b"2"


@pytest.mark.parametrize("is_async", [False, True])
def test_ctrl_c_in_a_hand_driven_activity_reaches_the_driver_and_costs_no_attempt(
    bench: Any, is_async: bool
) -> None:
    def interrupted(cents: int) -> None:
        raise KeyboardInterrupt

    async def interrupted_async(cents: int) -> None:
        raise KeyboardInterrupt

    [scheduled_id] = bench.schedule(bench.activity())
    worker = bench.worker(activity(name="charge")(interrupted_async if is_async else interrupted))
    with pytest.raises(KeyboardInterrupt):
        worker.process()
    row = bench.row(scheduled_id)
    assert (row.claimed, row.attempt) == (False, 0)
    assert bench.worker(charge).process() == 1


def test_arguments_that_cannot_be_decoded_fail_the_attempt_and_may_be_retried_by_mended_code(
    bench: Any,
) -> None:
    [scheduled_id] = bench.schedule(bench.activity(input=b'"many"', retry=RETRY))
    bench.worker(charge).process()
    row = bench.row(scheduled_id)
    assert (row.claimed, row.attempt) == (False, 1)

    @activity(name="charge")
    def mended(cents: int | str) -> str:
        return f"{cents}"

    bench.clock.advance(12)
    bench.worker(mended).process()
    assert bench.the(ActivityCompleted).result == b'"many"'


def test_undecodable_arguments_without_policy_are_named_in_the_failure(bench: Any) -> None:
    bench.schedule(bench.activity(input=b"{broken"))
    bench.worker(charge).process()
    error = error_of(bench)
    assert (error.kind, error.type) == ("application", "CodecError")
    assert "argument 1 of activity 'charge'" in error.message


def test_a_result_that_cannot_be_encoded_is_not_tried_again(bench: Any) -> None:
    @activity(name="charge")
    def shapeless(cents: int) -> object:
        return object()

    bench.schedule(bench.activity(retry=RETRY))
    bench.worker(shapeless).process()
    error = error_of(bench)
    assert (error.kind, error.type, error.non_retryable) == ("application", "CodecError", True)
    assert "result of activity 'charge'" in error.message


def test_a_function_that_hides_being_async_is_told_so(bench: Any) -> None:
    async def inner() -> int:
        return 1

    @activity(name="charge")
    def hidden(cents: int) -> Any:
        return inner()

    bench.schedule(bench.activity())
    bench.worker(hidden).process()
    assert "coroutine" in error_of(bench).message


# Async activities, by hand.


def test_an_async_activity_runs_to_its_end_and_its_threads_see_the_attempt(bench: Any) -> None:
    @activity(name="charge")
    async def gathering(cents: int) -> list[str]:
        keys = await asyncio.gather(
            *(asyncio.to_thread(lambda: activity_info().activity_name) for _ in range(2))
        )
        await asyncio.create_task(asyncio.sleep(0))
        return [*keys, activity_info().idempotency_key]

    [scheduled_id] = bench.schedule(bench.activity())
    bench.worker(gathering).process()
    run_id = scene.row(bench.store).run_id
    assert bench.the(ActivityCompleted).result == f'["charge","charge","w/{run_id}/{scheduled_id}"]'.encode()


def test_an_async_activity_can_be_driven_from_a_running_loop(bench: Any) -> None:
    @activity(name="charge")
    async def simple(cents: int) -> int:
        await asyncio.sleep(0)
        return cents

    async def drive() -> int:
        done: int = bench.worker(simple).process()
        return done

    bench.schedule(bench.activity(input=b"7"))
    assert asyncio.run(drive()) == 1
    assert bench.the(ActivityCompleted).result == b"7"


def test_an_async_activity_that_cancels_itself_has_panicked(bench: Any) -> None:
    @activity(name="charge")
    async def giving_up(cents: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    bench.schedule(bench.activity())
    assert bench.worker(giving_up).process() == 1
    assert error_of(bench).kind == "panic"


# Heartbeats.


class CountingStore:
    """Passes all on, and counts heartbeats; fails on demand."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.heartbeats: list[bytes] = []
        self.finishes = 0
        self.heartbeats_fail = False
        self.finishes_fail = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def heartbeat(self, attempt: Any, details: bytes) -> LeaseState:
        if self.heartbeats_fail:
            raise StoreError("no disk today")
        self.heartbeats.append(details)
        state: LeaseState = self._store.heartbeat(attempt, details)
        return state

    def finish_activity(self, attempt: Any, outcome: Any) -> bool:
        self.finishes += 1
        if self.finishes <= self.finishes_fail:
            raise StoreError("no disk today")
        taken: bool = self._store.finish_activity(attempt, outcome)
        return taken


def test_heartbeats_are_written_at_once_and_then_once_in_a_window(bench: Any) -> None:
    store = CountingStore(bench.store)

    @activity(name="charge")
    def busy(cents: int) -> None:
        for step in range(10):
            heartbeat(step)
            bench.clock.advance(0.25)

    bench.schedule(bench.activity(heartbeat_timeout=30))
    bench.worker(busy, store=store).process()
    assert store.heartbeats == [b"0", b"4", b"8"]


def test_the_window_is_a_third_of_a_short_timeout(bench: Any) -> None:
    store = CountingStore(bench.store)

    @activity(name="charge")
    def busy(cents: int) -> None:
        for step in range(4):
            heartbeat(step)
            bench.clock.advance(0.1)

    bench.schedule(bench.activity(heartbeat_timeout=0.6))
    bench.worker(busy, store=store).process()
    assert store.heartbeats == [b"0", b"2"]


def test_a_clock_that_is_set_back_does_not_silence_heartbeats(bench: Any) -> None:
    store = CountingStore(bench.store)

    @activity(name="charge")
    def busy(cents: int) -> None:
        heartbeat(1)
        bench.clock.set(bench.clock.now().replace(year=2019))
        heartbeat(2)

    bench.schedule(bench.activity())
    bench.worker(busy, store=store).process()
    assert store.heartbeats == [b"1", b"2"]


def test_the_next_attempt_finds_the_last_details_also_those_not_written_yet(bench: Any) -> None:
    found: list[Any] = []

    @activity(name="charge")
    def resuming(cents: int) -> None:
        found.append(activity_info().heartbeat_details)
        if len(found) == 1:
            heartbeat({"page": 1})
            heartbeat({"page": 2})  # Within the window: goes with the failure.
            raise ValueError
        if len(found) == 2:
            raise ValueError  # Says nothing: the details stay.
        if len(found) == 3:
            heartbeat()  # Alive, nothing new: the details stay.
            raise ValueError

    bench.schedule(bench.activity(retry=RetryPolicy(initial_interval=0)))
    worker = bench.worker(resuming)
    while worker.process():
        pass
    assert found == [None, {"page": 2}, {"page": 2}, {"page": 2}]


def test_details_that_cannot_be_encoded_raise_in_the_activity(bench: Any) -> None:
    @activity(name="charge")
    def wrong(cents: int) -> str:
        with pytest.raises(CodecError, match="heartbeat details of activity 'charge'"):
            heartbeat(object())
        return "went on"

    bench.schedule(bench.activity())
    bench.worker(wrong).process()
    assert bench.the(ActivityCompleted).result == b'"went on"'


def test_a_store_that_fails_does_not_fail_the_heartbeat_and_gets_the_details_with_the_failure(
    bench: Any,
) -> None:
    store = CountingStore(bench.store)
    found: list[Any] = []

    @activity(name="charge")
    def resuming(cents: int) -> None:
        found.append(activity_info().heartbeat_details)
        if len(found) == 1:
            store.heartbeats_fail = True
            heartbeat(9)
            raise ValueError

    bench.schedule(bench.activity(retry=RetryPolicy(initial_interval=0)))
    worker = bench.worker(resuming, store=store)
    assert [worker.process() for _ in range(3)] == [1, 1, 0]
    assert found == [None, 9]


def ask_to_cancel(bench: Any, scheduled_id: int) -> None:
    def change(row: Any) -> None:
        row.cancel_requested = True

    bench.change(scheduled_id, change)


def test_a_heartbeat_raises_when_the_activity_is_asked_to_cancel(bench: Any) -> None:
    [scheduled_id] = bench.schedule(bench.activity(retry=RETRY))

    @activity(name="charge")
    def cancelled(cents: int) -> None:
        heartbeat()
        ask_to_cancel(bench, scheduled_id)
        heartbeat()  # Not written: nobody knows yet.
        bench.clock.advance(1)
        try:
            heartbeat()
        finally:
            with pytest.raises(ActivityCancelledError):
                heartbeat("cleaning up")  # Raises again, but counts as a sign of life.

    bench.worker(cancelled).process()
    error = error_of(bench)
    assert (error.kind, error.type, error.non_retryable) == ("cancelled", "ActivityCancelledError", True)


def test_an_activity_that_was_asked_to_cancel_may_still_return_a_result(bench: Any) -> None:
    [scheduled_id] = bench.schedule(bench.activity())

    @activity(name="charge")
    def finishing(cents: int) -> str:
        ask_to_cancel(bench, scheduled_id)
        with pytest.raises(ActivityCancelledError):
            heartbeat()
        return "done all the same"

    bench.worker(finishing).process()
    assert bench.the(ActivityCompleted).result == b'"done all the same"'


def test_a_cancellation_that_nobody_asked_for_is_an_error_like_others(bench: Any) -> None:
    bench.schedule(bench.activity())
    bench.worker(failing(ActivityCancelledError("made up"))).process()
    assert error_of(bench).kind == "application"


def test_a_heartbeat_raises_when_the_run_is_closed_and_the_result_changes_nothing(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @activity(name="charge")
    def outlived(cents: int) -> str:
        heartbeat()
        scene.terminate(bench.store)
        bench.clock.advance(1)
        with pytest.raises(ActivityCancelledError):
            heartbeat()
        return "too late"

    bench.schedule(bench.activity())
    worker = bench.worker(outlived)
    with caplog.at_level(logging.DEBUG, "derecho.worker.activity"):
        worker.process()
    assert not scene.events_of(bench.store, ActivityCompleted)
    assert worker.late_results == 1
    assert "activity.late" in caplog.text


# The store in trouble.


def test_an_outcome_is_offered_again_when_the_store_fails(bench: Any) -> None:
    store = CountingStore(bench.store)
    store.finishes_fail = 4
    bench.schedule(bench.activity())
    bench.worker(charge, store=store).process()
    assert store.finishes == 5
    assert bench.the(ActivityCompleted)


def test_an_outcome_that_cannot_be_stored_leaves_the_attempt_to_its_lease(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = CountingStore(bench.store)
    store.finishes_fail = 5
    keeper = bench.keeper()
    [scheduled_id] = bench.schedule(bench.activity())
    worker = bench.worker(charge, store=store, leases=keeper)
    assert worker.process() == 1
    assert "its lease will end it" in caplog.text
    bench.clock.advance(14)
    assert keeper.process() == 0  # Not renewed any more.
    bench.clock.advance(1)
    assert bench.timeouts.process() == 1
    bench.clock.advance(2)
    assert worker.process() == 1
    assert bench.the(ActivityStarted).attempt == 2
    assert bench.the(ActivityCompleted).scheduled_by_id == scheduled_id


def test_claims_that_cannot_be_run_are_given_back(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    [scheduled_id] = bench.schedule(bench.activity())
    worker = bench.worker(charge)

    def submit(attempt: object) -> bool:
        raise MemoryError

    monkeypatch.setattr(worker._runner, "submit", submit)
    with pytest.raises(MemoryError):
        worker.process()
    row = bench.row(scheduled_id)
    assert (row.claimed, row.attempt) == (False, 0)


def test_a_stopped_worker_claims_nothing(bench: Any) -> None:
    [scheduled_id] = bench.schedule(bench.activity())
    worker = bench.worker(charge)
    worker.stop(0)
    assert worker.process() == 0
    assert bench.row(scheduled_id).attempt == 0
    rows = scene.attempts(bench.store)
    assert worker.take(rows) == 0  # What the loop had claimed just before.
    assert not bench.row(scheduled_id).claimed
