"""The SQLite store: what is in the file, who may use it, and what it says when it cannot be used."""

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from derecho.errors import JournalError, StoreError
from derecho.journal.commit import Draft, TaskDraft
from derecho.journal.events import ActivityScheduled, TimerScheduled, WorkflowCompleted
from derecho.stores._rows import (
    COLUMNS,
    activity_columns,
    activity_from,
    run_columns,
    run_from,
)
from derecho.stores._sqlite_file import SCHEMA, WAL_BYTES_MAX
from derecho.stores._sqlite_log import Gate, has_wal_reset_bug
from derecho.stores.base import (
    ActivityResult,
    ActivityRow,
    ActivityToken,
    Claim,
    Committed,
    RunFilter,
    RunRow,
    StartRequest,
    TaskCommit,
)
from derecho.stores.bell import RUNS
from derecho.stores.sqlite import SQLiteStore

LEASE_NS = 60_000_000_000
Open = Callable[..., SQLiteStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Open stores on `path`, and close what a test left open."""
    stores: list[SQLiteStore] = []

    def make(**options: Any) -> SQLiteStore:
        stores.append(SQLiteStore(path, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def request(workflow_id: str, store: SQLiteStore, workflow_type: str = "order") -> StartRequest:
    return StartRequest(
        workflow_id=workflow_id,
        workflow_type=workflow_type,
        args=b"{}",
        request_id=f"start-{workflow_id}",
        run_id=store.new_id(),
    )


def start(store: SQLiteStore, workflow_id: str = "o-1", workflow_type: str = "order") -> str:
    [run_id] = store.start_runs([request(workflow_id, store, workflow_type)])
    assert isinstance(run_id, str), run_id
    return run_id


def claim(store: SQLiteStore) -> Claim:
    [claimed] = store.claim_runs("w", None, 1, LEASE_NS)
    return claimed


def commit(store: SQLiteStore, claimed: Claim, *commands: Any) -> Committed:
    drafts = [Draft(event=event) for event in commands]
    task = TaskDraft(
        worker_id="w",
        started_at_ns=claimed.now_ns,
        visible_through=claimed.run.last_event_id,
        drafts=drafts,
    )
    run = claimed.run
    [answer] = store.commit_tasks(
        [TaskCommit(run_id=run.run_id, token=run.token, commit_no=run.commit_no, task=task)]
    )
    assert isinstance(answer, Committed), answer
    return answer


def activity(command: int = 1, name: str = "charge") -> ActivityScheduled:
    return ActivityScheduled(
        command=command, name=name, input=b"[1]", retry_policy={"max_attempts": 3}, scheduled_at_ns=1
    )


# The file.


def test_everything_is_there_after_reopening(opened: Open) -> None:
    first = opened()
    run_id = start(first)
    commit(first, claim(first), activity(), TimerScheduled(command=2, duration_ns=10**12, fire_at_ns=1))
    before = first.find_run("o-1")
    events = first.load_events(run_id)
    first.close()
    again = opened()
    assert again.find_run("o-1") == before
    assert again.load_events(run_id) == events
    assert start(again) == run_id, "the request is remembered"
    [row] = again.claim_activities("w", ["charge"], 5, LEASE_NS)
    assert (row.run_id, row.name, row.retry_policy) == (run_id, "charge", {"max_attempts": 3})
    assert again.next_due("w").timers_ns > 10**12


def test_file_belongs_to_its_owner_alone(opened: Open, path: Path) -> None:
    start(opened())
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}-checkpoint")):
        assert stat.S_IMODE(name.stat().st_mode) == 0o600, name


def test_empty_file_becomes_a_store(opened: Open, path: Path) -> None:
    path.touch()
    assert start(opened())


def test_tables_of_the_user_may_share_the_file(opened: Open, path: Path) -> None:
    with sqlite3.connect(path) as own:
        own.execute("CREATE TABLE orders (id INTEGER)")
    own.close()
    assert start(opened())


def test_newer_schema_is_refused_with_the_next_step(opened: Open, path: Path) -> None:
    opened().close()
    with sqlite3.connect(path) as own:
        own.execute("UPDATE meta SET value = '99' WHERE key = 'derecho_schema'")
    own.close()
    with pytest.raises(StoreError, match=r"schema 99.*knows 1.*Upgrade derecho"):
        opened()


@pytest.mark.parametrize("table", ["runs", "meta"])
def test_database_of_another_program_is_refused(opened: Open, path: Path, table: str) -> None:
    with sqlite3.connect(path) as own:
        own.execute(f"CREATE TABLE {table} (id INTEGER)")
    own.close()
    with pytest.raises(StoreError, match=f"another program.*{table}"):
        opened()


def test_file_that_is_no_database_is_refused(opened: Open, path: Path) -> None:
    path.write_bytes(b"once upon a time " * 100)
    with pytest.raises(StoreError, match="not an SQLite database"):
        opened()
    assert path.read_bytes().startswith(b"once"), "it is left alone"


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a directory"):
        SQLiteStore(tmp_path)


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist; make it first"):
        SQLiteStore(tmp_path / "no" / "runs.db")


@pytest.mark.parametrize("path_text", ["", ":memory:"])
def test_store_in_memory_is_another_class(path_text: str) -> None:
    with pytest.raises(StoreError, match="MemoryStore"):
        SQLiteStore(path_text)


def test_unknown_durability_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="'full' or 'normal'"):
        SQLiteStore(path, durability="none")  # type: ignore[arg-type]  # That is the test.
    assert not path.exists()


def test_gap_in_a_journal_is_found(opened: Open, path: Path) -> None:
    store = opened()
    run_id = start(store)
    commit(store, claim(store), activity())
    store.signal("o-1", "", "paid", b"1", "s-1")
    store.close()
    with sqlite3.connect(path) as own:
        own.execute("DELETE FROM journal WHERE is_task = 1")
    own.close()
    with pytest.raises(JournalError, match="are missing"):
        opened().load_events(run_id)


# Several stores on one file.


def test_two_stores_share_one_writer_and_outlive_each_other(opened: Open) -> None:
    one, two = opened(), opened()
    threads = [thread for thread in threading.enumerate() if thread.name == "derecho-sqlite-writer"]
    run_id = start(one)
    one.close()
    assert two.find_run("o-1") is not None
    assert two.signal("o-1", "", "paid", b"1", "s-1") == run_id
    two.close()
    left = [thread for thread in threading.enumerate() if thread.name == "derecho-sqlite-writer"]
    assert len(threads) == len(left) + 1


def test_link_to_the_file_is_the_same_file(opened: Open, path: Path, tmp_path: Path) -> None:
    one = opened()
    link = tmp_path / "link.db"
    link.symlink_to(path)
    other = SQLiteStore(link)
    try:
        start(one)
        assert other._file is one._file
        assert other.find_run("o-1") is not None
    finally:
        other.close()


def test_ring_reaches_the_bells_of_all_stores(opened: Open) -> None:
    one, two = opened(), opened()
    two.bell.watch(RUNS)
    last = two.bell.seq(RUNS)
    start(one)
    assert two.bell.wait(RUNS, last, 0), "rung before the caller had its answer"


def test_closed_store_says_so(opened: Open) -> None:
    store = opened()
    store.close()
    store.close()
    for call in (lambda: start(store), lambda: store.find_run("o-1"), lambda: store.next_due("w")):
        with pytest.raises(StoreError, match="closed; open a new SQLiteStore"):
            call()


def test_close_wakes_who_waits(opened: Open) -> None:
    store = opened()
    store.bell.watch(RUNS)
    last = store.bell.seq(RUNS)
    store.close()
    assert store.bell.wait(RUNS, last, 0)


def test_close_does_what_is_queued(opened: Open) -> None:
    """Callers on other threads when a store closes get their answer or a StoreError, and never hang."""
    store = opened()
    answers: list[Any] = []

    def begin(number: int) -> None:
        try:
            answers.append(start(store, f"o-{number}"))
        except StoreError as error:
            answers.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    store.close()
    for thread in threads:
        thread.join(10)
    assert len(answers) == 30
    started = [answer for answer in answers if isinstance(answer, str)]
    assert opened().count_runs(RunFilter()) == len(started)


def test_another_connection_is_seen_at_once(opened: Open, path: Path) -> None:
    """What this process knows of a row is dropped when somebody else has written."""
    store = opened()
    run_id = start(store)
    with sqlite3.connect(path) as own:
        own.execute("UPDATE runs SET token = 77 WHERE run_id = ?", (run_id,))
    own.close()
    assert claim(store).run.token == 78


def test_every_field_of_a_row_is_a_column() -> None:
    assert {field.name for field in fields(RunRow)} | {"seq"} == set(COLUMNS["run"])
    assert {field.name for field in fields(ActivityRow)} | {"seq", "run"} == set(COLUMNS["activity"])


def test_rows_and_columns_agree() -> None:
    run = RunRow(run_id="r", workflow_id="w", workflow_type="t", chain_id="c", started_at_ns=1)
    for number, name in enumerate(COLUMNS["run"][1:]):
        if isinstance(getattr(run, name), int) and name != "status":
            setattr(run, name, number + 100)
    assert run_from(run_columns(run, 5)) == run
    columns = dict(zip(COLUMNS["run"], run_columns(run, 5), strict=True))
    assert columns == {"seq": 5} | {name: getattr(run, name) for name in COLUMNS["run"][1:]}

    row = ActivityRow(run_id="r", scheduled_id=3, workflow_id="w", name="n", input=b"i", scheduled_at_ns=4)
    for number, name in enumerate(COLUMNS["activity"][2:]):
        if type(getattr(row, name)) is int:
            setattr(row, name, number + 100)
    row.cancel_requested = True
    assert activity_from(activity_columns(row, 1, 2, ""), None) == row
    found = dict(zip(COLUMNS["activity"], activity_columns(row, 1, 2, ""), strict=True))
    wanted = {name: getattr(row, name) for name in COLUMNS["activity"][2:]} | {"retry_policy": ""}
    assert found == {"seq": 1, "run": 2} | wanted


# Claims and reads over the file.


def test_claimed_run_is_a_copy(opened: Open) -> None:
    store = opened()
    start(store)
    claimed = claim(store)
    store.signal("o-1", "", "paid", b"1", "s-1")
    assert claimed.run.last_event_id == 2


def test_runs_of_types_nobody_has_are_not_in_the_way(opened: Open) -> None:
    store = opened()
    store.start_runs([request(f"x-{number}", store, "unknown") for number in range(50)])
    run_id = start(store, "o-1")
    [claimed] = store.claim_runs("w", {"order"}, 10, LEASE_NS)
    assert claimed.run.run_id == run_id


def test_filtered_listing_walks_in_windows(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("derecho.stores.sqlite._WINDOW", 7)
    store = opened()
    for number in range(40):
        start(store, f"o-{number:02}", "even" if number % 2 == 0 else "odd")
    evens = RunFilter(workflow_type="even")
    assert store.count_runs(evens) == 20
    assert store.count_runs(RunFilter(workflow_type="none")) == 0
    found = []
    after = None
    while True:
        page = store.list_runs(evens, 6, after)
        found += [row.workflow_id for row in page.runs]
        after = page.next_after
        if after is None:
            break
    assert found == [f"o-{number:02}" for number in range(38, -1, -2)]


def test_long_journal_is_read_in_pieces(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("derecho.stores.sqlite._JOURNAL_ROWS_MAX", 3)
    store = opened()
    run_id = start(store)
    for number in range(10):
        store.signal("o-1", "", "paid", b"1", f"s-{number}")
    assert [event.id for event in store.load_events(run_id)] == list(range(1, 13))
    assert [event.id for event in store.load_events(run_id, 1)] == list(range(2, 13))


def test_closing_run_takes_its_work_along(opened: Open, path: Path) -> None:
    """Both for a run whose work is known, and for one that was opened again and is not."""
    for reopen in (False, True):
        store = opened()
        workflow_id = f"o-{reopen}"
        start(store, workflow_id)
        commit(store, claim(store), activity(), TimerScheduled(command=2, duration_ns=10**12, fire_at_ns=1))
        if reopen:
            store.close()
            store = opened()
        [attempt] = store.claim_activities("w", None, 5, LEASE_NS)
        store.terminate(workflow_id, "", "enough", f"t-{reopen}")
        token = ActivityToken(attempt.run_id, attempt.scheduled_id, attempt.token)
        assert not store.finish_activity(token, ActivityResult(result=b"1"))
        with sqlite3.connect(path) as own:
            assert own.execute(
                "SELECT (SELECT count(*) FROM activities) + (SELECT count(*) FROM timers)"
            ).fetchone() == (0,)
        own.close()
        store.close()


# The log.


def test_log_stays_short(opened: Open, path: Path) -> None:
    store = opened(durability="normal")
    start(store)
    payload = b"x" * 500_000
    sizes = []
    for number in range(160):
        store.signal("o-1", "", "big", payload, f"s-{number}")
        sizes.append(os.stat(f"{path}-wal").st_size)
    assert max(sizes) < 2 * WAL_BYTES_MAX < 64 << 20
    assert path.stat().st_size > 3 * WAL_BYTES_MAX, "it was all checkpointed"


def test_reader_that_stays_only_delays_the_checkpoint(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derecho.stores._sqlite_log._WAIT_MS", 1)
    monkeypatch.setattr("derecho.stores._sqlite_log._REST_S", 0.0)
    store = opened(durability="normal")
    start(store)
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        for number in range(60):
            store.signal("o-1", "", "big", b"x" * 500_000, f"s-{number}")
        long = os.stat(f"{path}-wal").st_size
        assert long > WAL_BYTES_MAX
        reader.execute("COMMIT")
    finally:
        reader.close()
    for number in range(60, 64):
        store.signal("o-1", "", "big", b"x" * 500_000, f"s-{number}")
    assert os.stat(f"{path}-wal").st_size <= WAL_BYTES_MAX


def test_log_is_written_to_full_length_once(opened: Open, path: Path) -> None:
    store = opened()
    for number in range(32):
        start(store, f"o-{number}")
    start(store, "after")
    assert os.stat(f"{path}-wal").st_size == WAL_BYTES_MAX
    with sqlite3.connect(path) as own:
        assert own.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert own.execute("SELECT count(*) FROM runs").fetchone() == (33,)
    own.close()


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_versions_with_the_wal_reset_bug(version: tuple[int, int, int], *, has_it: bool) -> None:
    assert has_wal_reset_bug(version) is has_it


def test_schema_version_is_in_the_file(opened: Open, path: Path) -> None:
    opened().close()
    with sqlite3.connect(path) as own:
        assert own.execute("SELECT value FROM meta WHERE key = 'derecho_schema'").fetchone() == (str(SCHEMA),)
    own.close()


def test_workflow_that_completes_frees_its_id_within_one_group(opened: Open) -> None:
    store = opened()
    first = start(store)
    claimed = claim(store)
    assert commit(store, claimed, WorkflowCompleted(command=1, result=b"1")).commit_no == 1
    [second] = store.start_runs(
        [
            StartRequest(
                workflow_id="o-1", workflow_type="order", args=b"", request_id="again", run_id=store.new_id()
            )
        ]
    )
    newest = store.find_run("o-1")
    assert newest is not None
    assert newest.run_id == second != first


def test_gate_keeps_other_processes_out_for_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files opened here are as good as two processes: such a lock belongs to the open file."""
    monkeypatch.setattr("derecho.stores._sqlite_log._GATE_WAIT_S", 0.01)
    mine, theirs = Gate(str(path)), Gate(str(path))
    try:
        assert mine.shut()
        assert not theirs.shut(), "one is elected"
        theirs.wait()  # It passes in the end.
        mine.open()
        assert theirs.shut()
        waiting = threading.Thread(target=mine.wait)
        monkeypatch.setattr("derecho.stores._sqlite_log._GATE_WAIT_S", 60.0)
        waiting.start()
        waiting.join(0.02)
        assert waiting.is_alive()
        theirs.close()
        waiting.join(10)
        assert not waiting.is_alive()
    finally:
        mine.close()
        theirs.close()


def test_gate_that_cannot_be_opened_is_an_error(opened: Open, path: Path) -> None:
    Path(f"{path}-checkpoint").mkdir()
    with pytest.raises(StoreError, match="-checkpoint: cannot be opened"):
        opened()


def test_log_is_left_to_the_process_that_checkpoints(opened: Open, path: Path) -> None:
    store = opened(durability="normal")
    start(store)
    other = Gate(str(path))
    try:
        assert other.shut()
        for number in range(40):
            store.signal("o-1", "", "big", b"x" * 500_000, f"s-{number}")
        assert os.stat(f"{path}-wal").st_size > WAL_BYTES_MAX
    finally:
        other.close()
    store.signal("o-1", "", "big", b"x", "last")
    store.signal("o-1", "", "big", b"x", "one more")
    assert os.stat(f"{path}-wal").st_size <= WAL_BYTES_MAX
