"""The write-ahead log of an SQLite file: long enough from the start, and never too long.

The WAL-reset bug. Before 3.51.3, SQLite can lose commits if one connection checkpoints while another writes
and begins the log anew. So no connection checkpoints by the way (`wal_autocheckpoint = 0`); the writer does
it between groups, with a checkpoint that takes the writers' lock. If it cannot get that lock in time, SQLite
goes on without it and does not say so. Therefore the gate: a lock on the file `<path>-checkpoint`, held
during a checkpoint, at which writers of other processes wait before they begin. It also elects the one that
checkpoints. Without such locks (Windows) it is a matter of SQLite's own patience.

Size. How much of the log's file is in use cannot be asked. But SQLite cuts the file to `journal_size_limit`
when the log begins anew, and from then on writes over it in place. So a file that is longer than that limit
says that the log has passed it, and it costs one `stat` to know.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
from typing import Final

from derecho.errors import StoreError
from derecho.stores._sqlite_file import WAL_BYTES_MAX, pause

if sys.platform != "win32":
    import fcntl

log = logging.getLogger("derecho.stores.sqlite")

# A process that only looks in for a moment does not pay for the log's file.
_GROW_AFTER_COMMITS: Final = 32
_CHUNK_BYTES: Final = 1 << 20
# A reader that stays longer (a shell, a backup) must not hold up writers: the log grows, and it is tried
# again.
_WAIT_MS: Final = 1000
_REST_S: Final = 5.0
_GATE_WAIT_S: Final = 3.0
_GATE_TRIES: Final = 20
_GATE_PAUSE_S: Final = 0.0005


def has_wal_reset_bug(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Tell whether this SQLite may lose commits when several connections write and checkpoint."""
    backports = {(3, 44): 6, (3, 50): 7}
    return version < (3, 51, 3) and version[2] < backports.get(version[:2], version[2] + 1)


class Gate:
    """A lock between processes that writers respect out of courtesy: one that waits too long passes it."""

    def __init__(self, path: str) -> None:
        self._file = -1
        if sys.platform != "win32":
            try:
                self._file = os.open(f"{path}-checkpoint", os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise StoreError(
                    f"{path}-checkpoint: cannot be opened ({error.strerror}); permit reading and writing"
                ) from error

    def close(self) -> None:
        """Let go of it. Also a forked child has to, or it would keep the gate shut for its parent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def wait(self) -> None:
        """Wait until no other process holds it."""
        until_s = 0.0
        while self._file >= 0:
            try:
                fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                now_s = time.monotonic()
                until_s = until_s or now_s + _GATE_WAIT_S
                if now_s > until_s:
                    return
                pause(_GATE_PAUSE_S)
            else:
                fcntl.flock(self._file, fcntl.LOCK_UN)
                return

    def shut(self) -> bool:
        """Keep others out; return False if one of them does so."""
        for _ in range(_GATE_TRIES if self._file >= 0 else 0):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # A checkpoint, or only somebody who passes through.
                pause(_GATE_PAUSE_S)
            else:
                return True
        return self._file < 0

    def open(self) -> None:
        """Let others in again."""
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)


class Log:
    """The log of one file, kept by its writer, between groups and on its connection."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._execute = connection.cursor().execute
        self._grow_in = _GROW_AFTER_COMMITS
        self._not_before_s = 0.0
        self.gate = Gate(path)

    def keep(self, *, synced: bool) -> None:
        """Checkpoint if the log has passed its size; `synced` = a commit has just waited for the disk."""
        try:
            size = os.stat(f"{self._path}-wal").st_size
            if size > WAL_BYTES_MAX:
                if time.monotonic() >= self._not_before_s:
                    self._checkpoint()
            elif synced and self._grow_in:
                self._grow_in -= 1
                if not self._grow_in:
                    self._grow()
        except (sqlite3.Error, OSError) as error:
            log.debug("%s: the log's file was left as it is: %s", self._path, error)

    def _checkpoint(self) -> None:
        if not self.gate.shut():
            return
        try:
            self._execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
            [busy, frames, copied] = self._execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        finally:
            self._execute("PRAGMA busy_timeout = 0")
            self.gate.open()
        if busy:
            self._not_before_s = time.monotonic() + _REST_S
            log.info("%s: checkpoint of %d of %d pages; a reader needs old ones", self._path, copied, frames)

    def _grow(self) -> None:
        """Write the log's file to its full length once, with zeros after its end.

        Overwriting is cheaper than growing: a commit of four rows takes 200 us instead of 290-350. Zeros are
        no valid frame, so SQLite takes them for the end of the log, like what is left of an older, longer
        one. The alternative, a large transaction that is then deleted, does the same to the log and leaves
        16 MB of free pages in the database. Under the writers' lock, so that nobody appends meanwhile.
        """
        self._execute("BEGIN IMMEDIATE")
        try:
            file = os.open(f"{self._path}-wal", os.O_WRONLY | getattr(os, "O_BINARY", 0))
            try:
                end = os.lseek(file, 0, os.SEEK_END)
                while end < WAL_BYTES_MAX:
                    end += os.write(file, bytes(min(_CHUNK_BYTES, WAL_BYTES_MAX - end)))
                os.fsync(file)
            finally:
                os.close(file)
        finally:
            self._execute("ROLLBACK")
