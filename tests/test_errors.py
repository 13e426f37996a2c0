"""The tree of exceptions: what catches what, and which fields it carries."""

import pytest

from derecho import errors
from derecho.journal import Failure

ALL = [getattr(errors, name) for name in errors.__all__]


def test_every_exception_is_listed_once_and_in_order() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert set(errors.__all__) == defined
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize("error", [cls for cls in ALL if cls is not errors.CancelledError])
def test_one_except_clause_catches_all_but_a_cancellation(error: type[BaseException]) -> None:
    assert issubclass(error, errors.DerechoError)


def test_a_cancellation_is_not_swallowed_by_except_exception() -> None:
    assert not issubclass(errors.CancelledError, Exception)
    assert errors.CancelledError("closing").reason == "closing"


@pytest.mark.parametrize("error", ALL)
def test_every_exception_says_when_it_is_raised(error: type[BaseException]) -> None:
    assert error.__doc__


@pytest.mark.parametrize(
    ("error", "text", "fields"),
    [
        (
            errors.SideEffectError("ValueError", "bad"),
            "ValueError: bad",
            {"type": "ValueError", "message": "bad"},
        ),
        (errors.SideEffectError("", "bad"), "bad", {"type": "", "message": "bad"}),
        (
            errors.ActivityError("bad"),
            "bad",
            {"kind": "application", "type": "", "message": "bad", "details": {}, "attempts": 1},
        ),
        (
            errors.ActivityTimeoutError("late", timeout_kind="heartbeat", attempts=2),
            "late",
            {"kind": "timeout", "timeout_kind": "heartbeat", "attempts": 2},
        ),
        (errors.ChildWorkflowError("bad", workflow_id="c-1"), "bad", {"workflow_id": "c-1", "run_id": ""}),
        (errors.RetryAfter(30), "retry after 30", {"delay": 30}),
        (errors.RetryAfter(30, "busy"), "busy", {"delay": 30}),
        (
            errors.WorkflowFailedError(Failure(kind="application", message="bad", type="ValueError")),
            "ValueError: bad",
            {"failure": Failure(kind="application", message="bad", type="ValueError")},
        ),
        (errors.WorkflowCancelledError(), "the workflow was cancelled", {"reason": ""}),
        (errors.WorkflowCancelledError("late"), "the workflow was cancelled: late", {"reason": "late"}),
        (errors.WorkflowTerminatedError("late"), "the workflow was terminated: late", {"reason": "late"}),
        (errors.ContinuedAsNewError("r-2"), "the workflow continued as new in run r-2", {"run_id": "r-2"}),
        (
            errors.WorkflowNotFoundError("o-1"),
            "workflow 'o-1' does not exist in this store",
            {"workflow_id": "o-1", "run_id": ""},
        ),
        (
            errors.WorkflowNotFoundError("o-1", "r-1", detail="is closed"),
            "workflow 'o-1' (run r-1) is closed",
            {"workflow_id": "o-1", "run_id": "r-1"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_exception_has_a_text_and_fields(
    error: BaseException, text: str, fields: dict[str, object]
) -> None:
    assert str(error) == text
    assert {name: getattr(error, name) for name in fields} == fields


def test_the_errors_that_people_must_act_on_say_what_to_do() -> None:
    assert "use another id" in str(errors.WorkflowAlreadyRunningError("o-1", "r-1"))
    assert "send it again" in str(errors.RunClosingError("o-1"))


def test_not_completed_is_a_timeout_for_those_who_wait_for_one() -> None:
    assert issubclass(errors.NotCompletedError, TimeoutError)


def test_a_nondeterminism_error_shows_both_sides_and_the_way_out() -> None:
    error = errors.NondeterminismError(
        workflow_id="o-1",
        run_id="r-1",
        event_id=17,
        expected="charge",
        got="ship",
        expected_site="orders.py:41",
    )
    text = str(error)
    for part in (
        "'o-1'",
        "r-1",
        "event 17",
        "recorded: charge (orders.py:41)",
        "now:      ship\n",
        "old code back",
    ):
        assert part in text
    assert (error.event_id, error.expected, error.got, error.got_site) == (17, "charge", "ship", "")
