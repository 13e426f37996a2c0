"""Fibers and the rest of Python: contexts, exceptions in flight, stacks, threads, the garbage collector."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import greenlet
import pytest

import derecho
from derecho import _core, gather, signal_channel, sleep, spawn, wait_for
from tests.core.driver import START_NS, Run, StubEnvironment, a, b, begin, first_event

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def waits_for_ever() -> None:
    signal_channel("never").receive()


def on_another_thread(fn: Callable[[], Any]) -> Any:
    """Call a function on a thread of its own and return what it returned or raised."""
    outcome: list[Any] = []

    def target() -> None:
        try:
            outcome.append(fn())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return outcome[0]


# --- context variables


def test_a_fiber_sees_the_context_in_which_its_run_was_made(drive: Any) -> None:
    token = who.set("maker")
    try:
        assert drive(lambda: [who.get(), spawn(who.get).get()]).result == ["maker", "maker"]
    finally:
        who.reset(token)


def test_each_fiber_has_a_context_of_its_own_across_waits(drive: Any) -> None:
    def sets(name: str) -> str:
        who.set(name)
        a.execute().get()
        return who.get()

    def main() -> list[str]:
        who.set("main")
        fibers = [spawn(sets, "x"), spawn(sets, "y")]
        return [*gather(*fibers), who.get()]

    run = drive(main)
    assert who.get() == "nobody"
    assert run.complete("a").complete("a").task().result == ["x", "y", "main"]
    assert who.get() == "nobody"


def test_a_reused_greenlet_starts_with_the_context_of_its_own_run(drive: Any) -> None:
    def main() -> str:
        before = who.get()
        who.set("left behind")
        return before

    assert [drive(main).result for _ in range(3)] == ["nobody"] * 3


def test_a_wait_inside_context_run_comes_back_to_that_context(drive: Any) -> None:
    def inner() -> str:
        who.set("inner")
        a.execute().get()
        return who.get()

    def main() -> list[str]:
        return [contextvars.copy_context().run(inner), who.get()]

    assert drive(main).complete("a").task().result == ["inner", "nobody"]


# --- exceptions in flight


def test_exceptions_in_flight_stay_with_their_fiber() -> None:
    """What Cython's short cuts around the exception state would break: `sys.exc_info()` and `__context__`."""

    seen: list[bool] = []

    def fails_in_handler(name: str) -> None:
        try:
            raise ValueError(name)
        except ValueError as first:
            seen.append(sys.exc_info()[1] is first)
            a.execute().get()
            seen.append(sys.exc_info()[1] is first)
            try:
                b.execute().get()
            except derecho.ActivityError as second:
                seen.append(second.__context__ is first)
                seen.append(sys.exc_info()[1] is second)
            seen.append(sys.exc_info()[1] is first)
        seen.append(sys.exc_info() == (None, None, None))
        wait_for(lambda: True)
        raise KeyError(name)

    def main() -> list[str]:
        fibers = [spawn(fails_in_handler, str(n)) for n in range(3)]
        contexts = []
        for fiber in fibers:
            try:
                fiber.get()
            except KeyError as error:
                contexts.append(repr(error.__context__))
        return contexts

    for _ in range(200):
        with Run(main) as run:
            run.task()
            try:
                raise RuntimeError("of the hub")
            except RuntimeError as of_hub:
                for _ in range(3):
                    run.complete("a").task()
                    run.fail("b").task()
                    seen.append(sys.exc_info()[1] is of_hub)
            assert run.result == ["None"] * 3
        assert sys.exc_info() == (None, None, None)
    assert len(seen) == 200 * 3 * 7
    assert all(seen)


def test_an_error_raised_by_the_core_has_the_handled_one_as_context(drive: Any) -> None:
    def main() -> bool:
        try:
            raise ValueError("handled")
        except ValueError as handled:
            try:
                a.execute().get(timeout=5)
            except TimeoutError as error:
                return error.__context__ is handled
        return False

    assert drive(main).fire(5).task().result is True


def test_a_bare_raise_after_a_wait_raises_the_right_error(drive: Any) -> None:
    def main() -> None:
        other = spawn(noise)
        try:
            raise ValueError("mine")
        except ValueError:
            a.execute().get()
            other.get()
            raise

    def noise() -> None:
        try:
            raise KeyError("noise")
        except KeyError:
            a.execute().get()

    assert drive(main).complete("a").complete("a").task().ended == "failed ValueError: mine"


def test_the_hub_s_handled_error_is_no_context_of_the_run_s(prepare: Any) -> None:
    def main() -> None:
        assert sys.exc_info() == (None, None, None)
        raise KeyError("of the run")

    run = prepare(main)
    try:
        raise ValueError("of the hub")
    except ValueError:
        run.task()
    assert run.ended == "failed KeyError: 'of the run'"


def test_references_of_a_caught_error_are_dropped_with_its_fiber() -> None:
    class Marked(Exception):
        pass

    kept: list[weakref.ref[Marked]] = []

    def main() -> None:
        try:
            error = Marked()
            kept.append(weakref.ref(error))
            raise error
        except Marked:
            a.execute().get()

    with Run(main) as run:
        run.task().complete("a").task()
    del run
    gc.collect()
    assert kept[0]() is None


# --- stacks


def test_deep_recursion_across_a_wait(drive: Any) -> None:
    def depth(n: int) -> int:
        return a.execute().get() if n == 0 else 1 + depth(n - 1)

    run = drive(lambda: gather(spawn(depth, 700), spawn(depth, 700)))
    assert run.complete("a", 0).complete("a", 0).task().result == [700, 700]


def test_recursion_without_end_stays_inside_its_fiber(drive: Any) -> None:
    def endless() -> None:
        endless()

    def main() -> str:
        try:
            spawn(endless).get()
        except RecursionError:
            return str(spawn(lambda: "others go on").get())
        return ""

    assert drive(main).result == "others go on"


def test_generators_and_context_managers_live_across_waits(drive: Any) -> None:
    @contextmanager
    def holding(log: list[str]) -> Iterator[str]:
        log.append("enter")
        yield a.execute().get()
        log.append("exit")

    def doubled() -> Iterator[int]:
        for value in signal_channel("box"):
            yield 2 * value

    def main() -> list[Any]:
        log: list[str] = []
        with holding(log) as value:
            got = [next(numbers) for numbers in [doubled()] for _ in range(2)]
        return [value, got, log]

    run = drive(main).complete("a", "x").task().signal("box", 1).task().signal("box", 2).task()
    assert run.result == ["x", [2, 4], ["enter", "exit"]]


def test_the_stack_of_a_parked_fiber_can_be_shown(drive: Any) -> None:
    def parked_here() -> None:
        a.execute().get()

    def main() -> None:
        spawn(parked_here)
        wait_for(lambda: False)

    run = drive(main)
    names = {
        number: [frame.f_code.co_name for frame, _ in traceback.walk_stack(top)]
        for number, top in run.scheduler.frames()
    }
    assert "parked_here" in names[2]
    assert "main" in names[1]
    assert run.live.env.blocked_at().count("test_python_runtime.py:") == 2


def test_a_trace_function_sees_fibers_and_changes_nothing(prepare: Any) -> None:
    calls: list[str] = []

    def traced(frame: Any, event: str, arg: Any) -> Any:
        calls.append(frame.f_code.co_name)
        return traced

    def child() -> Any:
        return a.execute().get()

    run = prepare(lambda: gather(spawn(child), spawn(child)))
    before = sys.gettrace()
    sys.settrace(traced)
    try:
        run.task().complete("a", 1).complete("a", 2).task()
    finally:
        sys.settrace(before)
    assert run.result == [1, 2]
    assert "child" in calls


# --- threads


def test_a_thread_started_by_workflow_code_cannot_call_the_api(drive: Any) -> None:
    def main() -> list[str]:
        future = a.execute()
        calls: list[Callable[[], Any]] = [
            a.execute,
            lambda: sleep(1),
            future.get,
            derecho.now,
            lambda: spawn(int),
        ]
        return [type(on_another_thread(call)).__name__ for call in calls]

    run = drive(main)
    assert run.result == ["NotInWorkflowError"] * 5
    assert run.commands[0] == "activity a"


def test_a_run_is_refused_on_another_thread_and_goes_on_on_its_own(drive: Any) -> None:
    run = drive(lambda: a.execute().get())
    refused = on_another_thread(lambda: run.scheduler.advance([], 0))
    assert isinstance(refused, RuntimeError)
    assert "another" in str(refused)
    refused = on_another_thread(run.close)
    assert isinstance(refused, RuntimeError)
    run.close()
    assert _core.live_fibers() == 0


def test_refusing_a_foreign_thread_harms_no_run_of_the_pool(drive: Any) -> None:
    untouched = drive(lambda: a.execute().get())
    on_another_thread(drive(lambda: spawn(sleep, 5).get()).scheduler.pool.close)
    fresh = on_another_thread(lambda: None)
    assert fresh is None
    assert untouched.complete("a", 3).task().result == 3


def test_each_thread_has_its_own_pool_and_runs() -> None:
    def lives() -> Any:
        with Run(lambda: a.execute().get()) as run:
            result = run.task().complete("a", threading.get_ident()).task().result
        pool = _core.thread_pool()
        idle = len(pool)
        pool.close()
        return result, idle, len(pool), pool is _core.thread_pool()

    ident, idle, after, same = on_another_thread(lives)
    assert ident != threading.get_ident()
    assert (idle, after, same) == (1, 0, True)


def test_dropping_the_last_reference_on_another_thread_runs_no_user_code() -> None:
    ran: list[str] = []

    def main() -> None:
        try:
            waits_for_ever()
        finally:
            ran.append("finally")

    pool = _core.Pool()
    runs = [Run(main, pool=pool).task()]
    keep = [runs[0].scheduler]
    on_another_thread(lambda: (runs.clear(), gc.collect()))
    gc.collect()
    assert ran == []
    keep[0].close()
    assert ran == ["finally"]
    pool.close()


def test_ended_greenlets_and_runs_may_be_collected_on_another_thread() -> None:
    def makes() -> list[Any]:
        pool = _core.Pool()
        with Run(lambda: a.execute().get(), pool=pool) as run:
            run.task().complete("a").task()
        pool.close()
        return [run, pool]

    kept = makes()
    assert on_another_thread(lambda: (kept.clear(), gc.collect(), "collected")[2]) == "collected"


# --- asyncio


def test_a_wait_inside_asyncio_is_refused_with_a_reason(drive: Any) -> None:
    async def waits() -> None:
        sleep(1)

    async def computes() -> int:
        a.execute()
        return 7

    def main() -> list[Any]:
        try:
            asyncio.run(waits())
        except derecho.NotInWorkflowError as error:
            return [str(error), asyncio.run(computes())]
        return []

    run = drive(main)
    assert run.commands[0] == "activity a"
    text, value = run.result
    assert text == "a workflow cannot wait inside asyncio: the event loop would stand still with it"
    assert value == 7


def test_runs_may_be_driven_from_inside_an_event_loop(drive: Any) -> None:
    async def drives() -> Any:
        return drive(lambda: a.execute().get()).complete("a", 1).task().result

    assert asyncio.run(drives()) == 1


# --- futures and runs


def test_a_future_of_another_run_is_refused_wherever_it_is_passed(drive: Any) -> None:
    kept: list[Any] = []

    def owner() -> None:
        kept.extend([a.execute(), derecho.timer(5), signal_channel("box")])
        waits_for_ever()

    def thief() -> list[str]:
        future, timer, channel = kept
        calls: list[Callable[[], Any]] = [
            future.get,
            lambda: derecho.select(future),
            lambda: gather(future),
            lambda: list(derecho.as_completed([future])),
            timer.cancel,
            channel.receive,
            channel.try_receive,
            lambda: derecho.select(channel.receive_future()),
        ]
        refused = []
        for call in calls:
            try:
                call()
            except derecho.NotInWorkflowError as error:
                refused.append(str(error))
        return refused

    drive(owner)
    refused = drive(thief).result
    assert len(refused) == 8
    assert all("another run" in text for text in refused)


@pytest.mark.parametrize("call", [derecho.select, gather, lambda *f: list(derecho.as_completed(f))])
@pytest.mark.parametrize("not_a_future", [1, None, [1], "text", a])
def test_what_is_no_future_is_refused_by_type(drive: Any, call: Any, not_a_future: Any) -> None:
    def main() -> str:
        try:
            call(not_a_future)
        except TypeError as error:
            return str(error)
        return ""

    assert drive(main).result.startswith("expected a future, got ")


def test_a_select_of_nothing_is_refused(drive: Any) -> None:
    def main() -> str:
        try:
            derecho.select()
        except derecho.NotInWorkflowError as error:
            return str(error)
        return ""

    assert "at least one" in drive(main).result


def test_classes_of_the_core_cannot_be_made_by_users() -> None:
    for cls in (_core.Future, _core.Timer, _core.Receive, _core.Fiber):
        with pytest.raises(TypeError, match="made by"):
            cls()
    assert _core.Future[int] is _core.Future


# --- re-entrance


def test_advance_and_close_are_refused_inside_a_fiber(prepare: Any) -> None:
    def main() -> list[str]:
        scheduler = _core.current()
        assert scheduler is not None
        refused = []
        for call in (lambda: scheduler.advance([], 0), scheduler.close):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))
        return refused

    run = prepare(main).task()
    assert run.result == [
        "advance() on a scheduler that is running, failed or closed",
        "close() on a scheduler that is running",
    ]


def test_a_run_may_be_run_inside_a_fiber_of_another(drive: Any) -> None:
    def main() -> list[Any]:
        with Run(lambda: b.execute().get()) as inner:
            got = inner.task().complete("b", 1).task().result
        return [got, a.execute().get()]

    run = drive(main)
    assert run.commands == ["activity a"]
    assert run.complete("a", 2).task().result == [1, 2]


def test_a_pool_may_be_closed_on_another_greenlet_than_the_one_that_filled_it() -> None:
    pool = _core.Pool()

    def runs() -> None:
        with Run(lambda: gather(spawn(int), spawn(int)), pool=pool) as run:
            run.task()

    greenlet.greenlet(runs).switch()
    seen: list[str] = []

    def closes() -> None:
        pool.close()
        seen.append("came back")

    greenlet.greenlet(closes).switch()
    assert seen == ["came back"]
    assert len(pool) == 0


@pytest.mark.parametrize("callback", ["fiber_failed", "close", "cancel_info"])
def test_an_error_in_the_surroundings_fails_the_task_and_leaves_nothing(bare: Any, callback: str) -> None:
    class Broken(StubEnvironment):
        pass

    def raises(*_: Any) -> Any:
        raise OSError(callback)

    setattr(Broken, callback, raises)

    def fails() -> None:
        raise ValueError

    def main() -> None:
        spawn(fails)
        _core.spawn(int).get()

    scheduler = bare(main, Broken())
    events = [first_event(), derecho.journal.WorkflowCancelRequested(id=2, requested_at_ns=0)]
    with pytest.raises(OSError, match=callback):
        scheduler.advance(events if callback == "cancel_info" else events[:1], START_NS)
    with pytest.raises(RuntimeError, match="failed or closed"):
        scheduler.advance([], START_NS)
    scheduler.close()
    assert _core.live_fibers() == 0
    assert len(scheduler.pool) <= _core.IDLE_GREENLETS_MAX


def test_an_error_of_site_leaves_no_half_command(bare: Any) -> None:
    class Broken(StubEnvironment):
        def site(self) -> str:
            if _core.current() is not None:
                raise OSError("no site")
            return ""

    def main() -> str:
        try:
            _core.schedule(10, "a", b"")
        except OSError:
            return "caught"
        return ""

    scheduler = bare(main, Broken())
    [completed] = begin(scheduler)
    assert completed.payload == "caught"
    scheduler.committed([5])


def test_two_fibers_cannot_share_one_as_completed(drive: Any) -> None:
    def main() -> list[str]:
        shared = derecho.as_completed([a.execute(), b.execute()])
        first = spawn(lambda: next(shared).get())
        second = spawn(lambda: next(shared).get())
        try:
            second.get()
        except derecho.NotInWorkflowError as error:
            return [str(error), first.get(), next(shared).get()]
        return []

    run = drive(main).complete("a", "x").complete("b", "y").task()
    assert run.result == ["another fiber waits for the next future of this as_completed()", "x", "y"]


def test_an_as_completed_of_another_run_is_refused(drive: Any) -> None:
    kept: list[Any] = []

    def owner() -> None:
        kept.append(derecho.as_completed([a.execute()]))
        waits_for_ever()

    def thief() -> str:
        try:
            next(kept[0])
        except derecho.NotInWorkflowError as error:
            return str(error)
        return ""

    drive(owner)
    assert drive(thief).result == "this as_completed() belongs to another run"
