"""A bench for workers: a store with a clock that stands still, runs with scheduled activities, workers to drive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from derecho.authoring.definitions import Activity
from derecho.journal.events import ActivityScheduled, CommandEvent, Event
from derecho.payloads import JSONCodec
from derecho.registry import Registry
from derecho.stores.base import ActivityRow
from derecho.stores.memory import MemoryStore
from derecho.testing.clock import FakeClock
from derecho.testing.conformance import scene
from derecho.workers.activity import ActivityWorker
from derecho.workers.leases import LeaseKeeper
from derecho.workers.runner import InlineRunner, Runner
from derecho.workers.timeout import TimeoutWorker

E = TypeVar("E", bound=Event)
LEASE_S = 15


class Bench:
    """One store; any number of workers of several processes on it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.timeouts = TimeoutWorker(self.store, worker_id="t")
        self.workers: list[ActivityWorker] = []

    def keeper(self) -> LeaseKeeper:
        return LeaseKeeper(self.store, run_lease_ns=10 * scene.S, activity_lease_ns=LEASE_S * scene.S)

    def worker(
        self,
        *activities: Activity[..., Any],
        name: str = "a",
        runner: Runner | None = None,
        leases: LeaseKeeper | None = None,
        resolver: Any = None,
        store: Any = None,
    ) -> ActivityWorker:
        """Make a worker that knows these activities; unless told otherwise it runs them inline."""
        registry = Registry()
        for definition in activities:
            registry.register(definition)
        worker = ActivityWorker(
            store or self.store,
            resolver or registry,
            worker_id=name,
            codec=JSONCodec(),
            runner=runner or InlineRunner(),
            lease_ns=LEASE_S * scene.S,
            leases=leases,
        )
        self.workers.append(worker)
        return worker

    @staticmethod
    def activity(name: str = "charge", *, input: bytes = b"1", **options: Any) -> ActivityScheduled:
        """Return the command for an activity of one argument."""
        return scene.activity(name, input=input, **options)

    def schedule(self, *commands: CommandEvent, workflow_id: str = "w") -> list[int]:
        """Start a run whose first task asks for these; return their event ids."""
        scene.start(self.store, workflow_id)
        return scene.turn(self.store, *commands)

    def row(self, scheduled_id: int, workflow_id: str = "w") -> ActivityRow:
        """Return the row of an activity that has no outcome yet."""
        run_id = scene.row(self.store, workflow_id).run_id
        found: ActivityRow | None = self.store._transact(
            lambda tx: tx.activity(run_id, scheduled_id), durable=False
        )
        assert found is not None
        return found

    def change(self, scheduled_id: int, change: Callable[[ActivityRow], None]) -> None:
        """Change a row as another transaction would."""
        row = self.row(scheduled_id)
        change(row)
        self.store._transact(lambda tx: tx.save_activity(row), durable=False)

    def the(self, kind: type[E]) -> E:
        """Return the one event of a kind in the journal of the run."""
        return scene.the(self.store, kind)

    def close(self) -> None:
        for worker in self.workers:
            worker.stop(0)
        scene.check_all_journals(self.store)
        self.store.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()
