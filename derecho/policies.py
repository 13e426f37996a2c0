"""Retry, timeout and close policies: frozen values with pure methods, and how a duration is written.

Durations are seconds (`int | float`) or `timedelta` for users and integer nanoseconds inside. The payload forms are
those of the original's journal (durations in integer nanoseconds), so that journals can be exchanged.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

__all__ = [
    "DURATION_MAX_S",
    "Duration",
    "ParentClosePolicy",
    "RetryPolicy",
    "TimeoutPolicy",
    "duration_ns",
    "error_names",
]

Duration: TypeAlias = "int | float | timedelta"

DURATION_MAX_S: Final = 100 * 366 * 24 * 3600
_NS: Final = 1_000_000_000


def duration_ns(duration: Duration, what: str) -> int:
    """Return a duration in nanoseconds, exactly for `int` and `timedelta`.

    Args:
        duration: seconds or a timedelta.
        what: the name of the argument, for the error.

    Raises:
        TypeError: it is neither a number nor a timedelta.
        ValueError: it is negative, not a number, or over a hundred years.
    """
    if isinstance(duration, timedelta):
        value_ns = (duration // timedelta(microseconds=1)) * 1000
    elif isinstance(duration, bool) or not isinstance(duration, int | float):
        raise TypeError(f"{what} must be seconds (int, float) or timedelta, not {type(duration).__name__}")
    elif isinstance(duration, int):
        value_ns = duration * _NS
    elif not math.isfinite(duration):
        raise ValueError(f"{what} must be a finite number of seconds, not {duration}")
    else:
        # Far beyond the limits, a product would be infinite, which round() refuses.
        value_ns = round(max(min(duration, 2.0 * DURATION_MAX_S), -1.0) * _NS)
    if value_ns < 0:
        raise ValueError(f"{what} must not be negative, got {duration!r}")
    if value_ns > DURATION_MAX_S * _NS:
        raise ValueError(f"{what} must be at most 100 years, got {duration!r}")
    return value_ns


def _seconds(duration: Duration) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def error_names(error: BaseException) -> tuple[str, ...]:
    """Return the class names of an exception, most derived first: what `non_retryable_errors` is matched with."""
    return tuple(cls.__name__ for cls in type(error).__mro__[:-1])


class ParentClosePolicy(enum.IntEnum):
    """What happens to an open child when its parent ends."""

    TERMINATE = 0
    ABANDON = 1
    REQUEST_CANCEL = 2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt of an activity is tried again.

    Attributes:
        initial_interval: seconds or timedelta before the second attempt.
        backoff_coefficient: each further delay is that many times the last one; at least 1.
        max_interval: the longest delay, seconds or timedelta.
        max_attempts: attempts in all; 0 means no limit.
        non_retryable_errors: error kinds ("timeout"...) or class names (also of base classes) that end it at once.

    Raises:
        ValueError, TypeError: a field is out of range; the message names it.
    """

    initial_interval: Duration = 1.0
    backoff_coefficient: float = 2.0
    max_interval: Duration = 100.0
    max_attempts: int = 0
    non_retryable_errors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        initial_ns = duration_ns(self.initial_interval, "initial_interval")
        longest_ns = duration_ns(self.max_interval, "max_interval")
        if longest_ns < initial_ns:
            raise ValueError(
                f"max_interval ({self.max_interval}) is below initial_interval ({self.initial_interval})"
            )
        coefficient = self.backoff_coefficient
        if isinstance(coefficient, bool) or not isinstance(coefficient, int | float):
            raise TypeError(f"backoff_coefficient must be a number, not {type(coefficient).__name__}")
        if not (1 <= coefficient < math.inf):
            raise ValueError(f"backoff_coefficient must be a finite number of at least 1, got {coefficient}")
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int):
            raise TypeError(f"max_attempts must be an int, not {type(self.max_attempts).__name__}")
        if self.max_attempts < 0:
            raise ValueError(f"max_attempts must be 0 (no limit) or more, got {self.max_attempts}")
        given: Any = self.non_retryable_errors
        names = () if isinstance(given, str) else tuple(given)
        if isinstance(given, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(
                "non_retryable_errors must be a sequence of names, such as ('timeout', 'ValueError')"
            )
        object.__setattr__(self, "non_retryable_errors", names)

    @classmethod
    def none(cls) -> RetryPolicy:
        """Return the policy that allows a single attempt."""
        return cls(max_attempts=1)

    def next_delay(self, attempt: int) -> float:
        """Return the seconds to wait after failed attempt number `attempt` (1-based), without jitter."""
        first_s = _seconds(self.initial_interval)
        if first_s <= 0.0:
            return 0.0
        longest_s = _seconds(self.max_interval)
        if longest_s <= 0.0:
            longest_s = float(DURATION_MAX_S)  # Only in journals of the original, where zero means no limit.
        # Through logarithms, so that no attempt number can overflow into a short delay (B37).
        exponent = max(attempt - 1, 0) * math.log(self.backoff_coefficient)
        if exponent >= math.log(longest_s) - math.log(first_s):
            return longest_s
        return first_s * math.exp(exponent)

    def should_retry(self, error: BaseException | str | Iterable[str], attempt: int) -> bool:
        """Tell whether attempt number `attempt` (1-based) that failed with `error` is followed by another.

        Args:
            error: the exception, or an error kind, or the names to be matched.
        """
        if self.max_attempts and attempt >= self.max_attempts:
            return False
        if isinstance(error, BaseException):
            names: Iterable[str] = ("application", *error_names(error))
        else:
            names = (error,) if isinstance(error, str) else error
        return not any(name in self.non_retryable_errors for name in names)

    def to_payload(self) -> dict[str, Any]:
        """Return the form that is written in the journal; durations are integer nanoseconds."""
        payload: dict[str, Any] = {
            "initial_interval": duration_ns(self.initial_interval, "initial_interval"),
            "backoff_coefficient": self.backoff_coefficient,
            "max_interval": duration_ns(self.max_interval, "max_interval"),
            "max_attempts": self.max_attempts,
        }
        if self.non_retryable_errors:
            payload["non_retryable_errors"] = list(self.non_retryable_errors)
        return payload

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> RetryPolicy:
        """Return the policy of a journal, unjudged: the original writes zeros that we refuse from users."""
        policy = object.__new__(cls)
        coefficient = payload.get("backoff_coefficient", 0)
        values = {
            "initial_interval": timedelta(microseconds=payload.get("initial_interval", 0) // 1000),
            "backoff_coefficient": coefficient if coefficient > 0 else 1.0,
            "max_interval": timedelta(microseconds=payload.get("max_interval", 0) // 1000),
            "max_attempts": payload.get("max_attempts", 0),
            "non_retryable_errors": tuple(payload.get("non_retryable_errors") or ()),
        }
        for name, value in values.items():
            object.__setattr__(policy, name, value)
        return policy


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutPolicy:
    """How long an activity may take; each field seconds or timedelta, `None` = no limit.

    Attributes:
        schedule_to_start_timeout: waiting for its first pick-up by a worker.
        start_to_close_timeout: one attempt.
        schedule_to_close_timeout: all attempts and the delays between them.
        heartbeat_timeout: silence between two heartbeats of an attempt.
    """

    schedule_to_start_timeout: Duration | None = None
    start_to_close_timeout: Duration | None = None
    schedule_to_close_timeout: Duration | None = None
    heartbeat_timeout: Duration | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and duration_ns(value, name) == 0:
                raise ValueError(f"{name} must be above zero; None means no limit")

    def to_payload(self) -> dict[str, int] | None:
        """Return the form that is written in the journal (integer nanoseconds), or None if all is empty."""
        payload = {
            name: duration_ns(value, name)
            for name in self.__slots__
            if (value := getattr(self, name)) is not None
        }
        return payload or None
