"""The timeout worker: ends what ran out of time, and takes up activities that lost their worker.

It needs none of the code that it ends: a run whose code is broken or gone is ended all the same when its
cancel request is overdue.
"""

from __future__ import annotations

from derecho.stores.base import Due
from derecho.stores.bell import TIMEOUTS
from derecho.workers.due import DUE_BATCH_MAX, DueWorker


class TimeoutWorker(DueWorker):
    """Watches limits and leases."""

    topic = TIMEOUTS

    def _deal(self) -> int:
        return self._store.expire(DUE_BATCH_MAX)

    def _first_ns(self, due: Due) -> int:
        return due.timeouts_ns
