"""The loop around every worker, and the only place of the engine that waits.

A worker's `process()` does one batch and returns how much it did; it never waits. So a whole engine can be driven
by hand on one thread, with a fake clock. `run_worker` is the loop for threads: look, and if there was nothing,
wait for the bell, for the next due moment, or for a second, whatever comes first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from derecho.stores.bell import LOOK_NS, Bell

IDLE_MAX_S: Final = LOOK_NS / 1e9
# After an error of the store, so that a broken database does not make a hot loop.
_TROUBLE_S: Final = (0.05, 0.2, 1.0, 5.0)

log = logging.getLogger("derecho.worker")


class Worker(Protocol):
    """Does one kind of work."""

    @property
    def topic(self) -> str:
        """The bell's topic that announces work."""
        ...

    @property
    def bell(self) -> Bell: ...

    def process(self) -> int:
        """Do one batch of what there is to do now and return how many items it had; never waits."""
        ...

    def idle_s(self) -> float:
        """Return the seconds until something can be due, as far as is known."""
        ...


def run_worker(worker: Worker, stop: threading.Event) -> None:
    """Let a worker process until `stop` is set; errors are logged and tried again, they never end the loop.

    To end it at once, set `stop` and ring the worker's topic; else it notices within a second.
    """
    bell, topic = worker.bell, worker.topic
    troubles = 0
    bell.watch(topic)
    try:
        while not stop.is_set():
            seen = bell.seq(topic)
            try:
                if worker.process():
                    troubles = 0
                    continue
                idle_s = min(max(worker.idle_s(), 0.0), IDLE_MAX_S)
                troubles = 0
            except Exception:
                idle_s = _TROUBLE_S[min(troubles, len(_TROUBLE_S) - 1)]
                troubles += 1
                log.exception("%s failed; it goes on in %.2f s", type(worker).__name__, idle_s)
                stop.wait(idle_s)
                continue
            bell.wait(topic, seen, idle_s)
    finally:
        bell.unwatch(topic)


def run_every(look: Callable[[], object], interval_s: float, stop: threading.Event) -> None:
    """Call `look` again and again until `stop` is set; errors are logged and do not end it."""
    while not stop.wait(interval_s):
        try:
            look()
        except Exception:
            log.exception("a periodic look failed; it goes on")
