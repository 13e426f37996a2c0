"""Live and replayed are the same: small programs, cut at every task boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import derecho
from derecho import (
    CancelledError,
    as_completed,
    gather,
    is_cancelled,
    select,
    side_effect,
    signal_channel,
    signal_external,
    sleep,
    spawn,
    timer,
    uuid4,
    wait_for,
)
from tests.core.driver import Run, a, b, c, cuts, definition_of, next_task, recorded_task, replay

Step = Callable[[Run], object]


def sequence() -> list[Any]:
    return [a(1), derecho.now().isoformat(), b(a(2)), str(uuid4())]


def fan_out() -> list[Any]:
    futures = [activity.execute(n) for n, activity in enumerate((a, b, c))]
    return [[future.get() for future in as_completed(futures)], gather(*futures)]


def heartbeat_loop() -> list[Any]:
    box, seen = signal_channel("box"), []
    while len(seen) < 4:
        future, alarm = box.receive_future(), timer(5)
        if select(future, alarm) is future:
            alarm.cancel()
            seen.append(future.get())
            a.execute(len(seen))
        else:
            seen.append("tick")
    return seen


def drains_until_quiet() -> list[Any]:
    box, seen = signal_channel("box", int), []
    try:
        while True:
            seen.append(box.receive(timeout=10))
    except TimeoutError:
        return seen


def producer_and_consumers() -> list[Any]:
    queue: list[int] = []
    done: list[Any] = []

    def consume(name: str) -> None:
        while wait_for(lambda: bool(queue), timeout=30):
            n = queue.pop(0)
            done.append([name, n, a(n)])

    def produce() -> None:
        for n in range(3):
            queue.append(n)
            sleep(1)

    gather(spawn(produce), spawn(consume, "x"), spawn(consume, "y"))
    return done


def saga() -> list[str]:
    log: list[str] = []
    undo: list[Callable[[], Any]] = []
    try:
        for activity in (a, b, c):
            log.append(str(activity(1)))
            undo.append(lambda activity=activity: activity(-1))
    except derecho.ActivityError as error:
        log.append(str(error))
        for step in reversed(undo):
            log.append(str(step()))
    return log


def cleans_up() -> str:
    def worker() -> None:
        try:
            sleep(100)
        finally:
            b.execute("undo").get()

    spawn(worker)
    try:
        a.execute().get(timeout=50)
    except CancelledError as error:
        c("main")
        return error.reason
    return "never"


def cooperative() -> list[Any]:
    rounds = 0
    while not wait_for(is_cancelled, timeout=5):
        rounds += 1
    return [rounds, side_effect(lambda: "drawn"), signal_external("other", "bye", rounds)]


def failing_fibers() -> str:
    def fails(activity: Any) -> None:
        activity()
        raise ValueError(activity.name)

    first = spawn(fails, a)
    spawn(fails, b)
    try:
        first.get()
    except ValueError:
        c()
    return "done"


def timers_every_way() -> list[Any]:
    short, long = timer(1), timer(9)
    cancelled_at_once = timer(3)
    outcome = [cancelled_at_once.cancel()]
    select(short, long)
    a.execute().get()
    outcome.append(long.cancel())
    b.execute().get()
    return [*outcome, long.done(), short.get().isoformat()]


def stuck_then_moved() -> str:
    box = signal_channel("box", int)
    wait_for(lambda: derecho.info().history_length > 1)
    return f"{box.try_receive()}"


PROGRAMS: dict[str, tuple[Callable[[], Any], list[Step]]] = {
    "sequence": (
        sequence,
        [lambda r: r.complete("a", 1), lambda r: r.complete("a", 2), lambda r: r.complete("b", 3)],
    ),
    "fan_out": (
        fan_out,
        [lambda r: r.complete("c", 3), lambda r: r.complete("b", 2).complete("a", 1)],
    ),
    "heartbeat_loop": (
        heartbeat_loop,
        [
            lambda r: r.signal("box", "x", "y"),
            lambda r: r.complete("a").fire(5),
            lambda r: r.signal("box", "z"),
        ],
    ),
    "drains_until_quiet": (
        drains_until_quiet,
        [
            lambda r: r.signal("box", 1, "bad", 2),
            lambda r: r.signal("box", "worse"),
            lambda r: r.fire(10).signal("box", 3),
            lambda r: r.fire(10),
        ],
    ),
    "producer_and_consumers": (
        producer_and_consumers,
        [
            lambda r: r.complete("a", 0).fire(1),
            lambda r: r.fire(1),
            lambda r: r.complete("a", 1),
            lambda r: r.complete("a", 2),
            lambda r: r.fire(1),
            lambda r: r.fire(30),
            lambda r: r.fire(30),
        ],
    ),
    "saga": (
        saga,
        [
            lambda r: r.complete("a", "a"),
            lambda r: r.complete("b", "b"),
            lambda r: r.fail("c", "no", attempt=2),
            lambda r: r.complete("b", "-b"),
            lambda r: r.complete("a", "-a"),
        ],
    ),
    "cleans_up": (
        cleans_up,
        [lambda r: r.cancel("enough"), lambda r: r.complete("b"), lambda r: r.complete("c").complete("a")],
    ),
    "failing_fibers": (
        failing_fibers,
        [lambda r: r.complete("b"), lambda r: r.complete("a"), lambda r: r.complete("c")],
    ),
    "timers_every_way": (
        timers_every_way,
        [lambda r: r.fire(1), lambda r: r.complete("a"), lambda r: r.complete("b")],
    ),
    "stuck_then_moved": (stuck_then_moved, [lambda r: r.signal("box", 1)]),
}
COOPERATIVE = (cooperative, [lambda r: r.fire(5), lambda r: r.fire(5), lambda r: r.cancel()])


def live(program: Callable[[], Any], steps: list[Step], *, late: bool, **settings: Any) -> Run:
    """Run a program; `late`: each step comes while a task runs, if it can, and so is seen by the one after."""
    with Run(program, **settings) as run:
        pending = [] if late else list(steps)
        coming = list(steps) if late else []
        while run.unseen or pending or coming:
            run.task(meanwhile=lambda: coming and happens(coming.pop(0), run))
            if run.ended:
                break
            if pending:
                pending.pop(0)(run)
            elif coming and not run.unseen:
                happens(coming.pop(0), run)
            if not run.unseen:
                break
    return run


def happens(step: Step, run: Run) -> None:
    try:
        step(run)
    except StopIteration:
        pass  # The command that it answers is not out: the programs go other ways when their events are late.


@pytest.mark.parametrize("name", [*PROGRAMS, "cooperative"])
@pytest.mark.parametrize("late", [False, True])
def test_a_cold_replay_cut_at_any_task_does_what_the_live_run_did(name: str, late: bool) -> None:
    cooperates = name == "cooperative"
    program, steps = COOPERATIVE if cooperates else PROGRAMS[name]
    run = live(program, steps, late=late, cooperative=cooperates)
    if not late:
        assert run.ended, "the program should come to its end"
    replay(program, run.journal, strict=True, cooperative=cooperates)
    definition = definition_of(program, cooperative=cooperates)
    for cut in cuts(run.journal):
        _, events = next_task(definition, run.journal, cut)
        recorded = recorded_task(run.journal, cut)
        assert [content_of(event) for event in events] == [content_of(event) for event in recorded], (
            f"cut at {cut}"
        )


def content_of(event: Any) -> dict[str, Any]:
    """Return what a command says, but for what is only known once it is committed."""
    unknown = ("id", "delivered", "extra")
    content = {name: getattr(event, name) for name in event.__dataclass_fields__ if name not in unknown}
    content["type"] = event.type
    if event.type == "timer_cancelled":
        del content["scheduled_by_id"]  # Of a timer of the same task it is not known yet.
    return content


def test_two_live_runs_of_the_same_program_are_equal_event_by_event() -> None:
    for program, steps in PROGRAMS.values():
        assert live(program, steps, late=False).journal == live(program, steps, late=False).journal


def test_how_visible_events_are_batched_changes_no_choice_of_select() -> None:
    def main() -> list[Any]:
        futures = {"a": a.execute(), "b": b.execute(), "box": signal_channel("box").receive_future()}
        order = []
        while futures:
            winner = select(*futures.values())
            name = next(name for name, future in futures.items() if future is winner)
            order.append(name)
            del futures[name]
        return order

    def steps(run: Run) -> list[Callable[[], object]]:
        return [lambda: run.signal("box", 1), lambda: run.complete("b"), lambda: run.complete("a")]

    for batches in ([3], [1, 2], [2, 1], [1, 1, 1]):
        with Run(main) as run:
            run.task()
            todo = steps(run)
            for size in batches:
                for happens in todo[:size]:
                    happens()
                todo = todo[size:]
                run.task()
            assert run.result == ["box", "b", "a"]
