"""Shapes around activities, fibers and side effects."""

from __future__ import annotations

import random
import uuid

import derecho
from derecho import (
    ActivityError,
    ActivityTimeoutError,
    NonRetryableError,
    RetryAfter,
    RetryPolicy,
    SideEffectError,
    activity,
    activity_info,
    activity_ref,
    as_completed,
    gather,
    heartbeat,
    select,
    sleep,
    spawn,
    timer,
    workflow,
)
from tests.laws.shapes import at, completed, failed, shape
from tests.laws.world import world

OFTEN = RetryPolicy(initial_interval=60, max_interval=60)
THRICE = RetryPolicy(initial_interval=60, max_attempts=3)

# --- activities -----------------------------------------------------------------------------------------------------


@activity
def double(number: int) -> int:
    world().note()
    return 2 * number


@activity
async def add(left: int, right: int, *, note: str = "") -> str:
    world().note()
    return f"{note}{left + right}"


@activity(retry=OFTEN)
def after(name: str, delay_s: float) -> str:
    """Return `name` once `delay_s` have passed since it was asked for."""
    world().note()
    passed_s = (world().clock.now() - activity_info().scheduled_time).total_seconds()
    if passed_s < delay_s:
        raise RetryAfter(delay_s - passed_s, "not yet")
    return name


@activity(retry=THRICE)
def third_time(name: str) -> str:
    if world().note() < 3:
        raise ConnectionError("try again")
    return name


@activity(retry=THRICE)
def never(name: str) -> str:
    world().note()
    raise ConnectionError(f"{name} is down")


@activity(retry=OFTEN)
def refuse(name: str) -> str:
    world().note()
    raise NonRetryableError(f"{name} is refused")


@activity(start_to_close_timeout=5)
def hangs() -> None:
    world().note()
    world().clock.advance(5)
    world().store.expire(10)


@activity(heartbeat_timeout=3)
def falls_silent() -> None:
    world().note()
    heartbeat("alive")
    world().clock.advance(3)
    world().store.expire(10)


@activity(retry=OFTEN)
def resumes(parts: int) -> list[int]:
    """Do one part after another; the first execution dies after two of them."""
    executions = world().note()
    done = list(activity_info().heartbeat_details or [])
    began_with = len(done)
    for part in range(began_with, parts):
        done.append(part)
        world().clock.advance(1)
        heartbeat(done)
        if len(done) == 2 and executions == 1:
            raise ConnectionError("lost")
    return [began_with, *done]


nowhere = activity_ref("nowhere", str, schedule_to_start_timeout=70)
nowhere_in_time = activity_ref("nowhere", str, schedule_to_close_timeout=70)

ACTIVITIES = [double, add, after, third_time, never, refuse, hangs, falls_silent, resumes]

# --- activities one by one, and many at a time ----------------------------------------------------------------------


@shape(completed([8, "+0s", "+100s", 16]), args=(1,))
@workflow
def sequence(number: int) -> list[object]:
    number = double(double(double(number)))
    before = at()
    sleep(100)
    return [number, before, at(), double(number)]


@shape(completed("sum: 7"), args=(3,))
@workflow
def keywords(left: int) -> str:
    return add(left, 4, note="sum: ")


@shape(completed([0, 2, 4, 6, 8]), args=(5,))
@workflow
def fan_out(width: int) -> list[int]:
    return gather(*[double.execute(number) for number in range(width)])


@shape(completed([["c", "+0s"], ["a", "+100s"], ["b", "+200s"]]))
@workflow
def by_completion() -> list[list[str]]:
    futures = [after.execute("a", 100), after.execute("b", 200), after.execute("c", 0)]
    return [[future.get(), at()] for future in as_completed(futures)]


@shape(completed([["d", "c", "b", "a"], "+100s"]))
@workflow
def many_wake_at_once() -> list[object]:
    """Four fibers wait for one future, which they asked in another order than they were made in."""
    order: list[str] = []
    turn: list[str] = []
    goal = timer(100)

    def runner(name: str, place: int) -> None:
        derecho.wait_for(lambda: len(turn) == place)
        turn.append(name)
        goal.get()
        order.append(name)

    runners = [spawn(runner, name, place) for name, place in (("d", 3), ("c", 2), ("b", 1), ("a", 0))]
    gather(*runners)
    return [order, at()]


@shape(completed(["ConnectionError: a is down", ["b"]]))
@workflow
def gather_fails_by_completion() -> list[object]:
    late, early = after.execute("b", 1000), never.execute("a")
    try:
        gather(late, early)
    except ActivityError as error:
        return [f"{error.type}: {error.message}", [late.get()]]
    return []


@shape(completed([["activity", "a", "+100s"], True, ["timer", "+200s"], ["activity", "b", "+400s"]]))
@workflow
def select_both_ways() -> list[object]:
    work, alarm = after.execute("a", 100), timer(200)
    won = select(alarm, work)
    first = ["activity" if won is work else "timer", won.get(), at()]
    cancelled = alarm.cancel()
    work, alarm = after.execute("b", 300), timer(100)
    won = select(alarm, work)
    second = ["activity" if won is work else "timer", at()]
    last = select(work)
    return [first, cancelled, second, ["activity" if last is work else "timer", last.get(), at()]]


@shape(completed(["b", "a", "a"]))
@workflow
def select_among_the_done() -> list[str]:
    """What completed first wins; with nothing between them, the first argument."""
    slow, fast = after.execute("a", 100), double.execute(1)
    sleep(200)
    names = {slow: "a", fast: "b"}
    first = names[select(slow, fast)]
    return [first, names[select(slow)], names[select(slow, slow)]]


# --- activities that fail -------------------------------------------------------------------------------------------


@shape(completed(["x", "ConnectionError: y is down", "NonRetryableError: z is refused"]))
@workflow
def retries() -> list[str]:
    outcomes = [third_time("x")]
    for work in (never.execute("y"), refuse.execute("z")):
        try:
            outcomes.append(work.get())
        except ActivityError as error:
            outcomes.append(f"{error.type}: {error.message}")
    return outcomes


@shape(completed(["start_to_close", "heartbeat", "schedule_to_start", "schedule_to_close", "+148s"]))
@workflow
def activity_timeouts() -> list[str]:
    kinds = []
    for work in (hangs, falls_silent, nowhere, nowhere_in_time):
        try:
            work.execute().get()
        except ActivityTimeoutError as error:
            kinds.append(error.timeout_kind)
    return [*kinds, at()]


@shape(
    completed([2, 0, 1, 2, 3]),
    args=(4,),
    after_a_fault=tuple(completed([began_with, 0, 1, 2, 3]) for began_with in (0, 1, 3, 4)),
)
@workflow
def heartbeat_resumption(parts: int) -> list[int]:
    return resumes(parts)


@shape(failed("LookupError", "no supplier: ConnectionError"))
@workflow
def translated_error() -> None:
    try:
        never("supplier")
    except ActivityError as error:
        raise LookupError(f"no supplier: {error.type}") from error


@shape(failed("ActivityError", "x is refused"))
@workflow
def escaping_error() -> str:
    return refuse("x")


# --- fibers ---------------------------------------------------------------------------------------------------------


@shape(completed(["main 0", "a 0", "b 0", "a.in 0", "b.in 0", "main 1", "a 1", "b.in 1", "a.in 1", "+200s"]))
@workflow
def nested_fibers() -> list[str]:
    trace: list[str] = []

    def inner(name: str, duration_s: float) -> None:
        trace.append(f"{name} 0")
        sleep(duration_s)
        trace.append(f"{name} 1")

    def outer(name: str) -> str:
        trace.append(f"{name} 0")
        inside = spawn(inner, f"{name}.in", 200 if name == "a" else 100)
        if name == "a":
            sleep(50)
            trace.append(f"{name} 1")
        inside.get()
        return name

    outers = [spawn(outer, name) for name in "ab"]
    trace.append("main 0")
    sleep(0)
    trace.append("main 1")
    gather(*outers)
    return [*trace, at()]


@shape(completed([["KeyError", "'a'"], None, "+100s"]))
@workflow
def fiber_error_taken() -> list[object]:
    def fails() -> None:
        sleep(100)
        raise KeyError("a")

    future = spawn(fails)
    before = future.exception()
    try:
        future.get()
    except KeyError as error:
        return [[type(error).__name__, str(error)], before, at()]
    return []


@shape(failed("KeyError", "'first'"))
@workflow
def fiber_error_untaken() -> str:
    def fails(name: str, delay_s: float) -> None:
        sleep(delay_s)
        raise KeyError(name)

    spawn(fails, "second", 200)
    spawn(fails, "first", 100)
    sleep(300)
    return "never seen"


@shape(completed([list(range(0, 400, 2)), "+20000s"]), args=(200,))
@workflow
def long_loop(steps: int) -> list[object]:
    numbers = []
    for number in range(steps):
        if number % 2:
            sleep(200)
        numbers.append(2 * number if number % 4 else double(number))
    return [numbers, at()]


@shape(completed(["fast", ["sleeper", "+300s"]]))
@workflow
def main_outlives_its_fibers() -> list[object]:
    seen: list[object] = []

    def sleeper(duration_s: float) -> None:
        sleep(duration_s)
        seen.extend(["sleeper", at()])

    spawn(sleeper, 300)
    spawn(sleeper, 10_000)
    won = select(spawn(after, "fast", 100), spawn(sleep, 5000)).get()
    sleep(250)
    return [won, seen]


# --- values that are no activities ----------------------------------------------------------------------------------


def _draw(name: str, value: int) -> int:
    world().drawn[name] += 1
    return value


def _draw_and_fail(name: str) -> None:
    world().drawn[name] += 1
    raise OSError("no entropy")


@shape(completed([7, 11, ["OSError", "no entropy"], 13, [1, 2]]))
@workflow
def side_effects() -> list[object]:
    first = derecho.side_effect(_draw, "first", 7)
    sleep(100)
    second = derecho.side_effect(_draw, "second", 11)
    try:
        derecho.side_effect(_draw_and_fail, "third")
    except SideEffectError as error:
        failure = [error.type, error.message]
    sleep(100)
    return [
        first,
        second,
        failure,
        derecho.side_effect(_draw, "fourth", 13),
        derecho.side_effect(lambda: (1, 2)),
    ]


def _drawn_by_hand() -> list[object]:
    numbers = random.Random("run-1")
    values: list[object] = [numbers.random(), numbers.randrange(1000)]
    values.append(str(uuid.UUID(int=numbers.getrandbits(128), version=4)))
    deck = list("abcdef")
    numbers.shuffle(deck)
    return [*values, "".join(deck), numbers.gauss(0, 1)]


@shape(completed(_drawn_by_hand()))
@workflow
def chance() -> list[object]:
    values: list[object] = [derecho.random().random()]
    sleep(100)
    values.append(derecho.random().randrange(1000))
    double(1)
    values.append(str(derecho.uuid4()))
    deck = list("abcdef")
    sleep(100)
    derecho.random().shuffle(deck)
    return [*values, "".join(deck), derecho.random().gauss(0, 1)]


@shape(completed(["b", "a", "b", "b", "a"]))
@workflow
def chance_in_fibers() -> list[str]:
    """Who draws when decides what is drawn: fibers draw in the order in which they are woken."""
    drawn: list[tuple[float, str]] = []

    def draws(name: str, *pauses_s: float) -> None:
        for pause_s in pauses_s:
            sleep(pause_s)
            drawn.append((derecho.random().random(), name))

    gather(spawn(draws, "a", 100, 200), spawn(draws, "b", 60, 100, 100))
    numbers = random.Random(derecho.info().run_id)
    assert [value for value, _ in drawn] == [numbers.random() for _ in drawn]
    return [name for _, name in drawn]
