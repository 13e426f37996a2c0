"""Fibers: who runs when."""

from __future__ import annotations

from typing import Any

import derecho
from derecho import as_completed, gather, select, signal_channel, sleep, spawn, timer, wait_for
from tests.core.driver import a, b, c


def test_a_spawned_fiber_is_queued_and_the_spawner_goes_on(drive: Any) -> None:
    seen: list[str] = []

    def main() -> list[str]:
        fiber = spawn(lambda: seen.append("fiber"))
        seen.append("main")
        fiber.get()
        return seen

    assert drive(main).result == ["main", "fiber"]


def test_spawned_fibers_run_in_order_of_creation(drive: Any) -> None:
    seen: list[int] = []

    def main() -> list[int]:
        gather(*[spawn(seen.append, n) for n in range(50)])
        return seen

    assert drive(main).result == list(range(50))


def test_fibers_run_in_the_order_in_which_their_events_came(drive: Any) -> None:
    seen: list[str] = []

    def waits_for(activity: Any) -> None:
        seen.append(activity.execute().get())

    def main() -> list[str]:
        gather(*[spawn(waits_for, activity) for activity in (a, b, c)])
        return seen

    run = drive(main)
    assert run.commands == ["activity a", "activity b", "activity c"]
    run.complete("c", "c").complete("a", "a").complete("b", "b").task()
    assert run.result == ["c", "a", "b"]


def test_fibers_woken_by_one_event_run_by_creation_however_they_came_to_wait(drive: Any) -> None:
    seen: list[int] = []

    def main() -> list[int]:
        gate = a.execute()

        def waits(n: int, turns: int) -> None:
            for _ in range(turns):
                wait_for(lambda: True)
                spawn(int).get()
            gate.get()
            seen.append(n)

        gather(*[spawn(waits, n, 4 - n) for n in range(4)])
        return seen

    assert drive(main).complete("a").task().result == [0, 1, 2, 3]


def test_a_fiber_that_a_running_one_wakes_goes_behind_those_that_are_ready(drive: Any) -> None:
    seen: list[str] = []

    def main() -> list[str]:
        inner: list[derecho.Future[None]] = []

        def waits() -> None:
            inner[0].get()
            seen.append("waiter")

        waiter = spawn(waits)
        inner.append(spawn(lambda: seen.append("inner")))
        gather(waiter, spawn(lambda: seen.append("last")))
        return seen

    assert drive(main).result == ["inner", "last", "waiter"]


def test_waiters_of_one_future_all_get_its_value(drive: Any) -> None:
    def main() -> list[Any]:
        future = a.execute()
        return gather(spawn(future.get), spawn(future.get))

    assert drive(main).complete("a", 7).task().result == [7, 7]


def test_all_visible_events_are_applied_before_any_fiber_runs(drive: Any) -> None:
    def main() -> list[bool]:
        first, second = a.execute(), b.execute()
        first.get()
        return [first.done(), second.done()]

    assert drive(main).complete("a").complete("b").task().result == [True, True]


def test_events_that_arrive_while_a_task_runs_are_seen_by_the_next_one(drive: Any) -> None:
    seen: list[Any] = []

    def main() -> list[Any]:
        box = signal_channel("box")
        a.execute().get()
        seen.append(box.try_receive("none"))
        b.execute().get()
        seen.append(box.try_receive("none"))
        return seen

    run = drive(main)
    run.complete("a").task(meanwhile=lambda: run.signal("box", 1))
    assert seen == ["none"]
    assert run.complete("b").task().result == ["none", 1]


def test_main_returning_ends_the_run_and_stops_the_other_fibers(drive: Any) -> None:
    def other() -> None:
        a.execute()

    def main() -> str:
        spawn(other)
        return "done"

    run = drive(main)
    assert run.commands == ['completed "done"']


def test_select_gives_the_future_whose_event_came_first(drive: Any) -> None:
    def main() -> str:
        first, second = a.execute(), b.execute()
        return "a" if select(first, second) is first else "b"

    assert drive(main).complete("b").complete("a").task().result == "b"


def test_select_of_done_futures_gives_the_one_completed_first_and_then_by_argument(drive: Any) -> None:
    def main() -> list[bool]:
        first, second = a.execute(), b.execute()
        gather(first, second)
        return [select(first, second) is second, select(second, first) is second, select(first) is first]

    assert drive(main).complete("b").complete("a").task().result == [True, True, True]


def test_select_of_one_future_given_twice_gives_it_once(drive: Any) -> None:
    def main() -> bool:
        future = a.execute()
        return select(future, future) is future and future.get() == 1

    assert drive(main).complete("a", 1).task().result is True


def test_select_does_not_raise_the_error_of_its_winner(drive: Any) -> None:
    def main() -> str:
        winner = select(a.execute(), timer(5))
        return str(winner.exception())

    assert drive(main).fail("a", "no luck").task().result == "no luck"


def test_as_completed_goes_by_completion(drive: Any) -> None:
    def main() -> list[str]:
        return [future.get() for future in as_completed([a.execute(), b.execute(), c.execute()])]

    run = drive(main).complete("c", "c").complete("b", "b").task()
    assert run.ended == ""
    assert run.complete("a", "a").task().result == ["c", "b", "a"]


def test_as_completed_gives_what_was_done_before_by_completion(drive: Any) -> None:
    def main() -> list[str]:
        futures = [a.execute(), b.execute(), c.execute()]
        gather(*futures[:2])
        return [future.get() for future in as_completed(futures)]

    run = drive(main).complete("b", "b").complete("a", "a").task()
    assert run.complete("c", "c").task().result == ["b", "a", "c"]


def test_as_completed_puts_a_waiting_signal_where_it_arrived(drive: Any) -> None:
    def main() -> list[str]:
        future, late = a.execute(), b.execute()
        late.get()
        return [f.get() for f in as_completed([future, signal_channel("box").receive_future()])]

    run = drive(main).signal("box", "signal").complete("a", "activity").complete("b").task()
    assert run.result == ["signal", "activity"]


def test_as_completed_over_two_channels_gives_the_signal_that_came_first(drive: Any) -> None:
    def main() -> list[str]:
        x, y = signal_channel("x"), signal_channel("y")
        a.execute().get()
        return [f.get() for f in as_completed([x.receive_future(), y.receive_future()])]

    assert drive(main).signal("y", "y").signal("x", "x").complete("a").task().result == ["y", "x"]


def test_as_completed_left_midway_takes_no_signal(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        for future in as_completed([a.execute(), box.receive_future()]):
            future.get()
            break
        b.execute().get()
        return [box.try_receive(), box.try_receive()]

    run = drive(main).complete("a").task().signal("box", 1, 2).complete("b").task()
    assert run.result == [1, 2]


def test_as_completed_takes_no_signal_while_its_fiber_is_elsewhere(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        futures = as_completed([a.execute(), box.receive_future()])
        next(futures).get()
        b.execute().get()
        direct = box.receive()
        return [direct, next(futures).get()]

    run = drive(main).complete("a").task().signal("box", 1, 2).complete("b").task()
    assert run.result == [1, 2]


def test_gather_gives_values_in_argument_order_also_of_a_future_given_twice(drive: Any) -> None:
    def main() -> list[Any]:
        first, second = a.execute(), b.execute()
        return gather(second, first, second)

    assert drive(main).complete("a", "a").complete("b", "b").task().result == ["b", "a", "b"]


def test_gather_of_nothing_gives_nothing_at_once(drive: Any) -> None:
    assert drive(lambda: gather(*[])).result == []


def test_gather_raises_the_first_failure_by_completion_without_waiting_for_the_rest(drive: Any) -> None:
    def main() -> None:
        gather(a.execute(), b.execute(), c.execute())

    run = drive(main).fail("c", "first").fail("b", "second").task()
    assert run.ended == "failed ActivityError: first"


def test_the_failures_after_the_first_of_a_gather_count_as_taken(drive: Any) -> None:
    def fails(text: str) -> None:
        raise ValueError(text)

    def fails_later() -> None:
        a.execute().get()
        raise ValueError("late")

    def main() -> str:
        try:
            gather(spawn(fails, "one"), spawn(fails, "two"), spawn(fails_later))
        except ValueError as error:
            text = str(error)
        sleep(5)
        return text

    assert drive(main).complete("a").fire(5).task().result == "one"


def test_a_gather_that_was_cancelled_takes_no_failure(drive: Any) -> None:
    def fails_later() -> None:
        try:
            b.execute().get()
        except derecho.CancelledError:
            raise ValueError("lost?") from None

    def main() -> str:
        try:
            gather(spawn(fails_later))
        except derecho.CancelledError:
            a.execute().get()
        return "done"

    assert drive(main).cancel().task().complete("a").task().ended == "failed ValueError: lost?"


def test_gather_that_fails_at_once_takes_no_signal(drive: Any) -> None:
    def main() -> Any:
        box = signal_channel("box")
        failed = a.execute()
        b.execute().get()
        try:
            gather(failed, box.receive_future())
        except derecho.ActivityError:
            return box.try_receive()

    assert drive(main).fail("a").signal("box", 1).complete("b").task().result == 1


def test_gather_mixes_signals_and_activities(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        return gather(box.receive_future(), a.execute(), box.receive_future())

    run = drive(main).signal("box", 1).task().complete("a", 2).task()
    assert run.ended == ""
    assert run.signal("box", 3).task().result == [1, 2, 3]


def test_wait_for_holds_on_return_though_others_would_change_it(drive: Any) -> None:
    tokens: list[int] = []
    got: list[int] = []

    def taker(n: int) -> None:
        wait_for(lambda: bool(tokens))
        tokens.pop()
        got.append(n)

    def main() -> list[int]:
        fibers = [spawn(taker, n) for n in range(3)]
        a.execute().get()
        tokens.append(1)
        fibers[0].get()
        tokens.extend([1, 1])
        gather(*fibers)
        return got

    assert drive(main).complete("a").task().result == [0, 1, 2]


def test_predicates_are_evaluated_in_the_order_of_the_calls_of_wait_for(drive: Any) -> None:
    order: list[str] = []

    def waits(name: str, first: bool) -> None:
        if not first:
            spawn(int).get()
        wait_for(lambda: bool(order.append(name)))

    def main() -> None:
        spawn(waits, "late", False)
        spawn(waits, "early", True)
        spawn(int).get()
        spawn(int).get()
        order.clear()
        a.execute().get()

    drive(main)
    assert order == ["early", "late"]


def test_evaluation_starts_again_from_the_first_predicate_after_one_was_true(drive: Any) -> None:
    state = {"x": 0}
    order: list[str] = []

    def first() -> None:
        wait_for(lambda: state["x"] == 2)
        order.append("first")

    def second() -> None:
        wait_for(lambda: state["x"] == 1)
        order.append("second")
        state["x"] = 2

    def third() -> None:
        wait_for(lambda: state["x"] >= 1)
        order.append("third")

    def main() -> list[str]:
        fibers = [spawn(first), spawn(second), spawn(third)]
        a.execute().get()
        state["x"] = 1
        gather(*fibers)
        return order

    assert drive(main).complete("a").task().result == ["second", "first", "third"]


def test_a_plain_variable_set_by_a_later_fiber_wakes_an_earlier_one(drive: Any) -> None:
    state = {"set": False}

    def main() -> str:
        spawn(lambda: state.update(set=True))
        wait_for(lambda: state["set"])
        return "woken"

    assert drive(main).result == "woken"


def test_wait_for_returns_true_at_once_if_the_predicate_holds(drive: Any) -> None:
    assert drive(lambda: wait_for(lambda: True, timeout=5)).commands == ["completed true"]


def test_an_error_in_a_predicate_goes_to_the_fiber_that_waits(drive: Any) -> None:
    state: dict[str, int] = {"n": 1}

    def main() -> str:
        try:
            wait_for(lambda: 1 // state["n"] > 5)
        except ZeroDivisionError:
            return "caught"
        return "not caught"

    def changes() -> None:
        a.execute().get()
        state["n"] = 0

    def both() -> str:
        spawn(changes)
        return main()

    assert drive(both).complete("a").task().result == "caught"


def test_a_base_exception_in_a_predicate_goes_to_the_fiber_too_and_calls_work_again(drive: Any) -> None:
    def leaves() -> bool:
        raise SystemExit("predicate")

    def main() -> str:
        try:
            wait_for(leaves)
        except SystemExit:
            a.execute().get()
        return "went on"

    assert drive(main).complete("a").task().result == "went on"


def test_a_fiber_may_wait_for_a_fiber_that_waits_for_a_fiber(drive: Any) -> None:
    def depth(n: int) -> int:
        return 0 if n == 0 else 1 + spawn(depth, n - 1).get()

    assert drive(depth, 100).result == 100
