"""The watchdog: notices workflow code that does not yield, and takes the other runs away from it.

Workflow code only computes, so a second without any switch or API call is long already; code that loops, sleeps
for real or waits for a network holds up every run of its thread. Such a thread cannot be stopped safely. So it is
*abandoned*: its claims are given back (the commit of whatever it still does is fenced), and a new workflow thread
takes over. Progress is counted by the core at every switch and API call, so a long replay is no deadlock; and two
stack samples in the same place are needed, so a machine that stood still is none either.

A loop of API calls that never block (`while box.try_receive() is None`) makes progress for ever. So a task as a whole
has a limit too, many times longer, and counted in looks, which a machine that stands still does not make. On replay
each recorded task has its own.

Code runs too when a run is evicted: its `finally` blocks. One that does not end is recognised by its stack alone.
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


@dataclass(slots=True)
class _Eviction:
    """The fiber that was seen running while no task was executed, and how often."""

    root: FrameType
    looks: int = 0


class Watchdog:
    """Watches one workflow thread after another."""

    def __init__(self, store: Store, deadlock_s: float, on_abandon: Callable[[], None]) -> None:
        self._store = store
        self._deadlock_s = deadlock_s
        self._on_abandon = on_abandon
        self._worker: WorkflowWorker | None = None
        self._thread: threading.Thread | None = None
        self._sample: _Sample | None = None
        self._eviction: _Eviction | None = None
        self.abandoned: list[threading.Thread] = []

    def watch(self, worker: WorkflowWorker, thread: threading.Thread) -> None:
        """Watch this thread from now on."""
        self._worker, self._thread, self._sample, self._eviction = worker, thread, None, None

    def check(self, now_s: float | None = None) -> bool:
        """Look once; return whether the thread was abandoned. Call it `LOOKS` times within the deadlock timeout."""
        worker, thread = self._worker, self._thread
        if worker is None or thread is None:
            return False
        live = worker.executing
        frame = sys._current_frames().get(thread.ident or 0)
        if live is None:
            self._sample = None
            is_stuck = self._is_eviction_stuck(frame)
        else:
            self._eviction = None
            is_stuck = self._is_task_stuck(live, frame, time.monotonic() if now_s is None else now_s)
        if is_stuck:
            self._abandon(worker, thread, live, frame)
        return is_stuck

    def _is_task_stuck(self, live: LiveRun, frame: FrameType | None, now_s: float) -> bool:
        progress, task_time_ns = live.scheduler.progress, live.task_time_ns
        sample = self._sample
        if sample is None or sample.live is not live or sample.task_time_ns != task_time_ns:
            self._sample = _Sample(live, progress, now_s, task_time_ns)
            return False
        sample.looks += 1
        if sample.looks > LOOKS * TASK_FACTOR:
            return True
        if sample.progress != progress:
            sample.progress, sample.since_s, sample.place = progress, now_s, None
            return False
        if now_s - sample.since_s < self._deadlock_s:
            return False
        place = _place(frame)
        if place is None or sample.place != place:
            sample.place = place  # The first sample; the next look confirms it.
            return False
        return True

    def _is_eviction_stuck(self, frame: FrameType | None) -> bool:
        """Tell whether a fiber runs although no task does: a `finally` of a run that is evicted."""
        root = _root(frame)
        if root is None or root.f_globals.get("__name__") == "threading":
            self._eviction = None  # The thread's own stack: it waits, or asks the store.
            return False
        if self._eviction is None or self._eviction.root is not root:
            self._eviction = _Eviction(root)
        self._eviction.looks += 1
        return self._eviction.looks > LOOKS + 1

    def _abandon(
        self, worker: WorkflowWorker, thread: threading.Thread, live: LiveRun | None, frame: FrameType | None
    ) -> None:
        stack = "".join(traceback.format_stack(frame)[-_STACK_LINES:])
        error = DeadlockError(
            f"workflow code did not yield for {self._deadlock_s:g} s; it must not loop, sleep or wait for anything "
            "outside: use derecho.sleep() and activities"
        )
        who = (
            f"workflow {live.workflow_id!r} (run {live.run_id})"
            if live is not None
            else "an evicted workflow"
        )
        log.error("%s: %s\n%s", who, error, stack, extra=live.env.log_extra() if live is not None else None)
        worker.abandoned = True
        self._worker = self._sample = self._eviction = None
        self.abandoned = [one for one in self.abandoned if one.is_alive()] + [thread]
        for run_id, token in list(worker.in_flight.items()):
            try:
                if live is not None and run_id == live.run_id:
                    self._block(worker, live, token, error)
                else:
                    self._store.release_runs([(run_id, token)])
            except Exception:
                log.exception("the lease of run %s was not given back; it ends by itself", run_id)
        self._on_abandon()
        # Nothing that this thread does can be committed any more, so it may be interrupted anywhere.
        _interrupt(thread)

    def _block(self, worker: WorkflowWorker, live: LiveRun, token: int, error: DeadlockError) -> None:
        # Twice: for the new thread even if the store fails now, and longer with each attempt.
        worker.backoff.fail(live.run_id, 1)
        self._store.fail_task(live.run_id, token, f"DeadlockError: {error}")
        row = self._store.find_run(live.workflow_id, live.run_id)
        if row is not None and row.attempt > 1:
            worker.backoff.fail(live.run_id, row.attempt)


def _root(frame: FrameType | None) -> FrameType | None:
    """Return the outermost frame: where the fiber began, or the thread if no fiber runs."""
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _place(frame: FrameType | None) -> tuple[str, int] | None:
    """Return what tells one fiber's code from another's; not the innermost frame, a loop may call this and that."""
    root = _root(frame)
    return None if root is None else (root.f_code.co_filename, root.f_code.co_firstlineno)


class Abandoned(BaseException):
    """Thrown into an abandoned thread, so that an endless loop ends after all."""


def _interrupt(thread: threading.Thread) -> None:
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Abandoned))
