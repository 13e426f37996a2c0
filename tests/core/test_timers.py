"""Timers, sleeps and timeouts: what they emit, and who wins."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import derecho
from derecho import as_completed, select, signal_channel, sleep, spawn, timer, wait_for
from derecho.clock import to_datetime
from tests.core.driver import START_NS, S, a, b


def test_a_sleep_ends_when_its_timer_has_fired(drive: Any) -> None:
    def main() -> float:
        before = derecho.now()
        sleep(60)
        return (derecho.now() - before).total_seconds()

    run = drive(main)
    assert run.commands == ["timer 60"]
    assert run.fire(60).task().result == 60.0


def test_a_duration_may_be_a_timedelta(drive: Any) -> None:
    assert drive(lambda: sleep(timedelta(minutes=2))).commands == ["timer 120"]


@pytest.mark.parametrize("duration", [-1, float("nan"), "5", None, True])
def test_a_bad_duration_raises_and_emits_nothing(drive: Any, duration: Any) -> None:
    def main() -> list[str]:
        raised = []
        for start in (sleep, timer, lambda d: wait_for(bool, d or -1)):
            with pytest.raises((TypeError, ValueError)) as caught:
                start(duration)
            raised.append(caught.typename)
        return raised

    assert drive(main).commands[0].startswith("completed")


def test_a_timer_gives_the_moment_at_which_it_fired(drive: Any) -> None:
    def main() -> bool:
        return timer(5).get() == to_datetime(START_NS + 5 * S)

    assert drive(main).fire(5).task().result is True


def test_a_cancelled_timer_raises_in_those_who_wait_for_it(drive: Any) -> None:
    def main() -> str:
        alarm = timer(5)

        def waits() -> str:
            try:
                alarm.get()
            except derecho.TimerCancelledError:
                return "cancelled"
            return "fired"

        fiber = spawn(waits)
        a.execute().get()
        assert alarm.cancel() is True
        return fiber.get()

    run = drive(main).complete("a").task()
    assert run.commands == ["timer cancelled", 'completed "cancelled"']


def test_cancelling_a_timer_twice_cancels_it_once(drive: Any) -> None:
    def main() -> list[bool]:
        alarm = timer(5)
        return [alarm.cancel(), alarm.cancel(), alarm.done()]

    run = drive(main)
    assert run.commands == ["timer 5", "timer cancelled", "completed [true,false,true]"]
    scheduled, cancelled = run.journal[-4:-2]
    assert cancelled.scheduled_by_id == scheduled.id, (
        "a timer that starts and ends in one task points at itself"
    )


def test_a_timer_that_fired_cannot_be_cancelled(drive: Any) -> None:
    def main() -> bool:
        alarm = timer(5)
        alarm.get()
        return alarm.cancel()

    assert drive(main).fire(5).task().commands == ["completed false"]


def test_a_fire_that_the_task_sees_beats_its_cancel(drive: Any) -> None:
    def main() -> bool:
        alarm = timer(5)
        a.execute().get()
        return alarm.cancel()

    assert drive(main).complete("a").fire(5).task().commands == ["completed false"]


def test_a_cancel_beats_a_fire_that_the_task_does_not_see(drive: Any) -> None:
    def main() -> list[bool]:
        alarm = timer(5)
        a.execute().get()
        won = alarm.cancel()
        b.execute().get()
        return [won, alarm.done(), isinstance(alarm.exception(), derecho.TimerCancelledError)]

    run = drive(main)
    run.complete("a").task(meanwhile=lambda: run.fire(5))
    assert run.commands == ["timer cancelled", "activity b"]
    assert run.task().commands == [], "the fire is ignored"
    assert run.complete("b").task().result == [True, True, True]


def test_a_value_beats_the_timeout_that_is_visible_with_it(drive: Any) -> None:
    def main() -> list[Any]:
        return [a.execute().get(timeout=5), derecho.now().timestamp() > 0]

    run = drive(main)
    assert run.commands == ["activity a", "timer 5"]
    assert run.fire(5).complete("a", 7).task().commands == ["completed [7,true]"]


def test_a_signal_beats_the_timeout_that_is_visible_with_it(drive: Any) -> None:
    def main() -> Any:
        return signal_channel("box").receive(timeout=5)

    assert drive(main).fire(5).signal("box", "late").task().commands == ['completed "late"']


def test_a_predicate_that_holds_beats_the_timeout_that_is_visible_with_it(drive: Any) -> None:
    state = {"set": False}

    def sets() -> None:
        a.execute().get()
        state["set"] = True

    def main() -> bool:
        spawn(sets)
        return wait_for(lambda: state["set"], timeout=5)

    run = drive(main)
    assert run.fire(5).complete("a").task().commands == ["completed true"]


def test_a_timeout_is_judged_only_when_the_ready_queue_is_empty(drive: Any) -> None:
    state = {"n": 0}

    def counts() -> None:
        a.execute().get()
        for _ in range(5):
            spawn(int).get()
            state["n"] += 1

    def main() -> bool:
        spawn(counts)
        return wait_for(lambda: state["n"] == 5, timeout=5)

    assert drive(main).fire(5).complete("a").task().result is True


def test_a_timeout_without_the_thing_raises_and_leaves_the_work_alone(drive: Any) -> None:
    def main() -> str:
        work = a.execute()
        try:
            work.get(timeout=5)
        except TimeoutError:
            return str(work.get())
        return "in time"

    run = drive(main).fire(5).task()
    assert run.commands == []
    assert run.complete("a", "late").task().result == "late"


def test_receive_raises_on_timeout_and_takes_nothing_afterwards(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        try:
            box.receive(timeout=5)
        except TimeoutError:
            a.execute().get()
            return [box.try_receive(), box.try_receive()]
        return []

    run = drive(main).fire(5).task().signal("box", 1, 2).complete("a").task()
    assert run.result == [1, 2]


def test_wait_for_returns_false_on_timeout(drive: Any) -> None:
    assert drive(lambda: wait_for(lambda: False, timeout=5)).fire(5).task().result is False


def test_a_timed_wait_that_need_not_park_starts_no_timer(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        work = a.execute()
        b.execute().get()
        return [box.receive(timeout=5), work.get(timeout=5), wait_for(lambda: True, timeout=5)]

    run = drive(main).signal("box", 1).complete("a", 2).complete("b").task()
    assert run.commands == ["completed [1,2,true]"]


def test_a_timed_wait_that_wins_cancels_its_timer(drive: Any) -> None:
    def main() -> list[Any]:
        return [a.execute().get(timeout=5), signal_channel("box").receive(timeout=6)]

    run = drive(main).complete("a", 1).task()
    assert run.commands == ["timer cancelled", "timer 6"]
    assert run.signal("box", 2).task().commands == ["timer cancelled", "completed [1,2]"]


def test_a_fire_that_comes_too_late_for_its_timeout_is_ignored(drive: Any) -> None:
    def main() -> list[Any]:
        return [a.execute().get(timeout=5), b.execute().get()]

    run = drive(main)
    run.complete("a", 1).task(meanwhile=lambda: run.fire(5))
    assert run.commands == ["timer cancelled", "activity b"]
    assert run.task().commands == []
    assert run.complete("b", 2).task().result == [1, 2]


def test_the_timer_of_an_earlier_wait_does_not_end_a_later_one(drive: Any) -> None:
    def main() -> Any:
        signal_channel("first").receive(timeout=5)
        return signal_channel("second").receive(timeout=6)

    run = drive(main)
    run.signal("first", 1).task(meanwhile=lambda: run.fire(5))
    assert run.task().ended == ""
    assert run.signal("second", "kept").task().result == "kept"


def test_a_timeout_of_zero_looks_and_does_not_wait(drive: Any) -> None:
    def main() -> list[str]:
        work, box = a.execute(), signal_channel("box")
        outcome = []
        for look in (lambda: work.get(timeout=0), lambda: box.receive(timeout=0)):
            try:
                outcome.append(look())
            except TimeoutError:
                outcome.append("nothing")
        return [*outcome, str(wait_for(lambda: False, timeout=0))]

    assert drive(main).commands == ["activity a", 'completed ["nothing","nothing","False"]']


def test_a_timeout_of_zero_finds_what_is_there(drive: Any) -> None:
    def main() -> list[Any]:
        b.execute().get()
        return [signal_channel("box").receive(timeout=0), wait_for(lambda: True, timeout=0)]

    assert drive(main).signal("box", 1).complete("b").task().result == [1, True]


def test_a_sleep_of_zero_is_a_timer(drive: Any) -> None:
    run = drive(lambda: sleep(0))
    assert run.commands == ["timer 0"]
    assert run.fire(0).task().result is None


def test_timers_wake_their_fibers_in_the_order_of_their_fires(drive: Any) -> None:
    seen: list[int] = []

    def naps(n: int) -> None:
        sleep(n)
        seen.append(n)

    def main() -> list[int]:
        for future in as_completed([spawn(naps, n) for n in (3, 1, 2)]):
            future.get()
        return seen

    assert drive(main).fire(1).fire(2).fire(3).task().result == [1, 2, 3]


def test_a_lost_timer_of_a_select_stays_the_user_s(drive: Any) -> None:
    def main() -> list[bool]:
        alarm = timer(5)
        select(alarm, a.execute())
        return [alarm.done(), alarm.cancel()]

    assert drive(main).complete("a").task().commands == ["timer cancelled", "completed [false,true]"]


def test_the_workflow_time_never_goes_below_a_visible_fire(drive: Any) -> None:
    def main() -> float:
        before = derecho.now()
        sleep(60)
        return (derecho.now() - before).total_seconds()

    run = drive(main).fire(60)
    run.now_ns = START_NS
    assert run.task().result == 60.0


def test_the_workflow_time_stands_still_within_a_task(drive: Any) -> None:
    def main() -> bool:
        before = derecho.now()
        spawn(int).get()
        return derecho.now() == before

    assert drive(main).result is True
