"""The activity worker: claims activities that this process can run, and hands them to its runner.

It claims only what there are free slots for, and only names that are registered here: what it cannot run it
neither takes nor fails. A custom resolver that cannot list its names is asked for each claimed one; what that
does not know goes back to the store untouched, and this worker alone leaves such names out for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

from derecho.payloads import Codec
from derecho.registry import claimable_names
from derecho.stores.base import CLAIM_BATCH_MAX, ActivityRow, ActivityToken, Store
from derecho.stores.bell import ACTIVITIES, Bell
from derecho.workers.attempt import Attempt
from derecho.workers.idle import rest_s
from derecho.workers.leases import HeldAttempt
from derecho.workers.loop import IDLE_MAX_S
from derecho.workers.runner import Runner

NAMES_MAX: Final = 10_000  # That a worker remembers of a resolver which cannot list them.
_BACKOFF_FIRST_NS: Final = 1_000_000_000
_BACKOFF_MAX_NS: Final = 10_000_000_000

log = logging.getLogger("derecho.worker.activity")


class Leases(Protocol):
    """Keeps the leases of attempts alive while they run."""

    def hold(self, attempt: HeldAttempt) -> None: ...
    def drop(self, attempt: HeldAttempt) -> None: ...
    def expect_heartbeat(self) -> None: ...


class ActivityWorker:
    """Claims activities for one runner; `process` is called by one thread.

    Args:
        resolver: finds definitions: a `Registry`, or an `ActivityResolver`.
        worker_id: names the worker in leases and journals.
        runner: runs the attempts; it belongs to this worker alone.
        lease_ns: how long a claim holds without being renewed.
        leases: renews them; without it an activity must end within its lease.
    """

    topic = ACTIVITIES

    def __init__(
        self,
        store: Store,
        resolver: Any,
        *,
        worker_id: str,
        codec: Codec,
        runner: Runner,
        lease_ns: int,
        leases: Leases | None = None,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._worker_id = worker_id
        self._codec = codec
        self._runner = runner
        self._lease_ns = lease_ns
        self._leases = leases
        self._names = _Names(store.now_ns)
        self._looked_ns = 0
        runner.attach(self)

    @property
    def bell(self) -> Bell:
        return self._store.bell

    @property
    def late_results(self) -> int:
        """How many attempts ended after nobody waited for them any more."""
        return self._runner.late_results

    @property
    def backed_off_until_ns(self) -> int:
        """When a name that the resolver did not know may be tried again; 0 = none is left out."""
        return self._names.next_ns()

    def troubles(self) -> Sequence[str]:
        """Say what keeps this worker from claiming; empty if it is well."""
        trouble = self._runner.trouble
        return [trouble] if trouble else []

    def process(self) -> int:
        """Claim as many activities as there are free slots, and run them; return how many."""
        free = self._runner.free_slots
        self._looked_ns = self._store.now_ns()
        if not free:
            return 0  # The runner rings when a slot is free.
        names = self._names.claimable(claimable_names(self._resolver, "activity"))
        if names is not None and not names:
            return 0
        rows = self._store.claim_activities(
            self._worker_id, names, min(free, CLAIM_BATCH_MAX), self._lease_ns
        )
        return self.take(rows) if rows else 0

    def take(self, rows: Sequence[ActivityRow]) -> int:
        """Run attempts that are leased to this worker; return how many. What it cannot run is given back."""
        untaken = {id(row): row for row in rows}
        taken = 0
        try:
            for row in rows:
                definition = self._resolve(row.name)
                if definition is None:
                    continue
                attempt = Attempt(self._store, row, definition, self._codec, self._runner)
                if self._leases is not None:
                    self._leases.hold(attempt)
                if self._runner.submit(attempt):
                    del untaken[id(row)]
                    taken += 1
                else:
                    self.attempt_left(attempt)
        finally:
            # Also on the way of an exception: a claim that nobody runs would stand until its lease ends.
            if untaken:
                self._release([_token(row) for row in untaken.values()])
        return taken

    def idle_s(self) -> float:
        """Return the seconds until an activity may become claimable without a ring."""
        if not self._runner.free_slots:
            return IDLE_MAX_S
        now_ns = self._store.now_ns()
        due_ns = self._store.next_due(self._worker_id).activities_ns
        # What was due when we looked and was not claimed is not for us, as far as we know.
        idle_s = rest_s(due_ns, looked_ns=self._looked_ns, now_ns=now_ns, out_of_reach_s=IDLE_MAX_S)
        until_ns = self._names.next_ns()
        return min(idle_s, max(until_ns - now_ns, 0) / 1e9) if until_ns else idle_s

    def stop(self, grace_s: float) -> None:
        """Claim nothing more, wait `grace_s` for attempts to end, give the rest back as if never begun."""
        left = self._runner.stop(grace_s)
        for attempt in left:
            attempt.say_last()
            self.attempt_left(attempt)
        if left:
            log.warning("%d activities did not end within %.1f s and are given back", len(left), grace_s)
            self._release([attempt.token for attempt in left])

    def _resolve(self, name: str) -> Any | None:
        try:
            definition = self._resolver.resolve_activity(name)
        except Exception:
            log.exception("the resolver failed on activity %r", name)
            definition = None
        if definition is None:
            self._names.miss(name)
        else:
            self._names.hit(name)
        return definition

    def _release(self, tokens: Sequence[ActivityToken]) -> None:
        try:
            self._store.release_activities(tokens)
        except Exception as error:
            log.warning("%d activities could not be given back; their leases end: %s", len(tokens), error)

    # What the runner tells.

    def slot_freed(self) -> None:
        self.bell.ring((ACTIVITIES,))

    def attempt_left(self, attempt: Attempt) -> None:
        if self._leases is not None:
            self._leases.drop(attempt)

    def heartbeat_waits(self) -> None:
        if self._leases is not None:
            self._leases.expect_heartbeat()


class _Names:
    """Which names a resolver knew and which it did not, as far as was seen."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._known: dict[str, None] = {}
        # Name -> until when it is left out, and for how long it was.
        self._missed: dict[str, tuple[int, int]] = {}

    def hit(self, name: str) -> None:
        if self._missed:
            self._missed.pop(name, None)
        if name not in self._known and len(self._known) < NAMES_MAX:
            self._known[name] = None

    def miss(self, name: str) -> None:
        """Leave a name out for 1 s, doubled each time up to 10 s."""
        now_ns = self._now_ns()
        until_ns, delay_ns = self._missed.get(name, (0, 0))
        if until_ns > now_ns:
            return  # Another one of the same batch.
        if not delay_ns:
            log.warning("activity %r is not known here and is left to other workers", name)
        if len(self._missed) >= NAMES_MAX:
            self._missed.clear()
        self._known.pop(name, None)
        delay_ns = min(max(2 * delay_ns, _BACKOFF_FIRST_NS), _BACKOFF_MAX_NS)
        self._missed[name] = (now_ns + delay_ns, delay_ns)

    def claimable(self, offered: Collection[str] | None) -> Collection[str] | None:
        """Return what to claim now, of the names that a resolver offers (None = any)."""
        if not self._missed:
            return offered
        left_out = {name for name, (until_ns, _) in self._missed.items() if until_ns > self._now_ns()}
        if not left_out:
            return offered
        # With the unknown ones before our eyes, `any` would mean them again, and for ever.
        wanted = self._known.keys() if offered is None else offered
        return [name for name in wanted if name not in left_out]

    def next_ns(self) -> int:
        """Return when the next name may be tried again; 0 = none is left out."""
        now_ns = self._now_ns()
        return min((until_ns for until_ns, _ in self._missed.values() if until_ns > now_ns), default=0)


def _token(row: ActivityRow) -> ActivityToken:
    return ActivityToken(row.run_id, row.scheduled_id, row.token)
