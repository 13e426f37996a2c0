"""What the compiled core asks of its surroundings, for one run: codecs, errors, sites, logs.

The core is given this object and never imports anything; `derecho/_core.pyi` writes its protocol down.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import derecho._core as _core
from derecho.authoring.sites import current_site, site_of
from derecho.clock import to_datetime
from derecho.errors import CancelledError, NotInWorkflowError, TimerCancelledError
from derecho.journal.events import (
    Failure,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowStarted,
)
from derecho.journal.failures import failure_of, side_effect_error
from derecho.payloads import Codec, encode_value
from derecho.policies import RetryPolicy, duration_ns
from derecho.signatures import Signature

_core.bind_errors(misuse=NotInWorkflowError, cancelled=CancelledError, timer_cancelled=TimerCancelledError)

log: Final = logging.getLogger("derecho.workflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInfo:
    """What a run knows of itself.

    Attributes:
        parent: workflow id of the parent, or None.
        history_length: the last event that is visible to this task.
        replaying: whether recorded work is being replayed; for logging only, never for decisions.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    start_time: datetime
    parent: str | None
    history_length: int
    replaying: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelInfo:
    """A visible request to cancel."""

    reason: str
    requested_at: datetime


class RunRandom(random.Random):
    """The random numbers of one run: seeded by its run id, so a replay draws the same; needs no events.

    Raises NotInWorkflowError when drawn where a replay would not draw: in a side effect, in a predicate, in
    another run, outside workflow code.
    """

    def __init__(self, seed: str) -> None:
        self._checks = False
        super().__init__(seed)
        self._scheduler: Any = None
        self._checks = True

    def _check(self) -> None:
        if self._checks and _core.enter() is not self._scheduler:
            raise NotInWorkflowError(
                "these random numbers belong to another run; call derecho.random() again here"
            )

    def random(self) -> float:
        self._check()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self._check()
        return super().getrandbits(k)


class Environment:
    """The surroundings of one run's scheduler."""

    __slots__ = ("_decoders", "cancel", "codec", "default_retry", "logger", "random", "scheduler", "started")

    def __init__(
        self,
        started: WorkflowStarted,
        *,
        codec: Codec,
        default_retry: RetryPolicy | None,
        logger: logging.Logger | None = None,
    ) -> None:
        self.started = started
        self.codec = codec
        self.default_retry = None if default_retry is None else default_retry.to_payload()
        self.logger = logger or log
        self.scheduler: _core.Scheduler = None  # type: ignore[assignment]  # Set right after: they know each other.
        self.cancel: CancelInfo | None = None
        self.random: RunRandom | None = None
        self._decoders: dict[Signature, Callable[[bytes], Any]] = {}

    # For the API.

    def result_decoder(self, signature: Signature) -> Callable[[bytes], Any]:
        """Return the decoder of an activity's or a child's results."""
        decode = self._decoders.get(signature)
        if decode is None:
            decode = self._decoders[signature] = partial(signature.decode_result, self.codec)
        return decode

    def run_random(self) -> RunRandom:
        """Return the run's random numbers."""
        if self.random is None:
            self.random = RunRandom(self.started.run_id)
            self.random._scheduler = self.scheduler
        return self.random

    def info(self) -> WorkflowInfo:
        """Return what the run knows of itself."""
        parent = self.started.parent
        return WorkflowInfo(
            workflow_id=self.started.workflow_id,
            run_id=self.started.run_id,
            workflow_type=self.started.workflow_type,
            start_time=self.started.started_at,
            parent=parent["workflow_id"] if parent else None,
            history_length=self.scheduler.last_event_id,
            replaying=self.scheduler.replaying,
        )

    @property
    def is_mute(self) -> bool:
        """Whether logs of this run are kept silent: what it says now, it has said before."""
        return self.scheduler.replaying or self.scheduler.dying

    # For the core.

    duration_ns = staticmethod(duration_ns)
    moment = staticmethod(to_datetime)

    def site(self) -> str:
        """Say where the running fiber stands; the end of a run is nobody's line."""
        return current_site() if self.scheduler.running_fiber else ""

    def blocked_at(self) -> str:
        """Say where the fibers are parked."""
        sites = [site_of(frame) for _, frame in self.scheduler.frames() if frame is not None]
        return ", ".join(_first_sites(sites))

    def cancel_reason(self) -> str:
        return self.cancel.reason if self.cancel is not None else ""

    def cancel_info(self, event: WorkflowCancelRequested) -> CancelInfo:
        self.cancel = CancelInfo(reason=event.reason, requested_at=event.requested_at)
        return self.cancel

    def signal_skipped(self, name: str, event_id: int, error: Exception) -> None:
        self._log(
            logging.WARNING,
            "signal %r (event %d) is skipped, it cannot be decoded: %s",
            name,
            event_id,
            error,
        )

    def fiber_failed(self, number: int, error: BaseException) -> None:
        if not self.is_mute:
            self.logger.error(
                "fiber %d failed; the error waits in its future",
                number,
                exc_info=error,
                extra=self.log_extra(),
            )

    def run_side_effect(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, Failure | None]:
        """Return what is recorded: also a value that cannot be encoded, or a call of the API inside the function,
        is an error that every replay has to raise again."""
        try:
            return encode_value(self.codec, fn(*args, **kwargs), "the value of the side effect"), None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return b"", failure_of(error)

    side_effect_error = staticmethod(side_effect_error)

    def side_effect_value(self, result: bytes) -> Any:
        return self.codec.decode(result, Any)

    def close(
        self, value: bytes | None, error: BaseException | None, untaken: list[BaseException]
    ) -> tuple[int, Any]:
        """Say how a run ends whose main function ended so."""
        if error is None and untaken:
            error, untaken = untaken[0], untaken[1:]
        if error is None:
            return WorkflowCompleted.code, value
        if isinstance(error, CancelledError):
            if not untaken:
                return WorkflowCancelled.code, None
            error, untaken = untaken[0], untaken[1:]
        failure = failure_of(error)
        if untaken:
            others = {f"also_{n}": failure_of(other).describe() for n, other in enumerate(untaken, start=1)}
            failure = Failure(
                kind=failure.kind,
                message=failure.message,
                type=failure.type,
                non_retryable=failure.non_retryable,
                details={**failure.details, **others},
            )
        return WorkflowFailed.code, failure

    def log_extra(self) -> dict[str, Any]:
        """Return the fields that every log record of this run carries."""
        return {
            "workflow_id": self.started.workflow_id,
            "run_id": self.started.run_id,
            "workflow_type": self.started.workflow_type,
        }

    def _log(self, level: int, message: str, *args: Any) -> None:
        if not self.is_mute:
            self.logger.log(level, message, *args, extra=self.log_extra())


def _first_sites(sites: list[str], most: int = 3) -> list[str]:
    known = list(dict.fromkeys(site for site in sites if site))
    return known if len(known) <= most else [*known[:most], f"and {len(known) - most} more places"]
