"""Durations, retry and timeout policies: what is accepted, what is refused, what is written."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derecho.policies import (
    DURATION_MAX_S,
    ParentClosePolicy,
    RetryPolicy,
    TimeoutPolicy,
    duration_ns,
    error_names,
)

# Durations.


@pytest.mark.parametrize(
    ("duration", "expected_ns"),
    [
        (0, 0),
        (-0.0, 0),
        (5, 5 * 10**9),
        (0.25, 250_000_000),
        (1e-9, 1),
        (1e-12, 0),
        (timedelta(days=1, microseconds=1), 86_400 * 10**9 + 1000),
        (DURATION_MAX_S, DURATION_MAX_S * 10**9),
        (float(DURATION_MAX_S), DURATION_MAX_S * 10**9),
    ],
)
def test_a_duration_is_whole_nanoseconds(duration: Any, expected_ns: int) -> None:
    assert duration_ns(duration, "delay") == expected_ns


@pytest.mark.parametrize(
    ("duration", "error", "told"),
    [
        (-1, ValueError, "delay must not be negative"),
        (-0.5, ValueError, "delay must not be negative"),
        (-1e308, ValueError, "delay must not be negative"),
        (timedelta(microseconds=-1), ValueError, "delay must not be negative"),
        (timedelta.min, ValueError, "delay must not be negative"),
        (math.nan, ValueError, "delay must be a finite number"),
        (math.inf, ValueError, "delay must be a finite number"),
        (DURATION_MAX_S + 1, ValueError, "delay must be at most 100 years"),
        (1e300, ValueError, "delay must be at most 100 years"),
        (10**400, ValueError, "delay must be at most 100 years"),
        (timedelta.max, ValueError, "delay must be at most 100 years"),
        (True, TypeError, "delay must be seconds"),
        ("5", TypeError, "delay must be seconds"),
        (None, TypeError, "delay must be seconds"),
    ],
)
def test_a_duration_that_cannot_be_is_refused_by_name(
    duration: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        duration_ns(duration, "delay")


@given(st.integers(0, DURATION_MAX_S))
def test_whole_seconds_and_timedeltas_are_exact(seconds: int) -> None:
    assert (
        duration_ns(seconds, "delay") == duration_ns(timedelta(seconds=seconds), "delay") == seconds * 10**9
    )


# Retry policies.


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"initial_interval": -1}, ValueError, "initial_interval must not be negative"),
        ({"max_interval": math.nan}, ValueError, "max_interval must be a finite number"),
        ({"initial_interval": 200}, ValueError, r"max_interval \(100.0\) is below initial_interval \(200\)"),
        ({"backoff_coefficient": 0.99}, ValueError, "backoff_coefficient must be"),
        ({"backoff_coefficient": math.nan}, ValueError, "backoff_coefficient must be"),
        ({"backoff_coefficient": math.inf}, ValueError, "backoff_coefficient must be"),
        ({"backoff_coefficient": "2"}, TypeError, "backoff_coefficient must be a number, not str"),
        ({"backoff_coefficient": True}, TypeError, "backoff_coefficient must be a number, not bool"),
        ({"max_attempts": -1}, ValueError, "max_attempts must be 0"),
        ({"max_attempts": 1.5}, TypeError, "max_attempts must be an int, not float"),
        ({"max_attempts": True}, TypeError, "max_attempts must be an int, not bool"),
        ({"non_retryable_errors": "timeout"}, TypeError, "non_retryable_errors must be a sequence of names"),
        (
            {"non_retryable_errors": [ValueError]},
            TypeError,
            "non_retryable_errors must be a sequence of names",
        ),
    ],
)
def test_a_retry_policy_that_cannot_be_is_refused_by_field(
    fields: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        RetryPolicy(**fields)


@pytest.mark.parametrize(
    "names", [["timeout", "ValueError"], ("timeout", "ValueError"), iter(["timeout", "ValueError"])]
)
def test_names_may_come_in_any_iterable(names: Any) -> None:
    assert RetryPolicy(non_retryable_errors=names).non_retryable_errors == ("timeout", "ValueError")


def test_delays_grow_up_to_the_longest() -> None:
    policy = RetryPolicy()
    assert [policy.next_delay(attempt) for attempt in (0, 1, 2, 3, 7)] == pytest.approx([1, 1, 2, 4, 64])
    assert [policy.next_delay(attempt) for attempt in (8, 9, 1_000_000)] == [100, 100, 100]


@given(
    st.floats(0, 1000),
    st.floats(1, 1e6),
    st.floats(0, 1e6),
    st.integers(1, 10**9),
)
def test_no_attempt_number_overflows_into_another_delay(
    initial: float, coefficient: float, further: float, attempt: int
) -> None:
    policy = RetryPolicy(initial, coefficient, initial + further)
    delay = policy.next_delay(attempt)
    assert 0 <= delay <= (initial + further) * (1 + 1e-9)
    assert policy.next_delay(attempt + 1) >= delay * (1 - 1e-9)


def test_without_an_initial_interval_there_is_no_delay() -> None:
    assert RetryPolicy(initial_interval=0, max_interval=0).next_delay(50) == 0
    assert RetryPolicy(initial_interval=0).next_delay(50) == 0


def test_attempts_are_counted_from_one_and_zero_means_no_limit() -> None:
    assert [RetryPolicy(max_attempts=3).should_retry(ValueError(), n) for n in (1, 2, 3, 4)] == [
        True,
        True,
        False,
        False,
    ]
    assert RetryPolicy().should_retry(ValueError(), 10**9)
    assert not RetryPolicy.none().should_retry(ValueError(), 1)


@pytest.mark.parametrize(
    ("name", "error", "retried"),
    [
        ("KeyError", KeyError(), False),
        ("LookupError", KeyError(), False),
        ("Exception", KeyError(), False),
        ("ValueError", KeyError(), True),
        ("application", KeyError(), False),
        ("timeout", KeyError(), True),
        ("timeout", "timeout", False),
        ("timeout", "application", True),
        ("KeyError", ["application", "KeyError"], False),
        ("object", KeyError(), True),
    ],
)
def test_an_error_is_named_by_its_kind_or_any_of_its_classes(name: str, error: Any, retried: bool) -> None:
    assert RetryPolicy(non_retryable_errors=(name,)).should_retry(error, 1) is retried


def test_the_names_of_an_error_go_from_its_class_to_the_root() -> None:
    assert error_names(KeyError()) == ("KeyError", "LookupError", "Exception", "BaseException")


@pytest.mark.parametrize(
    ("policy", "payload"),
    [
        (
            RetryPolicy(),
            {
                "initial_interval": 1_000_000_000,
                "backoff_coefficient": 2.0,
                "max_interval": 100_000_000_000,
                "max_attempts": 0,
            },
        ),
        (
            RetryPolicy(timedelta(milliseconds=1), 1.5, 1, 5, ("timeout",)),
            {
                "initial_interval": 1_000_000,
                "backoff_coefficient": 1.5,
                "max_interval": 1_000_000_000,
                "max_attempts": 5,
                "non_retryable_errors": ["timeout"],
            },
        ),
    ],
)
def test_a_retry_policy_is_written_as_the_original_writes_it(
    policy: RetryPolicy, payload: dict[str, Any]
) -> None:
    assert policy.to_payload() == payload
    assert RetryPolicy.from_payload(payload).to_payload() == payload


@pytest.mark.parametrize(
    ("payload", "delays"),
    [
        ({}, [0, 0, 0]),
        ({"initial_interval": 0, "backoff_coefficient": 0, "max_interval": 0, "max_attempts": 0}, [0, 0, 0]),
        ({"initial_interval": 10**9, "backoff_coefficient": 0}, [1, 1, 1]),
        ({"initial_interval": 10**9, "backoff_coefficient": 2}, [1, 2, 4]),  # No longest delay.
        ({"initial_interval": 10**9, "backoff_coefficient": 2, "max_interval": -5}, [1, 2, 4]),
        ({"initial_interval": 10**9, "backoff_coefficient": -3, "max_interval": 10**10}, [1, 1, 1]),
        ({"initial_interval": 10**9, "backoff_coefficient": 0.5, "max_interval": 10**10}, [1, 0.5, 0.25]),
        ({"initial_interval": 10**10, "backoff_coefficient": 2, "max_interval": 10**9}, [1, 1, 1]),
        ({"initial_interval": -(10**9), "backoff_coefficient": 2, "max_interval": 10**9}, [0, 0, 0]),
        ({"initial_interval": 10**9, "non_retryable_errors": None}, [1, 1, 1]),
        ({"initial_interval": 2**63 - 1, "backoff_coefficient": 1}, [100 * 366 * 86_400] * 3),
    ],
)
def test_any_policy_of_a_journal_gives_delays(payload: dict[str, Any], delays: list[float]) -> None:
    policy = RetryPolicy.from_payload(payload)
    assert [policy.next_delay(attempt) for attempt in (1, 2, 3)] == pytest.approx(delays)
    assert policy.next_delay(10**6) <= DURATION_MAX_S
    assert policy.should_retry(ValueError(), 1)


# Timeouts and children.


def test_timeouts_are_written_as_the_original_writes_them() -> None:
    assert TimeoutPolicy().to_payload() is None
    assert TimeoutPolicy(
        start_to_close_timeout=30, heartbeat_timeout=timedelta(milliseconds=1)
    ).to_payload() == {
        "start_to_close_timeout": 30_000_000_000,
        "heartbeat_timeout": 1_000_000,
    }


@pytest.mark.parametrize("name", TimeoutPolicy.__slots__)
@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        (0, ValueError, "must be above zero; None means no limit"),
        (1e-12, ValueError, "must be above zero"),
        (-1, ValueError, "must not be negative"),
        (math.nan, ValueError, "must be a finite number"),
        ("30", TypeError, "must be seconds"),
    ],
)
def test_a_timeout_that_cannot_be_is_refused_by_name(
    name: str, value: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=f"{name} {told}"):
        TimeoutPolicy(**{name: value})


def test_close_policies_have_the_numbers_of_the_original() -> None:
    assert [(policy.name, policy.value) for policy in ParentClosePolicy] == [
        ("TERMINATE", 0),
        ("ABANDON", 1),
        ("REQUEST_CANCEL", 2),
    ]
