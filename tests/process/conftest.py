"""Fixtures for tests of real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from derecho import SQLiteStore
from tests.process.support import Child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database file; tests put their other files beside it."""
    return tmp_path / "runs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    made = SQLiteStore(path)
    yield made
    made.close()


@pytest.fixture
def spawn() -> Iterator[Callable[..., Child]]:
    """Start children that do not outlive the test."""
    children: list[Child] = []

    def start(*args: object, **options: bool) -> Child:
        child = Child(*args, **options)  # type: ignore[arg-type]  # Passed on as they are.
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
