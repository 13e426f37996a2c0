"""What a type checker must infer: read by mypy --strict in `make check`, never run."""

from datetime import datetime
from typing import assert_type

import derecho
from derecho import Client, Future, Run, Timer, activity, activity_ref, workflow, workflow_ref


@activity
def plain(order_id: str, cents: int) -> str:
    return f"{order_id}:{cents}"


@activity(start_to_close_timeout=30, retry=None)
async def awaited(order_id: str) -> list[int]:
    return [len(order_id)]


@workflow
def order(order_id: str, cents: int = 0) -> bytes:
    assert_type(plain(order_id, cents), str)
    assert_type(plain.execute(order_id, cents=cents), Future[str])
    assert_type(plain.options(heartbeat_timeout=1).execute(order_id, cents).get(), str)
    assert_type(awaited(order_id), list[int])
    assert_type(awaited.execute(order_id).get(timeout=1), list[int])
    assert_type(activity_ref("elsewhere", returns=int).execute(1, 2), Future[int])
    assert_type(derecho.timer(1), Timer)
    assert_type(derecho.timer(1).get(), datetime)
    assert_type(derecho.now(), datetime)
    return b""


@workflow(name="outer")
def outer() -> None:
    assert_type(order("o-1"), bytes)
    assert_type(order.execute("o-1", cents=1), Future[bytes])
    assert_type(order.attach("o-1"), Future[bytes])
    assert_type(workflow_ref("far", returns=str).execute(), Future[str])


def start(client: Client) -> None:
    assert_type(client.start_workflow(order, "id-1", "o-1", cents=1), Run[bytes])
    assert_type(client.start_workflow(order, "id-1", "o-1").get(), bytes)
    assert_type(client.start_workflow(outer, "id-2").get(), None)
