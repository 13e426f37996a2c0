"""What activity code can ask of Derecho, and where it cannot."""

from __future__ import annotations

import contextvars
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from derecho.activities import ActivityContext, ActivityInfo, activity_info, heartbeat
from derecho.errors import CodecError, DerechoError


def info(**changes: Any) -> ActivityInfo:
    fields: dict[str, Any] = {
        "workflow_id": "order-1",
        "run_id": "run-1",
        "activity_name": "charge",
        "scheduled_at": 5,
        "attempt": 2,
        "scheduled_time": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return ActivityInfo(**fields | changes)


def test_the_idempotency_key_is_the_same_on_every_attempt_and_differs_between_runs() -> None:
    assert info(attempt=1).idempotency_key == info(attempt=7).idempotency_key == "order-1/run-1/5"
    assert info(run_id="run-2").idempotency_key != info().idempotency_key
    assert info(scheduled_at=6).idempotency_key != info().idempotency_key


def test_the_attempt_key_is_that_of_the_original() -> None:
    assert info().attempt_key == "order-1/5/2"


def test_details_of_the_last_heartbeat_are_decoded() -> None:
    assert info().heartbeat_details is None
    assert info(recorded_details=b'{"page":3}').heartbeat_details == {"page": 3}


def test_details_that_cannot_be_read_hide_nothing_else() -> None:
    broken = info(recorded_details=b"\xff")
    assert broken.idempotency_key == "order-1/run-1/5"
    with pytest.raises(CodecError, match="heartbeat details of activity 'charge'"):
        broken.heartbeat_details


def test_an_info_can_be_compared_and_shown() -> None:
    assert info() == info() != info(attempt=3)
    assert "order-1" in repr(info())


@pytest.mark.parametrize("call", [activity_info, heartbeat])
def test_a_call_outside_an_activity_says_where_it_belongs(call: Any) -> None:
    with pytest.raises(
        DerechoError, match=rf"{call.__name__}\(\) was called outside an activity.*Workflow code"
    ):
        call()


def test_code_under_a_bound_context_finds_it_and_the_rest_does_not() -> None:
    said: list[Any] = []
    bound = ActivityContext(info, said.append).bind(contextvars.copy_context())
    assert bound.run(activity_info) == info()
    bound.run(heartbeat, {"page": 4})
    bound.run(heartbeat)
    assert said == [{"page": 4}, None]
    with pytest.raises(DerechoError):
        activity_info()


def test_the_info_is_made_once_and_only_if_asked_for() -> None:
    made: list[ActivityInfo] = []

    def make() -> ActivityInfo:
        made.append(info())
        return made[-1]

    bound = ActivityContext(make, lambda details: None).bind(contextvars.copy_context())
    bound.run(heartbeat)
    assert not made
    assert bound.run(activity_info) is bound.run(activity_info)
    assert len(made) == 1


def test_binding_keeps_the_variables_of_the_base_and_does_not_change_them() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    base = contextvars.Context()
    base.run(name.set, "tracer")
    bound = ActivityContext(info, lambda details: None).bind(base)
    bound.run(name.set, "changed by the activity")
    assert base.run(name.get) == "tracer"


def test_a_thread_of_the_activitys_own_needs_a_copy_of_the_context() -> None:
    found: list[Any] = []

    def look() -> None:
        try:
            found.append(activity_info())
        except DerechoError as error:
            found.append(type(error))

    def activity_code() -> None:
        for target in (look, lambda: context.run(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    context = ActivityContext(info, lambda details: None).bind(contextvars.copy_context())
    inner = context.copy()
    inner.run(activity_code)
    assert found == [DerechoError, info()]
