"""What every test is held to: no live fiber is left behind, on any thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import derecho._core as _core


@pytest.fixture(autouse=True)
def _no_fiber_is_left() -> Iterator[None]:
    before = _core.live_fibers()
    yield
    assert _core.live_fibers() == before == 0, (
        "the test left live fibers behind: close its engine or scheduler"
    )
