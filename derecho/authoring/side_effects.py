"""Values from outside that are too small for an activity: recorded, random, unique."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from random import Random
from typing import ParamSpec, TypeVar, cast

import derecho._core as _core

P = ParamSpec("P")
T = TypeVar("T")


def side_effect(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `fn` once and record what it returns; a replay gives the recorded value and does not call it.

    The value is decoded from its recorded JSON also the first time, so a tuple comes back as a list at once.

    Raises:
        SideEffectError: the function raised, or called the workflow API, or its value cannot be encoded; recorded,
            and raised again on replay.
    """
    return cast(T, _core.side_effect(fn, args, kwargs))  # As JSON gives it back; see above.


def random() -> Random:
    """Return this run's random numbers, seeded by its run id: the same on every replay, without any event."""
    numbers: Random = _core.enter().env.run_random()
    return numbers


def uuid4() -> uuid.UUID:
    """Return a random UUID that is the same on every replay."""
    return uuid.UUID(int=random().getrandbits(128), version=4)
