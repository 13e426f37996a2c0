"""A clock that stands still until it is told to move: give it to a store, and the test owns its time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Final

from derecho.clock import from_datetime, to_datetime
from derecho.policies import Duration, duration_ns

_START: Final = datetime(2020, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `Clock` under control of the test; all methods may be called from any thread.

    Args:
        start: an aware datetime; the first of January 2020 if None.

    Raises:
        ValueError: `start` has no time zone.
    """

    __slots__ = ("_lock", "_now_ns")

    def __init__(self, start: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._now_ns = from_datetime(_START if start is None else start)

    def now(self) -> datetime:
        """Return the moment as an aware UTC datetime."""
        return to_datetime(self._now_ns)

    def now_ns(self) -> int:
        """Return the moment in nanoseconds since the epoch."""
        return self._now_ns

    def advance(self, duration: Duration) -> None:
        """Go forward by a duration (seconds or timedelta).

        Raises:
            ValueError, TypeError: it is negative, or not a duration.
        """
        step_ns = duration_ns(duration, "duration")
        with self._lock:
            self._now_ns += step_ns

    def set(self, moment: datetime) -> None:
        """Go to a moment, forward or back, as a machine's clock may.

        Raises:
            ValueError: it has no time zone.
        """
        moment_ns = from_datetime(moment)
        with self._lock:
            self._now_ns = moment_ns
