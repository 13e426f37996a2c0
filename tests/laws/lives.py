"""Live a shape: the whole engine by hand on one thread, in its own world, with or without a fault.

A `Handle` is what one process has of the store. It counts the calls, can fail one of them before or after it is
done, and is dead once its process has crashed: nothing that the dying engine still asks for is done.
"""

from __future__ import annotations

import enum
import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final

from derecho import Engine, JSONCodec, Registry, Store, StoreError
from derecho.journal import (
    Event,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    check_journal,
)
from derecho.stores.memory import MemoryStore
from derecho.testing.clock import FakeClock
from tests.laws import corpus
from tests.laws.shapes import Ending, Shape
from tests.laws.world import MAIN, Deed, Hands, World, begin
from tests.rig import Rig, process

MakeStore = Callable[[FakeClock, Callable[[], str]], Store]

# The calls that can be made to fail; the rest are looks of the rig.
_COUNTED: Final = frozenset(
    [
        "start_runs",
        "signal",
        "cancel",
        "terminate",
        "load_events",
        "claim_runs",
        "commit_tasks",
        "fail_task",
        "release_runs",
        "claim_activities",
        "finish_activity",
        "release_activities",
        "heartbeat",
        "fire_timers",
        "expire",
    ]
)
# Lives that go wrong must end too.
UNTIL_S: Final = 30_000
TURNS_MAX: Final = 200
PAUSE_S: Final = 20


class Crash(BaseException):
    """The process is gone."""


class Kind(enum.Enum):
    """What goes wrong at a call of the store."""

    CRASH = "a crash"
    ERROR = "an error"
    PAUSE = "a pause, in which another process takes over,"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at the `call`-th counted call, before or after it is done."""

    call: int
    kind: Kind
    done: bool

    def __str__(self) -> str:
        return f"{self.kind.value} {'after' if self.done else 'before'} store call {self.call}"


@dataclass(frozen=True, slots=True)
class Call:
    """A counted call; `moved` = it was more than a look that found nothing."""

    number: int
    name: str
    moved: bool


class Handle:
    """One process's way to the store."""

    def __init__(self, inner: Store, fault: Fault | None) -> None:
        self.inner = inner
        self.fault = fault
        self.calls: list[Call] = []
        self.before_commit: Callable[[Any], None] = lambda commits: None
        self.pause: Callable[[], None] = lambda: None
        self.is_dead = False
        self.faulted = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in _COUNTED:
            return found
        return lambda *args, **kwargs: self._call(name, found, args, kwargs)

    def _call(
        self, name: str, verb: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.is_dead:
            raise Crash
        if name == "commit_tasks":
            self.before_commit(args[0])
        number = len(self.calls) + 1
        self.calls.append(Call(number, name, True))
        fault = self.fault if self.fault is not None and self.fault.call == number else None
        if fault is not None and not fault.done:
            self.tear(name, args)
            self._fail(fault)
        answer = verb(*args, **kwargs)
        looks = name in ("claim_runs", "claim_activities", "fire_timers", "expire")
        self.calls[number - 1] = Call(number, name, bool(answer) or not looks)
        if fault is not None:
            self._fail(fault)
        return answer

    def tear(self, name: str, args: tuple[Any, ...]) -> None:
        """Do what is done already when a call fails half way: nothing, as every call is one transaction."""

    def _fail(self, fault: Fault) -> None:
        self.faulted = True
        if fault.kind is Kind.PAUSE:
            self.pause()
            return
        if fault.kind is Kind.CRASH:
            self.is_dead = True
            raise Crash
        raise StoreError("planned trouble")


@dataclass(slots=True)
class Life:
    """What became of a shape once it was lived.

    Attributes:
        ending: of the main run. journals: by workflow id. calls: of the store, all processes together.
        faulted: whether the planned fault was met.
        stuck: the reasons for which the main run was seen not to go on, each once.
    """

    shape: Shape
    ending: Ending
    journals: dict[str, list[Event]]
    ledger: list[Deed]
    computed_again: list[Deed]
    drawn: dict[str, int]
    calls: list[Call]
    faulted: bool
    stuck: list[str] = field(default_factory=list)

    def runs(self) -> Iterator[tuple[str, Any, list[Event]]]:
        """Yield (workflow id, workflow, journal) of every run."""
        workflows = {MAIN: self.shape.workflow}
        workflows |= {workflow_id: workflow for workflow_id, workflow, _ in self.shape.companions}
        for workflow_id, events in self.journals.items():
            yield workflow_id, workflows[workflow_id], events


class LawRig(Rig):
    """A rig whose processes can crash, and whose cache can be emptied between any two steps."""

    def __init__(
        self,
        shape: Shape,
        make_store: MakeStore | None,
        *,
        cache_size: int = 1000,
        evictions: random.Random | None = None,
        fault: Fault | None = None,
    ) -> None:
        self._ids = itertools.count(1)
        self._new_id = lambda: f"run-{next(self._ids)}"
        self._make_store = make_store or MemoryStore
        super().__init__(lambda clock: self._make_store(clock, self._new_id))
        self._shape = shape
        self._cache_size = cache_size
        self._evictions = evictions
        self._meanwhile = dict(shape.meanwhile)
        self._registry = _registry_of(shape.name)
        self.stuck: list[str] = []
        self._processes: list[Handle] = []
        self.world = World(self.clock, self.store)
        self.handle = self._process(fault)
        self.hands = Hands(self.engines[-1].client, self.clock)

    def start(self) -> None:
        mine = (MAIN, self._shape.workflow, self._shape.args)
        for run in (*self._shape.companions, mine):
            self._act(partial(_start, run))
        for offset_s, act in self._shape.script:
            if offset_s:
                self.at(offset_s, partial(self._act, act))
            else:
                self._act(act)

    def settle(self) -> int:
        done = 0
        for _ in range(TURNS_MAX):
            turn = 0
            for place in range(4):
                self._evict()
                turn += self._step(place)
            if not turn:
                self._look()
                return done
            done += turn
        raise AssertionError(f"still busy after {TURNS_MAX} turns")

    @property
    def calls(self) -> list[Call]:
        return [call for handle in self._processes for call in handle.calls]

    @property
    def faulted(self) -> bool:
        return any(handle.faulted for handle in self._processes)

    # --- processes

    def _process(self, fault: Fault | None) -> Handle:
        handle = Handle(self.store, fault)
        handle.before_commit = self._before_commit
        handle.pause = self._let_another_take_over
        self._processes.append(handle)
        self.engines = [self._engine(handle, "worker-1")]
        return handle

    def _engine(self, handle: Handle, worker_id: str) -> Engine:
        return Engine(
            handle,
            workflow_resolver=self._registry,
            activity_resolver=self._registry,
            worker_id=worker_id,
            cache_size=self._cache_size,
        )

    def _let_another_take_over(self) -> None:
        """The process stands still for longer than its leases, in the middle of a call; then it goes on."""
        handle = Handle(self.store, None)
        handle.before_commit = self._before_commit
        rival = self._engine(handle, "worker-2")
        self.clock.advance(PAUSE_S)
        for _ in range(TURNS_MAX):
            if not process(rival):
                break
        rival.workflow_worker.close()

    def _step(self, place: int) -> int:
        engine = self.engines[-1]
        workers = (engine.workflow_worker, engine.activity_worker, engine.timer_worker, engine.timeout_worker)
        try:
            return workers[place].process()
        except Crash:
            self._restart()
        except StoreError:
            pass  # The loop of every worker logs it and goes on.
        return 1

    def _act(self, act: Callable[[Hands], object]) -> None:
        """Do what a client does: it repeats a request, with its id, until it is answered."""
        request = self.hands.requests
        next_id = next(self._ids)
        self._ids = itertools.count(next_id)
        try:
            act(self.hands)
        except (Crash, StoreError) as trouble:
            if isinstance(trouble, Crash):
                self._restart()
            self.hands.requests = request
            self._ids = itertools.count(next_id)
            act(self.hands)

    def _restart(self) -> None:
        """Drop all that was in memory. A store in a file is opened again."""
        self.engines[-1].workflow_worker.close()
        if not isinstance(self.store, MemoryStore):
            self.store.close()
            self.store = self._make_store(self.clock, self._new_id)
        self.world.store = self.store
        self.handle = self._process(None)
        self.hands.client = self.engines[-1].client

    def _before_commit(self, commits: Any) -> None:
        row = self.store.find_run(MAIN)
        if row is None or not any(commit.run_id == row.run_id for commit in commits):
            return
        act = self._meanwhile.pop(row.commit_no + 1, None)
        if act is not None:
            act(Hands(Engine(self.store).client, self.clock, requests=1000 * (row.commit_no + 1)))

    def _evict(self) -> None:
        if self._evictions is not None:
            cache = self.engines[-1].workflow_worker.cache
            for run_id in cache.run_ids():
                if self._evictions.random() < 0.4:
                    cache.evict(run_id)

    def _look(self) -> None:
        row = self.store.find_run(MAIN)
        if row is not None and row.blocked_reason and row.blocked_reason not in self.stuck:
            self.stuck.append(row.blocked_reason)


def live(
    shape: Shape,
    make_store: MakeStore | None = None,
    *,
    cache_size: int = 1000,
    evictions: random.Random | None = None,
    fault: Fault | None = None,
) -> Life:
    """Live a shape to its end.

    Raises:
        AssertionError: the engine does not come to rest, or a journal breaks the rules.
    """
    with LawRig(shape, make_store, cache_size=cache_size, evictions=evictions, fault=fault) as rig:
        with _in(rig.world):
            rig.start()
            rig.finish(UNTIL_S)
        ids = [MAIN, *(workflow_id for workflow_id, _, _ in shape.companions)]
        journals = {}
        for workflow_id in ids:
            row = rig.store.find_run(workflow_id)
            if row is not None:
                journals[workflow_id] = rig.store.load_events(row.run_id)
                check_journal(journals[workflow_id])
        return Life(
            shape=shape,
            ending=ending_of(journals[MAIN]),
            journals=journals,
            ledger=rig.world.ledger,
            computed_again=rig.world.computed_again,
            drawn=dict(rig.world.drawn),
            calls=rig.calls,
            faulted=rig.faulted,
            stuck=rig.stuck,
        )


def _start(run: tuple[str, Any, tuple[Any, ...]], hands: Hands) -> None:
    workflow_id, workflow, args = run
    hands.start(workflow_id, workflow, args)


@cache
def _registry_of(shape_name: str) -> Registry:
    registry, codec = Registry(), JSONCodec()
    for definition in [*corpus.CORPUS[shape_name].workflows, *corpus.ACTIVITIES]:
        registry.register(definition, codec)
    return registry


def ending_of(events: list[Event]) -> Ending:
    """Return how a journal ends."""
    for event in reversed(events):
        if isinstance(event, WorkflowCompleted):
            return ("completed", json.loads(event.result))
        if isinstance(event, WorkflowFailed):
            error = event.error
            return ("failed", f"{error.type}: {error.message}" if error is not None else "")
        if isinstance(event, WorkflowCancelled):
            return ("cancelled", None)
    return ("open", None)


@contextmanager
def _in(world: World) -> Iterator[None]:
    begin(world)
    try:
        yield
    finally:
        begin(None)
