"""What activity code may ask of Derecho: which attempt am I, and "I am alive, so far have I come".

Whoever runs an attempt binds an `ActivityContext` to the context variables under which the code runs. They go
wherever Python carries them: into the activity's thread, its asyncio task, and from there into
`asyncio.to_thread`. A thread that activity code starts by itself has them only if its target is run by
`contextvars.copy_context().run`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from derecho.errors import DerechoError
from derecho.payloads import Codec, JSONCodec, decode_value

__all__ = ["ActivityContext", "ActivityInfo", "activity_info", "heartbeat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityInfo:
    """Which attempt of which activity this is.

    Attributes:
        workflow_id, run_id: of the run that asked for it.
        activity_name: the name under which it was asked for.
        scheduled_at: the event id of its ActivityScheduled.
        attempt: 1 for the first.
        scheduled_time: when it was asked for, aware UTC.
        recorded_details, codec: what `heartbeat_details` is read from.
    """

    workflow_id: str
    run_id: str
    activity_name: str
    scheduled_at: int
    attempt: int
    scheduled_time: datetime
    recorded_details: bytes = field(default=b"", repr=False)
    codec: Codec = field(default_factory=JSONCodec, repr=False, compare=False)

    @property
    def idempotency_key(self) -> str:
        """The same on every attempt, and of no other activity: for a service that must act only once."""
        return f"{self.workflow_id}/{self.run_id}/{self.scheduled_at}"

    @property
    def attempt_key(self) -> str:
        """Differs on every attempt."""
        return f"{self.workflow_id}/{self.scheduled_at}/{self.attempt}"

    @property
    def heartbeat_details(self) -> Any:
        """What the last heartbeat of an earlier attempt said, as plain JSON values, or None.

        Raises:
            CodecError: the codec cannot read it.
        """
        if not self.recorded_details:
            return None
        return decode_value(
            self.codec, self.recorded_details, Any, f"heartbeat details of activity {self.activity_name!r}"
        )


class ActivityContext:
    """What activity code sees of its attempt.

    Args:
        info: makes the info when it is first asked for; most activities never do.
        heartbeat: takes the details, or None.
    """

    __slots__ = ("_info", "_make_info", "heartbeat")

    def __init__(self, info: Callable[[], ActivityInfo], heartbeat: Callable[[Any], None]) -> None:
        self._make_info = info
        self._info: ActivityInfo | None = None
        self.heartbeat = heartbeat

    @property
    def info(self) -> ActivityInfo:
        info = self._info
        if info is None:
            info = self._info = self._make_info()
        return info

    def bind(self, base: Context) -> Context:
        """Return a copy of `base` in which activity code finds this."""
        context = base.copy()
        context.run(_current.set, self)
        return context


_current: ContextVar[ActivityContext | None] = ContextVar("derecho.activity", default=None)


def activity_info() -> ActivityInfo:
    """Return which attempt of which activity the calling code belongs to.

    Raises:
        DerechoError: called outside an activity.
    """
    return _context("activity_info()").info


def heartbeat(details: Any = None) -> None:
    """Say that the attempt is alive and, with `details`, how far it has come.

    The next attempt finds the last details in `activity_info().heartbeat_details`; None leaves what was said
    before. It is cheap: of the calls in a third of the heartbeat timeout, and in a second, one is written.

    Raises:
        ActivityCancelledError: nobody waits for this attempt any more: its activity was asked to cancel, its
            run is closed, or another worker has taken over. Clean up, and let the error out or return.
        CodecError: `details` cannot be encoded.
        DerechoError: called outside an activity.
    """
    _context("heartbeat()").heartbeat(details)


def _context(what: str) -> ActivityContext:
    context = _current.get()
    if context is None:
        raise DerechoError(
            f"{what} was called outside an activity. Workflow code cannot use it: call it in the activity. "
            "A thread of its own has to run its target by contextvars.copy_context().run"
        )
    return context
