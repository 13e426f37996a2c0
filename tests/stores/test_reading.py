"""Nothing is consumed by reading it: a verb that looks and then does nothing leaves all work where it was (B7, B8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from derecho.stores.base import Tx
from derecho.stores.memory import MemoryStore
from derecho.stores.shared import SharedStore
from derecho.stores.sqlite import SQLiteStore
from derecho.testing import FakeClock
from derecho.testing.conformance import scene

MAKERS: dict[str, Callable[[FakeClock, Path], SharedStore]] = {
    "memory": lambda clock, folder: MemoryStore(clock),
    "sqlite": lambda clock, folder: SQLiteStore(folder / "a.db", clock=clock),
}
READS: dict[str, Callable[[Tx], list[Any]]] = {
    "ready runs": lambda tx: tx.ready_runs("a", None, 10, ()),
    "ready activities": lambda tx: tx.ready_activities(None, 10),
    "due activities": lambda tx: tx.due_activities(10),
    "due timers": lambda tx: tx.due_timers(10),
    "due cancels": lambda tx: tx.cancels_due(10),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedStore]:
    """A store in which each read finds something."""
    clock = FakeClock()
    made = MAKERS[request.param](clock, tmp_path)
    scene.start(made, "works")
    scene.turn(made, scene.activity(schedule_to_close_timeout=5), scene.timer(clock, 5))
    scene.start(made, "waits")
    scene.cancel(made, "waits", timeout_s=5)
    clock.advance(6)
    yield made
    made.close()


@pytest.mark.parametrize("read", READS)
def test_a_read_finds_the_same_again(store: SharedStore, read: str) -> None:
    first = store._transact(READS[read], durable=False)
    assert first
    assert store._transact(READS[read], durable=False) == first


def test_all_that_was_looked_at_can_still_be_done(store: SharedStore) -> None:
    for read in READS.values():
        store._transact(read, durable=False)
    assert scene.claimed(store) == ["waits"]
    assert len(scene.attempts(store)) == 1
    assert store.fire_timers(10) == 1
    assert store.expire(10) == 2
