"""The watchdog: notices workflow code that does not yield, and takes the other runs away from it.

Workflow code only computes, so a second without any switch or API call is long already; code that loops, sleeps
for real or waits for a network holds up every run of its thread. Such a thread cannot be stopped safely. So it is
*abandoned*: its claims are given back (the commit of whatever it still does is fenced), and a new workflow thread
takes over. Progress is counted by the core at every switch and API call, so a long replay is no deadlock; and two
stack samples in the same place are needed, so a machine that stood still is none either.

A loop of API calls that never block (`while box.try_receive() is None`) makes progress for ever. So a task as a whole
has a limit too, many times longer, and counted in looks, which a machine that stands still does not make. On replay
each recorded task has its own.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final

from derecho.errors import DeadlockError
from derecho.replayer import LiveRun
from derecho.stores.base import Store
from derecho.workers.workflow import WorkflowWorker

ABANDONED_MAX: Final = 3
# A task may take so many times the deadlock timeout if it makes progress all the while.
TASK_FACTOR: Final = 10
# How often to look within the deadlock timeout.
LOOKS: Final = 4
_STACK_LINES: Final = 12

log = logging.getLogger("derecho.worker.watchdog")


@dataclass(slots=True)
class _Sample:
    """Where a workflow thread stood, and since when."""

    live: LiveRun
    progress: int
    since_s: float
    task_time_ns: int
    looks: int = 1
    place: tuple[str, int] | None = None


class Watchdog:
    """Watches one workflow thread after another."""

    def __init__(self, store: Store, deadlock_s: float, on_abandon: Callable[[], None]) -> None:
        self._store = store
        self._deadlock_s = deadlock_s
        self._on_abandon = on_abandon
        self._worker: WorkflowWorker | None = None
        self._thread: threading.Thread | None = None
        self._sample: _Sample | None = None
        self.abandoned: list[threading.Thread] = []

    def watch(self, worker: WorkflowWorker, thread: threading.Thread) -> None:
        """Watch this thread from now on."""
        self._worker, self._thread, self._sample = worker, thread, None

    def check(self, now_s: float | None = None) -> bool:
        """Look once; return whether the thread was abandoned. Call it a few times within the deadlock timeout."""
        now_s = time.monotonic() if now_s is None else now_s
        worker, thread = self._worker, self._thread
        live = worker.executing if worker is not None else None
        if worker is None or thread is None or live is None:
            self._sample = None
            return False
        progress, task_time_ns = live.scheduler.progress, live.task_time_ns
        sample = self._sample
        if sample is None or sample.live is not live or sample.task_time_ns != task_time_ns:
            self._sample = _Sample(live, progress, now_s, task_time_ns)
            return False
        sample.looks += 1
        if sample.progress != progress:
            sample.progress, sample.since_s, sample.place = progress, now_s, None
            if sample.looks <= LOOKS * TASK_FACTOR:
                return False
        elif now_s - sample.since_s < self._deadlock_s:
            return False
        frame = sys._current_frames().get(thread.ident or 0)
        place = _place(frame)
        if sample.looks > LOOKS * TASK_FACTOR and place is not None:
            self._abandon(worker, thread, live, frame)
            return True
        if sample.place != place or place is None:
            sample.place = place  # The first sample; the next look confirms it.
            return False
        self._abandon(worker, thread, live, frame)
        return True

    def _abandon(
        self, worker: WorkflowWorker, thread: threading.Thread, live: LiveRun, frame: FrameType | None
    ) -> None:
        stack = "".join(traceback.format_stack(frame)[-_STACK_LINES:])
        error = DeadlockError(
            f"workflow code did not yield for {self._deadlock_s:g} s; it must not loop, sleep or wait for anything "
            "outside: use derecho.sleep() and activities"
        )
        log.error(
            "workflow %r (run %s): %s\n%s",
            live.workflow_id,
            live.run_id,
            error,
            stack,
            extra=live.env.log_extra(),
        )
        worker.abandoned = True
        self._worker = self._sample = None
        attempt = 1
        self.abandoned = [one for one in self.abandoned if one.is_alive()] + [thread]
        for run_id, token in list(worker.in_flight.items()):
            try:
                if run_id == live.run_id:
                    self._store.fail_task(run_id, token, f"DeadlockError: {error}")
                    row = self._store.find_run(live.workflow_id, run_id)
                    attempt = max(row.attempt, 1) if row is not None else 1
                else:
                    self._store.release_runs([(run_id, token)])
            except Exception:
                log.exception("the lease of run %s was not given back; it ends by itself", run_id)
        worker._backoff.fail(live.run_id, attempt)
        self._on_abandon()
        # Nothing that this thread does can be committed any more, so it may be interrupted anywhere.
        _interrupt(thread)


def _place(frame: FrameType | None) -> tuple[str, int] | None:
    """Return where the fiber began: what a loop calls differs from sample to sample."""
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return None if frame is None else (frame.f_code.co_filename, frame.f_code.co_firstlineno)


class Abandoned(BaseException):
    """Thrown into an abandoned thread, so that an endless loop ends after all."""


def _interrupt(thread: threading.Thread) -> None:
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Abandoned))
