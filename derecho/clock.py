"""Moments as integer nanoseconds since the Unix epoch, and where they come from.

Inside the package a moment is an `int` of nanoseconds (`_ns`); users see aware UTC `datetime`. There is one clock
in a system: the store's. Nothing else asks the time of day.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

__all__ = ["Clock", "SystemClock", "from_datetime", "to_datetime"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Anything that tells the time of day; give one to a store to own its time."""

    def now_ns(self) -> int:
        """Return the moment in nanoseconds since 1970-01-01T00:00:00Z."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now_ns(self) -> int:
        return time.time_ns()


def to_datetime(moment_ns: int) -> datetime:
    """Return the moment as an aware UTC datetime, cut to whole microseconds."""
    return _EPOCH + timedelta(microseconds=moment_ns // 1000)


def from_datetime(moment: datetime) -> int:
    """Return an aware datetime as nanoseconds since the epoch.

    Raises:
        ValueError: the datetime is naive, so that it means no moment.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; write datetime(..., tzinfo=timezone.utc)")
    return ((moment - _EPOCH) // timedelta(microseconds=1)) * 1000
