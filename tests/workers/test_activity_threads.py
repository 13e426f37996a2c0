"""Activities in threads and on the event loop: slots, strays, shutdown, what user code may do to its thread."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from derecho.activities import activity_info, heartbeat
from derecho.authoring.definitions import activity
from derecho.errors import ActivityCancelledError
from derecho.journal.events import ActivityCompleted, ActivityFailed
from derecho.policies import RetryPolicy
from derecho.stores.base import LeaseState
from derecho.stores.bell import ACTIVITIES
from derecho.testing.conformance import scene
from derecho.workers.pool import ThreadPool
from derecho.workers.runner import ATTEMPTS_FACTOR, ThreadRunner

WAIT_S = 30.0  # Only a bug waits so long.
AT_ONCE = RetryPolicy(initial_interval=0)


class Gate:
    """Holds activities until the test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def wait_entered(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.entered.acquire(timeout=WAIT_S)

    def hold(self) -> None:
        self.entered.release()
        assert self.opened.wait(WAIT_S)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def gated(gate: Gate) -> Any:
    @activity(name="charge")
    def attempt(cents: int) -> int:
        gate.hold()
        return activity_info().attempt

    return attempt


def drained(bench: Any, worker: Any) -> None:
    """Let all that runs come to its end."""
    worker.stop(WAIT_S)


def results(bench: Any) -> list[bytes]:
    return [event.result for event in scene.events_of(bench.store, ActivityCompleted)]


# Slots.


def test_no_more_is_claimed_than_there_are_slots(bench: Any, gate: Gate) -> None:
    bench.schedule(*(bench.activity() for _ in range(5)))
    runner = ThreadRunner(2)
    worker = bench.worker(gated(gate), runner=runner)
    assert runner.free_slots == 2
    assert worker.process() == 2
    gate.wait_entered(2)
    assert (runner.free_slots, worker.process(), worker.idle_s(), worker.troubles()) == (0, 0, 1.0, [])
    assert len(scene.attempts(bench.store)) == 3
    gate.opened.set()
    drained(bench, worker)
    assert results(bench) == [b"1", b"1"]


def test_a_slot_that_frees_wakes_the_worker(bench: Any, gate: Gate) -> None:
    bench.schedule(bench.activity())
    worker = bench.worker(gated(gate), runner=ThreadRunner(1))
    bell = worker.bell
    bell.watch(ACTIVITIES)
    try:
        worker.process()
        gate.wait_entered()
        seen = bell.seq(ACTIVITIES)
        gate.opened.set()
        assert bell.wait(ACTIVITIES, seen, WAIT_S)
    finally:
        bell.unwatch(ACTIVITIES)


def test_threads_are_reused(bench: Any) -> None:
    names: list[str] = []

    @activity(name="charge")
    def note(cents: int) -> None:
        names.append(threading.current_thread().name)

    bench.schedule(*(bench.activity() for _ in range(8)))
    runner = ThreadRunner(1)
    worker = bench.worker(note, runner=runner)
    bell = worker.bell
    bell.watch(ACTIVITIES)
    try:
        for _ in range(8):
            seen = bell.seq(ACTIVITIES)
            assert worker.process() == 1
            if not runner.free_slots:
                bell.wait(ACTIVITIES, seen, WAIT_S)
    finally:
        bell.unwatch(ACTIVITIES)
    drained(bench, worker)
    assert names == ["derecho-activity-1"] * 8
    assert runner.threads == 0


def test_blocking_activities_all_get_threads(bench: Any, gate: Gate) -> None:
    bench.schedule(*(bench.activity() for _ in range(32)))
    worker = bench.worker(gated(gate), runner=ThreadRunner(32))
    assert worker.process() == 32
    gate.wait_entered(32)
    gate.opened.set()
    drained(bench, worker)
    assert len(results(bench)) == 32


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_runner_without_slots_is_refused(concurrency: int) -> None:
    with pytest.raises(ValueError, match="concurrency must be at least 1"):
        ThreadRunner(concurrency)


def test_variables_of_the_program_are_seen_and_not_changed(bench: Any) -> None:
    tracer: contextvars.ContextVar[str] = contextvars.ContextVar("tracer", default="none")
    found: list[str] = []

    @activity(name="charge")
    def sync(cents: int) -> None:
        found.append(tracer.get())
        tracer.set("changed")

    @activity(name="ship")
    async def on_loop(cents: int) -> None:
        found.append(tracer.get())
        tracer.set("changed")

    context = contextvars.copy_context()
    context.run(tracer.set, "ours")
    bench.schedule(*(bench.activity(name) for name in ("charge", "charge", "ship", "ship")))
    worker = bench.worker(sync, on_loop, runner=context.run(ThreadRunner, 4))
    worker.process()
    drained(bench, worker)
    assert found == ["ours"] * 4


# What user code may do.


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_kills_a_program_fails_only_the_attempt(
    bench: Any, error: BaseException, is_async: bool
) -> None:
    @activity(name="charge")
    def sync(cents: int) -> int:
        if activity_info().attempt == 1:
            raise error
        return 2

    @activity(name="charge")
    async def on_loop(cents: int) -> int:
        return sync.fn(cents)

    bench.schedule(bench.activity())
    runner = ThreadRunner(1)
    worker = bench.worker(on_loop if is_async else sync, runner=runner)
    worker.process()
    drained(bench, worker)
    failed = bench.the(ActivityFailed).error
    assert failed is not None
    assert (failed.kind, failed.type) == ("panic", type(error).__name__)


def test_a_system_exit_in_a_task_of_an_activity_does_not_end_the_event_loop(bench: Any) -> None:
    async def leave() -> None:
        raise SystemExit(1)

    @activity(name="charge")
    async def careless(cents: int) -> str:
        task = asyncio.get_running_loop().create_task(leave())
        await asyncio.wait([task])
        return f"saw {type(task.exception()).__name__}"

    bench.schedule(bench.activity())
    worker = bench.worker(careless, runner=ThreadRunner(1))
    worker.process()
    drained(bench, worker)
    assert results(bench) == [b'"saw SystemExit"']


def test_an_asynchronous_exception_between_two_activities_costs_neither_thread_nor_activity() -> None:
    pool = ThreadPool("test", 1, idle_max=1)
    done = threading.Semaphore(0)
    idents: list[int] = []
    crashes: list[BaseException] = []

    def job() -> None:
        idents.append(threading.get_ident())
        done.release()

    for _ in range(50):
        pool.run(job, crashes.append)
        assert done.acquire(timeout=WAIT_S) or crashes
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(idents[-1]), ctypes.py_object(KeyboardInterrupt)
        )
        pool.run(done.release, lambda error: done.release())  # Done or told: never silently dropped.
        assert done.acquire(timeout=WAIT_S)
        assert pool.size == 1
    pool.stop(WAIT_S)
    assert pool.size == 0
    assert len(set(idents)) == 1


def test_an_asynchronous_exception_in_an_activity_fails_its_attempt(bench: Any, gate: Gate) -> None:
    idents: list[int] = []

    @activity(name="charge")
    def struck(cents: int) -> None:
        idents.append(threading.get_ident())
        gate.hold()
        for _ in range(1000):
            pass

    bench.schedule(bench.activity())
    worker = bench.worker(struck, runner=ThreadRunner(1))
    worker.process()
    gate.wait_entered()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idents[0]), ctypes.py_object(SystemExit))
    gate.opened.set()
    drained(bench, worker)
    failed = bench.the(ActivityFailed).error
    assert failed is not None
    assert failed.kind == "panic"


# Async activities.


def test_async_activities_run_at_the_same_time_on_one_loop(bench: Any) -> None:
    loops: list[int] = []
    barrier: list[asyncio.Event] = []

    @activity(name="charge")
    async def meeting(cents: int) -> None:
        loops.append(threading.get_ident())
        if not barrier:
            barrier.append(asyncio.Event())
        if len(loops) == 3:
            barrier[0].set()
        await barrier[0].wait()

    bench.schedule(*(bench.activity() for _ in range(3)))
    worker = bench.worker(meeting, runner=ThreadRunner(3))
    assert worker.process() == 3
    drained(bench, worker)
    assert len(results(bench)) == 3
    assert len(set(loops)) == 1


def test_an_async_activity_beats_without_holding_up_its_loop(bench: Any) -> None:
    writers: list[str] = []

    class Store:
        def __getattr__(self, name: str) -> Any:
            return getattr(bench.store, name)

        def heartbeat(self, attempt: Any, details: bytes) -> LeaseState:
            writers.append(threading.current_thread().name)
            state: LeaseState = bench.store.heartbeat(attempt, details)
            written.set()
            return state

    written = threading.Event()

    @activity(name="charge")
    async def beating(cents: int) -> list[str]:
        heartbeat(1)
        assert await asyncio.to_thread(written.wait, WAIT_S)
        written.clear()
        bench.clock.advance(1)
        await asyncio.to_thread(heartbeat, 2)
        return [
            threading.current_thread().name,
            await asyncio.to_thread(lambda: activity_info().activity_name),
        ]

    bench.schedule(bench.activity())
    worker = bench.worker(beating, runner=ThreadRunner(1), store=Store())
    worker.process()
    drained(bench, worker)
    assert results(bench) == [b'["derecho-asyncio","charge"]']
    assert writers[0].startswith("derecho-activity-")
    assert writers[1] != "derecho-asyncio"


def test_a_lost_async_attempt_is_cancelled_and_leaves_its_slot(bench: Any) -> None:
    entered, ended = threading.Event(), threading.Event()

    @activity(name="charge")
    async def endless(cents: int) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    keeper = bench.keeper()
    bench.schedule(bench.activity())
    runner = ThreadRunner(1)
    worker = bench.worker(endless, runner=runner, leases=keeper)
    worker.process()
    assert entered.wait(WAIT_S)
    scene.terminate(bench.store)
    bench.clock.advance(5)
    keeper.process()
    assert runner.free_slots == 1
    assert ended.wait(WAIT_S)
    drained(bench, worker)
    assert worker.late_results == 1


# Strays.


def lose_what_runs(bench: Any, keeper: Any) -> None:
    """Let the leases run out while the keeper is away, and then learn of it."""
    bench.clock.advance(15)
    while bench.timeouts.process():
        pass
    keeper.process()
    bench.clock.advance(90)


def test_lost_attempts_leave_their_slots_to_new_threads_up_to_a_limit(bench: Any, gate: Gate) -> None:
    keeper = bench.keeper()
    runner = ThreadRunner(2)
    bench.schedule(bench.activity(), bench.activity())
    worker = bench.worker(gated(gate), runner=runner, leases=keeper)
    for round_ in range(1, ATTEMPTS_FACTOR + 1):
        assert worker.troubles() == []
        assert worker.process() == 2
        gate.wait_entered(2)
        assert runner.threads == 2 * round_
        assert runner.free_slots == 0
        lose_what_runs(bench, keeper)
    assert (runner.free_slots, worker.process()) == (0, 0)
    [trouble] = worker.troubles()
    assert "8 lost attempts do not end" in trouble

    bell = worker.bell
    bell.watch(ACTIVITIES)
    try:
        seen = bell.seq(ACTIVITIES)
        gate.opened.set()
        assert bell.wait(ACTIVITIES, seen, WAIT_S)  # The first stray that ends makes room.
    finally:
        bell.unwatch(ACTIVITIES)
    assert worker.troubles() == []
    taken = worker.process()
    drained(bench, worker)
    assert 1 <= taken <= 2
    assert results(bench) == [b"5"] * taken
    assert worker.late_results == 2 * ATTEMPTS_FACTOR


# Shutdown.


def test_stop_waits_for_what_runs(bench: Any, gate: Gate) -> None:
    bench.schedule(bench.activity(), bench.activity())
    worker = bench.worker(gated(gate), runner=ThreadRunner(1))
    worker.process()
    gate.wait_entered()
    stopping = threading.Thread(target=worker.stop, args=(WAIT_S,))
    stopping.start()
    gate.opened.set()
    stopping.join(WAIT_S)
    assert not stopping.is_alive()
    assert results(bench) == [b"1"]
    assert worker.process() == 0


def test_what_does_not_end_in_time_is_given_back_without_consuming_an_attempt(bench: Any, gate: Gate) -> None:
    raised: list[BaseException] = []

    @activity(name="charge")
    def stubborn(cents: int) -> str:
        heartbeat("page 1")
        heartbeat("page 2")
        gate.hold()
        try:
            heartbeat()
        except ActivityCancelledError as error:
            raised.append(error)
        over.set()
        return "too late"

    over = threading.Event()
    [scheduled_id] = bench.schedule(bench.activity())
    runner = ThreadRunner(1)
    worker = bench.worker(stubborn, runner=runner)
    worker.process()
    gate.wait_entered()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("derecho-activity")]
    worker.stop(0)
    row = bench.row(scheduled_id)
    assert (row.claimed, row.attempt, row.heartbeat_details) == (False, 0, b'"page 2"')

    @activity(name="charge")
    def resumed(cents: int) -> Any:
        info = activity_info()
        return [info.attempt, info.heartbeat_details]

    assert bench.worker(resumed, name="after the restart").process() == 1
    gate.opened.set()
    assert over.wait(WAIT_S)
    for thread in threads:
        thread.join(WAIT_S)
    assert results(bench) == [b'[1,"page 2"]']
    assert worker.late_results == 1
    assert len(raised) == 1


def test_a_shutdown_cancels_async_activities_and_gives_them_back(bench: Any) -> None:
    entered = threading.Event()
    seen: list[str] = []

    @activity(name="charge")
    async def endless(cents: int) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    [scheduled_id] = bench.schedule(bench.activity())
    worker = bench.worker(endless, runner=ThreadRunner(1))
    worker.process()
    assert entered.wait(WAIT_S)
    worker.stop(0)
    assert seen == ["cancelled"]
    row = bench.row(scheduled_id)
    assert (row.claimed, row.attempt) == (False, 0)
    assert not scene.events_of(bench.store, ActivityFailed)


def test_an_activity_may_stop_its_own_worker(bench: Any) -> None:
    stopped = threading.Event()

    @activity(name="charge")
    def stopping(cents: int) -> None:
        worker.stop(0)
        stopped.set()

    [scheduled_id] = bench.schedule(bench.activity())
    worker = bench.worker(stopping, runner=ThreadRunner(1))
    worker.process()
    assert stopped.wait(WAIT_S)
    assert bench.row(scheduled_id).attempt == 0


def test_a_worker_can_be_stopped_twice_and_leaves_no_threads(bench: Any) -> None:
    @activity(name="ship")
    async def on_loop(cents: int) -> None:
        await asyncio.sleep(0)

    @activity(name="charge")
    def sync(cents: int) -> None:
        pass

    before = threading.active_count()
    for _ in range(20):
        bench.store.close()
        bench.store = type(bench.store)(bench.clock)
        bench.schedule(*(bench.activity(name) for name in ("charge", "ship", "charge", "ship")))
        worker = bench.worker(sync, on_loop, runner=ThreadRunner(4))
        assert worker.process() == 4
        worker.stop(WAIT_S)
        worker.stop(WAIT_S)
        assert len(results(bench)) == 4
    assert threading.active_count() == before


# The pool.


def test_a_job_that_blocks_has_woken_the_next_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """All jobs are there before the first thread is, so each thread has to see to the next."""
    meeting = threading.Barrier(8)
    pool = ThreadPool("test", 8, idle_max=8)
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        monkeypatch.undo()
        for _ in range(7):
            pool.run(job, lambda error: None)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    done = threading.Semaphore(0)

    def job() -> None:
        meeting.wait(WAIT_S)
        done.release()

    pool.run(job, lambda error: None)
    for _ in range(8):
        assert done.acquire(timeout=WAIT_S)
    pool.stop(WAIT_S)


def test_jobs_beyond_the_largest_size_wait_and_surplus_threads_end() -> None:
    done = threading.Semaphore(0)
    gate = threading.Event()
    pool = ThreadPool("test", 3, idle_max=1)

    def job() -> None:
        assert gate.wait(WAIT_S)
        done.release()

    for _ in range(10):
        pool.run(job, lambda error: None)
    gate.set()
    for _ in range(10):
        assert done.acquire(timeout=WAIT_S)
    pool.stop(WAIT_S)
    assert pool.size == 0


def test_an_activity_that_finds_no_thread_is_left_to_its_lease(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    @activity(name="charge")
    def late(cents: int) -> int:
        return activity_info().attempt

    keeper = bench.keeper()
    bench.schedule(bench.activity())
    runner = ThreadRunner(1)
    worker = bench.worker(late, runner=runner, leases=keeper)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        worker.process()
    assert runner.free_slots == 1
    lose_what_runs(bench, keeper)
    assert worker.process() == 1
    drained(bench, worker)
    assert results(bench) == [b"2"]


def test_a_job_is_told_when_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    told: list[BaseException] = []
    pool = ThreadPool("test", 3, idle_max=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool.run(lambda: None, told.append)
    assert [type(error) for error in told] == [RuntimeError]
    done = threading.Event()
    pool.run(done.set, told.append)
    assert done.wait(WAIT_S)
    pool.stop(WAIT_S)
