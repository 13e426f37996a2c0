"""The lease keeper: renews what this process holds, so that nobody takes over what is alive.

It has a thread of its own that does nothing else, so neither a long activity nor a blocked event loop nor a
busy workflow thread delays it by more than its turn at the interpreter. It renews at a third of a lease: two
renewals in a row may fail before anything is lost. A dead process renews nothing.

Run it with `run_worker`, or call `process` by hand. It knows attempts and runs only by what it needs of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from derecho.stores.base import ActivityToken, LeaseState
from derecho.stores.bell import Bell
from derecho.workers.loop import IDLE_MAX_S

T = TypeVar("T")

# The keeper's own topic: rung when a heartbeat waits to be written, never by a store.
LEASES: Final = "leases"
# So many renewals in one transaction: it must not hold up the commits behind it.
RENEW_BATCH_MAX: Final = 500
_RENEWALS: Final = 3

log = logging.getLogger("derecho.worker.leases")


class LeaseStore(Protocol):
    """What the keeper asks of a store."""

    bell: Bell

    def now_ns(self) -> int: ...
    def renew_runs(self, held: Sequence[tuple[str, int]], lease_ns: int) -> list[LeaseState]: ...
    def renew_activities(self, attempts: Sequence[ActivityToken], lease_ns: int) -> list[LeaseState]: ...


class HeldAttempt(Protocol):
    """An attempt as the keeper sees it."""

    @property
    def token(self) -> ActivityToken: ...

    def learn(self, state: LeaseState) -> None:
        """Take notice of what the store says about the lease."""
        ...

    def flush(self, now_ns: int) -> int:
        """Write a heartbeat that waits if its time has come; return when it will have, 0 = none waits."""
        ...


class LeaseKeeper:
    """Renews the leases of running attempts and of runs in flight. All methods may be called from any thread.

    Args:
        store: whose clock and whose leases.
        run_lease_ns, activity_lease_ns: how long a renewal holds.
    """

    topic = LEASES

    def __init__(self, store: LeaseStore, *, run_lease_ns: int, activity_lease_ns: int) -> None:
        self._store = store
        self._run_lease_ns = run_lease_ns
        self._activity_lease_ns = activity_lease_ns
        self._lock = threading.Lock()
        self._attempts: dict[HeldAttempt, None] = {}
        self._runs: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._run_rhythm = _Rhythm(run_lease_ns // _RENEWALS)
        self._activity_rhythm = _Rhythm(activity_lease_ns // _RENEWALS)
        self._flush_ns = 0

    @property
    def bell(self) -> Bell:
        return self._store.bell

    # --- what is held

    def hold(self, attempt: HeldAttempt) -> None:
        """Renew an attempt until it is dropped or lost, and write its heartbeats that wait."""
        with self._lock:
            self._attempts[attempt] = None

    def drop(self, attempt: HeldAttempt) -> None:
        """Renew an attempt no more."""
        with self._lock:
            self._attempts.pop(attempt, None)

    def hold_run(self, run_id: str, token: int) -> None:
        """Renew a claimed run until it is dropped or lost."""
        with self._lock:
            self._runs[run_id] = token
            self._lost.pop(run_id, None)

    def drop_run(self, run_id: str, token: int) -> None:
        """Renew this claim of a run no more, and forget whether it was lost; a newer claim of it stays held."""
        with self._lock:
            for held in (self._runs, self._lost):
                if held.get(run_id) == token:
                    del held[run_id]

    def lost(self, run_id: str, token: int) -> bool:
        """Tell whether the store said that this claim of a held run is void: its task is run in vain."""
        with self._lock:
            return self._lost.get(run_id) == token

    def expect_heartbeat(self) -> None:
        """Look at the heartbeats that wait: there is a new one."""
        self.bell.ring((LEASES,))

    # --- the worker

    def process(self) -> int:
        """Renew what is due, and write heartbeats whose window has passed; return how many were renewed."""
        now_ns = self._store.now_ns()
        with self._lock:
            attempts, runs = [*self._attempts], [*self._runs.items()]
        done = 0
        if self._activity_rhythm.is_due(now_ns):
            done += self._renew("activities", attempts, self._renew_attempts, self._activity_rhythm, now_ns)
        if self._run_rhythm.is_due(now_ns):
            done += self._renew("runs", runs, self._renew_runs, self._run_rhythm, now_ns)
        # Last: heartbeats can wait, leases cannot.
        waiting = [moment for attempt in attempts if (moment := attempt.flush(now_ns))]
        self._flush_ns = min(waiting, default=0)
        return done

    def idle_s(self) -> float:
        """Return the seconds until the next renewal, or until a heartbeat has to be written."""
        moments = [self._activity_rhythm.next_ns, self._run_rhythm.next_ns]
        if self._flush_ns:
            moments.append(self._flush_ns)
        return min((min(moments) - self._store.now_ns()) / 1e9, IDLE_MAX_S)

    def _renew(
        self, what: str, held: Sequence[T], renew: Callable[[Sequence[T]], None], rhythm: _Rhythm, now_ns: int
    ) -> int:
        """Renew in batches. What fails is tried again soon, and keeps no other from its renewal."""
        failed = 0
        for first in range(0, len(held), RENEW_BATCH_MAX):
            batch = held[first : first + RENEW_BATCH_MAX]
            try:
                renew(batch)
            except Exception as error:
                failed += len(batch)
                log.warning("leases of %d %s could not be renewed: %s", len(batch), what, error)
        rhythm.beat(now_ns, is_ok=not failed)
        return len(held) - failed

    def _renew_attempts(self, batch: Sequence[HeldAttempt]) -> None:
        states = self._store.renew_activities([attempt.token for attempt in batch], self._activity_lease_ns)
        for attempt, state in zip(batch, states, strict=True):
            attempt.learn(state)

    def _renew_runs(self, batch: Sequence[tuple[str, int]]) -> None:
        states = self._store.renew_runs(batch, self._run_lease_ns)
        for (run_id, token), state in zip(batch, states, strict=True):
            if state is LeaseState.LOST:
                self._lose_run(run_id, token)

    def _lose_run(self, run_id: str, token: int) -> None:
        with self._lock:
            if self._runs.get(run_id) != token:
                return  # Dropped, or claimed anew, while we asked.
            del self._runs[run_id]
            self._lost[run_id] = token
        log.info("the lease of run %s is lost", run_id, extra={"run_id": run_id})


class _Rhythm:
    """When the next renewal is due, by the store's clock, whichever way that clock may jump."""

    __slots__ = ("_last_ns", "_period_ns", "next_ns")

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._last_ns = 0
        self.next_ns = 0

    def is_due(self, now_ns: int) -> bool:
        # A clock that was set back must not stop the renewals, for leases may be judged by another one.
        return not self._last_ns <= now_ns < self.next_ns

    def beat(self, now_ns: int, *, is_ok: bool) -> None:
        self._last_ns = now_ns
        self.next_ns = now_ns + (self._period_ns if is_ok else self._period_ns // 4)
