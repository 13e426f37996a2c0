"""Shapes around timers, timeouts and conditions."""

from __future__ import annotations

import derecho
from derecho import TimerCancelledError, gather, signal_channel, sleep, spawn, timer, wait_for, workflow
from tests.laws.corpus_work import after, double
from tests.laws.shapes import at, completed, failed, shape
from tests.laws.world import Hands, both, sends


@shape(completed([True, False, "cancelled", "+300s"]))
@workflow
def timer_cancelled_in_its_task() -> list[object]:
    double(1)
    alarm, other = timer(100), timer(200)
    first, second = alarm.cancel(), alarm.cancel()
    try:
        alarm.get()
    except TimerCancelledError:
        outcome = "cancelled"
    other.get()
    sleep(100)
    return [first, second, outcome, at()]


def _fire_while_it_runs(hands: Hands) -> None:
    hands.advance(60)
    hands.fire()


# The fire is appended while the task that cancels runs: it has lost, live and on replay (B19).
@shape(
    completed([True, "+100s", "+260s"]),
    script=((100, sends("stop", 1)),),
    meanwhile={2: _fire_while_it_runs},
    after_a_fault=(completed([False, "+160s", "+260s"]),),
)
@workflow
def fire_loses_to_cancel() -> list[object]:
    alarm = timer(150)
    signal_channel("stop", int).receive()
    seen = [alarm.cancel(), at()]
    sleep(100)
    return [*seen, at()]


@shape(
    completed([False, "+100s", "+100s"]),
    script=((100, both(Hands.fire, sends("stop", 1))),),
    after_a_fault=(failed("TimerCancelledError", "the timer was cancelled"),),
)
@workflow
def fire_wins_over_cancel() -> list[object]:
    alarm = timer(100)
    signal_channel("stop", int).receive()
    return [alarm.cancel(), alarm.get().strftime("+%Ss").replace("+40s", "+100s"), at()]


# The private timer of a timeout, fired while the task that no longer needs it runs.
@shape(
    completed([["go", "+100s"], "+360s"]),
    script=((100, sends("go", "go")),),
    meanwhile={2: _fire_while_it_runs},
)
@workflow
def timeout_fires_too_late() -> list[object]:
    got = signal_channel("go", str).receive(timeout=150)
    seen = [got, at()]
    sleep(200)
    return [seen, at()]


@shape(
    completed([["timeout", "+100s"], ["a", "+200s"], ["b", "+300s"], "+400s"]),
    after_a_fault=(failed("TimeoutError", "no answer within 100"),),
)
@workflow
def get_timeout_both_ways() -> list[object]:
    seen: list[object] = []
    work = after.execute("a", 200)
    try:
        work.get(timeout=100)
    except TimeoutError:
        seen.append(["timeout", at()])
    seen.append([work.get(timeout=500), at()])
    # The value and the timeout come in one batch: the value goes first.
    seen.append([after.execute("b", 100).get(timeout=100), at()])
    sleep(100)
    return [*seen, at()]


@shape(
    completed(["a", "timeout +160s", "b", "c +360s", "timeout +420s"]),
    script=(
        (100, sends("go", "a")),
        (160, Hands.fire),
        (260, both(sends("go", "b"))),
        (360, both(Hands.fire, sends("go", "c"))),
    ),
)
@workflow
def receive_timeout_both_ways() -> list[str]:
    go = signal_channel("go", str)
    seen = [go.receive(timeout=500)]
    for timeout_s, shown in ((60, True), (500, False), (100, True), (60, True)):
        try:
            got = go.receive(timeout=timeout_s)
        except TimeoutError:
            got = "timeout"
        seen.append(f"{got} {at()}" if shown else got)
    return seen


@shape(completed([["a", "+100s"], ["b", "+200s"], True, 2]))
@workflow
def wait_for_fibers() -> list[object]:
    seen: list[list[str]] = []

    def step(name: str, duration_s: float) -> None:
        sleep(duration_s)
        seen.append([name, at()])

    spawn(step, "b", 200)
    spawn(step, "a", 100)
    held = wait_for(lambda: len(seen) == 2)
    return [*seen, held, len(seen)]


@shape(
    completed([True, "+0s", False, "+100s", True, "+160s", True, "+320s"]),
    script=((160, sends("go", 1)), (320, both(Hands.fire, sends("go", 2)))),
)
@workflow
def wait_for_timeout_both_ways() -> list[object]:
    got: list[int] = []

    def listen() -> None:
        go = signal_channel("go", int)
        while True:
            got.append(go.receive())

    spawn(listen)
    seen: list[object] = [wait_for(lambda: True, timeout=100), at()]
    seen += [wait_for(lambda: bool(got), timeout=100), at()]
    seen += [wait_for(lambda: len(got) == 1, timeout=600), at()]
    seen += [wait_for(lambda: len(got) == 2, timeout=160), at()]
    return seen


@shape(completed(["c", "b", "a", "c", "b", "a"]))
@workflow
def conditions_in_the_order_of_their_calls() -> list[str]:
    order: list[str] = []
    phase = [0]

    def waits(name: str) -> None:
        wait_for(lambda: phase[0] >= 1)
        order.append(name)
        wait_for(lambda: phase[0] >= 2)
        order.append(name)

    waiting = [spawn(waits, name) for name in "cba"]
    for _ in range(2):
        sleep(100)
        phase[0] += 1
    gather(*waiting)
    return order


@shape(completed(["KeyError: 'p'", "+100s", 1]))
@workflow
def condition_that_raises() -> list[object]:
    """The error of a predicate goes to the fiber that waits for it."""
    ready: list[int] = []

    def condition() -> bool:
        if ready:
            raise KeyError("p")
        return False

    def sets() -> None:
        sleep(100)
        ready.append(1)

    spawn(sets)
    try:
        wait_for(condition, timeout=500)
    except KeyError as error:
        return [f"KeyError: {error}", at(), len(ready)]
    return []


@shape(completed(["zero", None, False, "+0s", "+60s"]))
@workflow
def no_time_at_all() -> list[object]:
    sleep(0)
    seen: list[object] = []
    try:
        signal_channel("go", str).receive(timeout=0)
    except TimeoutError:
        seen.append("zero")
    seen += [signal_channel("go", str).try_receive(), wait_for(lambda: False, timeout=0), at()]
    sleep(60)
    return [*seen, at()]


# Nothing can ever move it; a signal makes its condition true all the same.
@shape(completed(["woken", "+100s"]), script=((100, sends("unheard", 1)),))
@workflow
def stuck_and_woken() -> list[str]:
    seen_at_first = derecho.info().history_length
    wait_for(lambda: derecho.info().history_length > seen_at_first)
    return ["woken", at()]


@shape(completed([["+100s", "+100s", "+200s"], "+200s"]))
@workflow
def timers_of_one_moment() -> list[object]:
    alarms = [timer(200), timer(100), timer(100)]
    order = [derecho.select(*alarms)]
    rest = [alarm for alarm in alarms if alarm is not order[0]]
    assert order[0] is alarms[1]
    fired = [alarms[1], *derecho.as_completed(rest)]
    start = derecho.info().start_time
    return [[f"+{(alarm.get() - start).total_seconds():g}s" for alarm in fired], at()]
