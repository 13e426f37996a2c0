"""An SQLite file: how it is made, opened, migrated, kept small, and what its errors mean.

Nothing in this package opens the database file itself but SQLite: closing such a descriptor would drop every
lock that this process holds on the file. The exceptions: making it, before SQLite has seen it, and the -wal
file, which carries no locks.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Final

from derecho.errors import StoreError
from derecho.stores._rows import COLUMNS
from derecho.stores._sql import load_queries

SCHEMA: Final = 1
TABLES: Final = ("meta", "runs", "journal", "activities", "timers", "requests")
BUSY_TIMEOUT_S: Final = 30.0
# The log's file is cut to this size when it begins anew; see _sqlite_log.py.
WAL_BYTES_MAX: Final = 16 << 20

# Somebody else holds a lock: nothing is wrong, it takes longer.
_WAITS: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
# Trouble of the file or the machine, not of one write.
_NEXT_STEP: Final = {
    sqlite3.SQLITE_BUSY: f"locked for {BUSY_TIMEOUT_S:.0f} s; find the process that holds a transaction open",
    sqlite3.SQLITE_LOCKED: "locked by another connection; end its transaction",
    sqlite3.SQLITE_FULL: "the disk is full; make room, nothing of this was written",
    sqlite3.SQLITE_READONLY: "not writable for this user; permit writing to the file and its directory",
    sqlite3.SQLITE_PERM: "access denied; permit reading and writing of the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that its directory exists and is writable",
    sqlite3.SQLITE_NOTADB: "not an SQLite database; give the path of another file",
    sqlite3.SQLITE_CORRUPT: "damaged; stop all processes that use it and restore a backup",
    sqlite3.SQLITE_IOERR: "reading or writing failed; check the disk, nothing of this was written",
    sqlite3.SQLITE_PROTOCOL: "the file system does not keep locks properly; put the file on a local disk",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}


def error_code(error: BaseException) -> int:
    """Return SQLite's primary code of an error, 0 if it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_wait(error: BaseException) -> bool:
    """Tell whether somebody else holds a lock."""
    return error_code(error) in _WAITS


def is_transient(error: BaseException) -> bool:
    """Tell whether the same transaction may work in a moment, though nobody was in the way."""
    return error_code(error) == sqlite3.SQLITE_IOERR


def is_of_the_file(error: BaseException) -> bool:
    """Tell whether an error is about the file or the machine, and not about what was written."""
    return error_code(error) in _NEXT_STEP


def pause(delay_s: float) -> None:
    """Wait for a lock that cannot wake anybody."""
    threading.Event().wait(delay_s)


def store_error(path: str, error: BaseException) -> StoreError:
    """Put an error of SQLite into words with a next step."""
    step = _NEXT_STEP.get(error_code(error), "this is not foreseen; look at the chained error")
    result = StoreError(f"{path}: {step} (SQLite: {error})")
    result.__cause__ = error
    return result


def make_file(path: str) -> tuple[int, int]:
    """Make the file if it is not there, for its owner alone; return its identity (device, inode).

    Raises:
        StoreError: the path cannot be a database.
    """
    if path in ("", ":memory:"):
        raise StoreError("SQLiteStore needs the path of a file; for a store in memory use MemoryStore()")
    place = Path(path)
    if place.is_dir():
        raise StoreError(f"{path}: this is a directory; give the path of a file in it")
    if not place.parent.is_dir():
        raise StoreError(f"{path}: the directory {place.parent} does not exist; make it first")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"{path}: the file cannot be made: {error.strerror}; check the directory") from error
    found = place.stat()
    return found.st_dev, found.st_ino


def connect(path: str, *, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Open a connection for any thread, one at a time, with every setting that is not stored in the file."""
    connection = sqlite3.connect(
        path, timeout=timeout_s, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    pragmas = (
        "wal_autocheckpoint = 0",  # Checkpoints are made by one connection only; see _writer.py.
        "mmap_size = 0",  # Never: a mapped file turns a torn log into silent corruption.
        f"journal_size_limit = {WAL_BYTES_MAX}",
        "synchronous = FULL",
        "fullfsync = ON",  # macOS: there fsync alone does not reach the disk.
        "checkpoint_fullfsync = ON",
        "secure_delete = FAST",  # Overwrite what is deleted where it costs no I/O.
        "temp_store = MEMORY",
        "trusted_schema = OFF",
    )
    try:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_file(path: str) -> sqlite3.Connection:
    """Open the writing connection, making or migrating the schema first; other processes may do the same.

    Raises:
        StoreError: the file cannot be used; the message says what to do.
    """
    connection = None
    try:
        connection = connect(path)
        _use_wal(path, connection)
        if _schema(path, connection) != SCHEMA:
            _migrate(path, connection)
        connection.execute("PRAGMA cache_size = -16384")
        # The writer waits by itself: SQLite's own waits grow to 100 ms and starve beside a busy process.
        connection.execute("PRAGMA busy_timeout = 0")
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise store_error(path, error) from error
        raise
    return connection


def _use_wal(path: str, connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite does not wait for the lock that this takes, so we do."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.Error as error:
            if not is_wait(error) or time.monotonic() > deadline_s:
                raise
        pause(0.01)
    if mode != "wal":
        raise StoreError(
            f"{path}: no write-ahead log is possible here (mode {mode!r}); put the file on a local disk"
        )


def _schema(path: str, connection: sqlite3.Connection) -> int:
    """Return the version of the schema in the file, 0 if it has none of our tables."""
    tables = {name for [name] in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    found = None
    if "meta" in tables:
        columns = [column[1] for column in connection.execute("PRAGMA table_info(meta)")]
        if columns == ["key", "value"]:
            found = connection.execute("SELECT value FROM meta WHERE key = 'derecho_schema'").fetchone()
    taken = sorted(tables.intersection(TABLES))
    if found is None:
        if taken:
            raise StoreError(
                f"{path}: this is a database of another program: it has its own {', '.join(taken)}. "
                "Give the path of another file"
            )
        return 0
    schema = int(found[0])
    if schema > SCHEMA:
        raise StoreError(
            f"{path}: the file has schema {schema}, written by a newer derecho; this one knows {SCHEMA}. "
            "Upgrade derecho here, or give the path of another file"
        )
    return schema


def _migrate(path: str, connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have done it meanwhile.
        for number in range(_schema(path, connection) + 1, SCHEMA + 1):
            for query in load_queries(f"sqlite_{number:03}.sql", COLUMNS).values():
                connection.execute(query.text)
        connection.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('derecho_schema', ?)", (str(SCHEMA),)
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
