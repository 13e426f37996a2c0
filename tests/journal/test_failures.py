"""Exceptions as recorded text, and recorded text as exceptions."""

import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derecho.errors import ActivityError, ActivityTimeoutError, NonRetryableError, RetryAfter
from derecho.journal import Failure, WorkflowFailed, dump_events, load_events
from derecho.journal.codec import decode_row, encode_row
from derecho.journal.failures import (
    MESSAGE_BYTES_MAX,
    activity_error,
    child_error,
    failure_of,
    side_effect_error,
)


class PaymentDeclinedError(NonRetryableError):
    pass


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text today")


class NotTextError(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307


class OddText(str):
    __slots__ = ()

    def encode(self, *args: Any) -> bytes:
        raise RuntimeError("no bytes today")


class OddTextError(Exception):
    def __str__(self) -> str:
        return OddText("odd")


def chained(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


# Recording.


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (ValueError("bad"), {"type": "ValueError", "message": "bad"}),
        (ValueError(), {"type": "ValueError", "message": ""}),
        (KeyError("k"), {"type": "KeyError", "message": "'k'"}),
        (chained(ValueError("bad"), OSError("disk")), {"type": "ValueError", "message": "bad"}),
        (KeyboardInterrupt(), {"type": "KeyboardInterrupt", "message": ""}),
        (NonRetryableError("stop"), {"type": "NonRetryableError", "message": "stop", "non_retryable": True}),
        (
            PaymentDeclinedError("no funds"),
            {"type": "PaymentDeclinedError", "message": "no funds", "non_retryable": True},
        ),
        (
            chained(NonRetryableError(), OSError("disk")),
            {"type": "OSError", "message": "disk", "non_retryable": True},
        ),
        (
            chained(NonRetryableError("stop"), OSError("disk")),
            {"type": "NonRetryableError", "message": "stop", "non_retryable": True},
        ),
        (NonRetryableError(), {"type": "NonRetryableError", "message": "", "non_retryable": True}),
        (
            RetryAfter(30),
            {"type": "RetryAfter", "message": "retry after 30", "next_retry_delay_ns": 30 * 10**9},
        ),
        (
            RetryAfter(timedelta(microseconds=1), "busy"),
            {"type": "RetryAfter", "message": "busy", "next_retry_delay_ns": 1000},
        ),
        (RetryAfter(0, "busy"), {"type": "RetryAfter", "message": "busy"}),
    ],
)
def test_what_is_recorded_of_an_exception(error: BaseException, recorded: dict[str, Any]) -> None:
    assert failure_of(error) == Failure(kind="application", **recorded)


def test_the_kind_is_the_callers() -> None:
    assert failure_of(ValueError("bad"), kind="panic").kind == "panic"


@pytest.mark.parametrize(
    "delay", [-1, float("nan"), float("inf"), 1e300, timedelta.max, "soon", None, 10**40]
)
def test_an_impossible_delay_is_told_and_left_to_the_policy(delay: Any) -> None:
    failure = failure_of(RetryAfter(delay, "busy"))
    assert failure.next_retry_delay_ns == 0
    assert failure.message.startswith("busy (the delay of RetryAfter is ignored: delay must ")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SilentError(), "(its text cannot be had: str() raised RuntimeError)"),
        (NotTextError(), "(its text cannot be had: str() raised TypeError)"),
        (OddTextError(), "odd"),
        (OSError("caf\udce9.txt"), "caf\\udce9.txt"),
        (ValueError("nul \x00 stays"), "nul \x00 stays"),
    ],
)
def test_nothing_in_an_exception_can_make_the_recording_fail(error: Exception, message: str) -> None:
    failure = failure_of(error)
    assert failure.message == message
    assert type(failure.message) is str
    event = WorkflowFailed(id=1, error=failure)
    assert load_events(dump_events([event])) == decode_row(encode_row([event])) == [event]


def test_a_failure_survives_deep_recursion() -> None:
    def fall() -> None:
        fall()

    with pytest.raises(RecursionError) as caught:
        fall()
    assert failure_of(caught.value).type == "RecursionError"


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\u00e9" * 10_000, "\U0001f300" * 5_000, "\udc80" * 3_000])
def test_a_long_message_is_cut_and_says_so(text: str) -> None:
    message = failure_of(ValueError(text)).message
    size = len(text.encode("utf-8", "backslashreplace"))
    assert MESSAGE_BYTES_MAX - 4 <= len(message.encode()) <= MESSAGE_BYTES_MAX
    assert message.endswith(f"... ({size} bytes)")


def test_a_message_of_the_full_length_is_whole() -> None:
    text = "x" * MESSAGE_BYTES_MAX
    assert failure_of(ValueError(text)).message == text
    assert failure_of(ValueError(text + "x")).message != text + "x"


def test_a_long_or_broken_class_name_is_recorded_within_bounds() -> None:
    failure = failure_of(type("E\u00e9" * 10_000, (Exception,), {})())
    assert len(failure.type.encode()) <= 256


@given(st.text(st.characters(codec=None, min_codepoint=0, max_codepoint=sys.maxunicode)))
def test_any_text_can_be_recorded(text: str) -> None:
    event = WorkflowFailed(id=1, error=failure_of(ValueError(text)))
    assert load_events(dump_events([event])) == [event]


def test_the_same_error_gives_the_same_record_with_and_without_a_traceback() -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        raise ValueError("bad")
    assert failure_of(caught.value) == failure_of(ValueError("bad"))


# Raising.


def test_an_activity_error_has_all_that_was_recorded() -> None:
    failure = Failure(kind="panic", message="bad", type="ValueError", details={"a": "b"})
    error = activity_error(failure, 3)
    assert type(error) is ActivityError
    assert (error.kind, error.type, error.message, str(error)) == ("panic", "ValueError", "bad", "bad")
    assert (error.details, error.attempts) == ({"a": "b"}, 3)


@pytest.mark.parametrize(
    ("failure", "timeout_kind"),
    [
        (Failure(kind="timeout", message="m", details={"timeout_kind": "heartbeat", "a": "b"}), "heartbeat"),
        (Failure(kind="timeout", message="activity timeout: schedule_to_start"), "schedule_to_start"),
        (Failure(kind="timeout", message="activity timeout: start_to_close"), "start_to_close"),
        (Failure(kind="timeout", message="no idea: sunset"), ""),
        (Failure(kind="timeout", message=""), ""),
    ],
)
def test_a_timeout_says_which(failure: Failure, timeout_kind: str) -> None:
    error = activity_error(failure, 2)
    assert isinstance(error, ActivityTimeoutError)
    assert (error.kind, error.timeout_kind, error.attempts) == ("timeout", timeout_kind, 2)
    assert error.message == failure.message
    assert error.details == {"timeout_kind": timeout_kind, **failure.details}


def test_a_child_error_names_the_child() -> None:
    error = child_error(Failure(kind="cancelled", message="m", type="T", details={"a": "b"}), "c-1", "r-2")
    assert (error.workflow_id, error.run_id) == ("c-1", "r-2")
    assert (error.kind, error.type, error.message, error.details) == ("cancelled", "T", "m", {"a": "b"})


def test_a_side_effect_error_is_the_same_at_first_and_on_replay() -> None:
    error = side_effect_error(failure_of(ValueError("bad")))
    assert (error.type, error.message, str(error)) == ("ValueError", "bad", "ValueError: bad")


def test_a_foreign_journal_without_an_error_still_raises_one() -> None:
    assert "does not say why" in str(activity_error(None, 1))
    assert "does not say why" in str(child_error(None, "c-1", ""))


def test_what_is_raised_does_not_share_its_details_with_the_journal() -> None:
    failure = Failure(kind="application", message="", details={"a": "b"})
    activity_error(failure, 1).details["a"] = "changed"
    child_error(failure, "c-1", "").details["a"] = "changed"
    assert failure.details == {"a": "b"}
