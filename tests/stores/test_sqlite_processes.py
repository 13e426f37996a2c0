"""The SQLite store in several processes: sharing a file, waking one another, killed, forked and ended."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from derecho.errors import StoreError
from derecho.stores._sqlite_file import WAL_BYTES_MAX
from derecho.stores.base import RunFilter, StartRequest
from derecho.stores.bell import RUNS
from derecho.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.process

PRELUDE = """
import logging, os, sys, threading, time
logging.getLogger("derecho.stores.sqlite").setLevel(logging.ERROR)  # It warns of a shared file.
from derecho.stores.base import RunFilter, StartRequest
from derecho.stores.sqlite import SQLiteStore
path = sys.argv[1]
def begin(store, workflow_id):
    request = StartRequest(workflow_id=workflow_id, workflow_type="order", args=b"{}", request_id=workflow_id,
                           run_id=store.new_id())
    [answer] = store.start_runs([request])
    assert isinstance(answer, str), answer
    return answer
"""


_spawned: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    while _spawned:
        process = _spawned.pop()
        if process.returncode is None:
            process.kill()
            process.communicate(timeout=10)


def spawn(script: str, path: Path, *args: str) -> subprocess.Popen[str]:
    """Run a script in a process of its own, with every warning an error."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PRELUDE + script, str(path), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    _spawned.append(process)
    return process


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a process printed; it must have gone well, and said nothing else."""
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, ""), errors
    return output


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    made = SQLiteStore(path)
    yield made
    made.close()


def start(store: SQLiteStore, workflow_id: str) -> str:
    request = StartRequest(
        workflow_id=workflow_id,
        workflow_type="order",
        args=b"{}",
        request_id=workflow_id,
        run_id=store.new_id(),
    )
    [answer] = store.start_runs([request])
    assert isinstance(answer, str), answer
    return answer


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def test_processes_open_a_new_file_at_once(path: Path) -> None:
    processes = [spawn("begin(SQLiteStore(path), sys.argv[2])", path, f"o-{number}") for number in range(6)]
    for process in processes:
        finish(process)
    store = SQLiteStore(path)
    assert store.count_runs(RunFilter()) == 6
    store.close()


def test_processes_see_and_fence_one_another(store: SQLiteStore, path: Path) -> None:
    run_id = start(store, "o-1")
    script = """
store = SQLiteStore(path)
[claim] = store.claim_runs("other", None, 5, 60_000_000_000)
print(claim.run.run_id, claim.run.token)
store.close()
"""
    [mine] = store.claim_runs("w", None, 5, 1)
    assert finish(spawn(script, path)).split() == [run_id, "2"]
    assert not store.fail_task(run_id, mine.run.token, "too late"), "what was known of the row is forgotten"


def test_write_of_another_process_wakes_this_one(store: SQLiteStore, path: Path) -> None:
    start(store, "o-1")
    store.bell.watch(RUNS)
    process = spawn("store = SQLiteStore(path); input(); begin(store, 'o-2'); store.close()", path)
    last = store.bell.seq(RUNS)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert store.bell.wait(RUNS, last, 20)
    finish(process)


def test_several_writers_are_warned_about_once(
    store: SQLiteStore, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derecho.stores._writer.has_wal_reset_bug", lambda: True)
    with caplog.at_level(logging.WARNING, "derecho.stores.sqlite"):
        for number in range(3):
            finish(spawn("begin(SQLiteStore(path), sys.argv[2])", path, f"o-{number}"))
            start(store, f"mine-{number}")
    assert caplog.text.count("written by several processes") == 1


WRITE_UNTIL_KILLED = """
store = SQLiteStore(path)
def write(thread):
    for number in range(10**9):
        workflow_id = f"{thread}-{number}"
        begin(store, workflow_id)
        sys.stdout.write(workflow_id + "\\n")
        sys.stdout.flush()
for thread in range(4):
    threading.Thread(target=write, args=(thread,), daemon=True).start()
time.sleep(60)
"""


@pytest.mark.parametrize("times", [5])
def test_acknowledged_starts_survive_kill_9(path: Path, times: int) -> None:
    for round_number in range(times):
        process = spawn(WRITE_UNTIL_KILLED.replace('f"{thread}', f'f"{round_number}-{{thread}}'), path)
        assert process.stdout is not None
        # The first answer is there; the end comes at some moment after it.
        first = process.stdout.readline()
        time.sleep(0.03 + 0.05 * round_number)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=20)
        whole = [line for line in (first + output).split("\n")[:-1] if line]
        assert whole
        assert integrity(path) == "ok"
        store = SQLiteStore(path)
        try:
            missing = [workflow_id for workflow_id in whole if store.find_run(workflow_id) is None]
            assert not missing
            for run in store.list_runs(RunFilter(), 1000, None).runs:
                events = store.load_events(run.run_id)
                assert [event.id for event in events] == [1, 2], "a commit is there whole or not at all"
        finally:
            store.close()


CONTEND = """
store = SQLiteStore(path, durability="normal" if int(sys.argv[2]) % 2 else "full")
end = time.monotonic() + float(sys.argv[3])
payload = b"x" * 20_000
done = [0] * 3
longest = [0.0]
def write(thread):
    while time.monotonic() < end:
        before = time.monotonic()
        workflow_id = f"{sys.argv[2]}-{thread}-{done[thread]}"
        begin(store, workflow_id)
        store.signal(workflow_id, "", "paid", payload, f"s-{workflow_id}")
        store.claim_runs("w", None, 2, 1000)
        store.find_run(workflow_id)
        longest[0] = max(longest[0], time.monotonic() - before)
        done[thread] += 1
threads = [threading.Thread(target=write, args=(thread,)) for thread in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
store.close()
print(sum(done), longest[0])
"""


@pytest.mark.slow
def test_contention_reaches_nobody_and_the_log_stays_short(path: Path) -> None:
    processes = [spawn(CONTEND, path, str(number), "3") for number in range(4)]
    longest = 0
    while any(process.poll() is None for process in processes):
        log = Path(f"{path}-wal")
        try:
            longest = max(longest, log.stat().st_size)
        except FileNotFoundError:
            pass
        threading.Event().wait(0.02)
    results = [finish(process).split() for process in processes]
    counts = [int(count) for count, _ in results]
    assert min(counts) > 0, f"nobody starves: {results}"
    assert WAL_BYTES_MAX / 2 < longest < 64 << 20
    assert integrity(path) == "ok"
    store = SQLiteStore(path)
    try:
        assert store.count_runs(RunFilter()) == sum(counts)
    finally:
        store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_store_is_refused_after_a_fork_and_the_parent_goes_on(path: Path) -> None:
    script = """
import warnings
from derecho.errors import StoreError
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork beside threads.
store = SQLiteStore(path)
begin(store, "o-1")
store.find_run("o-1")
for number in range(3):
    child = os.fork()
    if child == 0:
        try:
            for call in (lambda: begin(store, "o-2"), lambda: store.find_run("o-1"), store.close):
                try:
                    call()
                except StoreError as error:
                    assert "open a new SQLiteStore" in str(error), error
                else:
                    raise AssertionError("used after a fork")
            own = SQLiteStore(path)
            begin(own, f"child-{number}")
        except BaseException as error:
            print(repr(error), flush=True)
        sys.exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    begin(store, f"parent-{number}")
print(store.count_runs(RunFilter()))
store.close()
"""
    assert finish(spawn(script, path)) == "7\n"
    assert integrity(path) == "ok"


ENDINGS = {
    "not closed": "store = SQLiteStore(path); begin(store, 'o-1'); store.find_run('o-1')",
    "dropped": "begin(SQLiteStore(path), 'o-1')",
    "sys.exit": "store = SQLiteStore(path); begin(store, 'o-1'); sys.exit(0)",
    "closed late": "import atexit; s = SQLiteStore(path); atexit.register(s.close); begin(s, 'o-1')",
    "busy threads": """
store = SQLiteStore(path); begin(store, 'o-1')
def write():
    for number in range(10**6):
        begin(store, f"x-{threading.get_ident()}-{number}")
for _ in range(3): threading.Thread(target=write, daemon=True).start()
""",
}


@pytest.mark.parametrize("script", [text for name, text in ENDINGS.items() if name != "busy threads"])
def test_interpreter_ends_quietly_without_close(path: Path, script: str) -> None:
    began = time.monotonic()
    assert finish(spawn(script, path)) == ""
    assert time.monotonic() - began < 10
    store = SQLiteStore(path)
    assert store.find_run("o-1") is not None
    store.close()


def test_interpreter_ends_with_callers_waiting(path: Path) -> None:
    """Daemon threads in the store when the program ends may complain, but nothing hangs or is torn."""
    process = spawn(ENDINGS["busy threads"], path)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert integrity(path) == "ok"


def test_interrupted_call_leaves_the_store_usable(path: Path) -> None:
    script = """
import sqlite3
store = SQLiteStore(path)
begin(store, "o-1")
other = sqlite3.connect(path, isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("waiting", flush=True)
try:
    begin(store, "o-2")
except KeyboardInterrupt:
    print("interrupted", flush=True)
other.execute("COMMIT")
other.close()
begin(store, "o-3")
print(store.count_runs(RunFilter()))
store.close()
"""
    process = spawn(script, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert finish(process) == "interrupted\n3\n"


def test_file_that_is_not_writable_is_refused(path: Path) -> None:
    SQLiteStore(path).close()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    script = """
if os.getuid() == 0:
    os.setuid(65534)
try:
    SQLiteStore(path)
except Exception as error:
    print(type(error).__name__, str(error).split(";")[0].split(": ")[1])
"""
    try:
        for parent in path.parents[: len(path.parents) - 2]:
            parent.chmod(parent.stat().st_mode | 0o055)
        output = finish(spawn(script, path))
    finally:
        path.parent.chmod(0o755)
    assert output.startswith("StoreError"), output
    assert "writ" in output or "opened" in output or "denied" in output, output


def test_store_of_a_killed_process_is_free_at_once(path: Path) -> None:
    process = spawn(
        "store = SQLiteStore(path); begin(store, 'o-1'); print('up', flush=True); time.sleep(60)", path
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=10)
    store = SQLiteStore(path)
    try:
        assert start(store, "o-2")
        with pytest.raises(StoreError):
            SQLiteStore(path.parent)
    finally:
        store.close()
