"""Errors of fibers, runs that can never move again, and runs that never stop moving."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import derecho
from derecho import (
    _core,
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
from tests.core.driver import a, b, c, replay


def fails(text: str = "broken") -> None:
    raise ValueError(text)


def test_an_exception_that_leaves_main_fails_the_run(drive: Any) -> None:
    assert drive(fails, "oh no").ended == "failed ValueError: oh no"


@pytest.mark.parametrize("error", [SystemExit("x"), GeneratorExit("x"), MemoryError("x"), StopIteration("x")])
def test_so_does_any_other_exception_but_ctrl_c(drive: Any, error: BaseException) -> None:
    def main() -> None:
        raise error

    assert drive(main).ended == f"failed {type(error).__name__}: x"


def test_an_exception_whose_text_cannot_be_had_fails_the_run_too(drive: Any) -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def main() -> None:
        raise Nasty

    assert drive(main).ended.startswith("failed Nasty: ")


def test_endless_recursion_fails_the_run_with_a_short_text(drive: Any) -> None:
    def main() -> None:
        main()

    assert drive(main).ended.startswith("failed RecursionError: maximum recursion depth exceeded")


def test_an_exception_that_leaves_a_fiber_waits_in_its_future(drive: Any) -> None:
    def main() -> list[str]:
        fiber = spawn(fails)
        caught = []
        for _ in range(2):
            try:
                fiber.get()
            except ValueError as error:
                caught.append(str(error))
        return [*caught, str(fiber.exception())]

    assert drive(main).result == ["broken"] * 3


def test_an_error_of_a_fiber_is_logged_at_once_with_the_ids_of_the_run(drive: Any, caplog: Any) -> None:
    def main() -> None:
        gather(spawn(fails))

    drive(main)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.workflow_id == "order-1"
    assert record.run_id == "run-1"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert record.exc_info[2] is not None, "with its traceback"


def test_an_untaken_error_fails_the_run_when_main_ends(drive: Any) -> None:
    def main() -> str:
        spawn(fails, "nobody looks")
        a.execute().get()
        return "done"

    assert drive(main).complete("a").task().ended == "failed ValueError: nobody looks"


def test_the_first_untaken_error_by_completion_wins_and_the_others_are_noted(drive: Any) -> None:
    def fails_after(work: Any, text: str) -> None:
        work.execute().get()
        fails(text)

    def main() -> str:
        spawn(fails_after, a, "second")
        spawn(fails_after, b, "first")
        c.execute().get()
        return "done"

    run = drive(main).complete("b").complete("a").complete("c").task()
    assert run.ended == "failed ValueError: first"
    assert run.journal[-2].error.details == {"also_1": "ValueError: second"}


def test_the_error_of_main_wins_over_untaken_ones(drive: Any) -> None:
    def main() -> None:
        spawn(fails, "of the fiber")
        spawn(int).get()
        raise KeyError("of main")

    run = drive(main)
    assert run.ended == "failed KeyError: 'of main'"
    assert run.journal[-2].error.details == {"also_1": "ValueError: of the fiber"}


@pytest.mark.parametrize(
    "look",
    [
        lambda fiber: fiber.exception(),
        lambda fiber: select(fiber).exception(),
        lambda fiber: [future.exception() for future in as_completed([fiber])],
    ],
)
def test_an_error_that_was_looked_at_is_taken(drive: Any, look: Any) -> None:
    def main() -> str:
        fiber = spawn(fails)
        wait_for(fiber.done)
        look(fiber)
        return "done"

    assert drive(main).result == "done"


@pytest.mark.parametrize("look", [lambda fiber: fiber.done(), select, lambda fiber: spawn(int).get()])
def test_an_error_that_was_only_waited_for_is_not_taken(drive: Any, look: Any) -> None:
    def main() -> str:
        fiber = spawn(fails)
        wait_for(fiber.done)
        look(fiber)
        return "done"

    assert drive(main).ended == "failed ValueError: broken"


def test_cancelled_with_an_untaken_error_is_failed(drive: Any) -> None:
    def main() -> None:
        spawn(fails)
        sleep(5)

    assert drive(main).cancel().task().ended == "failed ValueError: broken"


def test_an_activity_s_error_has_its_fields(drive: Any) -> None:
    def main() -> list[Any]:
        try:
            a.execute().get()
        except derecho.ActivityError as error:
            return [error.type, error.message, error.kind, error.attempts]
        return []

    assert drive(main).fail("a", "no", attempt=3).task().result == ["ValueError", "no", "application", 3]


def test_the_same_error_raised_twice_does_not_grow_its_traceback(drive: Any) -> None:
    def main() -> list[int]:
        work = a.execute()
        depths = []
        for _ in range(3):
            try:
                work.get()
            except derecho.ActivityError as error:
                depth, trace = 0, error.__traceback__
                while trace is not None:
                    depth, trace = depth + 1, trace.tb_next
                depths.append(depth)
        return depths

    depths = drive(main).fail("a").task().result
    assert len(set(depths)) == 1


# --- stuck


def test_a_run_that_waits_for_nothing_that_can_happen_is_stuck(drive: Any) -> None:
    run = drive(lambda: wait_for(lambda: False))
    assert run.commands == []
    assert run.live.stuck_reason.startswith("stuck: no fiber can ever go on")
    assert "test_errors.py" in run.live.stuck_reason


def test_two_fibers_that_wait_for_each_other_are_stuck(drive: Any) -> None:
    def main() -> None:
        fibers: list[Any] = []
        fibers.append(spawn(lambda n: fibers[n].get(), 1))
        fibers.append(spawn(lambda n: fibers[n].get(), 0))
        gather(*fibers)

    assert drive(main).live.stuck_reason


def test_a_stuck_run_with_an_untaken_error_fails_with_it(drive: Any) -> None:
    def main() -> None:
        state = {"set": False}
        spawn(fails, "the one who should have set it")
        wait_for(lambda: state["set"])

    assert drive(main).ended == "failed ValueError: the one who should have set it"


def test_a_run_is_not_failed_while_something_is_outstanding(drive: Any) -> None:
    def main() -> None:
        spawn(fails)
        a.execute()
        wait_for(lambda: False)

    run = drive(main)
    assert run.ended == ""
    assert run.complete("a").task().ended == "failed ValueError: broken"


@pytest.mark.parametrize(
    "wait",
    [
        lambda: signal_channel("box").receive(),
        lambda: select(signal_channel("box").receive_future()),
        lambda: gather(signal_channel("box").receive_future()),
        lambda: next(as_completed([signal_channel("box").receive_future()])),
        lambda: cancelled().get(),
        lambda: select(cancelled(), spawn(wait_for, bool)),
        lambda: gather(cancelled()),
        lambda: next(as_completed([cancelled()])),
        lambda: wait_for(is_cancelled),
        lambda: wait_for(lambda: cancelled().done()),
        lambda: wait_for(lambda: False, timeout=5),
        lambda: timer(5) and wait_for(lambda: False),
    ],
    ids=lambda wait: "",
)
def test_a_run_that_the_world_can_move_is_not_stuck_nor_failed(drive: Any, wait: Any) -> None:
    def main() -> None:
        spawn(fails)
        wait()

    run = drive(main)
    assert run.ended == ""
    assert run.live.stuck_reason == ""


def test_a_predicate_that_asks_a_captured_cancelled_future_can_go_on(drive: Any) -> None:
    def main() -> bool:
        asked = cancelled()
        return wait_for(asked.done)

    run = drive(main, cooperative=True)
    assert run.live.stuck_reason == ""
    assert run.cancel().task().result is True


def test_an_abandoned_as_completed_over_cancelled_keeps_no_run_alive(drive: Any) -> None:
    def main() -> None:
        for _ in as_completed([cancelled(), spawn(int)]):
            break
        wait_for(lambda: False)

    assert drive(main).live.stuck_reason


def test_a_stuck_run_is_moved_by_a_later_event_all_the_same(drive: Any) -> None:
    def main() -> str:
        wait_for(lambda: derecho.info().history_length > 1)
        return "moved"

    run = drive(main)
    assert run.live.stuck_reason
    assert run.signal("box", 1).task().result == "moved"


def test_stuckness_does_not_depend_on_how_events_were_batched(drive: Any) -> None:
    def main() -> None:
        def child() -> None:
            a.execute().get()
            fails("late")

        spawn(child)
        b.execute().get()
        wait_for(lambda: False)

    together = drive(main).complete("a").complete("b").task()
    apart = drive(main).complete("a").task().complete("b").task()
    assert together.ended == apart.ended == "failed ValueError: late"


def test_stuck_runs_replay(drive: Any) -> None:
    def main() -> None:
        gather(spawn(wait_for, bool))

    replay(main, drive(main).journal, strict=True)


# --- livelock


@pytest.mark.slow
def test_fibers_that_wake_each_other_for_ever_fail_the_task(prepare: Any) -> None:
    def main() -> None:
        while True:
            spawn(int).get()

    with pytest.raises(derecho.DerechoError, match="more than 100000 resumptions"):
        prepare(main).task()


@pytest.mark.slow
def test_predicates_that_wake_each_other_for_ever_fail_the_task(prepare: Any) -> None:
    state = {"n": 0}

    def steps(parity: int) -> None:
        while True:
            wait_for(lambda: state["n"] % 2 == parity)
            state["n"] += 1

    def main() -> None:
        gather(spawn(steps, 0), spawn(steps, 1))

    with pytest.raises(derecho.DerechoError, match="resumptions of fibers in one workflow task"):
        prepare(main).task()


@pytest.mark.slow
def test_a_task_may_resume_fibers_very_often(drive: Any) -> None:
    def main() -> int:
        for _ in range(_core.RESUMPTIONS_MAX // 2 - 10):
            spawn(int).get()
        return 0

    assert drive(main).result == 0


# --- Ctrl-C


def test_ctrl_c_in_workflow_code_leaves_the_task_and_nothing_is_committed(prepare: Any) -> None:
    def child() -> None:
        raise KeyboardInterrupt

    def main() -> None:
        a.execute()
        spawn(child).get()

    run = prepare(main)
    with pytest.raises(KeyboardInterrupt):
        run.task()
    assert run.all_commands == []
    with pytest.raises(RuntimeError, match="running, failed or closed"):
        run.scheduler.advance([], 0)


def test_ctrl_c_in_a_side_effect_cannot_be_swallowed_by_workflow_code(prepare: Any) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def main() -> str:
        try:
            derecho.side_effect(interrupted)
        except BaseException:
            return "swallowed"
        return "never"

    run = prepare(main)
    with pytest.raises(KeyboardInterrupt):
        run.task()
    assert run.all_commands == []


def test_ctrl_c_during_eviction_is_raised_after_all_fibers_were_unwound(drive: Any) -> None:
    seen: list[str] = []

    def child() -> None:
        try:
            sleep(5)
        finally:
            seen.append("child")
            raise KeyboardInterrupt

    def main() -> None:
        spawn(child)
        try:
            sleep(6)
        finally:
            seen.append("main")

    run = drive(main)
    with pytest.raises(KeyboardInterrupt):
        run.close()
    assert seen == ["child", "main"]
    run.close()
