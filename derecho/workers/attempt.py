"""One attempt of an activity in this process: from its claim to what the store is told about it.

Stages
    WAITING -> RUNNING -> CONCLUDING -> OVER is the life of most. While WAITING or RUNNING an attempt can
    become LOST (the store says that its token is void) or RELEASED (this process shuts down); then its code
    may still run, but whatever comes out of it is dropped. Moves are made under the attempt's lock.
Heartbeats
    The first is written at once, then at most one in a window of a third of the heartbeat timeout, at most a
    second. What falls between is kept, and written by the lease keeper when the window has passed, since the
    activity may say nothing more before its timeout. What is unwritten at the end goes with a failed attempt.
Limits
    An outcome that the store fails to take is offered again a few times; then the attempt is left to its
    lease, which nobody renews any more, and the activity is done again.
"""

from __future__ import annotations

import enum
import inspect
import logging
import threading
from contextvars import Context
from dataclasses import replace
from typing import Any, Final, Protocol

from derecho.activities import ActivityContext, ActivityInfo
from derecho.clock import to_datetime
from derecho.errors import ActivityCancelledError
from derecho.journal.failures import failure_of
from derecho.payloads import Codec, encode_value
from derecho.policies import error_names
from derecho.stores.base import (
    ActivityResult,
    ActivityRow,
    ActivityToken,
    AttemptFailed,
    LeaseState,
    Outcome,
)

HEARTBEAT_WINDOW_MAX_NS: Final = 1_000_000_000
# Between offers of an outcome to a store that fails: enough for a restart of a database, not for an outage.
FINISH_PAUSES_S: Final = (0.05, 0.2, 1.0, 2.0)

log = logging.getLogger("derecho.worker.activity")


class Stage(enum.Enum):
    """Where an attempt stands in this process."""

    WAITING = "waiting"
    RUNNING = "running"
    CONCLUDING = "concluding"
    LOST = "lost"
    RELEASED = "released"
    OVER = "over"


class AttemptStore(Protocol):
    """What an attempt asks of a store."""

    def now_ns(self) -> int: ...
    def finish_activity(self, attempt: ActivityToken, outcome: Outcome) -> bool: ...
    def heartbeat(self, attempt: ActivityToken, details: bytes) -> LeaseState: ...


class Host(Protocol):
    """Who runs attempts, and is told what becomes of them."""

    def lost(self, attempt: Attempt) -> None:
        """Take the attempt off the count: its code may run on, but for nothing."""
        ...

    def ended(self, attempt: Attempt, *, is_late: bool) -> None:
        """Forget the attempt; `is_late` = what came out of it was dropped. May be told twice."""
        ...

    def write_heartbeat(self, attempt: Attempt) -> None:
        """Call `attempt.say()`, here or on a thread that may wait for the store."""
        ...

    def expect_heartbeat(self) -> None:
        """See to it that `attempt.flush()` is called when its window has passed."""
        ...

    def pause(self, pause_s: float) -> None:
        """Wait before the store is tried again."""
        ...


class Attempt:
    """A claimed attempt. `call` or `call_async` runs its code, `conclude` tells the store how it ended.

    None of them ever raises what the code raised.
    """

    __slots__ = (
        "_beat_ns",
        "_cancel_requested",
        "_codec",
        "_definition",
        "_details",
        "_error",
        "_host",
        "_is_unsaid",
        "_lock",
        "_row",
        "_stage",
        "_store",
        "_value",
        "_window_ns",
        "token",
    )

    def __init__(
        self, store: AttemptStore, row: ActivityRow, definition: Any, codec: Codec, host: Host
    ) -> None:
        self.token = ActivityToken(row.run_id, row.scheduled_id, row.token)
        self._store = store
        self._row = row
        self._definition = definition
        self._codec = codec
        self._host = host
        self._lock = threading.Lock()
        self._stage = Stage.WAITING
        self._value: Any = None
        self._error: BaseException | None = None
        self._cancel_requested = False
        self._details = row.heartbeat_details
        self._is_unsaid = False
        self._beat_ns = 0
        third_ns = row.heartbeat_ns // 3 or HEARTBEAT_WINDOW_MAX_NS
        self._window_ns = min(third_ns, HEARTBEAT_WINDOW_MAX_NS)

    @property
    def is_async(self) -> bool:
        return bool(self._definition.is_async)

    @property
    def error(self) -> BaseException | None:
        """What its code raised; only between `call` and `conclude`."""
        return self._error

    def __repr__(self) -> str:
        row = self._row
        return f"<attempt {row.attempt} of activity {row.name!r} of workflow {row.workflow_id!r}>"

    # --- running its code

    def bind(self, base: Context) -> Context:
        """Return a copy of `base` in which the activity's code finds this attempt."""
        return ActivityContext(self._info, self.heartbeat).bind(base)

    def call(self, base: Context) -> None:
        """Run the code of a sync activity on this thread and keep what comes out of it."""
        if not self._move(Stage.RUNNING, Stage.WAITING):
            return
        try:
            definition = self._definition
            args, kwargs = definition.signature.decode_args(self._codec, self._row.input)
            self._value = self.bind(base).run(definition.fn, *args, **kwargs)
        except BaseException as error:  # Also SystemExit: user code ends its attempt with it, not the engine.
            self._error = error

    async def call_async(self) -> None:
        """Run the code of an async activity, in a task whose context was made by `bind`."""
        if not self._move(Stage.RUNNING, Stage.WAITING):
            return
        try:
            definition = self._definition
            args, kwargs = definition.signature.decode_args(self._codec, self._row.input)
            self._value = await definition.fn(*args, **kwargs)
        except BaseException as error:  # Also SystemExit, which would tear down the event loop.
            self._error = error

    def _info(self) -> ActivityInfo:
        row = self._row
        return ActivityInfo(
            workflow_id=row.workflow_id,
            run_id=row.run_id,
            activity_name=row.name,
            scheduled_at=row.scheduled_id,
            attempt=row.attempt,
            scheduled_time=to_datetime(row.scheduled_at_ns),
            recorded_details=row.heartbeat_details,
            codec=self._codec,
        )

    # --- its end

    def conclude(self) -> None:
        """Tell the store what came out of it, unless nobody wants to know any more."""
        is_late = True
        try:
            if self._move(Stage.CONCLUDING, Stage.RUNNING):
                is_late = not self._record(self._outcome())
        finally:
            with self._lock:
                if self._stage is Stage.CONCLUDING:
                    self._stage = Stage.OVER
            self._value = self._error = None  # A traceback holds all frames of the activity.
            if is_late:
                log.debug("activity.late: %r changes nothing", self, extra=self._ids())
            self._host.ended(self, is_late=is_late)

    def crash(self, error: BaseException) -> None:
        """End an attempt that its thread could not bring to an end, as after an asynchronous exception."""
        log.error("%r was torn out of its thread", self, exc_info=error, extra=self._ids())
        if self._stage is Stage.RUNNING:
            self._error = error
            self.conclude()
        else:
            # Of an attempt that never began this is not the activity's fault: its lease ends, and that counts
            # for nothing.
            self._move(Stage.LOST, Stage.WAITING)
            self._host.ended(self, is_late=True)

    def lose(self) -> None:
        """Learn that the token is void: another worker has taken over, or the run is closed."""
        if self._move(Stage.LOST, Stage.WAITING, Stage.RUNNING):
            log.info("%r is no longer this worker's", self, extra=self._ids())
            self._host.lost(self)

    def release(self) -> bool:
        """Void it because this process shuts down; False if there is nothing to give back to the store."""
        return self._move(Stage.RELEASED, Stage.WAITING, Stage.RUNNING)

    def _outcome(self) -> Outcome:
        error, definition = self._error, self._definition
        if error is None:
            try:
                return ActivityResult(result=definition.signature.encode_result(self._codec, self._value))
            except Exception as problem:
                if inspect.iscoroutine(self._value):
                    self._value.close()  # Of a function that hides being async; the error says to await it.
                # What it did is done: another attempt would do it again, and fail again.
                return self._failed(problem, "application", is_final=True)
        if isinstance(error, ActivityCancelledError) and self._cancel_requested:
            return self._failed(error, "cancelled", is_final=True)
        return self._failed(error, "application" if isinstance(error, Exception) else "panic")

    def _failed(self, error: BaseException, kind: str, *, is_final: bool = False) -> AttemptFailed:
        log.warning("%r failed", self, exc_info=error, extra=self._ids())
        failure = failure_of(error, kind=kind)
        if is_final:
            failure = replace(failure, non_retryable=True)
        with self._lock:
            details = self._details if self._is_unsaid else b""
        return AttemptFailed(failure=failure, names=(kind, *error_names(error)), details=details)

    def _record(self, outcome: Outcome) -> bool:
        """Offer the outcome to the store; return whether it was taken, or may have been."""
        for pause_s in (*FINISH_PAUSES_S, None):
            try:
                return self._store.finish_activity(self.token, outcome)
            except Exception as error:
                if pause_s is None:
                    log.exception("the store does not take the outcome of %r; its lease will end it", self)
                    break
                log.warning("the store does not take the outcome of %r yet: %s", self, error)
                self._host.pause(pause_s)
        return True

    # --- what it says, and what it is told

    def heartbeat(self, details: Any) -> None:
        """See `derecho.activities.heartbeat`."""
        data = None
        if details is not None:
            data = encode_value(self._codec, details, f"heartbeat details of activity {self._row.name!r}")
        now_ns = self._store.now_ns()
        with self._lock:
            self._check_wanted()
            if data is not None:
                self._details = data
            is_first_unsaid = not self._is_unsaid
            self._is_unsaid = True
            is_due = self._is_due(now_ns)
            if is_due:
                self._beat_ns = now_ns
        if is_due:
            self._host.write_heartbeat(self)
        elif is_first_unsaid:
            self._host.expect_heartbeat()
        with self._lock:
            self._check_wanted()
            if self._cancel_requested:
                raise ActivityCancelledError(f"activity {self._row.name!r} was asked to cancel")

    def flush(self, now_ns: int) -> int:
        """Write a heartbeat that waits if its time has come; return when it will have, 0 = none waits."""
        with self._lock:
            if not self._is_unsaid or self._stage is not Stage.RUNNING:
                return 0
            if not self._is_due(now_ns):
                return self._beat_ns + self._window_ns
            self._beat_ns = now_ns
        self.say()
        return 0

    def say(self) -> None:
        """Write the heartbeat now. Trouble of the store is not the activity's: the next one tries again."""
        with self._lock:
            if self._stage not in (Stage.RUNNING, Stage.RELEASED):
                return
            details, self._is_unsaid = self._details, False
        try:
            state = self._store.heartbeat(self.token, details)
        except Exception as error:
            log.warning("a heartbeat of %r could not be written: %s", self, error, extra=self._ids())
            with self._lock:
                self._is_unsaid = True
            return
        self.learn(state)

    def say_last(self) -> None:
        """Write a heartbeat that waits, before the attempt is given back."""
        if self._is_unsaid:
            self.say()

    def learn(self, state: LeaseState) -> None:
        """Take notice of what the store says about the lease."""
        if state is LeaseState.LOST:
            self.lose()
        elif state is LeaseState.CANCEL_REQUESTED:
            self._cancel_requested = True

    def _is_due(self, now_ns: int) -> bool:
        # A clock that was set back must not silence it.
        return not self._beat_ns or not 0 <= now_ns - self._beat_ns < self._window_ns

    def _check_wanted(self) -> None:
        if self._stage is not Stage.RUNNING:
            raise ActivityCancelledError(
                f"nobody waits for this attempt of activity {self._row.name!r} any more ({self._stage.value})"
            )

    def _move(self, target: Stage, *sources: Stage) -> bool:
        with self._lock:
            if self._stage not in sources:
                return False
            self._stage = target
            return True

    def _ids(self) -> dict[str, Any]:
        row = self._row
        return {"workflow_id": row.workflow_id, "run_id": row.run_id, "activity_name": row.name}
