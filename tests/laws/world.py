"""What lies outside of the workflows of the corpus: a clock, hands that act on runs, and a ledger of deeds.

Activities and side effects are functions of a module, so the world of the life that goes on is one module variable.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from derecho import Client, Store, Workflow, activity_info
from derecho.journal import ActivityCompleted, ActivityFailed
from derecho.testing.clock import FakeClock

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Deed:
    """One execution of an activity's code."""

    run_id: str
    scheduled_id: int
    attempt: int
    name: str


@dataclass(slots=True)
class World:
    """The surroundings of one life.

    Attributes:
        ledger: every execution of an activity, in order.
        computed_again: executions of activities whose outcome was already in the journal (G3 broken).
        drawn: how often each side effect was really executed.
    """

    clock: FakeClock
    store: Store
    ledger: list[Deed] = field(default_factory=list)
    computed_again: list[Deed] = field(default_factory=list)
    drawn: Counter[str] = field(default_factory=Counter)

    def note(self) -> int:
        """Enter the calling activity into the ledger; return how often it has been executed now."""
        info = activity_info()
        deed = Deed(info.run_id, info.scheduled_at, info.attempt, info.activity_name)
        self.ledger.append(deed)
        for event in self.store.load_events(info.run_id, info.scheduled_at):
            outcome = isinstance(event, ActivityCompleted | ActivityFailed)
            if outcome and event.scheduled_by_id == info.scheduled_at:
                self.computed_again.append(deed)
        return sum(
            known.run_id == deed.run_id and known.scheduled_id == deed.scheduled_id for known in self.ledger
        )


_of_this_life: list[World] = []


def begin(world: World | None) -> None:
    """Make this the world that activities and side effects see."""
    _of_this_life[:] = [world] if world is not None else []


def world() -> World:
    """Return the world of the life that goes on."""
    return _of_this_life[-1]


@dataclass(slots=True)
class Hands:
    """A client and the powers of time: what a script can do. Each request has an id that a repetition shares."""

    client: Client
    clock: FakeClock
    requests: int = 0

    def _client(self) -> Client:
        self.requests += 1
        return self.client.options(request_id=f"request-{self.requests}")

    def start(self, workflow_id: str, workflow: Workflow[..., Any], args: tuple[Any, ...]) -> None:
        self._client().start_workflow(workflow, workflow_id, *args)

    def signal(self, name: str, payload: object = None, workflow_id: str = MAIN) -> None:
        self._client().signal_workflow(workflow_id, name, payload)

    def raw_signal(self, name: str, data: bytes, workflow_id: str = MAIN) -> None:
        self.requests += 1
        self.client.store.signal(workflow_id, "", name, data, f"request-{self.requests}")

    def cancel(self, reason: str = "enough", timeout_s: float | None = None) -> None:
        self._client().cancel_workflow(MAIN, reason, timeout=timeout_s)

    def terminate(self, reason: str = "no more") -> None:
        self._client().terminate_workflow(MAIN, reason)

    def advance(self, duration_s: float) -> None:
        self.clock.advance(duration_s)

    def fire(self) -> None:
        """Fire the timers that are due, before anything else happens."""
        self.client.store.fire_timers(100)

    def expire(self) -> None:
        self.client.store.expire(100)


Act = Callable[[Hands], None]


def sends(name: str, *payloads: object) -> Act:
    """Return an act that sends signals, one after another."""

    def act(hands: Hands) -> None:
        for payload in payloads:
            hands.signal(name, payload)

    return act


def both(*acts: Act) -> Act:
    """Return an act of several: the run sees all that they do at once."""

    def act(hands: Hands) -> None:
        for part in acts:
            part(hands)

    return act


def raw(value: object) -> bytes:
    """Return the payload that a client with another idea of the type would send."""
    return json.dumps(value).encode()
