"""Nothing is left behind, and many fibers cost what few cost, each."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import derecho
from derecho import _core, as_completed, gather, select, signal_channel, sleep, spawn, timer, wait_for
from tests.core.driver import Run, a, b, bare, begin

KINDS = (
    _core.Scheduler,
    _core.Fiber,
    _core.Future,
    _core.Timer,
    _core.Receive,
    _core.Command,
    _core.Completions,
)


def alive() -> Counter[str]:
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, KINDS))


def uses_everything() -> list[Any]:
    box = signal_channel("box")

    def child(n: int) -> int:
        sleep(n)
        return n

    def fails() -> None:
        raise ValueError

    fibers = [spawn(child, n) for n in (1, 2)]
    failing = spawn(fails)
    alarm = timer(9)
    select(a.execute(), box.receive_future(), alarm)
    alarm.cancel()
    for future in as_completed(fibers):
        future.get()
    wait_for(failing.done, timeout=30)
    failing.exception()
    derecho.side_effect(int)
    return [*gather(*fibers), box.receive(timeout=50), derecho.random().random()]


def whole_life() -> None:
    with Run(uses_everything) as run:
        run.task().complete("a").task().fire(1).task().fire(2).task().signal("box", 1).task()
        assert run.ended.startswith("completed")


def evicted_early() -> None:
    with Run(uses_everything) as run:
        run.task().complete("a").task()


def cancelled_midway() -> None:
    with Run(uses_everything) as run:
        run.task().cancel().task()
        assert run.ended


def doomed() -> None:
    with Run(uses_everything) as run:
        run.task().complete("a")
        run.arrive(derecho.journal.ActivityCompleted(scheduled_by_id=3, result=b""))
        with pytest.raises(derecho.JournalError, match="no command"):
            run.task()


def interrupted() -> None:
    def main() -> None:
        a.execute()
        raise KeyboardInterrupt

    with Run(main) as run, pytest.raises(KeyboardInterrupt):
        run.task()


@pytest.mark.parametrize("life", [whole_life, evicted_early, cancelled_midway, doomed, interrupted])
def test_a_run_leaves_no_object_of_the_core_behind(life: Callable[[], None]) -> None:
    life()
    before = alive()
    for _ in range(20):
        life()
    assert alive() == before
    assert _core.live_fibers() == 0


def test_what_workflow_code_held_is_dropped_with_its_run() -> None:
    class Marked:
        pass

    kept: list[weakref.ref[Marked]] = []

    def main() -> None:
        held = Marked()
        kept.append(weakref.ref(held))
        spawn(lambda: (held, signal_channel("never").receive()))
        spawn(lambda held=held: None)
        signal_channel("never").receive()

    with Run(main) as run:
        run.task()
        assert kept[0]() is not None
    del run
    gc.collect()
    assert kept[0]() is None


def test_what_a_fiber_held_is_dropped_when_it_ends(drive: Any) -> None:
    class Marked:
        pass

    kept: list[weakref.ref[Marked]] = []

    def child(held: Marked) -> None:
        kept.append(weakref.ref(held))

    def main() -> bool:
        spawn(child, Marked()).get()
        return kept[0]() is None

    assert drive(main).result is True


def test_errors_that_were_taken_are_not_kept_for_the_end_of_the_run(drive: Any, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL, "derecho.workflow")  # The log that pytest keeps holds them too.
    kept: list[weakref.ref[BaseException]] = []

    class Marked(Exception):
        pass

    def fails() -> None:
        error = Marked()
        kept.append(weakref.ref(error))
        raise error

    def main() -> None:
        for _ in range(100):
            try:
                spawn(fails).get()
            except Marked:
                pass
        a.execute().get()

    drive(main)
    gc.collect()
    assert sum(error() is not None for error in kept) <= 1


def test_greenlets_are_reused() -> None:
    pool = _core.Pool()
    for _ in range(5):
        with Run(lambda: gather(*[spawn(int) for _ in range(10)]), pool=pool) as run:
            run.task()
    # Main parks before the first of the ten runs, and each of those ends before the next begins.
    assert len(pool) == 2
    pool.close()
    assert len(pool) == 0


def test_a_pool_keeps_a_limited_number_of_idle_greenlets() -> None:
    pool = _core.Pool()

    def main() -> None:
        gate = a.execute()
        gather(*[spawn(gate.get) for _ in range(_core.IDLE_GREENLETS_MAX + 50)])

    with Run(main, pool=pool) as run:
        run.task().complete("a").task()
        assert run.ended == "completed null"
    assert len(pool) == _core.IDLE_GREENLETS_MAX
    pool.close()
    assert _core.live_fibers() == 0


def test_live_fibers_are_counted_from_their_beginning_to_their_end(bare: Any) -> None:
    def main() -> None:
        for _ in range(3):
            _core.spawn(_core.sleep, 5)
        _core.sleep(6)

    scheduler = bare(main)
    assert _core.live_fibers() == 0
    begin(scheduler)
    assert (_core.live_fibers(), scheduler.fibers_alive) == (4, 4)
    scheduler.close()
    assert (_core.live_fibers(), scheduler.fibers_alive) == (0, 0)


def seconds_of(act: Callable[[], object]) -> float:
    """Return how long a call takes, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        before = time.perf_counter()
        act()
        return time.perf_counter() - before
    finally:
        gc.enable()


def seconds_to_wake(count: int) -> float:
    """Return the best of three times that it takes to wake so many fibers, each by an answer of its own."""

    def main() -> None:
        gather(*[spawn(a.execute().get) for _ in range(count)])

    best = float("inf")
    for _ in range(3):
        with Run(main) as run:
            run.task()
            for scheduled_by_id in list(run._open):
                run.arrive(derecho.journal.ActivityCompleted(scheduled_by_id=scheduled_by_id, result=b"1"))
            best = min(best, seconds_of(lambda run=run: run.scheduler.advance(run.unseen, run.now_ns)))
            assert run.scheduler.closed
    return best


@pytest.mark.slow
def test_parked_fibers_wake_in_linear_time() -> None:
    few, many = seconds_to_wake(1_000), seconds_to_wake(10_000)
    # Linear is 10; caches make it 40; quadratic would be 400.
    assert many / few < 120, f"1,000 fibers took {few:.4f} s, 10,000 took {many:.4f} s"


@pytest.mark.slow
def test_waiters_of_one_future_wake_in_linear_time() -> None:
    def seconds(count: int) -> float:
        def main() -> None:
            gate = a.execute()
            gather(*[spawn(gate.get) for _ in range(count)])

        with Run(main) as run:
            run.task().complete("a")
            taken = seconds_of(run.task)
            assert run.ended
            return taken

    few = min(seconds(1_000) for _ in range(3))
    many = min(seconds(10_000) for _ in range(3))
    assert many / few < 120


@pytest.mark.slow
def test_a_thousand_fibers_deep_in_recursion() -> None:
    def depth(n: int) -> int:
        return a.execute().get() if n == 0 else 1 + depth(n - 1)

    with Run(lambda: sum(gather(*[spawn(depth, 200) for _ in range(1_000)]))) as run:
        run.task()
        for _ in range(1_000):
            run.complete("a", 0)
        assert run.task().result == 200_000


def test_the_progress_counter_grows_with_every_call_and_switch(drive: Any) -> None:
    def main() -> None:
        b.execute()
        a.execute().get()

    run = drive(main)
    before = run.scheduler.progress
    assert before >= 4
    assert run.complete("a").task().scheduler.progress > before


def test_bare_schedulers_need_no_journal() -> None:
    scheduler = bare(lambda: "x")
    [command] = begin(scheduler)
    assert (command.code, command.payload, command.number, command.event_id) == (2, "x", 1, 0)
    assert repr(command) == "<Command 1: code 2 >"
    scheduler.close()
