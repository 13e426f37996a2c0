"""One writer and a few readers for each SQLite file in a process, shared by all stores on that file.

A file is known by its device and inode: two names of one file are one file. The last store that is closed
closes it; what nobody closed is closed when the interpreter ends. A forked child inherits nothing.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sqlite3
import threading
from collections.abc import Sequence
from typing import Any, Final

from derecho.stores._sqlite_file import connect, make_file, store_error
from derecho.stores._writer import Writer
from derecho.stores.bell import Bell

READERS_MAX: Final = 4
_EXIT_WAIT_S: Final = 10.0


class SharedFile:
    """A file in use."""

    def __init__(self, path: str, identity: tuple[int, int]) -> None:
        self.path = path
        self.identity = identity
        self.users = 0
        self.writer = Writer(path)
        self._readers: list[sqlite3.Connection] = []
        self._closed = False

    def read(self, text: str, args: Sequence[Any]) -> list[Any]:
        """Run one query, on a connection that no other thread uses; it sees all that was answered before.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = connect(self.path)
            try:
                return connection.execute(text, args).fetchall()
            finally:
                self._readers.append(connection)
                if self._closed or len(self._readers) > READERS_MAX:
                    self._close_readers(0 if self._closed else READERS_MAX)
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def close(self, timeout_s: float | None = None) -> None:
        """Do what is queued and close all connections."""
        self.writer.stop(timeout_s)
        self._closed = True
        self._close_readers(0)

    def connections(self) -> list[sqlite3.Connection]:
        """Return the connections that are open and not in the hands of a caller."""
        return [self.writer.connection, *self._readers]

    def _close_readers(self, left: int) -> None:
        # Other threads take and give back meanwhile: each step is one operation of the list.
        while len(self._readers) > left:
            try:
                connection = self._readers.pop()
            except IndexError:
                return
            connection.close()


class _Files:
    """The files that this process has in use."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: dict[tuple[int, int], SharedFile] = {}


_files: Final = _Files()


def share_file(path: str, bell: Bell) -> SharedFile:
    """Return the file, opened at its first use, and ring this bell for it; give it back with `let_go`.

    Raises:
        StoreError: the file cannot be used; the message says what to do.
    """
    with _files.lock:
        identity = make_file(path)
        file = _files.open.get(identity)
        if file is None:
            file = _files.open[identity] = SharedFile(path, identity)
        file.users += 1
        file.writer.attach(bell)
        return file


def let_go(file: SharedFile, bell: Bell) -> None:
    """Give a file back; the last user's call waits until all is written and closed."""
    with _files.lock:
        file.users -= 1
        file.writer.detach(bell)
        if file.users == 0:
            del _files.open[file.identity]
            file.close()


def _close_all() -> None:
    for file in list(_files.open.values()):
        file.close(_EXIT_WAIT_S)


def _inherit_nothing() -> None:
    """In a forked child: the writer's thread is not there, and the connections must never be closed.

    Closing one would roll back, in memory shared with the parent, what the parent is writing. So they are
    made immortal; no reference from Python outlives the end of the interpreter.
    """
    for file in _files.open.values():
        for connection in file.connections():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        file.writer.log.gate.close()
    _files.lock = threading.Lock()
    _files.open = {}


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_inherit_nothing)
