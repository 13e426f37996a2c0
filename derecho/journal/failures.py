"""From an exception to the failure that is recorded, and from that to the exception that is raised again.

A recorded failure is read on other machines and by replay, so it holds text alone: no stack, no object.
Nothing that an exception does when it is asked for its text can make the recording fail.
"""

from __future__ import annotations

from typing import Final

from derecho.errors import (
    ActivityError,
    ActivityTimeoutError,
    ChildWorkflowError,
    NonRetryableError,
    RetryAfter,
    SideEffectError,
)
from derecho.journal.events import Failure
from derecho.policies import duration_ns

__all__ = ["MESSAGE_BYTES_MAX", "activity_error", "child_error", "failure_of", "side_effect_error"]

MESSAGE_BYTES_MAX: Final = 16 * 1024
_TYPE_BYTES_MAX: Final = 256
_TIMEOUT_KINDS: Final = ("schedule_to_start", "start_to_close", "schedule_to_close", "heartbeat")
_UNRECORDED: Final = Failure(kind="application", message="it failed, and the journal does not say why")


def failure_of(error: BaseException, *, kind: str = "application") -> Failure:
    """Return what is recorded of an exception; never raises for anything that is wrong with the exception.

    A `NonRetryableError` without a message of its own marks its `__cause__`, which is recorded instead.
    """
    message = _message(error)
    origin = error
    next_retry_delay_ns = 0
    if isinstance(error, NonRetryableError) and not message and error.__cause__ is not None:
        origin = error.__cause__
        message = _message(origin)
    elif isinstance(error, RetryAfter):
        try:
            next_retry_delay_ns = duration_ns(error.delay, "delay")
        except (TypeError, ValueError, OverflowError) as refusal:
            message = f"{message} (the delay of RetryAfter is ignored: {_message(refusal)})"
    return Failure(
        kind=kind,
        message=_bounded(message, MESSAGE_BYTES_MAX),
        type=_bounded(type(origin).__name__, _TYPE_BYTES_MAX),
        non_retryable=isinstance(error, NonRetryableError),
        next_retry_delay_ns=next_retry_delay_ns,
    )


def _message(error: BaseException) -> str:
    try:
        return "".join([str(error)])  # str() may give a subclass with ideas of its own; this is a plain str.
    except Exception as trouble:
        return f"(its text cannot be had: str() raised {type(trouble).__name__})"


def _bounded(text: str, bytes_max: int) -> str:
    """Return text that JSON can hold, cut at `bytes_max` bytes of UTF-8 and then saying so."""
    # Lone surrogates, as in file names that are not UTF-8, become visible escapes.
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    mark = f"... ({len(encoded)} bytes)"
    return encoded[: bytes_max - len(mark)].decode("utf-8", "ignore") + mark


def activity_error(failure: Failure | None, attempts: int) -> ActivityError | ActivityTimeoutError:
    """Return the exception that the workflow gets for an activity that failed for good."""
    failure = failure or _UNRECORDED
    if failure.kind != "timeout":
        return ActivityError(
            failure.message, kind=failure.kind, type=failure.type, details=failure.details, attempts=attempts
        )
    error = ActivityTimeoutError(failure.message, timeout_kind=_timeout_kind(failure), attempts=attempts)
    error.type = failure.type
    error.details = {**error.details, **failure.details}
    return error


def _timeout_kind(failure: Failure) -> str:
    # The original has it in the message alone: "activity timeout: start_to_close".
    said = failure.details.get("timeout_kind") or failure.message.rpartition(": ")[2]
    return said if said in _TIMEOUT_KINDS else ""


def child_error(failure: Failure | None, workflow_id: str, run_id: str) -> ChildWorkflowError:
    """Return the exception that the parent gets for a child that failed, or could not be started."""
    failure = failure or _UNRECORDED
    return ChildWorkflowError(
        failure.message,
        workflow_id=workflow_id,
        run_id=run_id,
        kind=failure.kind,
        type=failure.type,
        details=failure.details,
    )


def side_effect_error(failure: Failure) -> SideEffectError:
    """Return the exception that a side effect raises, at its first execution and on every replay."""
    return SideEffectError(failure.type, failure.message)
