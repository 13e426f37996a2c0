"""Something every so often, as cron would do it: a loop with a sleep, and an end."""

from datetime import timedelta

import derecho
from derecho import Engine, SQLiteStore, activity, workflow

DAY = timedelta(days=1)


@activity
def remind(customer: str, number: int) -> str:
    return f"{number}. reminder to {customer}"


@workflow
def reminders(customer: str, times: int, pause_s: float = DAY.total_seconds()) -> list[str]:
    """Remind every day. Each round adds to the journal, so say how many there are: a loop without end is none."""
    begun = derecho.now()
    sent = []
    for number in range(1, times + 1):
        sent.append(remind(customer, number))
        # Sleep until the next full step from the beginning, so that slow rounds do not add up.
        due = begun + timedelta(seconds=number * pause_s)
        derecho.sleep(max(due - derecho.now(), timedelta(0)))
    return sent


if __name__ == "__main__":
    with Engine(SQLiteStore("reminders.db"), workflows=[reminders], activities=[remind]) as engine:
        # A day is short today.
        for line in engine.client.start_workflow(reminders, "ada", "Ada", 3, pause_s=0.1).get():
            print(line)
