"""A bell: threads of one process wait for "something about this topic changed" without missing a ring.

Each topic has a counter. Who waits first reads the counter, then looks at the store, and then waits for the counter
to move on: a change between the look and the wait is not lost. A ring is a hint, the store is the truth; so every
wait has a timeout, and a missed ring costs latency, never correctness.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

# A ring is a hint and can be lost (another process, a store without rings): whoever waits looks at least this often.
LOOK_NS: Final = 1_000_000_000

# Topics that workers wait on; a closed run is a topic of its own, its run id.
RUNS: Final = "runs"
ACTIVITIES: Final = "activities"
TIMERS: Final = "timers"
TIMEOUTS: Final = "timeouts"


class Bell:
    """Counters that threads can wait on."""

    __slots__ = ("_condition_of", "_lock", "_seq", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seq: dict[str, int] = {}
        self._condition_of: dict[str, threading.Condition] = {}
        self._waiting: dict[str, int] = {}

    def seq(self, topic: str) -> int:
        """Return the counter of a topic: read it before looking at the store."""
        return self._seq.get(topic, 0)

    def ring(self, topics: Iterable[str]) -> None:
        """Move the counters on and wake who waits for them."""
        with self._lock:
            for topic in topics:
                condition = self._condition_of.get(topic)
                if condition is not None:
                    self._seq[topic] = self._seq.get(topic, 0) + 1
                    condition.notify_all()

    def watch(self, topic: str) -> None:
        """Begin to count the rings of a topic; each call needs an `unwatch`. Topics nobody watches cost nothing."""
        with self._lock:
            self._waiting[topic] = self._waiting.get(topic, 0) + 1
            self._condition_of.setdefault(topic, threading.Condition(self._lock))

    def unwatch(self, topic: str) -> None:
        """Forget the topic if nobody else watches it."""
        with self._lock:
            self._waiting[topic] -= 1
            if not self._waiting[topic]:
                del self._waiting[topic], self._condition_of[topic]
                self._seq.pop(topic, None)

    def watched(self) -> list[str]:
        """Return the topics that somebody watches."""
        with self._lock:
            return list(self._waiting)

    def wait(self, topic: str, last: int, timeout_s: float) -> bool:
        """Wait until the counter of a watched topic is not `last`; return whether it moved on in time."""
        with self._lock:
            return self._condition_of[topic].wait_for(lambda: self._seq.get(topic, 0) != last, timeout_s)
