"""Live runs in memory, by run id. Only an optimisation: any idle run may go at any time.

The cache belongs to one workflow thread, because a greenlet cannot be resumed on another. It is only touched
between tasks, so whatever it evicts is idle (B45, B47).
"""

from __future__ import annotations

from collections import OrderedDict

from derecho.replayer import LiveRun


class RunCache:
    """The most recently used live runs, at most `size`."""

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"cache_size must not be negative, got {size}")
        self.size = size
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def take(self, run_id: str) -> LiveRun | None:
        """Take a run out, to execute its task; put it back only if that was committed."""
        return self._runs.pop(run_id, None)

    def put(self, live: LiveRun) -> None:
        """Keep a run whose last task is committed; evicts the longest unused ones."""
        assert live.run_id not in self._runs, f"run {live.run_id} is live twice"
        self._runs[live.run_id] = live
        while len(self._runs) > self.size:
            _, evicted = self._runs.popitem(last=False)
            evicted.close()

    def run_ids(self) -> list[str]:
        """Return the cached run ids, longest unused first."""
        return list(self._runs)

    def evict(self, run_id: str) -> None:
        """Evict one run, if it is here."""
        live = self._runs.pop(run_id, None)
        if live is not None:
            live.close()

    def clear(self) -> None:
        """Evict all runs."""
        while self._runs:
            _, live = self._runs.popitem()
            live.close()
