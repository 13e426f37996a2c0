"""Eviction: a run leaves the memory, its fibers are unwound, and nothing is recorded anywhere."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest

import derecho
from derecho import (
    _core,
    as_completed,
    gather,
    select,
    side_effect,
    signal_channel,
    sleep,
    spawn,
    timer,
    wait_for,
)
from tests.core.driver import Run, a, b, replay


def waits_for_ever() -> None:
    signal_channel("never").receive()


def test_finally_blocks_run_in_reverse_order_of_creation(drive: Any) -> None:
    seen: list[str] = []

    def holds(name: str) -> None:
        try:
            waits_for_ever()
        finally:
            seen.append(name)

    def main() -> None:
        spawn(holds, "first")
        spawn(holds, "second")
        holds("main")

    drive(main).close()
    assert seen == ["second", "first", "main"]


def test_the_fibers_are_unwound_by_something_that_except_exception_does_not_catch(drive: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        try:
            waits_for_ever()
        except Exception:
            seen.append("swallowed")
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    drive(main).close()
    assert seen == ["Eviction"]


CALLS = [
    a.execute,
    a,
    lambda: sleep(5),
    lambda: timer(5),
    lambda: spawn(int),
    gather,
    lambda: select(derecho.cancelled()),
    lambda: as_completed([]),
    lambda: wait_for(lambda: True),
    lambda: side_effect(int),
    lambda: signal_channel("never").receive(),
    lambda: signal_channel("never").try_receive(),
    lambda: derecho.signal_external("x", "y"),
    derecho.random,
    derecho.uuid4,
    derecho.now,
    derecho.info,
    derecho.cancelled,
    derecho.is_cancelled,
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: "")
def test_a_call_in_a_finally_block_raises_and_emits_nothing(drive: Any, call: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        try:
            waits_for_ever()
        finally:
            try:
                call()
            except BaseException as error:
                seen.append(type(error).__name__)
                raise

    run = drive(main)
    commands, progress = run.scheduler.running_fiber, run.journal[-1]
    run.close()
    assert seen == ["Eviction"]
    assert commands == 0
    assert run.journal[-1] is progress


def test_cancelling_a_timer_in_a_finally_block_emits_nothing(drive: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        alarm = timer(5)
        try:
            waits_for_ever()
        finally:
            try:
                alarm.cancel()
            except BaseException as error:
                seen.append(type(error).__name__)

    drive(main).close()
    assert seen == ["Eviction"]


def test_evicting_one_run_while_another_runs_leaves_its_journal_alone(drive: Any) -> None:
    def evicted() -> None:
        try:
            sleep(60)
        finally:
            a("from the evicted run")

    victim = drive(evicted)

    def main() -> Any:
        victim.close()
        return b(1)

    run = drive(main)
    assert run.commands == ["activity b"]
    assert run.complete("b", 2).task().result == 2
    replay(lambda: b(1), run.journal, strict=True)


def test_private_timers_of_broken_waits_are_not_cancelled_by_eviction(drive: Any) -> None:
    def main() -> None:
        spawn(sleep, 5)
        spawn(signal_channel("never").receive, 6)
        wait_for(lambda: False, timeout=7)

    run = drive(main)
    length = len(run.journal)
    run.close()
    assert len(run.journal) == length


def test_the_logger_is_silent_while_a_run_is_evicted(drive: Any, caplog: Any) -> None:
    caplog.set_level("INFO")

    def main() -> None:
        try:
            derecho.logger.info("begun")
            waits_for_ever()
        except BaseException:
            derecho.logger.exception("never said")
            raise ValueError("never said either") from None

    drive(main).close()
    assert [record.message for record in caplog.records] == ["begun"]


def test_a_fiber_that_never_began_is_dropped_without_running(prepare: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        spawn(seen.append, "ran")
        raise KeyboardInterrupt

    run = prepare(main)
    with pytest.raises(KeyboardInterrupt):
        run.task()
    run.close()
    assert seen == []


def test_a_run_that_never_began_can_be_evicted(prepare: Any) -> None:
    run = prepare(waits_for_ever)
    run.close()
    run.close()


def test_a_fiber_that_catches_once_and_goes_on_is_unwound_by_its_next_call(drive: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        try:
            waits_for_ever()
        except BaseException:
            seen.append("caught")
        seen.append("went on")
        sleep(5)
        seen.append("never")

    quarantined = _core.thread_pool().quarantined
    drive(main).close()
    assert seen == ["caught", "went on"]
    assert _core.thread_pool().quarantined == quarantined


def test_a_fiber_that_catches_and_returns_has_ended(drive: Any) -> None:
    def main() -> str:
        with contextlib.suppress(BaseException):
            waits_for_ever()
        return "a result that nobody sees"

    run = drive(main)
    run.close()
    assert run.ended == ""


def test_a_fiber_that_catches_for_ever_is_put_into_quarantine_and_counted() -> None:
    pool = _core.Pool()
    caught = 0

    def main() -> None:
        nonlocal caught
        while True:
            try:
                waits_for_ever()
            except BaseException:
                caught += 1

    run = Run(main, pool=pool).task()
    run.close()
    assert pool.quarantined == 1
    assert 0 < caught <= 100 * _core.EVICTION_THROWS_MAX
    assert _core.live_fibers() == 0
    run.close()
    assert pool.quarantined == 1, "it is left in peace"


def test_a_quarantined_fiber_outlives_its_pool_and_does_not_run_on() -> None:
    seen: list[int] = []

    def main() -> None:
        while True:
            try:
                waits_for_ever()
            except BaseException:
                seen.append(1)

    pool = _core.Pool()
    Run(main, pool=pool).task().close()
    pool.close()
    before = len(seen)
    del pool
    assert len(seen) == before


def test_many_refusing_fibers_leave_the_others_and_the_next_run_intact(drive: Any) -> None:
    ended: list[int] = []

    def refuses() -> None:
        while True:
            with contextlib.suppress(BaseException):
                waits_for_ever()

    def ends(n: int) -> None:
        try:
            waits_for_ever()
        finally:
            ended.append(n)

    def main() -> None:
        for n in range(20):
            spawn(refuses)
            spawn(ends, n)
        waits_for_ever()

    pool = _core.Pool()
    run = Run(main, pool=pool).task()
    run.close()
    assert pool.quarantined == 20
    assert ended == list(reversed(range(20)))
    with Run(lambda: a(1), pool=pool) as after:
        assert after.task().complete("a", 5).task().result == 5
    pool.close()


def test_errors_in_finally_blocks_do_not_stop_the_eviction(drive: Any) -> None:
    seen: list[str] = []

    def holds(name: str) -> None:
        try:
            waits_for_ever()
        finally:
            seen.append(name)
            raise ValueError(name)

    def main() -> None:
        spawn(holds, "child")
        holds("main")

    drive(main).close()
    assert seen == ["child", "main"]


@pytest.mark.parametrize(
    "wait",
    [
        lambda: gather(a.execute(), signal_channel("x").receive_future()),
        lambda: next(as_completed([a.execute(), signal_channel("x").receive_future()])),
        lambda: select(a.execute(), signal_channel("x").receive_future()),
        lambda: wait_for(lambda: False, timeout=5),
        lambda: sleep(5),
        lambda: a.execute().get(timeout=5),
        lambda: list(signal_channel("x")),
    ],
    ids=lambda wait: "",
)
def test_every_kind_of_wait_can_be_evicted(drive: Any, wait: Any) -> None:
    drive(wait).close()
    assert _core.live_fibers() == 0


def test_a_fiber_woken_but_not_resumed_is_unwound_and_not_resumed(prepare: Any) -> None:
    seen: list[str] = []

    def waits() -> None:
        try:
            seen.append(str(a.execute().get()))
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    def breaks() -> None:
        b.execute().get()
        raise KeyboardInterrupt

    def main() -> None:
        gather(spawn(breaks), spawn(waits))

    run = prepare(main).task().complete("b").complete("a")
    with pytest.raises(KeyboardInterrupt):
        run.task()
    run.close()
    assert seen == ["Eviction"]


def test_context_managers_and_generators_across_waits_are_closed(drive: Any) -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def held(name: str) -> Iterator[None]:
        try:
            yield
        finally:
            seen.append(name)

    def values() -> Iterator[int]:
        try:
            while True:
                yield signal_channel("box").receive()
        finally:
            seen.append("generator")

    def main() -> None:
        with held("outer"), held("inner"):
            for _ in values():
                pass

    drive(main).signal("box", 1).task().close()
    assert seen == ["generator", "inner", "outer"]


def test_a_closed_scheduler_refuses_to_go_on(drive: Any) -> None:
    run = drive(waits_for_ever)
    run.close()
    with pytest.raises(RuntimeError, match="running, failed or closed"):
        run.task()


def test_a_run_that_ended_refuses_another_task(drive: Any) -> None:
    run = drive(lambda: 1)
    with pytest.raises(RuntimeError, match="running, failed or closed"):
        run.scheduler.advance([], 0)


def test_a_future_kept_after_eviction_raises_outside_and_in_other_runs(drive: Any) -> None:
    kept: list[Any] = []

    def main() -> None:
        kept.append(a.execute())
        waits_for_ever()

    drive(main).close()
    with pytest.raises(derecho.NotInWorkflowError):
        kept[0].get()

    def thief() -> str:
        try:
            kept[0].get()
        except derecho.NotInWorkflowError as error:
            return str(error)
        return ""

    assert drive(thief).result.startswith("this future belongs to another run")


def test_workflow_code_that_raises_the_eviction_itself_fails_its_run(drive: Any) -> None:
    def main() -> None:
        raise _core.Eviction

    assert drive(main).ended.startswith(
        "failed NotInWorkflowError: workflow code raised derecho's own Eviction"
    )


def test_a_doomed_run_is_evicted_like_any_other(drive: Any) -> None:
    seen: list[str] = []

    def child() -> None:
        try:
            waits_for_ever()
        finally:
            seen.append("child")

    def main() -> None:
        spawn(child)
        try:
            a.execute().get()
            derecho.activity_ref("b", returns=int).execute().get()
        finally:
            seen.append("main")

    run = drive(main).complete("a").task().complete("b", "text")
    with pytest.raises(derecho.DerechoError):
        run.task()
    assert seen == []
    run.close()
    assert seen == ["child", "main"]


def test_what_a_finalizer_calls_after_the_end_of_its_fiber_is_refused(drive: Any) -> None:
    seen: list[str] = []

    class Finalized:
        def __del__(self) -> None:
            try:
                a.execute()
            except derecho.NotInWorkflowError as error:
                seen.append(str(error))

    def child(kept: Any) -> None:
        pass

    def main() -> str:
        spawn(child, Finalized()).get()
        return "done"

    assert drive(main).commands == ['completed "done"']
    assert [text.partition(",")[0] for text in seen] == ["this was called by a finalizer"]


def test_a_generator_that_outlives_its_run_in_a_cycle_cannot_act_in_another_run(drive: Any) -> None:
    seen: list[str] = []

    def values() -> Iterator[int]:
        try:
            yield 1
        finally:
            for call in (
                lambda: a("of the evicted run"),
                lambda: spawn(int),
                derecho.uuid4,
                lambda: sleep(1),
            ):
                try:
                    call()
                except derecho.NotInWorkflowError as error:
                    seen.append(str(error).partition(",")[0])

    def leaves_a_cycle() -> None:
        cycle: list[Any] = [values()]
        cycle.append(cycle)
        next(cycle[0])
        waits_for_ever()

    gc.disable()
    try:
        drive(leaves_a_cycle).close()

        def main() -> Any:
            gc.collect()
            return b(1)

        run = drive(main)
    finally:
        gc.enable()
    assert seen == ["this was called by a finalizer"] * 4
    assert run.commands == ["activity b"]
    assert run.complete("b", 2).task().result == 2
