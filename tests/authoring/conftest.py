"""Runs driven by hand, as in tests/core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.core.driver import Run


@pytest.fixture
def drive() -> Iterator[Callable[..., Run]]:
    """Make runs whose first task has run."""
    made: list[Run] = []

    def driven(program: Callable[..., Any], *args: Any, **settings: Any) -> Run:
        made.append(Run(program, *args, **settings))
        return made[-1].task()

    yield driven
    for run in made:
        run.close()
