"""The replay laws. Each names itself when it is broken: "R2 broken at task 4 of shape 'sequence' ...".

R1  Replaying a finished journal emits no new command, executes nothing, and gives the same result.
R2  Cut anywhere: cold replay of a prefix, and then the next task afresh, gives what the live run did.
R3  Replay in other processes, with other hash seeds: byte-identical commands (`other_process`).
R4  A crash or an error before or after any store call: same result, each outcome recorded once.
R5  Every store, and every size of the cache, gives the same journal for the same schedule.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Final

from derecho import _core, replay
from derecho.journal import (
    ActivityStarted,
    CommandEvent,
    Event,
    TimerCancelled,
    WorkflowTaskStarted,
    dump_events,
)
from derecho.journal.commit import TaskDraft
from derecho.replayer import RunSettings, open_run
from derecho.stores.memory import MemoryStore
from derecho.testing.clock import FakeClock
from tests.laws.lives import Fault, Kind, Life, MakeStore, ending_of, live
from tests.laws.shapes import Shape, timeless
from tests.laws.world import World, begin

CACHES: Final[list[tuple[str, Callable[[], dict[str, Any]]]]] = [
    ("warm", dict),
    ("cache_size=0", lambda: {"cache_size": 0}),
    ("random eviction, seed 1", lambda: {"evictions": random.Random(1)}),
    ("random eviction, seed 2", lambda: {"evictions": random.Random(2)}),
]


class LawBroken(AssertionError):
    """A law does not hold; the text says which and where."""


@contextmanager
def law(name: str, where: str) -> Iterator[None]:
    """Let whatever goes wrong inside name the law and the place."""
    try:
        yield
    except Exception as error:
        raise LawBroken(f"{name} broken {where}: {type(error).__name__}: {error}") from error


# --- R1 -------------------------------------------------------------------------------------------------------------


def check_r1(life: Life) -> None:
    """Replaying a finished journal emits no new command, executes nothing, and gives the same result."""
    for workflow_id, workflow, events in life.runs():
        with law("R1", f"in shape {life.shape.name!r}, run {workflow_id!r}"), _watched_world() as world:
            found = replay(workflow, events, strict=True)
            assert found.complete == (ending_of(events)[0] != "open"), "complete or not?"
            assert not found.new_events, f"new commands: {found.new_events}"
            assert not world.drawn, f"side effects were executed again: {dict(world.drawn)}"
            assert not world.ledger, f"activities were executed again: {world.ledger}"
            if ending_of(events)[0] == "completed":
                assert found.result == ending_of(events)[1], f"another result: {found.result}"


# --- R2 -------------------------------------------------------------------------------------------------------------


def check_r2(life: Life) -> None:
    """Cut at every task: cold replay of what was before, and the task run afresh, gives the recorded task."""
    for workflow_id, workflow, events in life.runs():
        tasks = [event for event in events if isinstance(event, WorkflowTaskStarted)]
        for number, started in enumerate(tasks, 1):
            where = f"at task {number} of shape {life.shape.name!r}, run {workflow_id!r}"
            with law("R2", where), _watched_world():
                draft = run_afresh(workflow, events, started)
                assert draft.started_at_ns == started.started_at_ns, "another workflow time"
                assert draft.visible_through == started.visible_through, "other events are visible"
                recorded = events[started.id : _end_of_task(events, started)]
                assert list(draft.skipped) == list(events[started.id + len(recorded)].skipped), "skipped"
                numbers = {event.id: event.command for event in events if isinstance(event, CommandEvent)}
                live_ones = [_content(event, numbers, 0) for event in recorded]
                fresh_ones = [_content(part.event, numbers, part.answers) for part in draft.drafts]
                for live_one, fresh_one in zip(live_ones, fresh_ones, strict=False):
                    assert live_one == fresh_one, f"live {live_one}, afresh {fresh_one}"
                assert len(live_ones) == len(fresh_ones), f"live {live_ones}, afresh {fresh_ones}"


def run_afresh(workflow: Any, events: Sequence[Event], started: WorkflowTaskStarted) -> TaskDraft:
    """Replay all before a recorded task, then run that task as if it were new."""
    run, unseen = open_run(workflow, events[: started.id - 1], RunSettings(strict=True))
    try:
        shown = [event for event in unseen if event.id <= started.visible_through]
        return run.run_task(shown, started.started_at_ns, started.worker_id)
    finally:
        run.close()


def _end_of_task(events: Sequence[Event], started: WorkflowTaskStarted) -> int:
    end = started.id
    while isinstance(events[end], CommandEvent):
        end += 1
    return end


def _content(event: Event, numbers: dict[int, int], answers: int) -> dict[str, Any]:
    """Return what a command asks for. Event ids are known only to the store; `delivered` is its answer."""
    content = {part.name: getattr(event, part.name) for part in fields(event)}
    content["kind"] = event.type
    del content["id"]
    content.pop("delivered", None)
    if isinstance(event, TimerCancelled):
        content["scheduled_by_id"] = answers or numbers[event.scheduled_by_id]
    return content


def commands_of(life: Life) -> list[str]:
    """Return the commands of every task, run afresh, byte for byte."""
    lines = []
    for workflow_id, workflow, events in life.runs():
        for started in [event for event in events if isinstance(event, WorkflowTaskStarted)]:
            with _watched_world():
                draft = run_afresh(workflow, events, started)
            text = dump_events([part.event for part in draft.drafts]).decode()
            lines.append(f"{life.shape.name} {workflow_id} {draft.skipped} {text}")
    return lines


# --- R4 -------------------------------------------------------------------------------------------------------------


def check_r4(shape: Shape, make_stores: Callable[[], MakeStore | None], most: int) -> int:
    """Crash, or fail, before and after every store call; return how many lives that took.

    Args:
        make_stores: gives each life a store of its own.
        most: faults at most; of more, some that are spread evenly.
    """
    with law("R4", f"in shape {shape.name!r} without any fault"):
        clean = live(shape, make_stores())
    legal = [timeless(ending) for ending in (clean.ending, *shape.after_a_fault)]
    chosen = _spread(_faults(clean), most)
    caches = itertools.cycle(CACHES)
    for fault in chosen:
        cache_name, options = next(caches)
        with law("R4", f"in shape {shape.name!r}, {cache_name}, by {fault}"):
            life = live(shape, make_stores(), fault=fault, **options())
            assert life.faulted, "the fault was not met"
            assert not _core.live_fibers(), f"{_core.live_fibers()} fibers are left behind"
            assert timeless(life.ending) in legal, f"ended as {life.ending}, legal are {legal}"
            _check_ledger(life)
            check_r1(life)
    return len(chosen)


def _faults(life: Life) -> list[Fault]:
    """List what can go wrong at the calls that did something.

    A crash after a call is a crash before the next one, but for what is done between them.
    """
    faults = []
    for call in life.calls:
        if not call.moved:
            continue
        ways = [(Kind.CRASH, False), (Kind.ERROR, False), (Kind.ERROR, True)]
        if call.name in ("claim_activities", "finish_activity", "commit_tasks"):
            ways.append((Kind.CRASH, True))
        if call.name in ("claim_runs", "finish_activity", "commit_tasks"):
            ways.append((Kind.PAUSE, False))
        faults += [Fault(call.number, kind, done) for kind, done in ways]
    return faults


def _spread(faults: list[Fault], most: int) -> list[Fault]:
    if len(faults) <= most:
        return faults
    return [faults[place * len(faults) // most] for place in range(most)]


def _check_ledger(life: Life) -> None:
    """Hold the journals against what activities really did (G3)."""
    assert not life.computed_again, f"computed although its outcome was recorded: {life.computed_again}"
    recorded = {
        (run_id_of(events), event.scheduled_by_id): event.attempt
        for events in life.journals.values()
        for event in events
        if isinstance(event, ActivityStarted)
    }
    executed: dict[tuple[str, int], list[int]] = {}
    for deed in life.ledger:
        executed.setdefault((deed.run_id, deed.scheduled_id), []).append(deed.attempt)
    for key, attempts in executed.items():
        assert attempts == sorted(set(attempts)), f"attempts of {key} ran as {attempts}"
        if key in recorded:
            assert attempts[-1] == recorded[key], f"{key} ran as {attempts}, recorded is {recorded[key]}"


def run_id_of(events: Sequence[Event]) -> str:
    """Return the run that a journal is of."""
    run_id: str = events[0].run_id
    return run_id


# --- R5 -------------------------------------------------------------------------------------------------------------


def check_r5(shape: Shape, make_stores: dict[str, Callable[[], MakeStore | None]]) -> None:
    """Every store, warm, cold and with random eviction: one journal."""
    first: dict[str, bytes] = {}
    for store_name, make_store in make_stores.items():
        for cache_name, options in CACHES:
            with law("R5", f"in shape {shape.name!r} on {store_name}, {cache_name}"):
                life = live(shape, make_store(), **options())
                journals = {workflow_id: dump_events(events) for workflow_id, events in life.journals.items()}
                first = first or journals
                for workflow_id, journal in first.items():
                    assert journals[workflow_id] == journal, _first_difference(journal, journals[workflow_id])
                expected = dict.fromkeys(life.drawn, 1)
                assert life.drawn == expected, f"side effects were executed again: {life.drawn}"


def _first_difference(one: bytes, other: bytes) -> str:
    pairs = zip(one.decode().splitlines(), other.decode().splitlines(), strict=False)
    for number, (left, right) in enumerate(pairs, 1):
        if left != right:
            return f"line {number} of the journal is {right!r}, first it was {left!r}"
    return f"one journal has {len(one)} bytes, the other {len(other)}"


@contextmanager
def _watched_world() -> Iterator[World]:
    clock = FakeClock()
    world = World(clock, MemoryStore(clock))
    begin(world)
    try:
        yield world
    finally:
        begin(None)
