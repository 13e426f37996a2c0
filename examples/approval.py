"""Wait for a decision, but not for ever: a signal against a timer."""

from dataclasses import dataclass

from derecho import Engine, SQLiteStore, select, signal_channel, timer, workflow


@dataclass
class Decision:
    by: str
    granted: bool


@workflow
def expense(cents: int, deadline_s: float) -> str:
    decision = signal_channel("decision", Decision).receive_future()
    deadline = timer(deadline_s)
    if select(decision, deadline) is deadline:  # The other is released and loses nothing.
        return f"{cents} cents: nobody decided in time"
    deadline.cancel()
    answer = decision.get()
    return f"{cents} cents: {'granted' if answer.granted else 'refused'} by {answer.by}"


if __name__ == "__main__":
    with Engine(SQLiteStore("expenses.db"), workflows=[expense]) as engine:
        client = engine.client
        asked = client.start_workflow(expense, "expense-1", 4200, 7 * 24 * 3600.0)  # A week costs nothing.
        forgotten = client.start_workflow(expense, "expense-2", 900, 0.2)
        # Any process with a Client on the same store can do this; once it returns, it survives any crash.
        client.signal_workflow("expense-1", "decision", Decision(by="Ada", granted=True))
        print(asked.get())
        print(forgotten.get())
