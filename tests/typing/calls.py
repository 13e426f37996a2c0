"""What a type checker must infer: read by mypy --strict in `make check`, never run."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, assert_type
from uuid import UUID

import derecho
from derecho import (
    Activity,
    ActivityInfo,
    CancelInfo,
    Client,
    Engine,
    Future,
    MemoryStore,
    ReplayResult,
    RetryPolicy,
    Run,
    SignalChannel,
    Timer,
    Workflow,
    WorkflowInfo,
    WorkflowPage,
    WorkflowStatus,
    activity,
    activity_ref,
    replay,
    workflow,
)
from derecho.journal import Event


@dataclass(frozen=True)
class Approval:
    by: str


@activity
def plain(order_id: str, cents: int) -> str:
    assert_type(derecho.activity_info(), ActivityInfo)
    assert_type(derecho.activity_info().idempotency_key, str)
    derecho.heartbeat({"done": 1})
    return f"{order_id}:{cents}"


@activity(
    start_to_close_timeout=30, retry=RetryPolicy(max_attempts=3), heartbeat_timeout=timedelta(seconds=5)
)
def configured(order_id: str, *, express: bool = False) -> list[int]:
    return [len(order_id) + express]


@activity
async def awaited(order_id: str) -> list[int]:
    return [len(order_id)]


@activity(start_to_close_timeout=30)
async def awaited_with_options(order_id: str) -> bytes:
    return order_id.encode()


def increment(number: int) -> int:
    return number + 1


@workflow
def order(order_id: str, cents: int = 0) -> bytes:
    # Activities.
    described: Activity[[str, int], str] = plain
    assert_type(described.name, str)
    assert_type(plain(order_id, cents), str)
    assert_type(plain.execute(order_id, cents=cents), Future[str])
    assert_type(plain.execute(order_id, cents).get(), str)
    assert_type(plain.execute(order_id, cents).get(timeout=timedelta(seconds=1)), str)
    assert_type(plain.execute(order_id, cents).done(), bool)
    assert_type(plain.execute(order_id, cents).exception(), BaseException | None)
    assert_type(plain.options(heartbeat_timeout=1, retry=None).execute(order_id, cents).get(), str)
    assert_type(configured(order_id, express=True), list[int])
    assert_type(configured.execute(order_id).get(), list[int])
    elsewhere = activity_ref("elsewhere", returns=int, start_to_close_timeout=5)
    assert_type(elsewhere(1, "two"), int)
    assert_type(elsewhere.execute(1, 2), Future[int])
    assert_type(awaited(order_id), list[int])
    assert_type(awaited.execute(order_id), Future[list[int]])
    assert_type(awaited_with_options(order_id), bytes)
    # Fibers.
    assert_type(derecho.spawn(increment, 1), Future[int])
    assert_type(derecho.gather(derecho.spawn(increment, 1), derecho.spawn(increment, 2)), list[int])
    assert_type(derecho.select(derecho.timer(1), plain.execute(order_id, cents)), Future[Any])
    for future in derecho.as_completed([derecho.spawn(increment, 1)]):
        assert_type(future, Future[int])
    assert_type(derecho.as_completed([derecho.spawn(increment, 1)]), Iterator[Future[int]])
    # Time.
    assert_type(derecho.timer(1), Timer)
    assert_type(derecho.timer(timedelta(days=7)).get(), datetime)
    assert_type(derecho.timer(1).cancel(), bool)
    assert_type(derecho.now(), datetime)
    assert_type(derecho.wait_for(lambda: cents > 1, timeout=60), bool)
    # Signals.
    approvals = derecho.signal_channel("approval", Approval)
    assert_type(approvals, SignalChannel[Approval])
    assert_type(approvals.receive(timeout=1), Approval)
    assert_type(approvals.try_receive(), Approval | None)
    assert_type(approvals.try_receive(0), Approval | int)
    assert_type(approvals.receive_future(), Future[Approval])
    for approval in approvals:
        assert_type(approval, Approval)
    derecho.signal_external("other", "approval", Approval("me"))
    # Values, and about itself.
    assert_type(derecho.side_effect(increment, 1), int)
    assert_type(derecho.random(), Random)
    assert_type(derecho.uuid4(), UUID)
    assert_type(derecho.info(), WorkflowInfo)
    assert_type(derecho.is_cancelled(), bool)
    assert_type(derecho.cancelled(), Future[CancelInfo])
    return b""


@workflow(name="outer", cancellation="cooperative")
def outer() -> None:
    assert_type(outer, Workflow[[], None])
    assert_type(order.fn("o-1"), bytes)


def start(client: Client) -> None:
    run = client.start_workflow(order, "id-1", "o-1", cents=1)
    assert_type(run, Run[bytes])
    assert_type(run.get(), bytes)
    assert_type(run.get(timeout=1, follow=False), bytes)
    assert_type(run.status(), WorkflowStatus)
    assert_type(run.events(), list[Event])
    assert_type(client.start_workflow(outer, "id-2").get(), None)
    assert_type(client.start_workflows(order, [("id-3", ("o-1",)), ("id-4", ("o-2", 5))]), list[Run[bytes]])
    found = client.get_workflow("id-1", returns=bytes)
    assert_type(found.get(), bytes)
    assert_type(client.options(request_id="r-1").start_workflow(order, "id-1", "o-1"), Run[bytes])
    assert_type(client.list_workflows(status=WorkflowStatus.COMPLETED, limit=5), WorkflowPage)
    assert_type(client.count_workflows(workflow_type="order"), int)
    assert_type(replay(order, run.events()), ReplayResult)


def embed() -> None:
    with Engine(MemoryStore(), workflows=[order, outer], activities=[plain, configured]) as engine:
        assert_type(engine, Engine)
        assert_type(engine.client, Client)


# What must be refused: an `ignore` that nothing needs is itself an error under --strict.
@workflow
def wrong() -> None:
    plain("o-1")  # type: ignore[call-arg]  # An argument is missing.
    plain.execute("o-1", "ten")  # type: ignore[arg-type]  # Cents are a number.
    derecho.spawn(increment, "one")  # type: ignore[arg-type]  # Of the spawned function.
    derecho.side_effect(increment)  # type: ignore[call-arg]  # Of the function whose value is recorded.
