"""The timer worker: fires timers whose time has come."""

from __future__ import annotations

from derecho.stores.base import Due
from derecho.stores.bell import TIMERS
from derecho.workers.due import DUE_BATCH_MAX, DueWorker


class TimerWorker(DueWorker):
    """Fires timers."""

    topic = TIMERS

    def _deal(self) -> int:
        return self._store.fire_timers(DUE_BATCH_MAX)

    def _first_ns(self, due: Due) -> int:
        return due.timers_ns
