"""The workflows that are measured, and ways to run them without threads. Shared by all benches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from derecho import Engine, MemoryStore, activity, gather, timer, workflow
from derecho.authoring.definitions import Workflow
from derecho.journal import Event, TimerFired, WorkflowStarted
from derecho.replayer import RunSettings, open_run
from derecho.testing import FakeClock

TURNS_MAX: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000


@activity
def double(number: int) -> int:
    return 2 * number


@workflow
def three_steps(number: int) -> int:
    """Run three trivial activities one after the other: the shape that rivals are measured with."""
    return double(double(double(number)))


@workflow
def sequence(steps: int) -> int:
    """Run activities one after the other."""
    total = 0
    for number in range(steps):
        total += double(number)
    return total


@workflow
def fan_out(steps: int) -> int:
    """Schedule all activities at once and wait for all."""
    return sum(gather(*[double.execute(number) for number in range(steps)]))


WORKFLOWS: Final = [three_steps, sequence, fan_out]
ACTIVITIES: Final = [double]


def doubled_sum(steps: int) -> int:
    """Return what `sequence` and `fan_out` have to come to."""
    return steps * (steps - 1)


def run_by_hand(definition: Workflow[..., Any], *args: Any) -> tuple[Any, list[Event]]:
    """Run a workflow on one thread to its end; return its result and its journal."""
    store = MemoryStore(FakeClock())
    engine = Engine(store, workflows=WORKFLOWS, activities=ACTIVITIES)
    run = engine.client.start_workflow(definition, "by-hand", *args)
    try:
        for _ in range(TURNS_MAX):
            if not engine.workflow_worker.process() + engine.activity_worker.process():
                return run.get(block=False), run.events()
        raise AssertionError(f"still busy after {TURNS_MAX} turns")
    finally:
        engine.workflow_worker.close()
        store.close()


class OneRun:
    """A live run without any store: its first task is run, and `fire` shows it the timer it waits for.

    The workflow starts one timer and no other command.
    """

    def __init__(self, definition: Workflow[..., Any], *args: Any) -> None:
        payload = definition.signature.encode_args(RunSettings().codec, args, {})
        started = WorkflowStarted(
            id=1,
            workflow_type=definition.name,
            args=payload,
            started_at_ns=_SECOND_NS,
            workflow_id="bench",
            run_id="bench",
        )
        self._definition = definition
        self.live, self._unseen = open_run(definition, [started], RunSettings())

    def begin(self) -> Any:
        """Run the first task; return its drafts."""
        task = self.live.run_task(self._unseen, _SECOND_NS, "bench")
        self.live.committed(task, range(4, 4 + len(task.drafts)), 1)
        return task.drafts

    def fire(self) -> Any:
        """Let the timer fire, run the second task, and return the result of the workflow."""
        fired = TimerFired(id=100, scheduled_by_id=4, fired_at_ns=2 * _SECOND_NS)
        return self.result_of(self.live.run_task([fired], 2 * _SECOND_NS, "bench").drafts)

    def result_of(self, drafts: Sequence[Any]) -> Any:
        """Return the result in the last draft of a task."""
        return self._definition.signature.decode_result(RunSettings().codec, drafts[-1].event.result)

    def close(self) -> None:
        self.live.close()


def one_second() -> Any:
    """Start the timer that `OneRun.fire` fires."""
    return timer(1)
