"""Drive a whole engine by hand: one thread, a fake clock, no sleeps.

A rig owns a clock and a store; `engine()` makes an engine on it, `settle()` lets all workers process until nothing
is left to do now, and `finish()` also lets time jump to whatever is due next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Self

from derecho.engine import Engine
from derecho.journal import Event, check_journal
from derecho.stores.base import Store
from derecho.stores.memory import MemoryStore
from derecho.testing.clock import FakeClock

START = datetime(2030, 1, 1, tzinfo=UTC)
TURNS_MAX = 10_000


class Rig:
    """A clock, a store, and engines driven by hand."""

    def __init__(self, make_store: Callable[[FakeClock], Store] | None = None) -> None:
        self.clock = FakeClock(START)
        self.store: Store = make_store(self.clock) if make_store is not None else MemoryStore(self.clock)
        self.engines: list[Engine] = []
        self._agenda: list[tuple[int, Callable[[], object]]] = []

    def engine(self, workflows: Iterable[Any] = (), activities: Iterable[Any] = (), **options: Any) -> Engine:
        """Make another engine on the store."""
        options.setdefault("worker_id", f"worker-{len(self.engines) + 1}")
        engine = Engine(self.store, workflows=workflows, activities=activities, **options)
        self.engines.append(engine)
        return engine

    def at(self, offset_s: float, act: Callable[[], object]) -> None:
        """Do something once the clock has come to START + `offset_s` (only `finish` lets it come there)."""
        start_ns = int(START.timestamp()) * 1_000_000_000
        self._agenda.append((start_ns + int(offset_s * 1e9), act))
        self._agenda.sort(key=lambda item: item[0])

    def settle(self) -> int:
        """Let all workers of all engines process until nothing is left to do at this moment."""
        done = 0
        for _ in range(TURNS_MAX):
            turn = sum(process(engine) for engine in self.engines)
            if not turn:
                return done
            done += turn
        raise AssertionError(f"still busy after {TURNS_MAX} turns")

    def finish(self, until_s: float = 10 * 365 * 86400) -> None:
        """Let time jump from one due moment to the next until nothing is due any more."""
        end_ns = int((START.timestamp() + until_s) * 1e9)
        for _ in range(TURNS_MAX):
            self.settle()
            due_ns = self._next_due_ns()
            if not due_ns or due_ns > end_ns:
                return
            self.clock.advance(max(due_ns - self.clock.now_ns(), 1) / 1e9)
            while self._agenda and self._agenda[0][0] <= self.clock.now_ns():
                self._agenda.pop(0)[1]()
        raise AssertionError(f"still something due after {TURNS_MAX} jumps")

    def journal(self, workflow_id: str) -> list[Event]:
        """Return the checked journal of the newest run of a workflow id."""
        row = self.store.find_run(workflow_id)
        assert row is not None
        events = self.store.load_events(row.run_id)
        check_journal(events)
        return events

    def close(self) -> None:
        for engine in self.engines:
            engine.workflow_worker.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_due_ns(self) -> int:
        moments = []
        for engine in self.engines:
            due = self.store.next_due(engine.worker_id)
            moments += [due.runs_ns, due.activities_ns, due.timers_ns, due.timeouts_ns]
            moments.append(engine.workflow_worker.backed_off_until_ns)
        # What is due by now and still there after `settle` is work that no engine here can do.
        moments = [moment for moment in moments if moment > self.clock.now_ns()]
        return min([*moments, *(moment for moment, _ in self._agenda[:1])], default=0)


def process(engine: Engine) -> int:
    """Let each worker of an engine do one batch."""
    workers = (engine.workflow_worker, engine.activity_worker, engine.timer_worker, engine.timeout_worker)
    return sum(worker.process() for worker in workers)
