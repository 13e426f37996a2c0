"""What the tests of the core share: runs that are evicted at the end of their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from derecho import _core
from tests.core.driver import Run
from tests.core.driver import bare as make_bare


@pytest.fixture
def prepare() -> Iterator[Callable[..., Run]]:
    """Make runs that have not begun."""
    made: list[Run] = []

    def prepared(program: Callable[..., Any], *args: Any, **settings: Any) -> Run:
        made.append(Run(program, *args, **settings))
        return made[-1]

    yield prepared
    for run in made:
        run.close()


@pytest.fixture
def drive(prepare: Callable[..., Run]) -> Callable[..., Run]:
    """Make runs whose first task has run."""
    return lambda program, *args, **settings: prepare(program, *args, **settings).task()


@pytest.fixture
def bare() -> Iterator[Callable[..., _core.Scheduler]]:
    """Make schedulers on a stub of their surroundings."""
    made: list[_core.Scheduler] = []

    def scheduler(*args: Any, **options: Any) -> _core.Scheduler:
        made.append(make_bare(*args, **options))
        return made[-1]

    yield scheduler
    for one in made:
        one.close()
