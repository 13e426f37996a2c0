"""A program of someone else's: type-checked with mypy --strict against the installed wheel, then run."""

from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

import derecho
from derecho import Client, Engine, Future, MemoryStore, RetryPolicy, Run, activity, workflow


@dataclass(frozen=True)
class Order:
    order_id: str
    cents: int


@activity(start_to_close_timeout=30, retry=RetryPolicy(max_attempts=3))
def charge(order: Order) -> str:
    return f"{order.order_id}:{order.cents}"


@activity
async def post(parcel: str, *, express: bool = False) -> int:
    return len(parcel) + express


@workflow
def checkout(order: Order) -> int:
    receipt = charge(order)
    assert_type(receipt, str)
    pending = charge.execute(order)
    assert_type(pending, Future[str])
    assert_type(pending.get(), str)
    derecho.sleep(timedelta(milliseconds=5))
    return post(receipt, express=True)


def start(client: Client, order: Order) -> int:
    run = client.start_workflow(checkout, order.order_id, order)
    assert_type(run, Run[int])
    return run.get(timeout=30)


if __name__ == "__main__":
    with Engine(MemoryStore(), workflows=[checkout], activities=[charge, post]) as engine:
        answer = start(engine.client, Order("order-7", 4200))
    assert answer == len("order-7:4200") + 1, answer
    print("consumer: ok")
