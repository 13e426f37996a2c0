"""The timeout worker: ends what ran out of time, and takes up activities that lost their worker.

It needs none of the code that it ends: a run whose code is broken or gone is ended all the same when its
cancel request is overdue.
"""

from __future__ import annotations

from typing import Final

from derecho.stores.base import Store
from derecho.stores.bell import TIMEOUTS, Bell
from derecho.workers.idle import rest_s

# In one transaction, which must not hold up the commits of workflow tasks.
EXPIRE_BATCH_MAX: Final = 256


class TimeoutWorker:
    """Watches limits and leases, by the store's clock; any number of these may serve one store."""

    topic = TIMEOUTS

    def __init__(self, store: Store, *, worker_id: str) -> None:
        self._store = store
        self._worker_id = worker_id
        self._looked_ns = 0

    @property
    def bell(self) -> Bell:
        return self._store.bell

    def process(self) -> int:
        """Deal with a batch of limits and leases that have passed; return how many."""
        self._looked_ns = self._store.now_ns()
        return self._store.expire(EXPIRE_BATCH_MAX)

    def idle_s(self) -> float:
        """Return the seconds until the next limit or lease passes."""
        due_ns = self._store.next_due(self._worker_id).timeouts_ns
        return rest_s(due_ns, looked_ns=self._looked_ns, now_ns=self._store.now_ns())
