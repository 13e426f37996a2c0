"""Programs whose journals are kept for ever: every later version must replay what an earlier one wrote (G9).

`python -m tests.histories.programs` writes the journals of this version where they are missing. A journal that is
there is never written again: it is the record of what that version did.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import derecho
from derecho import RetryPolicy, Workflow, activity, workflow
from derecho.journal import dump_events

Script = list[tuple[float, Callable[[Any], object]]]

attempts: list[int] = []


@activity(start_to_close_timeout=30, heartbeat_timeout=10)
def double(number: int) -> int:
    return 2 * number


@activity(retry=RetryPolicy(max_attempts=3))
def third_time_lucky() -> int:
    attempts.append(1)
    if len(attempts) % 3:
        raise ValueError("not yet")
    return len(attempts)


@activity
def fails() -> None:
    raise KeyError("gone")


@workflow
def sequence(number: int) -> int:
    return double(double(number))


@workflow
def fan_out(width: int) -> list[int]:
    return derecho.gather(*[double.execute(number) for number in range(width)])


@workflow
def as_they_come() -> list[int]:
    return [future.get() for future in derecho.as_completed([double.execute(3), double.execute(4)])]


@workflow
def retried_and_failed() -> list[str]:
    seen = [str(third_time_lucky())]
    try:
        fails()
    except derecho.ActivityError as error:
        seen.append(f"{error.type}: {error.message} after {error.attempts}")
    return seen


@workflow
def approval_or_deadline() -> str:
    deadline = derecho.timer(60)
    approval = derecho.signal_channel("approval", str).receive_future()
    if derecho.select(approval, deadline) is deadline:
        return "too late"
    deadline.cancel()
    return approval.get()


@workflow
def signals_in_order(count: int) -> list[int]:
    channel = derecho.signal_channel("number", int)
    taken = [channel.receive() for _ in range(count)]
    try:
        channel.receive(timeout=5)
    except TimeoutError:
        taken.append(-1)
    return taken


@workflow
def fibers() -> list[str]:
    order: list[str] = []

    def fiber(name: str, pause: float) -> str:
        order.append(f"{name} begins")
        derecho.sleep(pause)
        order.append(f"{name} ends")
        return name

    futures = [derecho.spawn(fiber, name, pause) for name, pause in (("a", 2), ("b", 1), ("c", 2))]
    derecho.wait_for(lambda: len(order) == 6, timeout=60)
    return [*order, *derecho.gather(*futures)]


@workflow
def values() -> list[Any]:
    return [
        derecho.now(),
        derecho.random().random(),
        derecho.uuid4(),
        derecho.side_effect(lambda: {"recorded": True}),
    ]


@workflow
def cancelled_with_cleanup() -> str:
    try:
        derecho.sleep(3600)
    except derecho.CancelledError as error:
        return f"cleaned up after {error.reason}: {double(1)}"
    return "slept"


@workflow
def fails_itself() -> None:
    double(1)
    raise RuntimeError("on purpose")


PROGRAMS: dict[str, tuple[Workflow[..., Any], tuple[Any, ...]]] = {
    "sequence": (sequence, (5,)),
    "fan_out": (fan_out, (4,)),
    "as_they_come": (as_they_come, ()),
    "retried_and_failed": (retried_and_failed, ()),
    "approval_or_deadline": (approval_or_deadline, ()),
    "signals_in_order": (signals_in_order, (3,)),
    "fibers": (fibers, ()),
    "values": (values, ()),
    "cancelled_with_cleanup": (cancelled_with_cleanup, ()),
    "fails_itself": (fails_itself, ()),
}
SCRIPTS: dict[str, Script] = {
    "approval_or_deadline": [(7, lambda run: run.signal("approval", "yes"))],
    "signals_in_order": [
        (0, lambda run: run.signal("number", 1)),
        (0, lambda run: run.signal("number", 2)),
        (3, lambda run: run.signal("number", 3)),
    ],
    "cancelled_with_cleanup": [(9, lambda run: run.cancel("a change of mind"))],
}


def write(folder: Path) -> None:
    """Write the journals that are missing."""
    from tests.rig import Rig

    folder.mkdir(exist_ok=True)
    for name, (definition, args) in PROGRAMS.items():
        path = folder / f"{name}.json"
        if path.exists():
            continue
        with Rig() as rig:
            engine = rig.engine([definition], [double, third_time_lucky, fails])
            run = engine.client.start_workflow(definition, name, *args)
            for offset, act in SCRIPTS.get(name, []):
                rig.at(offset, partial(act, run))
            rig.finish()
            path.write_bytes(dump_events(rig.journal(name)) + b"\n")


if __name__ == "__main__":
    write(Path(__file__).parent / ".".join(derecho.__version__.split(".")[:2]))
