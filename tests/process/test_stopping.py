"""How an engine ends: by signal, by the end of the interpreter, over and over, and after a fork."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import derecho
from derecho import (
    Client,
    Engine,
    MemoryStore,
    SQLiteStore,
    Store,
    WorkflowStatus,
    _core,
    activity,
    workflow,
)
from derecho.journal.events import ActivityCompleted, ActivityStarted
from derecho.journal.lifecycle import check_journal
from tests.process.support import Child, Ledger, wait_until, whole_lines

pytestmark = [pytest.mark.process, pytest.mark.slow]

SHOP = """
ledger = Ledger(path.with_name("ledger"))

@activity
def hold(key: str) -> str:
    ledger.write("begin", activity_info(), key)
    wait_until(path.with_name("go").exists, 60)
    ledger.write("end", activity_info(), key)
    return key

@activity
def quick(key: str) -> str:
    return key

@workflow
def holding(key: str) -> str:
    return hold(key)

@workflow
def waiting() -> str:
    spawn(derecho.sleep, 3600)
    return quick(signal_channel("go", str).receive())

engine = Engine(SQLiteStore(path), workflows=[holding, waiting], activities=[hold, quick], concurrency=1,
                worker_id="w" + str(os.getpid()), workflow_task_timeout=2, activity_lease=2)
"""

RUN = """
def watch():
    wait_until(lambda: "stopping" in engine.health, 60)
    say("stopping")
threading.Thread(target=watch, daemon=True).start()
engine.run()
say("drained", engine.health, threading.active_count(), _core.live_fibers())
engine.store.close()
"""

BOTH = [signal.SIGINT, signal.SIGTERM]


def begun(path: Path) -> list[str]:
    return [entry.key for entry in Ledger(path.with_name("ledger")).entries() if entry.at == "begin"]


def holding_child(path: Path, store: SQLiteStore, spawn: Callable[..., Child]) -> Child:
    """Return a child whose one slot is taken by an activity, with a second one in the queue."""
    client = Client(store)
    child = spawn(SHOP + RUN, path, strict=True)
    for key in ("a", "b"):
        client.start_workflow("holding", key, key)
        wait_until(lambda: begun(path), 20, "the first activity begins")
    return child


@pytest.mark.parametrize("number", BOTH)
def test_first_signal_drains(
    number: signal.Signals, path: Path, store: SQLiteStore, spawn: Callable[..., Child]
) -> None:
    child = holding_child(path, store, spawn)
    client = Client(store)
    wait_until(lambda: len(client.get_workflow("b").events()) > 3, 20, "the second activity is scheduled")
    child.signal(number)
    child.said("stopping")
    late = client.start_workflow("holding", "late", "late")
    assert child.process.poll() is None, "it waits for the activity"
    path.with_name("go").touch()
    assert child.finish()[-1] == "drained [] 2 0\n", "main, and the writer of the store"

    assert begun(path) == ["a"], "nothing new is claimed"
    events = client.get_workflow("a").events()
    check_journal(events)
    assert [event.attempt for event in events if isinstance(event, ActivityStarted)] == [1]
    assert any(isinstance(event, ActivityCompleted) for event in events)
    assert late.status() is WorkflowStatus.RUNNING
    assert not [e for e in late.events() if isinstance(e, ActivityStarted)]


@pytest.mark.parametrize("number", BOTH)
def test_second_signal_stops_at_once(
    number: signal.Signals, path: Path, store: SQLiteStore, spawn: Callable[..., Child]
) -> None:
    child = holding_child(path, store, spawn)
    child.signal(number)
    child.said("stopping")
    begun_s = time.monotonic()
    child.signal(number)
    assert child.wait(5) == 128 + number
    assert time.monotonic() - begun_s < 2
    assert "second signal: stopping at once" in child.stderr

    path.with_name("go").touch()
    heir = spawn(SHOP + "engine.start(); say(engine.client.get_workflow('a').get(20)); engine.stop()", path)
    assert heir.finish() == ["a\n"], "it is done again after the restart"


def test_stop_gives_back_what_does_not_end_in_its_grace(
    path: Path, store: SQLiteStore, spawn: Callable[..., Child]
) -> None:
    script = """
engine.start()
engine.client.start_workflow(holding, "a", "a")
wait_until(lambda: path.with_name("ledger").exists(), 20)
begun = time.monotonic()
engine.stop(grace=0.2)
say("stopped", time.monotonic() - begun)
"""
    child = spawn(SHOP + script, path)
    assert float(child.said("stopped")) < 5
    assert child.wait(10) == 0, "a thread that sits in user code does not keep the process"
    path.with_name("go").touch()
    run = Client(store).get_workflow("a")
    heir = spawn(SHOP + "engine.start(); sys.stdin.read(); engine.stop()", path)
    assert run.get(20) == "a"
    assert [e.attempt for e in run.events() if isinstance(e, ActivityStarted)] == [1], (
        "no attempt is consumed"
    )
    heir.end_input()
    heir.finish()


ENDS = {
    "falls off the end": ("", 0, ""),
    "exits": ("sys.exit(3)", 3, ""),
    "raises": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "stops, but leaves the store": ("engine.stop()", 0, ""),
    "ends in the middle of a batch": (
        "engine.client.start_workflows(waiting, [(f'more-{n}', ()) for n in range(200)])",
        0,
        "",
    ),
    "exits in another thread's exit hook": ("import atexit; atexit.register(engine.stop)", 0, ""),
    "closes the store first": ("engine.stop(); engine.store.close(); engine.stop()", 0, ""),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_interpreter_ends_quietly_with_a_running_engine(
    end: str, busy: bool, path: Path, spawn: Callable[..., Child]
) -> None:
    code, exit_code, error = ENDS[end]
    script = """
engine.start()
runs = engine.client.start_workflows(waiting, [(f"w-{n}", ()) for n in range(20)])
wait_until(lambda: len(runs[-1].events()) > 3, 20)
if sys.argv[2] == "True":
    engine.client.start_workflow(holding, "a", "a")
    wait_until(lambda: path.with_name("ledger").exists(), 20)
else:
    runs[0].signal("go", "x")
    assert runs[0].get(20) == "x"
begun = time.monotonic()
"""
    if busy and "stop" in code:
        code = code.replace("engine.stop()", "engine.stop(grace=0.1)").replace(
            "register(engine.stop)", "register(engine.stop, 0.1)"
        )
    child = spawn(SHOP + script + code, path, busy, strict=True)
    assert child.wait(20) == exit_code, child.stderr
    if error:
        assert child.stderr.count("Traceback") == 1
        assert error in child.stderr
    elif busy:
        assert re.fullmatch(r"1 activities did not end within 0\.[01] s and are given back\n", child.stderr)
    else:
        assert child.stderr == ""


def test_readme_program_runs_twice(tmp_path: Path, spawn: Callable[..., Child]) -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    if not readme.exists():
        pytest.skip("these tests run against a wheel: there is no README")
    program = readme.read_text().split("```python\n", 1)[1].split("```", 1)[0]
    assert "7 * 24 * 3600" in program
    program = program.replace("7 * 24 * 3600", "0.2").replace('"shop.db"', "path")
    payments = (
        "import types; payments = types.SimpleNamespace(charge=lambda order, cents: f'{order}: {cents}')\n"
    )
    for _ in range(2):
        child = spawn(payments + program, tmp_path / "shop.db", strict=True)
        assert child.finish() == ["order-123: 4200\n"]
    store = SQLiteStore(tmp_path / "shop.db")
    assert Client(store).count_workflows(status=WorkflowStatus.COMPLETED) == 2
    store.close()


@activity
def echo(value: int) -> int:
    return value


@workflow
def patient(value: int) -> int:
    derecho.spawn(derecho.sleep, 3600)
    value = echo(value)
    return value + derecho.signal_channel("end", int).receive()


@pytest.mark.parametrize("kind", [MemoryStore, SQLiteStore])
def test_fifty_starts_and_stops_leave_no_thread_and_no_fiber(
    kind: type[MemoryStore | SQLiteStore], path: Path
) -> None:
    store: Store = SQLiteStore(path) if kind is SQLiteStore else MemoryStore()
    threads = set(threading.enumerate())
    engine = Engine(store, workflows=[patient], activities=[echo])
    client = engine.client
    for number in range(50):
        engine.start()
        run = client.start_workflow(patient, f"p-{number}", number)
        wait_until(lambda run=run: len(run.events()) > 7, 10, "it waits for its signal, live")
        engine.stop()
        assert set(threading.enumerate()) == threads
        assert _core.live_fibers() == 0
    with engine:
        for number in range(50):
            client.signal_workflow(f"p-{number}", "end", 1)
        assert [client.get_workflow(f"p-{n}").get(20) for n in range(50)] == [n + 1 for n in range(50)]
    assert engine.health == []
    store.close()
    assert _core.live_fibers() == 0


def test_forked_child_is_told_to_open_its_own_store(path: Path, spawn: Callable[..., Child]) -> None:
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Of os.fork() in a process with threads.
with engine:
    engine.client.start_workflow(holding, "a", "a")
    run = engine.client.start_workflow(waiting, "w")
    wait_until(lambda: len(run.events()) > 3 and path.with_name("ledger").exists(), 20)
    if not (child := os.fork()):
        for deed in (lambda: engine.client.start_workflow(waiting, "c"), run.get, run.events, run.status,
                     lambda: run.signal("go", "child"), lambda: run.cancel(), engine.store.close):
            try:
                deed()
            except StoreError as error:
                assert "After a fork, open a new SQLiteStore in the child" in str(error), error
            else:
                raise AssertionError(deed)
        fresh = SQLiteStore(path)
        Client(fresh).signal_workflow("w", "go", "from the child")
        fresh.close()
        if sys.argv[2] == "leaves":
            os._exit(0)
    elif os.waitpid(child, 0)[1]:
        raise AssertionError("the child failed")
    else:
        path.with_name("go").touch()
        say("got", run.get(20), engine.client.get_workflow("a").get(20))
if child:
    engine.store.close()
"""
    for how in ("leaves", "ends"):
        directory = path.with_name(how)
        directory.mkdir()
        child = spawn(SHOP + script, directory / "runs.db", how, strict=True)
        assert child.finish() == ["got from the child a\n"]


def test_acknowledged_starts_survive_a_kill(path: Path, spawn: Callable[..., Child]) -> None:
    script = """
acks = path.with_name("acks").open("a", buffering=1)
client = Client(SQLiteStore(path))
def start(lane):
    number = 0
    while True:
        name = f"{os.getpid()}-{lane}-{number}"
        if number % 5:
            runs = [client.start_workflow("order", name, number)]
        else:
            runs = client.start_workflows("order", [(f"{name}-{n}", (n,)) for n in range(3)])
        for run in runs:
            acks.write(f"{run.id} {run.run_id}\\n")
        number += 1
for lane in range(4):
    threading.Thread(target=start, args=(lane,), daemon=True).start()
say("ready")
sys.stdin.read()
"""
    acks = path.with_name("acks")
    for _ in range(5):
        before = len(list(whole_lines(acks)))
        child = spawn(script, path)
        child.said("ready")
        wait_until(lambda before=before: len(list(whole_lines(acks))) > before + 20, 20, "some acks")
        child.kill()
    acked = [line.split() for line in acks.read_text().split("\n")[:-1]]
    store = SQLiteStore(path)
    client = Client(store)
    for workflow_id, run_id in acked:
        run = client.get_workflow(workflow_id, run_id)
        assert run.status() is WorkflowStatus.RUNNING
        check_journal(run.events())
    assert len(acked) > 100
    store.close()


def test_health_tells_of_activities_that_do_not_end() -> None:
    go = threading.Event()

    @activity(start_to_close_timeout=0.05)
    def stuck() -> None:
        go.wait(30)

    @workflow
    def careless() -> int:
        for _ in range(4):
            try:
                stuck()
            except derecho.ActivityTimeoutError:
                pass
        return echo(1)

    store = MemoryStore()
    engine = Engine(store, workflows=[careless], activities=[stuck, echo], concurrency=1, activity_lease=0.3)
    assert engine.health == []
    with engine:
        assert engine.health == []
        run = engine.client.start_workflow(careless, "c")
        [trouble] = wait_until(lambda: engine.health, 20, "the engine has no threads left")
        assert "4 lost attempts do not end" in trouble
        go.set()
        wait_until(lambda: not engine.health, 10, "all is well again")
        assert run.get(10) == 1
    assert engine.health == []
    store.close()


def test_actor_blocks_until_it_is_interrupted() -> None:
    store = MemoryStore()
    engine = Engine(store, workflows=[patient], activities=[echo])
    execute, interrupt = engine.actor()
    thread = threading.Thread(target=execute)
    thread.start()
    run = engine.client.start_workflow(patient, "p", 1)
    run.signal("end", 2)
    assert run.get(10) == 3
    assert thread.is_alive()
    interrupt(ValueError("another actor has failed"))
    thread.join(10)
    assert not thread.is_alive()
    interrupt(None)
    store.close()


def test_actor_that_is_interrupted_before_it_begins_returns() -> None:
    store = MemoryStore()
    engine = Engine(store)
    execute, interrupt = engine.actor()
    interrupt(None)
    thread = threading.Thread(target=execute)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert engine.health == []
    store.close()
