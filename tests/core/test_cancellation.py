"""Cancellation: who gets CancelledError, once, where; and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest

import derecho
from derecho import (
    CancelledError,
    as_completed,
    cancelled,
    gather,
    is_cancelled,
    select,
    signal_channel,
    sleep,
    spawn,
    timer,
    wait_for,
)
from tests.core.driver import a, b, c


def test_a_request_raises_in_the_wait_of_main_and_ends_the_run_as_cancelled(drive: Any) -> None:
    run = drive(lambda: a.execute().get()).cancel("no longer needed").task()
    assert run.ended == "cancelled"


def test_the_error_carries_the_reason_and_is_no_exception_of_the_ordinary_kind(drive: Any) -> None:
    def main() -> str:
        try:
            try:
                a.execute().get()
            except Exception:
                return "swallowed"
        except CancelledError as error:
            return error.reason
        return "nothing"

    assert drive(main).cancel("too late").task().result == "too late"


@pytest.mark.parametrize(
    "wait",
    [
        lambda: a.execute().get(),
        lambda: a.execute().get(timeout=60),
        lambda: sleep(60),
        lambda: timer(60).get(),
        lambda: wait_for(lambda: False),
        lambda: wait_for(lambda: False, timeout=60),
        lambda: signal_channel("box").receive(),
        lambda: signal_channel("box").receive(timeout=60),
        lambda: select(a.execute(), timer(60)),
        lambda: gather(a.execute(), b.execute()),
        lambda: next(iter(as_completed([a.execute(), b.execute()]))),
        lambda: next(iter(signal_channel("box"))),
        lambda: spawn(sleep, 60).get(),
    ],
    ids=lambda wait: "",
)
def test_every_kind_of_wait_is_broken_once(drive: Any, wait: Any) -> None:
    caught: list[int] = []

    def main() -> str:
        try:
            wait()
        except CancelledError:
            caught.append(1)
            c.execute().get()
        return "cleaned up"

    run = drive(main).cancel().task()
    assert caught == [1]
    assert run.ended == ""
    assert "activity c" in run.commands
    assert run.cancel().task().ended == "", "a second request changes nothing"
    assert run.complete("c").task().result == "cleaned up"


@pytest.mark.parametrize(
    "wait", [lambda: sleep(60), lambda: signal_channel("box").receive(60), lambda: wait_for(bool, 60)]
)
def test_the_private_timer_of_a_broken_wait_is_cancelled(drive: Any, wait: Any) -> None:
    assert drive(wait).cancel().task().commands == ["timer cancelled", "cancelled"]


def test_a_timer_of_the_user_s_is_not_cancelled_with_the_wait_for_it(drive: Any) -> None:
    def main() -> Any:
        alarm = timer(60)
        try:
            alarm.get()
        except CancelledError:
            return alarm.get().timestamp() > 0

    run = drive(main).cancel().task()
    assert run.commands == []
    assert run.fire(60).task().result is True


def test_a_private_timer_that_fired_in_the_same_batch_is_not_cancelled(drive: Any) -> None:
    assert drive(lambda: sleep(60)).cancel().fire(60).task().commands == ["cancelled"]


def test_a_fiber_that_is_not_parked_gets_it_at_its_next_blocking_call(prepare: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        work = a.execute()
        seen.append(f"asked: {is_cancelled()}")
        work.get()
        seen.append("not reached")

    run = prepare(main).cancel().task()
    assert run.commands == ["activity a", "cancelled"]
    assert seen == ["asked: True"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: wait_for(lambda: True),
        lambda: spawn(int).get(),
        lambda: gather(*[]),
        lambda: list(as_completed([])),
    ],
)
def test_a_blocking_call_that_need_not_wait_raises_it_too(prepare: Any, call: Any) -> None:
    assert prepare(call).cancel().task().ended == "cancelled"


def test_a_wait_that_a_smaller_id_satisfied_returns_and_the_next_call_raises(drive: Any) -> None:
    seen: list[Any] = []

    def main() -> None:
        seen.append(a.execute().get())
        sleep(5)

    run = drive(main).complete("a", 7).cancel().task()
    assert seen == [7]
    assert run.commands == ["cancelled"], "the sleep has not even started its timer"


def test_a_wait_that_a_larger_id_would_satisfy_is_broken(drive: Any) -> None:
    def main() -> list[Any]:
        work = a.execute()
        try:
            work.get()
        except CancelledError:
            return ["cancelled", work.get()]
        return ["answered"]

    assert drive(main).cancel().complete("a", 7).task().result == ["cancelled", 7]


def test_a_timeout_of_a_smaller_id_counts_as_satisfied(drive: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        try:
            a.execute().get(timeout=5)
        except TimeoutError:
            seen.append("timeout")
        sleep(1)

    assert drive(main).fire(5).cancel().task().commands == ["cancelled"]
    assert seen == ["timeout"]


def test_a_timeout_of_a_wait_for_counts_as_satisfied_too(drive: Any) -> None:
    seen: list[bool] = []

    def main() -> None:
        seen.append(wait_for(lambda: False, timeout=5))
        sleep(1)

    assert drive(main).fire(5).cancel().task().commands == ["cancelled"]
    assert seen == [False]


def test_a_value_after_timeout_and_request_is_still_received(drive: Any) -> None:
    seen: list[Any] = []

    def main() -> None:
        seen.append(signal_channel("box").receive(timeout=5))
        sleep(1)

    assert drive(main).fire(5).cancel().signal("box", 1).task().ended == "cancelled"
    assert seen == [1]


def test_every_fiber_that_exists_gets_it_and_those_spawned_later_do_not(drive: Any) -> None:
    seen: list[str] = []

    def waits(name: str) -> str:
        try:
            sleep(60)
        except CancelledError:
            seen.append(name)
            raise
        return name

    def main() -> list[str]:
        fibers = [spawn(waits, "first"), spawn(waits, "second")]
        try:
            gather(*fibers)
        except CancelledError:
            seen.append("main")
            seen.append(spawn(waits, "later").get())
        return seen

    run = drive(main).cancel().task()
    assert seen == ["main", "first", "second"]
    assert run.fire(60).task().result == ["main", "first", "second", "later"]


def test_a_fiber_that_has_not_begun_gets_it_at_its_first_wait(prepare: Any) -> None:
    seen: list[str] = []

    def child() -> None:
        seen.append("begun")
        try:
            sleep(1)
        except CancelledError:
            seen.append("cancelled")
            raise

    def main() -> None:
        fiber = spawn(child)
        try:
            a.execute().get()
        except CancelledError:
            wait_for(fiber.done)

    # The child is spawned by a task that has seen the request: it is not asked to stop.
    run = prepare(main).cancel().task()
    assert seen == ["begun"]
    assert run.fire(1).task().ended == "completed null"


def test_fibers_get_it_in_order_of_creation_those_that_wait_for_cancelled_too(drive: Any) -> None:
    seen: list[str] = []

    def raises(name: str) -> None:
        try:
            sleep(60)
        except CancelledError:
            seen.append(name)

    def asks(name: str) -> None:
        cancelled().get()
        seen.append(name)

    def main() -> None:
        fibers = [spawn(raises, "1"), spawn(asks, "2"), spawn(raises, "3"), spawn(asks, "4")]
        try:
            wait_for(lambda: False)
        except CancelledError:
            seen.append("main")
        gather(*fibers)

    drive(main).cancel().task()
    assert seen == ["main", "1", "2", "3", "4"]


def test_a_fiber_that_leaves_with_it_ends_quietly(drive: Any, caplog: Any) -> None:
    def main() -> str:
        spawn(sleep, 60)
        try:
            sleep(70)
        except CancelledError:
            a.execute().get()
        return "main goes on"

    run = drive(main).cancel().task().complete("a").task()
    assert run.result == "main goes on"
    assert not caplog.records


def test_work_that_nobody_waits_for_goes_on(drive: Any) -> None:
    def main() -> Any:
        work = a.execute()
        try:
            b.execute().get()
        except CancelledError:
            return work.get()

    run = drive(main).cancel().task()
    assert run.commands == []
    assert run.complete("a", "kept").task().result == "kept"


def test_clean_up_after_catching_may_schedule_and_wait(drive: Any) -> None:
    def main() -> None:
        try:
            sleep(60)
        finally:
            a.execute().get()
            sleep(1)

    run = drive(main).cancel().task()
    assert run.commands == ["timer cancelled", "activity a"]
    run.complete("a").task()
    assert run.commands == ["timer 1"]
    assert run.fire(1).task().commands == ["cancelled"]


def test_an_error_in_clean_up_fails_the_run(drive: Any) -> None:
    def main() -> None:
        try:
            sleep(60)
        finally:
            raise ValueError("clean-up broke")

    assert drive(main).cancel().task().ended == "failed ValueError: clean-up broke"


def test_code_that_swallows_the_request_may_still_complete(drive: Any) -> None:
    def main() -> str:
        try:
            sleep(60)
        except CancelledError:
            pass
        return "done anyway"

    assert drive(main).cancel().task().commands == ["timer cancelled", 'completed "done anyway"']


def test_cancelled_gives_reason_and_moment(drive: Any) -> None:
    def main() -> list[Any]:
        asked = cancelled().get()
        return [asked.reason, asked.requested_at == derecho.now()]

    assert drive(main).cancel("why not").task().result == ["why not", True]


def test_the_wait_for_cancelled_itself_is_satisfied_by_the_request(drive: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        seen.append(cancelled().get().reason)
        sleep(1)

    assert drive(main).cancel("x").task().commands == ["cancelled"]
    assert seen == ["x"]


def test_in_cooperative_mode_nothing_raises(drive: Any) -> None:
    def main() -> list[Any]:
        work = a.execute()
        asked = cancelled()
        select(work, asked)
        return [is_cancelled(), asked.done(), work.get()]

    run = drive(main, cooperative=True).cancel().task()
    assert run.ended == ""
    assert run.complete("a", 1).task().result == [True, True, 1]


def test_in_cooperative_mode_a_predicate_that_asks_is_woken(drive: Any) -> None:
    def main() -> bool:
        return wait_for(is_cancelled)

    run = drive(main, cooperative=True)
    assert run.live.stuck_reason == ""
    assert run.cancel().task().result is True


def test_a_request_while_iterating_as_completed_breaks_the_wait_and_iteration_may_go_on(drive: Any) -> None:
    def main() -> list[Any]:
        futures = as_completed([a.execute(), b.execute()])
        try:
            next(futures)
        except CancelledError:
            return [future.get() for future in futures]
        return []

    run = drive(main).cancel().complete("b", "b").task()
    assert run.complete("a", "a").task().result == ["b", "a"]


def test_a_request_reaches_a_wait_for_whose_predicate_it_would_satisfy(drive: Any) -> None:
    def main() -> str:
        try:
            wait_for(is_cancelled)
        except CancelledError:
            return "raised"
        return "returned"

    assert drive(main).cancel().task().result == "raised"


def test_a_fiber_waiting_for_one_that_was_cancelled_gets_its_own_error_first(drive: Any) -> None:
    seen: list[str] = []

    def child() -> None:
        try:
            sleep(60)
        except CancelledError as error:
            seen.append("child")
            raise CancelledError("of the child") from error

    def main() -> None:
        fiber = spawn(child)
        try:
            fiber.get()
        except CancelledError as error:
            seen.append(error.reason)
        try:
            fiber.get()
        except CancelledError as error:
            seen.append(error.reason)

    assert drive(main).cancel("of main").task().ended == "completed null"
    assert seen == ["of main", "child", "of the child"]
