"""What all stores of this package share: each method of `Store` that writes, as one transaction.

A concrete store implements `_transact_all` (several verbs in one group), `_read` methods, and its `Tx`.
"""

from __future__ import annotations

import abc
import logging
import secrets
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from derecho.clock import Clock, SystemClock
from derecho.journal.events import Event
from derecho.stores import transactions, work
from derecho.stores.base import (
    ActivityRow,
    ActivityToken,
    Claim,
    Committed,
    Due,
    LeaseState,
    Outcome,
    RunFilter,
    RunPage,
    RunRow,
    StartRequest,
    TaskCommit,
    Tx,
)
from derecho.stores.bell import Bell

log = logging.getLogger("derecho.stores")

T = TypeVar("T")
Verb = Callable[[Tx], T]


def time_ordered_id(now_ns: int) -> str:
    """Return a fresh id that sorts by time (a UUID of version 7, RFC 9562), so that new rows lie side by side."""
    value = (now_ns // 1_000_000 & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class SharedStore(abc.ABC):
    """The writing half of `Store`, over `_transact_all`."""

    def __init__(self, clock: Clock | None, new_id: Callable[[], str] | None) -> None:
        self.bell = Bell()
        self._clock = clock or SystemClock()
        self._new_id = new_id

    @abc.abstractmethod
    def _transact_all(self, verbs: Sequence[Verb[Any]], *, durable: bool) -> list[Any]:
        """Run verbs in order, each all or nothing, and return for each its answer or the exception it raised.

        Args:
            durable: whether the answer acknowledges something to somebody, so that it has to be on disk first.
        """

    @abc.abstractmethod
    def find_run(self, workflow_id: str, run_id: str = "") -> RunRow | None: ...

    @abc.abstractmethod
    def list_runs(self, which: RunFilter, limit: int, after: tuple[int, str] | None) -> RunPage: ...

    @abc.abstractmethod
    def count_runs(self, which: RunFilter) -> int: ...

    @abc.abstractmethod
    def load_events(self, run_id: str, after_id: int = 0, *, external_only: bool = False) -> list[Event]: ...

    @abc.abstractmethod
    def next_due(self, worker_id: str) -> Due: ...

    @abc.abstractmethod
    def close(self) -> None: ...

    def now_ns(self) -> int:
        """Return the store's clock."""
        return self._clock.now_ns()

    def new_id(self) -> str:
        """Return a fresh run id."""
        return self._new_id() if self._new_id is not None else time_ordered_id(self.now_ns())

    def _transact(self, verb: Verb[T], *, durable: bool) -> T:
        [answer] = self._transact_all([verb], durable=durable)
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]  # The list is of Any: each verb has its own answer.

    # Clients. Every one of these is an acknowledgement.

    def start_runs(self, requests: Sequence[StartRequest]) -> list[str | Exception]:
        return self._transact_all([partial(transactions.start, request=r) for r in requests], durable=True)

    def signal(self, workflow_id: str, run_id: str, name: str, payload: bytes, request_id: str) -> str:
        return self._transact(
            lambda tx: transactions.signal(tx, workflow_id, run_id, name, payload, request_id), durable=True
        )

    def cancel(self, workflow_id: str, run_id: str, reason: str, timeout_ns: int, request_id: str) -> str:
        return self._transact(
            lambda tx: transactions.cancel(tx, workflow_id, run_id, reason, timeout_ns, request_id),
            durable=True,
        )

    def terminate(self, workflow_id: str, run_id: str, reason: str, request_id: str) -> str:
        return self._transact(
            lambda tx: transactions.terminate(tx, workflow_id, run_id, reason, request_id), durable=True
        )

    # Workflow worker. A claim or a lease that is lost with the machine is only claimed again.

    def claim_runs(
        self,
        worker_id: str,
        names: Collection[str] | None,
        limit: int,
        lease_ns: int,
        passed_over: Collection[str] = (),
    ) -> list[Claim]:
        return self._transact(
            lambda tx: transactions.claim_runs(tx, worker_id, names, limit, lease_ns, passed_over),
            durable=False,
        )

    def commit_tasks(self, commits: Sequence[TaskCommit]) -> list[Committed | Exception]:
        return self._transact_all(
            [partial(transactions.commit_task, commit=c) for c in commits], durable=True
        )

    def fail_task(self, run_id: str, token: int, reason: str) -> bool:
        return self._transact(lambda tx: transactions.fail_task(tx, run_id, token, reason), durable=False)

    def release_runs(self, held: Sequence[tuple[str, int]]) -> None:
        self._transact(lambda tx: transactions.release_runs(tx, held), durable=False)

    def renew_runs(self, held: Sequence[tuple[str, int]], lease_ns: int) -> list[LeaseState]:
        return self._transact(lambda tx: transactions.renew_runs(tx, held, lease_ns), durable=False)

    # Activity worker.

    def claim_activities(
        self, worker_id: str, names: Collection[str] | None, limit: int, lease_ns: int
    ) -> list[ActivityRow]:
        return self._transact(
            lambda tx: work.claim_activities(tx, worker_id, names, limit, lease_ns), durable=False
        )

    def finish_activity(self, attempt: ActivityToken, outcome: Outcome) -> bool:
        return self._transact(lambda tx: work.finish_activity(tx, attempt, outcome), durable=True)

    def release_activities(self, attempts: Sequence[ActivityToken]) -> None:
        self._transact(lambda tx: work.release_activities(tx, attempts), durable=False)

    def heartbeat(self, attempt: ActivityToken, details: bytes) -> LeaseState:
        return self._transact(lambda tx: work.heartbeat(tx, attempt, details), durable=False)

    def renew_activities(self, attempts: Sequence[ActivityToken], lease_ns: int) -> list[LeaseState]:
        return self._transact(lambda tx: work.renew_activities(tx, attempts, lease_ns), durable=False)

    # Timer worker and timeout worker. What they record, they can find again: no acknowledgement hangs on it. Each
    # row is dealt with by a verb of its own, so that one that cannot be never holds up the others (G6).

    def fire_timers(self, limit: int) -> int:
        due = self._transact(lambda tx: tx.due_timers(limit), durable=False)
        return self._each([partial(work.fire_timer, timer=timer) for timer in due])

    def expire(self, limit: int) -> int:
        due = self._transact(lambda tx: (tx.due_activities(limit), tx.cancels_due(limit)), durable=False)
        activities, cancels = due
        return self._each(
            [
                *(
                    partial(work.expire_activity, run_id=row.run_id, scheduled_id=row.scheduled_id)
                    for row in activities
                ),
                *(partial(transactions.end_overdue_cancel, run_id=row.run_id) for row in cancels),
            ]
        )

    def _each(self, verbs: Sequence[Verb[bool]]) -> int:
        """Run verbs as one group; log those that fail, and count those that changed something."""
        changed = 0
        for answer in self._transact_all(verbs, durable=False) if verbs else ():
            if isinstance(answer, Exception):
                log.error("a due row could not be dealt with; it is tried again", exc_info=answer)
            else:
                changed += answer
        return changed
