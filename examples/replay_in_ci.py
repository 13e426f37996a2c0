"""Does the changed code still fit the journals of running workflows? Keep some journals, and replay them in CI."""

import tempfile
from pathlib import Path

from derecho import Engine, MemoryStore, NondeterminismError, activity, replay, workflow
from derecho.journal import dump_events, load_events

JOURNALS = Path(tempfile.mkdtemp())  # In your project: a folder beside the tests, kept in version control.


@activity
def charge(cents: int) -> str:
    return f"receipt-{cents}"


@activity
def refund(cents: int) -> str:
    return f"refund-{cents}"


@workflow
def checkout(cents: int) -> str:
    return charge(cents)


@workflow(name="checkout")
def checkout_changed(cents: int) -> str:
    return refund(cents)


def record() -> None:
    """Keep the journal of a real run, from production or as here."""
    with Engine(MemoryStore(), workflows=[checkout], activities=[charge]) as engine:
        run = engine.client.start_workflow(checkout, "order-1", 4200)
        run.get()
        (JOURNALS / "order-1.json").write_bytes(dump_events(run.events()))


def test_journals_still_replay() -> None:
    """What pytest finds and runs on every change."""
    for path in JOURNALS.glob("*.json"):
        assert replay(checkout, load_events(path.read_bytes())).complete


if __name__ == "__main__":
    record()
    test_journals_still_replay()
    print("the code of today fits")
    try:
        replay(checkout_changed, load_events((JOURNALS / "order-1.json").read_bytes()))
    except NondeterminismError as error:
        print(f"the changed code does not: {error.got} instead of {error.expected}")
