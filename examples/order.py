"""An order: charge, pack, ship. Kill this program at any moment and start it again: it goes on where it was."""

import derecho
from derecho import Engine, SQLiteStore, activity, workflow


@activity(start_to_close_timeout=30)
def charge(order_id: str, cents: int) -> str:
    # The key is the same on every attempt: give it to your payment service, so that nobody pays twice.
    key = derecho.activity_info().idempotency_key
    return f"receipt-of-{order_id}" if key else ""


@activity
def pack(order_id: str, items: list[str]) -> int:
    return sum(len(item) for item in items)


@activity
def ship(order_id: str, grams: int) -> str:
    return f"parcel of {grams} g for {order_id}"


@workflow
def order(order_id: str, cents: int, items: list[str]) -> str:
    receipt = charge(order_id, cents)
    derecho.logger.info("charged: %s", receipt)  # Silent on replay.
    grams = pack(order_id, items)
    return ship(order_id, grams)


if __name__ == "__main__":
    with Engine(SQLiteStore("order.db"), workflows=[order], activities=[charge, pack, ship]) as engine:
        run = engine.client.start_workflow(order, "order-7", "order-7", 4200, ["hat", "boots"])
        print(run.get())
