"""What the timer worker and the timeout worker share: they deal with rows whose moment has come, batch by batch."""

from __future__ import annotations

import abc
from typing import Final

from derecho.stores.base import Due, Store
from derecho.stores.bell import Bell
from derecho.workers.idle import rest_s

# In one transaction, which must not hold up the commits of workflow tasks.
DUE_BATCH_MAX: Final = 256


class DueWorker(abc.ABC):
    """Deals with what is due, by the store's clock; any number of these may serve one store."""

    topic: str

    def __init__(self, store: Store, *, worker_id: str) -> None:
        self._store = store
        self._worker_id = worker_id
        self._looked_ns = 0

    @property
    def bell(self) -> Bell:
        return self._store.bell

    def process(self) -> int:
        """Deal with a batch of what is due, and return how many."""
        self._looked_ns = self._store.now_ns()
        return self._deal()

    def idle_s(self) -> float:
        """Return the seconds until something is due."""
        due_ns = self._first_ns(self._store.next_due(self._worker_id))
        return rest_s(due_ns, looked_ns=self._looked_ns, now_ns=self._store.now_ns())

    @abc.abstractmethod
    def _deal(self) -> int:
        """Deal with a batch."""

    @abc.abstractmethod
    def _first_ns(self, due: Due) -> int:
        """Return the moment that this worker waits for; 0 = none."""
