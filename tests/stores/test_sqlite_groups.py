"""Group commit on SQLite: who shares a transaction, what a bad member costs, when the disk is waited for."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from derecho.errors import StoreError, WorkflowNotFoundError
from derecho.stores import transactions
from derecho.stores._writer import GROUP_MAX, Request, Writer
from derecho.stores.base import RunFilter, RunRow, StartRequest, Tx
from derecho.stores.sqlite import SQLiteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    made = SQLiteStore(tmp_path / "runs.db")
    yield made
    made.close()


class Hold:
    """Hold the writer inside a group, so that what comes next waits in the queue and forms one group."""

    def __init__(self, store: SQLiteStore) -> None:
        self._entered = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._occupy, args=(store,))

    def _occupy(self, store: SQLiteStore) -> None:
        def wait(tx: Tx) -> None:
            self._entered.set()
            assert self._leave.wait(10)

        store._transact(wait, durable=False)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._entered.wait(10)

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join(10)


def queued(store: SQLiteStore, count: int) -> bool:
    """Wait until so many requests are in the queue."""
    for _ in range(10_000):
        if store._file.writer._queue.qsize() >= count:
            return True
        threading.Event().wait(0.001)
    return False


def together(store: SQLiteStore, *calls: Any) -> list[Any]:
    """Make calls on threads of their own that get into one group; return what each returned or raised."""
    answers: list[Any] = [None] * len(calls)

    def run(place: int) -> None:
        try:
            answers[place] = calls[place]()
        except Exception as error:
            answers[place] = error

    threads = []
    with Hold(store):
        for place in range(len(calls)):
            thread = threading.Thread(target=run, args=(place,))
            thread.start()
            threads.append(thread)
            assert queued(store, place + 1)
    for thread in threads:
        thread.join(10)
    return answers


def start(store: SQLiteStore, workflow_id: str) -> str:
    request = StartRequest(
        workflow_id=workflow_id,
        workflow_type="order",
        args=b"",
        request_id=f"start-{workflow_id}",
        run_id=store.new_id(),
    )
    [answer] = store.start_runs([request])
    assert isinstance(answer, str), answer
    return answer


class Counted:
    """Keep the statements that the writer runs meanwhile."""

    def __init__(self, store: SQLiteStore) -> None:
        self.texts: list[str] = []
        self._connection = store._file.writer.connection

    def __enter__(self) -> Self:
        self._connection.set_trace_callback(self.texts.append)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.set_trace_callback(None)

    def count(self, word: str) -> int:
        return sum(text.startswith(word) for text in self.texts)


def test_calls_that_wait_share_a_transaction(store: SQLiteStore) -> None:
    with Counted(store) as counted:
        answers = together(
            store, *(lambda number=number: start(store, f"o-{number}") for number in range(10))
        )
    assert all(isinstance(answer, str) for answer in answers), answers
    assert counted.count("COMMIT") == 2, "the one that held it, and the group"


def test_members_see_what_earlier_ones_wrote(store: SQLiteStore) -> None:
    started, signalled, claims = together(
        store,
        lambda: start(store, "o-1"),
        lambda: store.signal("o-1", "", "paid", b"1", "s-1"),
        lambda: store.claim_runs("w", None, 5, 1000),
    )
    assert signalled == started
    [claim] = claims
    assert (claim.run.run_id, claim.run.last_external_id) == (started, 3)


def test_claims_go_after_what_makes_ready(store: SQLiteStore) -> None:
    claims, started = together(
        store, lambda: store.claim_runs("w", None, 5, 1000), lambda: start(store, "o-1")
    )
    assert [claim.run.run_id for claim in claims] == [started]


def test_refused_member_leaves_the_others_alone(store: SQLiteStore) -> None:
    first, refused, last = together(
        store,
        lambda: start(store, "o-1"),
        lambda: store.signal("nobody", "", "paid", b"1", "s-1"),
        lambda: start(store, "o-2"),
    )
    assert isinstance(refused, WorkflowNotFoundError)
    assert isinstance(first, str)
    assert isinstance(last, str)
    assert store.count_runs(RunFilter()) == 2


def broken_after_writing(tx: Tx) -> None:
    transactions.start(
        tx, StartRequest(workflow_id="bad", workflow_type="t", args=b"", request_id="r", run_id="bad-run")
    )
    raise ZeroDivisionError


def refused_after_writing(tx: Tx) -> None:
    transactions.start(
        tx, StartRequest(workflow_id="bad", workflow_type="t", args=b"", request_id="r", run_id="bad-run")
    )
    raise WorkflowNotFoundError("bad")


def unwritable(tx: Tx) -> None:
    """Write a row that the database refuses, which shows only when the group is written out."""
    tx.insert_run(
        RunRow(run_id=None, workflow_id="bad", workflow_type="t", chain_id="c", started_at_ns=1)  # type: ignore[arg-type]  # That is the test.
    )


@pytest.mark.parametrize(
    ("poison", "expected"),
    [
        (broken_after_writing, ZeroDivisionError),
        (refused_after_writing, WorkflowNotFoundError),
        (unwritable, StoreError),
    ],
)
def test_poisoned_member_fails_alone_and_leaves_nothing(
    store: SQLiteStore, poison: Any, expected: type[Exception]
) -> None:
    answers = together(
        store,
        lambda: start(store, "o-1"),
        lambda: store._transact(poison, durable=True),
        lambda: store.signal("o-1", "", "paid", b"1", "s-1"),
        lambda: start(store, "o-2"),
    )
    assert isinstance(answers[1], expected), answers[1]
    assert isinstance(answers[0], str)
    assert answers[2] == answers[0]
    assert isinstance(answers[3], str)
    assert store.find_run("bad") is None
    assert store.count_runs(RunFilter()) == 2
    assert [event.id for event in store.load_events(answers[0])] == [1, 2, 3]
    assert start(store, "bad"), "nothing of it is remembered"


def test_large_batches_are_cut(store: SQLiteStore) -> None:
    requests = [
        StartRequest(
            workflow_id=f"o-{number}",
            workflow_type="t",
            args=b"",
            request_id=f"r-{number}",
            run_id=store.new_id(),
        )
        for number in range(2 * GROUP_MAX + 10)
    ]
    with Counted(store) as counted:
        answers = store.start_runs(requests)
    assert answers == [request.run_id for request in requests]
    assert counted.count("COMMIT") == 3
    assert store.start_runs([]) == []


def test_disk_is_waited_for_only_where_something_is_acknowledged(store: SQLiteStore) -> None:
    with Counted(store) as counted:
        start(store, "o-1")
        start(store, "o-2")
        store.claim_runs("w", None, 5, 1000)
        store.claim_runs("w", None, 5, 1000)
        start(store, "o-3")
    switches = [text for text in counted.texts if text.startswith("PRAGMA synchronous")]
    assert switches == ["PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"]


def test_group_with_one_acknowledgement_waits_for_the_disk(store: SQLiteStore) -> None:
    with Counted(store) as counted:
        together(store, lambda: store.claim_runs("w", None, 5, 1000), lambda: start(store, "o-1"))
    at_commit = []
    level = "FULL"
    for text in counted.texts:
        if text.startswith("PRAGMA synchronous"):
            level = text.split()[-1]
        elif text == "COMMIT":
            at_commit.append(level)
    assert at_commit == ["NORMAL", "FULL"]


def test_normal_durability_never_waits(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "normal.db", durability="normal")
    try:
        start(store, "o-0")
        with Counted(store) as counted:
            start(store, "o-1")
            store.claim_runs("w", None, 5, 1000)
        assert counted.count("COMMIT") == 2
        assert not counted.count("PRAGMA synchronous")
        assert store._file.writer.connection.execute("PRAGMA synchronous").fetchone() == (1,)
    finally:
        store.close()


def test_lock_of_another_connection_is_waited_out(store: SQLiteStore, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    answers: list[str] = []
    try:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=lambda: answers.append(start(store, "o-1")))
        thread.start()
        thread.join(0.05)
        assert not answers
        assert store.find_run("o-1") is None, "readers do not wait"
        other.execute("COMMIT")
    finally:
        other.close()
    thread.join(10)
    assert len(answers) == 1


def test_lock_that_stays_becomes_an_error_and_the_writer_lives_on(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derecho.stores._writer.BUSY_TIMEOUT_S", 0.02)
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="find the process that holds a transaction open"):
            start(store, "o-1")
        other.execute("COMMIT")
    finally:
        other.close()
    assert start(store, "o-1")


class FailingCursor:
    """A cursor whose COMMIT fails a few times."""

    def __init__(self, cursor: sqlite3.Cursor, code: int, times: int) -> None:
        self._cursor = cursor
        self._code = code
        self._times = times

    def execute(self, text: str, *args: Any) -> sqlite3.Cursor:
        if text == "COMMIT" and self._times:
            self._times -= 1
            error = sqlite3.OperationalError("planted")
            error.sqlite_errorcode = self._code
            raise error
        return self._cursor.execute(text, *args)


def test_io_error_is_tried_again(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store._file.writer
    io_error_fsync = 1034  # SQLITE_IOERR_FSYNC: an extended code.
    failing = FailingCursor(writer._cursor, io_error_fsync, times=2)
    monkeypatch.setattr(writer, "_cursor", failing)
    assert start(store, "o-1")
    assert store.count_runs(RunFilter()) == 1


def test_full_disk_is_an_error_with_the_next_step(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store._file.writer
    monkeypatch.setattr(writer, "_cursor", FailingCursor(writer._cursor, sqlite3.SQLITE_FULL, times=1))
    with pytest.raises(StoreError, match="the disk is full; make room") as caught:
        start(store, "o-1")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert store.find_run("o-1") is None
    assert start(store, "o-1"), "the writer goes on, and remembers nothing of the failed group"


def test_interrupted_caller_leaves_the_writer_in_order(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hold(store), monkeypatch.context() as patched:
        patched.setattr(Request, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(store, "o-1")
    assert store.signal("o-1", "", "paid", b"1", "s-1"), "it was done all the same"


def interrupted(_: Request) -> Any:
    raise KeyboardInterrupt


def test_writer_survives_what_it_does_not_foresee(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Exit:
        def now_ns(self) -> int:
            raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(store, "_clock", Exit())
        with pytest.raises(StoreError, match="not foreseen"):
            store._transact(lambda tx: None, durable=True)
    assert "could not be written" in caplog.text
    assert start(store, "o-1")


def test_known_rows_stay_few(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("derecho.stores._sqlite_tx.IMAGES_MAX", 10)
    for number in range(50):
        start(store, f"o-{number}")
    tx = store._file.writer._tx
    assert len(tx._images) <= 11
    assert len(tx._open_id) <= 21
    assert len(store.claim_runs("w", None, 100, 1000)) == 50


def test_idle_writer_does_next_to_nothing(store: SQLiteStore) -> None:
    writer: Writer = store._file.writer
    store.bell.watch("runs")
    for _ in range(100):
        writer._look_around()
    assert writer._look_s == 0.05
    with Counted(store) as counted:
        for _ in range(20):  # One second's worth.
            writer._look_around()
    assert counted.count("PRAGMA data_version") >= 20
    assert not counted.count("BEGIN")
