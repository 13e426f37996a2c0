"""The timer worker: fires timers whose time has come."""

from __future__ import annotations

from typing import Final

from derecho.stores.base import Store
from derecho.stores.bell import TIMERS, Bell
from derecho.workers.idle import rest_s

# In one transaction, which must not hold up the commits of workflow tasks.
FIRE_BATCH_MAX: Final = 256


class TimerWorker:
    """Fires timers, by the store's clock; any number of these may serve one store."""

    topic = TIMERS

    def __init__(self, store: Store, *, worker_id: str) -> None:
        self._store = store
        self._worker_id = worker_id
        self._looked_ns = 0

    @property
    def bell(self) -> Bell:
        return self._store.bell

    def process(self) -> int:
        """Fire a batch of due timers and return how many."""
        self._looked_ns = self._store.now_ns()
        return self._store.fire_timers(FIRE_BATCH_MAX)

    def idle_s(self) -> float:
        """Return the seconds until the next timer is due."""
        due_ns = self._store.next_due(self._worker_id).timers_ns
        return rest_s(due_ns, looked_ns=self._looked_ns, now_ns=self._store.now_ns())
