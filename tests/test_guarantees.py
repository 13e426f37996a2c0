"""The guarantees that the README prints, one test each, by name. The laws and the process tests go much further."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import derecho
from derecho import Client, MemoryStore, SQLiteStore, WorkflowStatus, activity, replay, workflow
from derecho.journal import ActivityCompleted, ActivityScheduled, TimerFired, load_events
from derecho.stores.base import CommitOutcome, Committed, TaskCommit
from derecho.testing.clock import FakeClock
from tests.histories.programs import PROGRAMS
from tests.rig import START, Rig

HISTORIES = Path(__file__).parent / "histories"

calls: list[str] = []


@activity
def work(name: str) -> str:
    calls.append(name)
    return name.upper()


@workflow
def two_steps(name: str) -> list[str]:
    return [work(f"{name}1"), work(f"{name}2")]


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    calls.clear()


ACKNOWLEDGES = """
import os, signal, sys
from derecho import Client, SQLiteStore
client = Client(SQLiteStore(sys.argv[1]))
run = client.start_workflow("nobody", "g-1", 1)
run.signal("go", 2)
run.cancel("enough")
print(run.run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.process
def test_g1_an_acknowledged_start_signal_or_cancel_survives_kill_9(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    done = subprocess.run(
        [sys.executable, "-c", ACKNOWLEDGES, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    store = SQLiteStore(path)
    run = Client(store).get_workflow("g-1")
    assert run.run_id == done.stdout.strip()
    assert run.status() is WorkflowStatus.CANCELLING
    kinds = [event.type for event in run.events()]
    assert kinds == [
        "workflow_started",
        "workflow_task_scheduled",
        "signal_received",
        "workflow_cancel_requested",
    ]
    store.close()


class LosesAnswers(MemoryStore):
    """Commits, and then fails to say so: the worst moment for a connection to break."""

    loses_next = False

    def commit_tasks(self, commits: Sequence[TaskCommit]) -> list[Committed | Exception]:
        answers = super().commit_tasks(commits)
        if self.loses_next:
            self.loses_next = False
            raise ConnectionError("planted: after the commit, before its answer")
        return answers


def test_g2_each_command_is_committed_once_also_when_the_answer_to_the_commit_is_lost() -> None:
    with Rig(LosesAnswers) as rig:
        engine = rig.engine([two_steps], [work])
        run = engine.client.start_workflow(two_steps, "g-2", "a")
        rig.store.loses_next = True  # type: ignore[attr-defined]  # The planted store's own.
        with pytest.raises(ConnectionError):
            engine.workflow_worker.process()
        rig.settle()
        assert run.get(block=False) == ["A1", "A2"]
        assert [e.name for e in rig.journal("g-2") if isinstance(e, ActivityScheduled)] == ["work", "work"]
        assert calls == ["a1", "a2"]


def test_g3_an_outcome_is_observed_once_and_a_recorded_one_is_never_computed_again() -> None:
    with Rig() as rig:
        first = rig.engine([two_steps], [work])
        run = first.client.start_workflow(two_steps, "g-3", "a")
        first.workflow_worker.process()
        # The worker dies between doing the work and recording it: done again.
        [lost] = rig.store.claim_activities("dead", ["work"], 1, 1_000_000_000)
        work.fn("a1")
        rig.clock.advance(1)
        first.timeout_worker.process()
        rig.clock.advance(2)
        first.activity_worker.process()
        assert calls == ["a1", "a1"]
        assert rig.store.find_run("g-3") is not None
        assert lost.attempt == 1
        # It dies after recording it: a new process replays, and does not do it again.
        first.workflow_worker.close()
        rig.engines.clear()
        rig.clock.advance(5)
        rig.engine([two_steps], [work])
        rig.settle()
        assert run.get(block=False) == ["A1", "A2"]
        assert calls == ["a1", "a1", "a2"]
        assert len([e for e in rig.journal("g-3") if isinstance(e, ActivityCompleted)]) == 2


@workflow
def looks_around() -> list[Any]:
    seen: list[Any] = [derecho.now(), derecho.random().random(), derecho.uuid4()]
    channel = derecho.signal_channel("s", int)
    timer = derecho.timer(10)
    while derecho.select(channel.receive_future(), timer) is not timer:
        seen.append(derecho.now())
    seen.append(channel.try_receive())
    return seen


def test_g4_a_run_sees_time_and_inputs_in_the_same_order_on_replay() -> None:
    def live(cache_size: int) -> list[Any]:
        with Rig() as rig:
            engine = rig.engine([looks_around], cache_size=cache_size)
            run = engine.client.options(request_id="r").start_workflow(looks_around, "g-4")
            for offset in (1, 4, 9):
                rig.at(offset, lambda offset=offset: run.signal("s", offset))
            rig.finish()
            replayed = replay(looks_around, run.events(), strict=True)
            assert replayed.result == run.get(block=False)
            return [value for value in run.get(block=False) if isinstance(value, str) and ":" in value]

    assert live(cache_size=100) == live(cache_size=0)


def test_g5_a_worker_whose_lease_was_taken_over_changes_nothing() -> None:
    with Rig() as rig:
        engine = rig.engine([two_steps], [work])
        run = engine.client.start_workflow(two_steps, "g-5", "a")
        [late] = rig.store.claim_runs("late", ["two_steps"], 1, 1_000_000_000)
        rig.clock.advance(2)
        engine.workflow_worker.process()
        before = run.events()
        draft = TaskCommit(
            run_id=run.run_id, token=late.run.token, commit_no=late.run.commit_no, task=_empty_task()
        )
        [answer] = rig.store.commit_tasks([draft])
        assert isinstance(answer, Committed)
        assert answer.outcome is CommitOutcome.FENCED
        assert run.events() == before
        rig.settle()
        assert run.get(block=False) == ["A1", "A2"]


def _empty_task() -> Any:
    from derecho.journal.commit import TaskDraft

    return TaskDraft(worker_id="late", started_at_ns=0, visible_through=1)


def test_g6_a_run_with_broken_code_does_not_stop_the_others() -> None:
    def broken(name: str) -> list[str]:
        return [work(f"{name}1", 1)]  # type: ignore[call-arg]  # The bug.

    @workflow(name="spins")
    def spins() -> None:
        def ping() -> None:
            flag[0] = not flag[0]

        flag = [False]
        while True:
            derecho.spawn(ping)
            before = list(flag)
            derecho.wait_for(lambda before=before: flag != before)

    with Rig() as rig:
        engine = rig.engine([two_steps, spins, workflow(name="broken")(broken)], [work])
        bad = [
            engine.client.start_workflow("broken", "bad", "x"),
            engine.client.start_workflow(spins, "spins"),
        ]
        good = [engine.client.start_workflow(two_steps, f"good {n}", "a") for n in range(5)]
        rig.settle()
        assert [run.get(block=False) for run in good] == [["A1", "A2"]] * 5
        assert bad[0].status() is WorkflowStatus.FAILED
        assert bad[1].status() is WorkflowStatus.RUNNING
        assert "resumptions" in bad[1].describe().blocked_reason
        bad[1].terminate()


def test_g7_a_timer_is_never_early_and_fires_after_any_downtime() -> None:
    @workflow
    def sleeps() -> datetime:
        derecho.sleep(3600)
        return derecho.now()

    with Rig() as rig:
        engine = rig.engine([sleeps])
        run = engine.client.start_workflow(sleeps, "g-7")
        rig.settle()
        rig.clock.advance(timedelta(seconds=3600) - timedelta(microseconds=1))
        rig.settle()
        assert run.status() is WorkflowStatus.RUNNING
        # Nobody is there for three weeks; then another process.
        engine.workflow_worker.close()
        rig.engines.clear()
        rig.clock.advance(timedelta(weeks=3))
        rig.engine([sleeps])
        rig.settle()
        [fired] = [event for event in run.events() if isinstance(event, TimerFired)]
        assert fired.fired_at >= START + timedelta(hours=1)
        assert datetime.fromisoformat(str(run.get(block=False))) >= START + timedelta(hours=1)


def test_g8_a_run_whose_code_is_gone_can_be_inspected_cancelled_and_terminated() -> None:
    with Rig() as rig:
        client = rig.engine([two_steps], [work]).client
        client.start_workflow(two_steps, "g-8", "a")
        rig.engines[0].workflow_worker.process()
        alone = Client(rig.store)
        rig.engines[0].workflow_worker.close()
        rig.engines.clear()
        run = alone.get_workflow("g-8")
        assert [event.type for event in run.events()][-2:] == [
            "activity_scheduled",
            "workflow_task_completed",
        ]
        run.cancel("no longer needed")
        assert run.status() is WorkflowStatus.CANCELLING
        run.terminate("and at once")
        with pytest.raises(derecho.WorkflowTerminatedError, match="and at once"):
            run.get(block=False)
        assert rig.store.claim_activities("any", None, 10, 1) == [], "its work is gone too"


@pytest.mark.parametrize(
    "path", sorted(HISTORIES.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_g9_journals_of_every_version_replay(path: Path) -> None:
    definition, _ = PROGRAMS[path.stem]
    events = load_events(path.read_bytes())
    result = replay(definition, events, strict=True)
    assert result.complete
    assert result.new_events == []


def test_g9_each_program_has_a_journal_of_this_version() -> None:
    minor = ".".join(derecho.__version__.split(".")[:2])
    assert {path.stem for path in (HISTORIES / minor).glob("*.json")} == set(PROGRAMS)


def test_the_fake_clock_of_these_tests_is_the_stores() -> None:
    clock = FakeClock(START)
    assert MemoryStore(clock).now_ns() == clock.now_ns()
