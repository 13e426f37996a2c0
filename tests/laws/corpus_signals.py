"""Shapes around signals and cancellation."""

from __future__ import annotations

from collections.abc import Callable

import derecho
from derecho import (
    CancelledError,
    cancelled,
    gather,
    is_cancelled,
    select,
    signal_channel,
    signal_external,
    sleep,
    spawn,
    timer,
    wait_for,
    workflow,
)
from tests.laws.corpus_work import after, double
from tests.laws.shapes import at, completed, ended, failed, shape
from tests.laws.world import Hands, both, raw, sends

# --- signals --------------------------------------------------------------------------------------------------------


@shape(
    completed([[1, "+100s"], [2, "+100s"], [3, "+200s"], None]),
    script=((0, sends("go", 1)), (60, sends("go", 2)), (200, sends("go", 3))),
)
@workflow
def signals_before_and_during() -> list[object]:
    go = signal_channel("go", int)
    sleep(100)
    return [*[[go.receive(), at()] for _ in range(3)], go.try_receive()]


@shape(
    completed(
        [["a", 1, "+100s"], ["a", 3, "+100s"], ["b", 2, "+100s"], ["a", 4, "+200s"], ["b", 5, "+200s"]]
    ),
    script=((100, sends("go", 1, 2, 3)), (200, sends("go", 4, 5))),
)
@workflow
def burst_among_fibers() -> list[object]:
    """Values go to waiters first come first served: 2 is b's while a, which runs first, takes 3 from the rest."""
    seen: list[object] = []
    go = signal_channel("go", int)

    def takes(name: str) -> None:
        while len(seen) < 5:
            seen.append([name, go.receive(timeout=1000), at()])

    first, second = spawn(takes, "a"), spawn(takes, "b")
    wait_for(lambda: len(seen) == 5)
    derecho.as_completed([first, second])
    return seen


@shape(
    completed([["x", "y", "z"], "+200s"]),
    script=((100, sends("items", "x", "y")), (200, sends("items", "z", "stop", "late"))),
)
@workflow
def signal_iteration() -> list[object]:
    seen = []
    for item in signal_channel("items", str):
        if item == "stop":
            break
        seen.append(item)
    return [seen, at()]


@shape(
    completed([[], [1, 2], ["none"], [3]]),
    script=((60, sends("go", 1, 2)), (260, sends("go", 3))),
)
@workflow
def try_receive_loops() -> list[object]:
    go = signal_channel("go", int)
    rounds: list[list[object]] = []
    for _ in range(4):
        got: list[object] = []
        while (number := go.try_receive()) is not None:
            got.append(number)
        rounds.append(got)
        sleep(100)
    rounds[2] = [go.try_receive("none")]
    return list(rounds)


# The first is thrown out when it is read from the mailbox, the second when it arrives at a waiting receiver.
@shape(
    completed([7, 8, "+200s", None]),
    script=(
        (60, both(lambda hands: hands.raw_signal("go", raw("seven")), sends("go", 7))),
        (160, lambda hands: hands.raw_signal("go", b"{")),
        (200, sends("go", 8)),
    ),
)
@workflow
def undecodable_signals() -> list[object]:
    go = signal_channel("go", int)
    sleep(100)
    return [go.receive(), go.receive(), at(), go.try_receive()]


# A lost branch must neither swallow a value nor be filled twice (B40, B41).
@shape(
    completed([["timer", "+100s"], ["go", 1], ["go", 2], ["go", 3], ["timer", "+250s"], ["go", 4], "+310s"]),
    script=((150, sends("go", 1, 2, 3)), (310, sends("go", 4))),
)
@workflow
def selects_in_a_loop() -> list[object]:
    go = signal_channel("go", int)
    seen: list[object] = []
    kept = go.receive_future()
    for turn in range(6):
        alarm = timer(100)
        fresh = go.receive_future() if turn % 2 else kept
        won = select(alarm, fresh)
        if won is alarm:
            seen.append(["timer", at()])
            continue
        seen.append(["go", won.get()])
        if won is kept:
            kept = go.receive_future()
        alarm.cancel()
    return [*seen, at()]


@shape(
    completed([["b", 1], ["a", 2], ["a", 3], ["b", 4], "+100s"]),
    script=((100, both(sends("b", 1), sends("a", 2, 3), sends("b", 4))),),
)
@workflow
def select_among_channels() -> list[object]:
    """Of values that are all there, the one that came first wins, whatever the order of the branches."""
    boxes = {"a": signal_channel("a", int), "b": signal_channel("b", int)}
    seen: list[object] = []
    while len(seen) < 4:
        futures = {box.receive_future(): name for name, box in boxes.items()}
        won = select(*futures)
        seen.append([futures[won], won.get()])
    return [*seen, at()]


@shape(
    completed([["go", 1], ["work", "a"], ["go", 2], "+200s"]),
    script=((60, sends("go", 1)), (200, sends("go", 2))),
)
@workflow
def receives_by_completion() -> list[object]:
    go = signal_channel("go", int)
    first, second, work = go.receive_future(), go.receive_future(), after.execute("a", 100)
    names = {first: "go", second: "go", work: "work"}
    return [*[[names[future], future.get()] for future in derecho.as_completed([work, first, second])], at()]


@shape(
    completed([1, 5, 9, 13, 17]),
    script=((100, sends("go", 1)), (200, sends("go", 2)), (300, sends("unread", 1)), (400, sends("go", 3))),
)
@workflow
def history_lengths() -> list[int]:
    """How long the history is that a task can see is a fact of the journal too."""
    lengths = [derecho.info().history_length]
    for _ in range(3):
        signal_channel("go", int).receive()
        lengths.append(derecho.info().history_length)
        if len(lengths) == 3:
            signal_channel("unread", int).receive()
            lengths.append(derecho.info().history_length)
    return lengths


@workflow
def companion(wanted: int) -> list[object]:
    go = signal_channel("go", str)
    seen = [[go.receive(), at()] for _ in range(wanted)]
    signal_external("main", "answer", len(seen))
    return list(seen)


@shape(completed([["me", "+0s"], 2, "+100s"]), companions=(("other", companion, (2,)),))
@workflow
def signals_to_others() -> list[object]:
    mine = signal_channel("mine", str)
    signal_external("other", "go", "one")
    signal_external("nobody", "go", "lost")
    signal_external("main", "mine", "me")
    to_myself = [mine.receive(), at()]
    sleep(100)
    signal_external("other", "go", "two")
    return [to_myself, signal_channel("answer", int).receive(), at()]


# A signal that was acknowledged before the end is never lost: the end is refused, and the task runs again.
@shape(
    completed([1, "late", None]),
    script=((100, sends("go", 1)),),
    meanwhile={2: sends("more", "late")},
)
@workflow
def closing_refused() -> list[object]:
    seen: list[object] = [signal_channel("go", int).receive()]
    while (word := signal_channel("more", str).try_receive()) is not None:
        seen.append(word)
    return [*seen, None]


@shape(
    completed([1, 2, 3, "+100s", "+300s"]),
    script=((100, sends("go", 1)),),
    meanwhile={2: sends("go", 2), 3: sends("go", 3)},
)
@workflow
def signals_while_it_runs() -> list[object]:
    """Events that arrive during a task have smaller ids than its commands, and only the next task sees them."""
    go = signal_channel("go", int)
    first = go.receive()
    when = at()
    double(1)
    double(2)
    sleep(200)
    return [first, go.receive(), go.receive(), when, at()]


@shape(
    completed([None, "+100s", 2, "+300s"]),
    script=((100, sends("go", 1)),),
    meanwhile={2: sends("go", 2)},
    after_a_fault=(completed([2, "+100s", None, "+300s"]),),
)
@workflow
def unseen_while_it_runs() -> list[object]:
    """What try_receive does not see live, it does not see on replay (B18)."""
    go = signal_channel("go", int)
    go.receive()
    seen: list[object] = [go.try_receive(), at()]
    sleep(200)
    return [*seen, go.try_receive(), at()]


@shape(
    completed([[1, "x", 2], "+200s"]),
    script=((100, sends("go", 1, 2)), (200, sends("word", "x"))),
)
@workflow
def gather_of_receives() -> list[object]:
    go, word = signal_channel("go", int), signal_channel("word", str)
    return [gather(go.receive_future(), word.receive_future(), go.receive_future()), at()]


@shape(completed([[7, 7], 8, "+100s"]), script=((100, sends("go", 7, 8)),))
@workflow
def one_receive_for_two_fibers() -> list[object]:
    go = signal_channel("go", int)
    shared = go.receive_future()
    got = gather(spawn(shared.get), spawn(shared.get))
    return [got, go.try_receive(), at()]


@shape(completed(["timeout", "+60s", 1, None, "+160s"]), script=((100, sends("go", 1)),))
@workflow
def receive_future_again() -> list[object]:
    """A receive whose timeout is up takes nothing until somebody waits for it again."""
    go = signal_channel("go", int)
    future = go.receive_future()
    try:
        future.get(timeout=60)
    except TimeoutError:
        seen: list[object] = ["timeout", at()]
    sleep(100)
    return [*seen, future.get(), go.try_receive(), at()]


# --- cancellation ---------------------------------------------------------------------------------------------------


@shape(ended("cancelled"), script=((100, Hands.cancel),))
@workflow
def cancelled_with_cleanup() -> None:
    try:
        sleep(1000)
    except CancelledError:
        double(1)
        sleep(100)
        raise


@shape(completed(["enough", 10, "+200s", True]), script=((100, Hands.cancel), (120, Hands.cancel)))
@workflow
def cancel_survived() -> list[object]:
    """It is raised once; work after it goes on."""
    try:
        sleep(1000)
    except CancelledError as error:
        reason = str(error)
    number = double(5)
    sleep(100)
    return [reason, number, at(), is_cancelled()]


@shape(completed([["c", "b", "main", "a"], [0, 1, 2], "+100s"]), script=((100, Hands.cancel),))
@workflow
def cancel_reaches_every_fiber() -> list[object]:
    """Whose wait is satisfied before the request goes on, and gets it at its next wait; later fibers do not."""
    order: list[str] = []

    def waits(name: str, nap_s: float) -> None:
        try:
            sleep(nap_s)
            sleep(1000)
        except CancelledError:
            order.append(name)
            raise

    def unharmed() -> list[int]:
        return [number // 2 for number in gather(*[double.execute(n) for n in range(3)])]

    fibers = [spawn(waits, "a", 99.5), spawn(waits, "b", 500), spawn(waits, "c", 400)]
    fibers[0], fibers[2] = fibers[2], fibers[0]
    try:
        select(*[timer(1000)])
    except CancelledError:
        order.append("main")
    late = spawn(unharmed).get()
    order.sort(key=lambda name: {"c": 0, "b": 1, "main": 2, "a": 3}[name])
    return [order, late, at()]


@shape(
    completed([["main", "sleep", "get", "receive", "gather", "each", "condition", "select"], "+200s", True]),
    script=((100, Hands.cancel),),
)
@workflow
def cancel_breaks_every_wait() -> list[object]:
    order: list[str] = []
    go = signal_channel("go", int)

    def breaks(name: str, wait: Callable[[], object]) -> None:
        try:
            wait()
        except CancelledError:
            order.append(name)
            raise

    waits: dict[str, Callable[[], object]] = {
        "sleep": lambda: sleep(1000),
        "get": lambda: after.execute("a", 1000).get(timeout=500),
        "receive": lambda: go.receive(timeout=500),
        "gather": lambda: gather(after.execute("b", 1000), timer(900)),
        "each": lambda: next(iter(derecho.as_completed([timer(900), go.receive_future()]))),
        "condition": lambda: wait_for(lambda: False, timeout=500),
        "select": lambda: select(timer(900), go.receive_future()),
    }
    for name, wait in waits.items():
        spawn(breaks, name, wait)
    try:
        sleep(1000)
    except CancelledError:
        order.append("main")
    sleep(100)
    return [order, at(), is_cancelled()]


@shape(
    completed([[3, "enough"], "+100s"]),
    script=((100, both(sends("go", 3), Hands.cancel)),),
)
@workflow
def signal_then_cancel() -> list[object]:
    """A wait that a smaller id satisfied is not broken; the next one is."""
    got = signal_channel("go", int).receive()
    try:
        sleep(1000)
    except CancelledError as error:
        return [[got, str(error)], at()]
    return []


@shape(
    completed([["enough", 3], "+100s"]),
    script=((100, both(Hands.cancel, sends("go", 3))),),
)
@workflow
def cancel_then_signal() -> list[object]:
    go = signal_channel("go", int)
    try:
        go.receive()
    except CancelledError as error:
        return [[str(error), go.try_receive()], at()]
    return []


@shape(
    completed(["timer", "+100s", "enough", "+160s"]),
    script=((100, both(Hands.fire, Hands.cancel)),),
    after_a_fault=(ended("cancelled"),),
)
@workflow
def timeout_then_cancel() -> list[object]:
    """A timeout with a smaller id counts as a satisfied wait."""
    try:
        signal_channel("go", int).receive(timeout=100)
    except TimeoutError:
        seen: list[object] = ["timer", at()]
    try:
        sleep(1000)
    except CancelledError as error:
        seen.append(str(error))
    sleep(60)
    return [*seen, at()]


@shape(completed([2, "+160s", "enough"]), script=((160, Hands.cancel),))
@workflow(cancellation="cooperative")
def cooperative() -> list[object]:
    rounds = 0
    while not is_cancelled():
        won = select(timer(100), cancelled())
        rounds += 1
    return [rounds, at(), won.get().reason]


@shape(completed([True, "+100s"]), script=((100, Hands.cancel),))
@workflow(cancellation="cooperative")
def condition_on_cancel() -> list[object]:
    return [wait_for(is_cancelled), at()]


@shape(ended("cancelled"), script=((100, lambda hands: hands.cancel(timeout_s=100)),))
@workflow
def cancel_by_force() -> None:
    while True:
        try:
            sleep(10_000)
        except CancelledError:
            double(1)


@shape(failed("", "no more"), script=((100, Hands.terminate),))
@workflow
def terminated() -> None:
    double(1)
    sleep(10_000)
