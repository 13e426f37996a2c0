"""Random programs under random events: whatever ran live replays cold, cut at every workflow task."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import derecho
from derecho import (
    CancelledError,
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
from derecho.journal.events import ActivityScheduled, TimerScheduled
from tests.core.driver import Run, S, a, b, c, cuts, definition_of, next_task, recorded_task, replay
from tests.core.test_determinism import content_of

SEEDS = 150
NAMES = ("x", "y")
OPERATIONS = (
    "activity", "sleep", "receive", "try_receive", "select", "gather", "as_completed", "spawn", "flag",
    "wait_for", "timer", "side_effect", "random", "get", "raise", "cancelled",
)  # fmt: skip


class Program:
    """A workflow that interprets scripts; a script is a list of (operation, its own random numbers)."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.script = self.make_script(depth=0)

    def make_script(self, depth: int) -> list[Any]:
        return [
            (
                operation,
                self.rng.randrange(1000),
                self.make_script(depth + 1) if operation == "spawn" else None,
            )
            for operation in self.rng.choices(OPERATIONS, k=self.rng.randint(1, 5 if depth else 8))
            if operation != "spawn" or depth < 3
        ]

    def main(self) -> list[Any]:
        life = Life()
        life.run("0", self.script)
        try:
            gather(*life.fibers)
        except (Exception, CancelledError) as error:
            life.trace.append(["end", repr(error)])
        return life.trace


class Life:
    """One execution of a program."""

    def __init__(self) -> None:
        self.trace: list[Any] = []
        self.fibers: list[Any] = []
        self.kept: list[Any] = []
        self.flags = 0

    def run(self, name: str, script: list[Any]) -> None:
        for place, (operation, number, inner) in enumerate(script):
            try:
                seen = getattr(self, operation)(f"{name}.{place}", number, inner)
            except (derecho.DerechoError, TimeoutError, CancelledError, ValueError) as error:
                seen = repr(error)
            self.trace.append([name, place, operation, seen, derecho.now().isoformat()])

    def source(self, number: int) -> Any:
        """Return something to wait for."""
        kind = number % 6
        if kind == 0:
            future = (a, b, c)[number % 3].execute(number)
        elif kind == 1:
            future = timer(number % 7)
        elif kind == 2:
            future = signal_channel(NAMES[number % 2], int).receive_future()
        elif kind == 3 and self.kept:
            future = self.kept[number % len(self.kept)]
        elif kind == 4 and self.fibers:
            future = self.fibers[number % len(self.fibers)]
        else:
            future = derecho.cancelled() if number % 5 == 0 else b.execute(number)
        if kind < 3:
            self.kept.append(future)
        return future

    def sources(self, number: int) -> list[Any]:
        return [self.source(number * (n + 3) // 2) for n in range(1 + number % 3)]

    def timeout(self, number: int) -> int | None:
        return number % 6 if number % 3 else None

    def activity(self, name: str, number: int, inner: Any) -> Any:
        return (a, b, c)[number % 3](number)

    def sleep(self, name: str, number: int, inner: Any) -> Any:
        sleep(number % 9)

    def receive(self, name: str, number: int, inner: Any) -> Any:
        return signal_channel(NAMES[number % 2], int).receive(self.timeout(number // 2))

    def try_receive(self, name: str, number: int, inner: Any) -> Any:
        return signal_channel(NAMES[number % 2], int).try_receive("none")

    def select(self, name: str, number: int, inner: Any) -> Any:
        sources = self.sources(number)
        winner = select(*sources)
        return [sources.index(winner), repr(winner.exception())]

    def gather(self, name: str, number: int, inner: Any) -> Any:
        return len(gather(*self.sources(number)))

    def as_completed(self, name: str, number: int, inner: Any) -> Any:
        sources, order = self.sources(number), []
        for future in as_completed(sources):
            order.append([sources.index(future), repr(future.exception())])
            if len(order) > number % 4:
                break
        return order

    def spawn(self, name: str, number: int, inner: Any) -> Any:
        self.fibers.append(spawn(self.run, f"{name}/{number}", inner))

    def flag(self, name: str, number: int, inner: Any) -> Any:
        self.flags += 1
        return self.flags

    def wait_for(self, name: str, number: int, inner: Any) -> Any:
        wanted = self.flags + number % 2
        return wait_for(lambda: self.flags >= wanted or derecho.is_cancelled(), timeout=self.timeout(number))

    def timer(self, name: str, number: int, inner: Any) -> Any:
        timers = [future for future in self.kept if isinstance(future, derecho.Timer)]
        return timers[number % len(timers)].cancel() if timers else self.source(1) and None

    def side_effect(self, name: str, number: int, inner: Any) -> Any:
        return side_effect(lambda: number if number % 3 else 1 // 0)

    def random(self, name: str, number: int, inner: Any) -> Any:
        return derecho.random().random()

    def get(self, name: str, number: int, inner: Any) -> Any:
        return repr(self.source(number).get(timeout=self.timeout(number)))

    def cancelled(self, name: str, number: int, inner: Any) -> Any:
        return [derecho.cancelled().done(), derecho.info().history_length]

    def raise_(self, name: str, number: int, inner: Any) -> Any:
        raise ValueError(name)


setattr(Life, "raise", Life.raise_)


def something_happens(run: Run, rng: random.Random) -> None:
    """Let one random thing happen outside."""
    open_timers = [event for event in run._open.values() if isinstance(event, TimerScheduled)]
    open_activities = [event for event in run._open.values() if isinstance(event, ActivityScheduled)]
    choice = rng.randrange(20)
    if choice == 0 and run.head.status.name == "RUNNING":
        run.cancel("random")
    elif choice < 6:
        run.signal(rng.choice(NAMES), rng.choice([1, 2, 3, "not an int"]))
    elif open_timers and (choice < 12 or not open_activities):
        run.fire(rng.choice(open_timers).duration_ns / S)
    elif open_activities:
        name = rng.choice(open_activities).name
        _ = run.fail(name) if choice == 19 else run.complete(name, rng.randrange(9))


def live(program: Callable[[], Any], seed: int, cooperative: bool) -> Run:
    rng = random.Random(seed)
    with Run(program, cooperative=cooperative) as run:
        for _ in range(60):
            while not run.unseen or rng.random() < 0.5:
                something_happens(run, rng)
            run.task(meanwhile=partial(something_happens, run, rng) if rng.random() < 0.4 else None)
            if run.ended:
                break
    return run


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_a_random_program_did_live_it_does_again(seed: int, caplog: Any) -> None:
    caplog.set_level("CRITICAL", "derecho.workflow")
    cooperative = seed % 3 == 0
    program = Program(seed)
    run = live(program.main, seed, cooperative)
    replay(program.main, run.journal, strict=True, cooperative=cooperative)
    definition = definition_of(program.main, cooperative=cooperative)
    for cut in cuts(run.journal)[:: 1 + len(run.journal) // 60]:
        _, events = next_task(definition, run.journal, cut)
        assert [content_of(event) for event in events] == [
            content_of(event) for event in recorded_task(run.journal, cut)
        ], f"seed {seed}, cut at {cut}"
