"""What a workflow can ask about itself: its info, whether it is cancelled, its logger."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import derecho._core as _core
from derecho.authoring.environment import CancelInfo, WorkflowInfo, log
from derecho.errors import NotInWorkflowError

if TYPE_CHECKING:
    from derecho._core import Future


def scheduler() -> _core.Scheduler:
    """Return the running scheduler, for a pure read: allowed in predicates and side effects too.

    Raises:
        NotInWorkflowError: called outside workflow code.
    """
    current = _core.current()
    if current is None:
        raise NotInWorkflowError("this can only be called in workflow code: in a function under @workflow")
    if current.dying:
        _core.enter()  # Raises, as every call does in a run that leaves the memory.
    return current


def info() -> WorkflowInfo:
    """Return the ids, the type and the start time of this run."""
    found: WorkflowInfo = scheduler().env.info()
    return found


def is_cancelled() -> bool:
    """Tell whether this run was asked to cancel."""
    return scheduler().is_cancelled()


def cancelled() -> Future[CancelInfo]:
    """Return the future of a request to cancel this run."""
    return scheduler().cancel_future


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for workflow code: silent on replay, and with the ids of the run in every record."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # The name is logging's.
        current = _core.current()
        if current is not None and current.env.is_mute:
            return False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        current = _core.current()
        if current is not None:
            kwargs["extra"] = {**current.env.log_extra(), **(kwargs.get("extra") or {})}
        return msg, kwargs


logger = WorkflowLogger(log, {})
