"""Stores for lives: each life has one of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from derecho import SQLiteStore, Store
from derecho.testing.clock import FakeClock
from tests.laws.lives import MakeStore

MakeStores = Callable[[], MakeStore | None]


def memory() -> None:
    """Have a memory store."""


def in_folder(folder: Path) -> MakeStores:
    """Have SQLite stores, each in a file of its own, which a life opens again after a crash."""
    numbers = itertools.count()

    def make_stores() -> MakeStore:
        path = folder / f"{next(numbers)}.db"

        def make(clock: FakeClock, new_id: Callable[[], str]) -> Store:
            return SQLiteStore(path, durability="normal", clock=clock, new_id=new_id)

        return make

    return make_stores
