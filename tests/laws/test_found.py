"""What the laws found in the engine, each alone."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from derecho import Registry, StoreError, signal_channel, workflow
from derecho.journal import WorkflowCompleted
from derecho.stores.memory import MemoryStore
from tests.rig import Rig


@workflow
def waits() -> str:
    return signal_channel("go", str).receive()


class FailingStore(MemoryStore):
    """Fails the calls it is told to: (name, how often it has been called)."""

    failing: frozenset[tuple[str, int]] = frozenset()
    answers_error = False
    calls = 0

    def load_events(self, run_id: str, after_id: int = 0, *, external_only: bool = False) -> Any:
        self._count("load_events")
        return super().load_events(run_id, after_id, external_only=external_only)

    def fail_task(self, run_id: str, token: int, reason: str) -> bool:
        self._count("fail_task")
        return super().fail_task(run_id, token, reason)

    def commit_tasks(self, commits: Any) -> Any:
        answers = super().commit_tasks(commits)
        return [StoreError("planned trouble"), *answers[1:]] if self.answers_error else answers

    def _count(self, name: str) -> None:
        self.calls += name == "load_events"
        if (name, self.calls) in self.failing:
            raise StoreError("planned trouble")


def started_runs(rig: Rig, number: int) -> None:
    client = rig.engines[0].client
    client.start_workflows(waits, [(f"w{place}", ()) for place in range(number)])


def test_a_batch_that_breaks_leaves_no_fiber_behind(caplog: pytest.LogCaptureFixture) -> None:
    """One run's journal cannot be loaded, nor can that be recorded: the run before it in the batch is unwound."""
    caplog.set_level(logging.CRITICAL)
    with Rig(FailingStore) as rig:
        rig.store.failing = frozenset([("load_events", 2), ("fail_task", 2)])
        engine = rig.engine([waits])
        started_runs(rig, 3)
        with pytest.raises(StoreError):
            engine.workflow_worker.process()
        assert len(engine.workflow_worker.cache) == 0
        # The fixture of all tests sees whether a fiber lives on; and nobody is lost.
        for place in range(3):
            engine.client.signal_workflow(f"w{place}", "go", "on")
        rig.finish()
        assert [engine.client.get_workflow(f"w{place}").get(block=False) for place in range(3)] == ["on"] * 3


def test_an_answer_that_cannot_be_recorded_leaves_no_fiber_behind(caplog: pytest.LogCaptureFixture) -> None:
    """The commit of the first of a batch fails, and so does recording that: the others are unwound too."""
    caplog.set_level(logging.CRITICAL)
    with Rig(FailingStore) as rig:
        rig.store.failing = frozenset([("fail_task", 3)])
        rig.store.answers_error = True
        engine = rig.engine([waits])
        started_runs(rig, 3)
        with pytest.raises(StoreError):
            engine.workflow_worker.process()
        assert len(engine.workflow_worker.cache) == 0


class BrokenResolver(Registry):
    """Does not survive being asked for one of its names."""

    def resolve_workflow(self, name: str) -> Any:
        if name == "cursed":
            raise LookupError(name)
        return super().resolve_workflow(name)


@workflow
def cursed() -> None: ...


def test_a_resolver_that_raises_holds_up_no_other_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with Rig() as rig:
        resolver = BrokenResolver()
        engine = rig.engine(workflow_resolver=resolver)
        for definition in (waits, cursed):
            resolver.register(definition, engine.client.codec)
        engine.client.start_workflow(cursed, "c")
        engine.client.start_workflow(waits, "w")
        engine.client.signal_workflow("w", "go", "on")
        assert engine.workflow_worker.process() == 2
        assert engine.client.get_workflow("w").get(block=False) == "on"


@workflow
def ends_at_once() -> str:
    return "end"


def test_the_end_of_a_run_has_no_call_site() -> None:
    """The main function has returned: the line that the engine was driven from is not the workflow's."""
    with Rig() as rig:
        rig.engine([ends_at_once]).client.start_workflow(ends_at_once, "w")
        rig.settle()
        [ended] = [event for event in rig.journal("w") if isinstance(event, WorkflowCompleted)]
        assert ended.site == ""
