"""How attempts are run: one by one in the calling thread, or in a pool of threads and on one event loop.

Slots
    A runner has `concurrency` slots; an attempt has one from its submission until the store has its outcome.
    A sync activity cannot be killed: an attempt that is lost leaves its slot while its thread runs on, a
    *stray*, and another thread may take its place. At `ATTEMPTS_FACTOR` x concurrency attempts in all nothing
    more is taken, and `trouble` says why.
Shutdown
    `stop` takes nothing more, waits for what runs, then voids the rest and hands it back to be released; what
    their code still returns is dropped. Their threads are daemons and do not keep the process alive.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import Final, Protocol

from derecho.workers.attempt import Attempt
from derecho.workers.pool import LoopThread, ThreadPool, run_in_private_loop

ATTEMPTS_FACTOR: Final = 4
# After the grace: for outcomes that are on their way to the store, and for async activities to clean up.
WIND_UP_S: Final = 1.0
# Then: for threads to end. One in user code does not, and nobody waits longer for it.
JOIN_S: Final = 0.2

log = logging.getLogger("derecho.worker.activity")


class Ear(Protocol):
    """Who wants to hear of a runner: the activity worker."""

    def slot_freed(self) -> None:
        """Claim again: there was no free slot, now there is one."""
        ...

    def attempt_left(self, attempt: Attempt) -> None:
        """Renew its lease no more."""
        ...

    def heartbeat_waits(self) -> None:
        """Have it written when its window has passed."""
        ...


class Runner:
    """What all runners share: the count of slots, and what becomes of attempts. A `Host` to them.

    Args:
        concurrency: slots.
    """

    def __init__(self, concurrency: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}")
        self.concurrency = concurrency
        self.late_results = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._running: dict[Attempt, None] = {}
        self._strays: dict[Attempt, None] = {}
        self._is_stopping = False
        self._ear: Ear | None = None
        # What the program has bound by now (tracing, logging) is there in every activity.
        self._base = contextvars.copy_context()

    def attach(self, ear: Ear) -> None:
        """Name the one who claims for this runner."""
        self._ear = ear

    @property
    def free_slots(self) -> int:
        """How many attempts may be submitted now."""
        with self._lock:
            return self._free()

    @property
    def trouble(self) -> str:
        """Why nothing is taken although slots are free; empty if all is well."""
        with self._lock:
            if self._is_stopping or self._free() or len(self._running) >= self.concurrency:
                return ""
            return (
                f"no activities are claimed: {len(self._strays)} lost attempts do not end; "
                "give their code timeouts (sockets, locks), and restart this process"
            )

    def submit(self, attempt: Attempt) -> bool:
        """Take an attempt and run it; False if the runner has stopped."""
        with self._lock:
            if self._is_stopping:
                return False
            self._running[attempt] = None
        self._run(attempt)
        return True

    def stop(self, grace_s: float) -> list[Attempt]:
        """Wait `grace_s` for what runs, void the rest and return it, to be released. End all threads."""
        with self._changed:
            self._is_stopping = True
            self._changed.wait_for(lambda: not self._running, grace_s)
            released = [attempt for attempt in self._running if attempt.release()]
            for attempt in released:
                self._strays[attempt] = self._running.pop(attempt)
        for attempt in released:
            self._cancel(attempt)
        with self._changed:
            self._changed.wait_for(lambda: not self._running, WIND_UP_S)
        self._wind_up()
        return released

    def _free(self) -> int:
        if self._is_stopping:
            return 0
        free = self.concurrency - len(self._running)
        if self._strays:
            in_all = len(self._running) + len(self._strays)
            free = max(min(free, ATTEMPTS_FACTOR * self.concurrency - in_all), 0)
        return free

    # How.

    def _run(self, attempt: Attempt) -> None:
        raise NotImplementedError

    def _cancel(self, attempt: Attempt) -> None:
        """End the code of a void attempt if that can be done."""

    def _wind_up(self) -> None:
        """End all threads that will end."""

    # Host of attempts.

    def ended(self, attempt: Attempt, *, is_late: bool) -> None:
        with self._lock:
            was_full = not self._free()
            for attempts in (self._running, self._strays):
                if attempt in attempts:
                    del attempts[attempt]
                    self.late_results += is_late
            is_free = was_full and self._free() > 0
            if self._is_stopping:
                self._changed.notify_all()
        if self._ear is not None:
            self._ear.attempt_left(attempt)
            if is_free:
                self._ear.slot_freed()

    def lost(self, attempt: Attempt) -> None:
        with self._lock:
            was_full = not self._free()
            if attempt in self._running:
                self._strays[attempt] = self._running.pop(attempt)
            is_free = was_full and self._free() > 0
            if self._is_stopping:
                self._changed.notify_all()
        self._cancel(attempt)
        if self._ear is not None:
            self._ear.attempt_left(attempt)
            if is_free:
                self._ear.slot_freed()

    def write_heartbeat(self, attempt: Attempt) -> None:
        attempt.say()

    def expect_heartbeat(self) -> None:
        if self._ear is not None:
            self._ear.heartbeat_waits()

    def pause(self, pause_s: float) -> None:
        """Do not wait at all: whoever drives by hand owns the time."""


class InlineRunner(Runner):
    """Runs each attempt to its end in the thread that submits it: for an engine that is driven by hand."""

    def __init__(self) -> None:
        super().__init__(1)

    def _run(self, attempt: Attempt) -> None:
        try:
            if attempt.is_async:
                run_in_private_loop(attempt, self._base)
            else:
                attempt.call(self._base)
            error = attempt.error
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise error  # Ctrl-C: not the activity's fault, and whoever drives by hand has to see it.
        except BaseException:
            attempt.release()
            raise
        finally:
            attempt.conclude()


class ThreadRunner(Runner):
    """Runs sync activities in threads, async ones on one event loop; outcomes are committed from the threads.

    Threads are made when they are needed, and kept.
    """

    def __init__(self, concurrency: int) -> None:
        super().__init__(concurrency)
        self._resume = threading.Event()
        self._pool = ThreadPool("derecho-activity", ATTEMPTS_FACTOR * concurrency, idle_max=concurrency)
        self._loop = LoopThread("derecho-asyncio", self._conclude)

    @property
    def threads(self) -> int:
        """How many threads there are for sync activities and for outcomes."""
        return self._pool.size

    def _run(self, attempt: Attempt) -> None:
        if attempt.is_async:
            self._loop.begin(attempt, attempt.bind(self._base))
        else:
            self._pool.run(lambda: self._call(attempt), attempt.crash)

    def _call(self, attempt: Attempt) -> None:
        attempt.call(self._base)
        attempt.conclude()

    def _conclude(self, attempt: Attempt) -> None:
        # Not on the loop: the commit would hold up every other async activity.
        self._pool.run(attempt.conclude, attempt.crash)

    def write_heartbeat(self, attempt: Attempt) -> None:
        if self._loop.is_current():
            self._pool.run(attempt.say, _ignore)
        else:
            attempt.say()

    def pause(self, pause_s: float) -> None:
        self._resume.wait(pause_s)

    def _cancel(self, attempt: Attempt) -> None:
        if attempt.is_async:
            self._loop.cancel(attempt)

    def _wind_up(self) -> None:
        self._resume.set()  # The last offers of outcomes are made at once.
        self._loop.stop(WIND_UP_S)
        self._pool.stop(JOIN_S)


def _ignore(error: BaseException) -> None:
    log.warning("a heartbeat could not be written: %r", error)
