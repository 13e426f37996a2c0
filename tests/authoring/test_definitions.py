"""Definitions: what `@activity` and `@workflow` make, and what they refuse."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import derecho
from derecho import NotInWorkflowError, RegistrationError, RetryPolicy, activity, activity_ref, workflow
from tests.core.driver import replay


@activity
def charge(order_id: str, cents: int = 0) -> str:
    """Charge it."""
    return f"{order_id}:{cents}"


@activity(name="send.mail", retry=None, start_to_close_timeout=30)
async def mail(to: str) -> str:
    return f"to {to}"


def test_an_activity_keeps_name_doc_and_function() -> None:
    assert (charge.name, charge.__name__, charge.__doc__) == ("charge", "charge", "Charge it.")
    assert charge.fn("o", 1) == "o:1"
    assert (mail.name, mail.is_async, charge.is_async) == ("send.mail", True, False)
    assert repr(charge) == "<activity 'charge'>"


def test_outside_a_workflow_a_sync_activity_is_its_function_and_an_async_one_is_refused() -> None:
    assert charge("o", cents=2) == "o:2"
    with pytest.raises(NotInWorkflowError, match=r"\.fn"):
        mail("me")
    assert asyncio.run(mail.fn("me")) == "to me"
    with pytest.raises(NotInWorkflowError):
        charge.execute("o")


def test_in_a_workflow_a_call_schedules_and_waits(drive: Any) -> None:
    run = drive(lambda: charge("o", cents=3))
    assert run.commands == ["activity charge"]
    assert run.complete("charge", "paid").task().result == "paid"


def test_wrong_arguments_raise_at_the_call_and_schedule_nothing(drive: Any) -> None:
    def main() -> list[str]:
        caught = []
        for call in (
            charge.execute,
            lambda: charge.execute("o", euros=1),
            lambda: charge.execute(object()),
        ):
            try:
                call()
            except (TypeError, derecho.CodecError) as error:
                caught.append(type(error).__name__)
        return caught

    run = drive(main)
    assert run.commands == ['completed ["TypeError","TypeError","CodecError"]']
    replay(main, run.journal, strict=True)


def test_results_are_decoded_by_the_return_hint(drive: Any) -> None:
    @activity
    def when() -> timedelta:
        return timedelta(0)

    assert drive(lambda: when().total_seconds()).complete("when", "PT5S").task().result == 5.0


def test_policies_are_written_into_the_command(drive: Any) -> None:
    def main() -> None:
        mail.execute("x")
        charge.options(retry=RetryPolicy(max_attempts=3), heartbeat_timeout=2).execute("o")
        charge.execute("o")

    first, second, third = drive(main, default_retry=RetryPolicy(max_attempts=9)).journal[3:6]
    assert (first.retry_policy, first.timeout_policy) == (None, {"start_to_close_timeout": 30_000_000_000})
    assert second.retry_policy["max_attempts"] == 3
    assert second.timeout_policy == {"heartbeat_timeout": 2_000_000_000}
    assert third.retry_policy["max_attempts"] == 9


def test_options_change_a_copy_and_keep_what_is_not_named() -> None:
    other = mail.options(name="other", heartbeat_timeout=1)
    assert (mail.name, other.name) == ("send.mail", "other")
    assert other.timeouts.start_to_close_timeout == 30
    assert other.retry is None
    assert other.fn is mail.fn
    with pytest.raises(TypeError, match="retry must be a RetryPolicy"):
        mail.options(retry=3)  # type: ignore[arg-type]  # The mistake.


def test_a_bound_method_is_an_activity_without_self(drive: Any) -> None:
    class Payments:
        @activity
        def refund(self, cents: int) -> int:
            return -cents

    payments = Payments()
    assert payments.refund(5) == -5
    assert isinstance(Payments.refund, derecho.Activity)
    run = drive(lambda: payments.refund(5))
    assert run.journal[3].input == b"5"


def test_a_reference_schedules_but_has_no_code(drive: Any) -> None:
    remote = activity_ref("remote", returns=int, start_to_close_timeout=5)
    run = drive(lambda: remote(1, 2, three=3))
    assert run.journal[3].timeout_policy == {"start_to_close_timeout": 5_000_000_000}
    assert run.complete("remote", 7).task().result == 7
    with pytest.raises(RegistrationError, match="has no code here"):
        remote.fn
    with pytest.raises(NotInWorkflowError, match="its code is not here"):
        remote(1)


def test_spawn_of_an_activity_schedules_it(drive: Any) -> None:
    assert drive(lambda: derecho.spawn(charge, "o").get()).commands == ["activity charge"]


def test_spawn_refuses_what_is_no_plain_function(drive: Any) -> None:
    async def asynchronous() -> None:
        pass

    def generator() -> Any:
        yield 1

    def main() -> int:
        refused = 0
        for mistake in (asynchronous, generator, 5, None):
            with pytest.raises(TypeError, match=r"spawn\(\) takes a"):
                derecho.spawn(mistake)  # type: ignore[arg-type]  # The mistake.
            refused += 1
        return refused

    assert drive(main).result == 4


def test_spawn_passes_arguments_and_takes_any_callable(drive: Any) -> None:
    class Adds:
        def __call__(self, x: int, *, y: int) -> int:
            return x + y

    assert drive(lambda: derecho.spawn(Adds(), 1, y=2).get()).result == 3


def test_a_workflow_is_not_called_like_a_function(drive: Any) -> None:
    @workflow
    def order(n: int) -> int:
        return n

    with pytest.raises(NotInWorkflowError, match="start_workflow"):
        order(1)
    assert order.fn(1) == 1
    assert drive(lambda: order.fn(2)).result == 2
    assert repr(order) == "<workflow 'order'>"


async def asynchronous() -> None:
    pass


def generator() -> Any:
    yield 1


@pytest.mark.parametrize("mistake", [lambda: 1, generator, 5, "text"])
@pytest.mark.parametrize("decorate", [activity, workflow])
def test_what_cannot_be_durable_is_refused_at_once(decorate: Any, mistake: Any) -> None:
    with pytest.raises(RegistrationError):
        decorate(mistake)


def test_an_async_workflow_is_refused_with_the_way_out() -> None:
    with pytest.raises(RegistrationError, match="write it as a plain `def`"):
        workflow(asynchronous)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="cancellation must be"):
        workflow(cancellation="never")  # type: ignore[call-overload]  # The mistake.
    with pytest.raises(ValueError, match="start_to_close_timeout must be above zero"):
        activity(start_to_close_timeout=0)
    with pytest.raises(TypeError, match="retry must be"):
        activity(retry="twice")(charge.fn)  # type: ignore[call-overload]  # The mistake.
    with pytest.raises(RegistrationError, match="transactional"):
        activity(transactional=True)(charge.fn)
    with pytest.raises(ValueError, match="must not be empty"):
        activity_ref("")


def test_a_named_lambda_is_allowed(drive: Any) -> None:
    doubled = activity(name="doubled")(lambda n: 2 * n)
    assert doubled(4) == 8
    assert drive(lambda: doubled(4)).commands == ["activity doubled"]


def test_a_static_function_of_a_class_may_be_an_activity(drive: Any) -> None:
    class Box:
        @staticmethod
        @activity
        def packs(n: int) -> int:
            return n

    assert Box.packs(3) == 3
    assert drive(lambda: Box.packs(3)).commands == ["activity packs"]


def test_signal_names_and_targets_are_checked(drive: Any) -> None:
    def main() -> int:
        mistakes = [
            lambda: derecho.signal_channel(""),
            lambda: derecho.signal_external("", "name"),
            lambda: derecho.signal_external("id", ""),
        ]
        for mistake in mistakes:
            with pytest.raises(ValueError, match="must not be empty"):
                mistake()
        with pytest.raises(derecho.CodecError, match="payload of signal 'x'"):
            derecho.signal_external("id", "x", object())
        return len(mistakes)

    run = drive(main)
    assert run.commands == ["completed 3"]
