"""Two processes on one SQLite file: they share the work, and one that comes back from the dead changes nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import derecho
from derecho import Client, Engine, Run, SQLiteStore, WorkflowStatus, activity, workflow
from derecho.journal.events import ActivityStarted, WorkflowTaskStarted
from derecho.journal.lifecycle import check_journal
from tests.process.support import Child, Ledger, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow]

LEASE_S = 1.0
# Where an activity must be done once: a machine under load may lose a short lease.
LONG_LEASE_S = 15.0

# Its name is its worker id. What it does beyond working depends on the word that it is given.
WORKER = """
import logging
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
ledger = Ledger(path.with_name("ledger"))
name, deed = sys.argv[2:4]
lease = float(sys.argv[4]) if sys.argv[4:] else 0.5

@activity
def piece(number: int) -> int:
    info = activity_info()
    ledger.write("begin", info, name)
    time.sleep(0.005)
    ledger.write("end", info, name)
    return number + 1

@workflow
def job(number: int) -> int:
    return piece(piece(number))

@activity
def hold() -> str:
    info = activity_info()
    ledger.write("begin", info, name)
    if deed == "holds":
        say("held", os.getpid())
        wait_until(path.with_name("go").exists, 60)
    ledger.write("end", info, name)
    return f"{name} at attempt {info.attempt}"

@workflow
def holding() -> str:
    return hold()

def draw() -> str:
    if deed == "draws":
        say("drawing", os.getpid())
        wait_until(path.with_name("go").exists, 60)
        say("drawn")
    return name

@workflow
def drawing() -> list[str]:
    drawn = side_effect(draw)
    return [drawn, str(piece(1))]

engine = Engine(SQLiteStore(path), workflows=[job, holding, drawing], activities=[piece, hold], worker_id=name,
                concurrency=4, workflow_task_timeout=lease, activity_lease=lease, deadlock_timeout=60)
engine.start()
say("ready")
sys.stdin.read()
engine.stop(grace=5)
"""


@pytest.fixture
def client(store: SQLiteStore) -> Client:
    return Client(store)


def workers_of(run: Run[object]) -> dict[str, set[str]]:
    """Return who did the workflow tasks and the activities of a run, by its journal."""
    events = run.events()
    check_journal(events)
    return {
        "tasks": {event.worker_id for event in events if isinstance(event, WorkflowTaskStarted)},
        "activities": {event.worker_id for event in events if isinstance(event, ActivityStarted)},
    }


def attempts_of(run: Run[object]) -> list[int]:
    return [event.attempt for event in run.events() if isinstance(event, ActivityStarted)]


def end(worker: Child) -> None:
    worker.end_input()
    assert worker.wait() == 0, worker.stderr


def test_two_processes_share_the_work(path: Path, client: Client, spawn: Callable[..., Child]) -> None:
    workers = [spawn(WORKER, path, name, "-", LONG_LEASE_S) for name in ("a", "b")]
    for worker in workers:
        worker.said("ready")
    runs: list[Run[object]] = []
    done_by: dict[str, set[str]] = {"tasks": set(), "activities": set()}
    # Who is first takes it: in a hundred runs each is first now and then, and if not, in the next hundred.
    while len(runs) < 100 or any(who != {"a", "b"} for who in done_by.values()):
        assert len(runs) < 500, f"one does all the work: {done_by}"
        more = [client.start_workflow("job", f"job-{n}", n) for n in range(len(runs), len(runs) + 100)]
        assert [run.get(30) for run in more] == [number + 2 for number in range(len(runs), len(runs) + 100)]
        runs += more
        for what, who in [pair for run in more for pair in workers_of(run).items()]:
            done_by[what] |= who
    begun = [entry for entry in Ledger(path.with_name("ledger")).entries() if entry.at == "begin"]
    assert {entry.pid for entry in begun} == {worker.pid for worker in workers}
    assert len(begun) == 2 * len(runs), "each activity was done once"
    for worker in workers:
        end(worker)


def test_paused_workflow_task_is_fenced_when_it_wakes(
    path: Path, client: Client, spawn: Callable[..., Child]
) -> None:
    sleeper = spawn(WORKER, path, "sleeper", "draws")
    sleeper.said("ready")
    run = client.start_workflow("drawing", "d")
    sleeper.said("drawing")
    sleeper.signal(signal.SIGSTOP)
    other = spawn(WORKER, path, "other", "-")
    assert run.get(20) == ["other", "2"]
    journal = run.events()
    path.with_name("go").touch()
    sleeper.signal(signal.SIGCONT)
    sleeper.said("drawn")
    wait_until(lambda: "was fenced" in sleeper.stderr, 10, "the commit of the sleeper is fenced")
    assert run.events() == journal
    assert workers_of(run) == {"tasks": {"other"}, "activities": {"other"}}

    other.kill()
    later = client.start_workflow("job", "later", 1)
    assert later.get(20) == 3, "the worker that was fenced goes on with other work"
    end(sleeper)


def test_paused_attempt_changes_nothing_when_it_wakes(
    path: Path, client: Client, spawn: Callable[..., Child]
) -> None:
    sleeper = spawn(WORKER, path, "sleeper", "holds")
    sleeper.said("ready")
    run = client.start_workflow("holding", "h")
    sleeper.said("held")
    sleeper.signal(signal.SIGSTOP)
    spawn(WORKER, path, "other", "-")
    assert run.get(20) == "other at attempt 2"
    journal = run.events()
    path.with_name("go").touch()
    sleeper.signal(signal.SIGCONT)
    ledger = Ledger(path.with_name("ledger"))
    wait_until(lambda: ledger.entries()[-1].key == "sleeper", 10, "the sleeper ends its attempt")
    end(sleeper)
    assert run.events() == journal
    assert workers_of(run)["activities"] == {"other"}
    assert [(entry.at, entry.key, entry.attempt) for entry in ledger.entries()] == [
        ("begin", "sleeper", 1),
        ("begin", "other", 2),
        ("end", "other", 2),
        ("end", "sleeper", 1),
    ]


def test_activity_of_a_killed_worker_is_retried_without_any_timeout(
    path: Path, client: Client, spawn: Callable[..., Child]
) -> None:
    doomed = spawn(WORKER, path, "doomed", "holds")
    doomed.said("ready")
    run = client.start_workflow("holding", "h")
    doomed.said("held")
    other = spawn(WORKER, path, "other", "-")
    other.said("ready")
    assert attempts_of(run) == []
    doomed.kill()
    assert run.get(20) == "other at attempt 2"
    assert attempts_of(run) == [2]
    assert workers_of(run)["activities"] == {"other"}


def test_long_activity_of_a_live_worker_runs_once(
    path: Path, client: Client, spawn: Callable[..., Child]
) -> None:
    slow = spawn(WORKER, path, "slow", "holds", LEASE_S)
    slow.said("ready")
    run = client.start_workflow("holding", "h")
    slow.said("held")
    other = spawn(WORKER, path, "other", "-")
    other.said("ready")
    row = client.store.find_run("h")
    assert row is not None
    deadline_ns = client.store.now_ns() + int(2.5 * LEASE_S * 1e9)
    wait_until(lambda: client.store.now_ns() > deadline_ns, 10, "the lease has passed several times over")
    path.with_name("go").touch()
    assert run.get(20) == "slow at attempt 1"
    assert attempts_of(run) == [1]


def test_waiting_client_is_woken_by_another_process(
    path: Path, store: SQLiteStore, spawn: Callable[..., Child]
) -> None:
    @activity
    def gate() -> int:
        wait_until(path.with_name("go").exists, 30)
        return os.getpid()

    @workflow
    def gated() -> int:
        pid = gate()
        derecho.sleep(0.05)
        return pid

    waiting = """
run = Client(SQLiteStore(path)).get_workflow("g")
say("waiting")
say("got", run.get(30), time.time_ns())
"""
    with Engine(store, workflows=[gated], activities=[gate]) as engine:
        run = engine.client.start_workflow(gated, "g")
        child = spawn(waiting, path)
        child.said("waiting")
        assert run.status() is WorkflowStatus.RUNNING
        path.with_name("go").touch()
        result, woken_ns = child.said("got").split()
    closed = store.find_run("g")
    assert closed is not None
    latency_s = (int(woken_ns) - closed.closed_at_ns) / 1e9
    assert int(result) == os.getpid()
    assert 0 <= latency_s < 1, f"woken after {latency_s:.3f} s"
