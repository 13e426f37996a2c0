"""Every exception that Derecho raises on purpose.

One tree under `DerechoError`, with fields and not only text, so that a program can decide without parsing messages.
`CancelledError` alone stands outside the tree: it derives from `BaseException`, so that an `except Exception` in
workflow code cannot swallow a cancellation by accident.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ActivityCancelledError",
    "ActivityError",
    "ActivityTimeoutError",
    "CancelledError",
    "ChannelClosedError",
    "ChildWorkflowError",
    "CodecError",
    "ContinuedAsNewError",
    "DeadlockError",
    "DerechoError",
    "JournalError",
    "LeaseLostError",
    "NonRetryableError",
    "NondeterminismError",
    "NotCompletedError",
    "NotInWorkflowError",
    "RegistrationError",
    "RetryAfter",
    "RunClosingError",
    "SideEffectError",
    "StoreError",
    "TimerCancelledError",
    "WorkflowAlreadyRunningError",
    "WorkflowCancelledError",
    "WorkflowFailedError",
    "WorkflowNotFoundError",
    "WorkflowTerminatedError",
]


class DerechoError(Exception):
    """The base of all errors of this library but `CancelledError`."""


# Misuse: the program is wrong, and the message says how to put it right.


class NotInWorkflowError(DerechoError):
    """Something that only workflow code may call was called elsewhere, or at a moment when it must not be."""


class RegistrationError(DerechoError):
    """A workflow or an activity cannot be registered as it stands."""


class CodecError(DerechoError):
    """A value cannot be encoded, or stored bytes cannot be decoded into the type that was asked for."""


class JournalError(DerechoError):
    """A journal is not legal: ids with gaps, two terminal events, an outcome without its command..."""


# Raised in workflow code.


class CancelledError(BaseException):
    """The run was asked to cancel; raised once in each fiber, at its wait.

    Attributes:
        reason: what the one who asked wrote, or an empty string.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class ActivityError(DerechoError):
    """An activity failed for good: its last attempt raised, or no further attempt is allowed.

    Attributes:
        kind: "application", "timeout", "cancelled" or "panic".
        type: the class name of the exception that the activity raised, or an empty string.
        message: its text.
        details: further facts as text, such as the kind of the timeout.
        attempts: how many attempts were made.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "application",
        type: str = "",
        details: Mapping[str, str] | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.type = type
        self.message = message
        self.details = dict(details or {})
        self.attempts = attempts


class ActivityTimeoutError(ActivityError):
    """An activity ran out of time.

    Attributes:
        timeout_kind: "schedule_to_start", "start_to_close", "schedule_to_close" or "heartbeat".
    """

    def __init__(self, message: str, *, timeout_kind: str, attempts: int = 1) -> None:
        super().__init__(message, kind="timeout", details={"timeout_kind": timeout_kind}, attempts=attempts)
        self.timeout_kind = timeout_kind


class ChildWorkflowError(DerechoError):
    """A child workflow failed, was cancelled or terminated, or could not be started.

    Attributes:
        workflow_id, run_id: of the child; `run_id` is empty if it never started.
        kind, type, message, details: as in `ActivityError`.
    """

    def __init__(
        self,
        message: str,
        *,
        workflow_id: str,
        run_id: str = "",
        kind: str = "application",
        type: str = "",
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.kind = kind
        self.type = type
        self.message = message
        self.details = dict(details or {})


class SideEffectError(DerechoError):
    """The function given to `side_effect` raised; the same error comes again on every replay.

    Attributes:
        type: the class name of the original exception.
        message: its text.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}" if type else message)
        self.type = type
        self.message = message


class TimerCancelledError(DerechoError):
    """The timer whose future was asked has been cancelled."""


class ChannelClosedError(DerechoError):
    """The channel is closed: nothing can be sent, and nothing is left to receive."""


# Raised in, or by, activity code.


class NonRetryableError(DerechoError):
    """Raise it in an activity to say: no further attempt. Chain the reason with `raise ... from error`."""


class RetryAfter(DerechoError):
    """Raise it in an activity to choose the delay before the next attempt.

    Attributes:
        delay: seconds (int, float) or timedelta, not negative.
    """

    def __init__(self, delay: Any, message: str = "") -> None:
        super().__init__(message or f"retry after {delay}")
        self.delay = delay


class ActivityCancelledError(DerechoError):
    """Raised by `heartbeat()`: the outcome of this attempt is no longer wanted, so clean up and return."""


# A run that cannot go on until somebody mends something.


class NondeterminismError(DerechoError):
    """Workflow code did not ask again for what its journal says that it asked for.

    Attributes:
        workflow_id, run_id: of the run.
        event_id: the recorded event that does not match.
        expected, got: what is recorded, and what the code asked for now.
        expected_site, got_site: "file:line" of each, or an empty string if unknown.
    """

    def __init__(
        self,
        *,
        workflow_id: str,
        run_id: str,
        event_id: int,
        expected: str,
        got: str,
        expected_site: str = "",
        got_site: str = "",
    ) -> None:
        at_expected = f" ({expected_site})" if expected_site else ""
        at_got = f" ({got_site})" if got_site else ""
        super().__init__(
            f"workflow {workflow_id!r} (run {run_id}) does not follow its journal at event {event_id}:\n"
            f"  recorded: {expected}{at_expected}\n"
            f"  now:      {got}{at_got}\n"
            "Put the old code back, or keep the old path for runs that already took it; "
            "the run stays open and goes on by itself once the code fits its journal again."
        )
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.event_id = event_id
        self.expected = expected
        self.got = got
        self.expected_site = expected_site
        self.got_site = got_site


class DeadlockError(DerechoError):
    """Workflow code did not yield in time: it loops, sleeps for real, or does I/O."""


# Raised by the client and by stores.


class WorkflowFailedError(DerechoError):
    """The run failed.

    Attributes:
        failure: the recorded failure (`derecho.journal.Failure`).
    """

    def __init__(self, failure: Any) -> None:
        super().__init__(failure.describe())
        self.failure = failure


class WorkflowCancelledError(DerechoError):
    """The run ended because it was asked to cancel.

    Attributes:
        reason: why, or an empty string.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(f"the workflow was cancelled: {reason}" if reason else "the workflow was cancelled")
        self.reason = reason


class WorkflowTerminatedError(DerechoError):
    """The run was ended from outside, without its code having a say.

    Attributes:
        reason: why, or an empty string.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(
            f"the workflow was terminated: {reason}" if reason else "the workflow was terminated"
        )
        self.reason = reason


class ContinuedAsNewError(DerechoError):
    """The run ended by continuing as new, and `get(follow=False)` was asked not to follow.

    Attributes:
        run_id: of the run that goes on.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(f"the workflow continued as new in run {run_id}")
        self.run_id = run_id


class NotCompletedError(DerechoError, TimeoutError):
    """The run is not closed yet, and `get` was asked not to wait longer."""


class WorkflowNotFoundError(DerechoError):
    """No such run, or none that is open where an open one is needed.

    Attributes:
        workflow_id, run_id: what was asked for; `run_id` may be empty.
    """

    def __init__(self, workflow_id: str, run_id: str = "", *, detail: str = "") -> None:
        run = f" (run {run_id})" if run_id else ""
        super().__init__(f"workflow {workflow_id!r}{run} {detail or 'does not exist in this store'}")
        self.workflow_id = workflow_id
        self.run_id = run_id


class WorkflowAlreadyRunningError(DerechoError):
    """A workflow id has at most one open run, and this one has one.

    Attributes:
        workflow_id, run_id: of the open run.
    """

    def __init__(self, workflow_id: str, run_id: str) -> None:
        super().__init__(
            f"workflow {workflow_id!r} is already running as run {run_id}; "
            "use another id, wait for it, or take it with client.get_workflow()"
        )
        self.workflow_id = workflow_id
        self.run_id = run_id


class RunClosingError(DerechoError):
    """The run is trying to close under a storm of signals; send the signal again in a few seconds.

    Attributes:
        workflow_id: of the run.
    """

    def __init__(self, workflow_id: str) -> None:
        super().__init__(
            f"workflow {workflow_id!r} is closing; this signal was not recorded, send it again in 5 s"
        )
        self.workflow_id = workflow_id


class LeaseLostError(DerechoError):
    """The token is no longer the current one: another worker took over, and this write changed nothing."""


class StoreError(DerechoError):
    """The database cannot be used as it is: wrong file, newer schema, not writable, closed..."""
