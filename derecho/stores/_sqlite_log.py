"""The write-ahead log of an SQLite file: long enough from the start, and never too long.

The WAL-reset bug: before 3.51.3, SQLite can lose commits if one connection checkpoints while another writes
and begins the log anew. So no connection checkpoints by the way (`wal_autocheckpoint = 0`), and the writer
does it between groups, with a checkpoint that takes the writers' lock. SQLite's own checkpoint lock elects
one process.

Size. How much of the log's file is in use cannot be asked. But SQLite cuts the file to `journal_size_limit`
when the log begins anew, and from then on writes over it in place. So a file that is longer than that limit
says that the log has passed it, and it costs one `stat` to know.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from typing import Final

from derecho.stores._sqlite_file import WAL_BYTES_MAX

log = logging.getLogger("derecho.stores.sqlite")

# A process that only looks in for a moment does not pay for the log's file.
_GROW_AFTER_COMMITS: Final = 32
_CHUNK_BYTES: Final = 1 << 20
# A reader that stays longer (a shell, a backup) must not hold up writers: the log grows, and it is tried
# again.
_WAIT_MS: Final = 2000
_REST_S: Final = 10.0


def has_wal_reset_bug(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Tell whether this SQLite may lose commits when several connections write and checkpoint."""
    backports = {(3, 44): 6, (3, 50): 7}
    return version < (3, 51, 3) and version[2] < backports.get(version[:2], version[2] + 1)


class Log:
    """The log of one file, kept by its writer, between groups and on its connection."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._execute = connection.cursor().execute
        self._grow_in = _GROW_AFTER_COMMITS
        self._not_before_s = 0.0

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
        self._execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
        try:
            [busy, frames, copied] = self._execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        finally:
            self._execute("PRAGMA busy_timeout = 0")
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
