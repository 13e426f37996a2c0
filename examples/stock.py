"""Wait until a condition holds that several fibers work on, with a timeout."""

from derecho import Engine, SQLiteStore, signal_channel, spawn, wait_for, workflow


@workflow
def restock(wanted: int, patience_s: float) -> str:
    stock = 0

    def take_deliveries() -> None:
        nonlocal stock
        for pieces in signal_channel("delivery", int):
            stock += pieces

    spawn(take_deliveries)
    if wait_for(lambda: stock >= wanted, timeout=patience_s):
        return f"complete with {stock} pieces"
    return f"gave up with {stock} of {wanted} pieces"


if __name__ == "__main__":
    with Engine(SQLiteStore("stock.db"), workflows=[restock]) as engine:
        lucky = engine.client.start_workflow(restock, "hats", 10, 3600.0)
        for pieces in (4, 3, 5):
            lucky.signal("delivery", pieces)
        unlucky = engine.client.start_workflow(restock, "boots", 10, 0.3)
        unlucky.signal("delivery", 1)
        print(lucky.get())
        print(unlucky.get())
