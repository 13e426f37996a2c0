"""Group commit for an SQLite file: one thread and one connection write for all stores of a process on it.

A caller puts its verbs into a queue and waits. What arrived while the last transaction was on its way to the
disk goes into the next one, so the queue forms groups by itself, and a commit costs less the more is going on
(measured: 270 us alone, 45 us in groups of 20).

In a group those members go first whose answer acknowledges something; claims and the like come after them and
see what they made ready. Each caller waits for its one answer, so all are concurrent and any order is right.

What can go wrong:

- A verb refuses (a DerechoError): its answer; it has written nothing.
- A verb fails otherwise, or its rows cannot be written: the group is rolled back and run again with a savepoint
  around each member, so that it fails alone.
- The file fails (locked, disk full, I/O): waited out or tried again where that may help, else each member of
  the group gets a StoreError. The thread lives on, and the next group tries anew.
"""

from __future__ import annotations

import logging
import queue
import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from derecho.clock import Clock
from derecho.errors import DerechoError, StoreError
from derecho.stores._sqlite_file import (
    BUSY_TIMEOUT_S,
    is_of_the_file,
    is_transient,
    is_wait,
    open_file,
    pause,
    store_error,
)
from derecho.stores._sqlite_log import Log, has_wal_reset_bug
from derecho.stores._sqlite_tx import SQLiteTx
from derecho.stores.base import Tx
from derecho.stores.bell import Bell

log = logging.getLogger("derecho.stores.sqlite")

GROUP_MAX: Final = 1000
_TRIES_MAX: Final = 4
_PAUSE_MIN_S: Final = 0.0002
_PAUSE_MAX_S: Final = 0.005
# How often an idle writer looks whether another process wrote: often after activity, seldom when all is
# quiet.
_LOOK_MIN_S: Final = 0.002
_LOOK_MAX_S: Final = 0.05
_LOOK_GROWTH: Final = 1.25

Verb = Callable[[Tx], Any]


class Request:
    """Verbs of one caller, and where their answers appear.

    Attributes:
        sync: whether the answers acknowledge something that has to be on disk.
        error: why none of them was done.
    """

    __slots__ = ("_done", "answers", "clock", "error", "sync", "verbs")

    def __init__(self, verbs: Sequence[Verb], clock: Clock, *, sync: bool) -> None:
        self.verbs = verbs
        self.clock = clock
        self.sync = sync
        self.answers: list[Any] = []
        self.error: StoreError | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def wait(self) -> list[Any]:
        """Wait for the answers. A caller that is interrupted here goes; its request is done all the same."""
        self._done.acquire()
        if self.error is not None:
            raise self.error
        return self.answers

    def answer(self) -> None:
        """Wake the caller; once."""
        self._done.release()


class Writer:
    """The writing side of one file, shared by all stores of this process on it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._bells: tuple[Bell, ...] = ()
        self.connection = open_file(path)
        try:
            self.log = Log(path, self.connection)
        except BaseException:
            self.connection.close()
            raise
        self._cursor = self.connection.cursor()
        self._tx = SQLiteTx(self.connection)
        self._version = self._data_version()
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._syncs = True
        self._look_s = _LOOK_MIN_S
        self._shared = False
        self._thread = threading.Thread(target=self._run, name="derecho-sqlite-writer", daemon=True)
        self._thread.start()

    # For callers, on their threads.

    def ask(self, verbs: Sequence[Verb], clock: Clock, *, sync: bool) -> list[Any]:
        """Run verbs and return the answer or exception of each.

        Raises:
            StoreError: the file cannot be written, or the writer was closed.
        """
        parts = [verbs[start : start + GROUP_MAX] for start in range(0, len(verbs), GROUP_MAX)]
        requests = [Request(part, clock, sync=sync) for part in parts]
        for request in requests:
            self._queue.put(request)
        if self._stopped.is_set():  # It may have stopped before it saw them.
            self._refuse_queued()
        if len(requests) == 1:
            return requests[0].wait()
        return [answer for request in requests for answer in request.wait()]

    def attach(self, bell: Bell) -> None:
        """Ring this bell too."""
        self._bells = (*self._bells, bell)

    def detach(self, bell: Bell) -> None:
        """Leave this bell alone from now on."""
        self._bells = tuple(other for other in self._bells if other is not bell)

    def stop(self, timeout_s: float | None = None) -> None:
        """Do what is queued, close the connections and end the thread."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    # The thread.

    def _run(self) -> None:
        running = True
        while running:
            group, running = self._next_group()
            try:
                if group:
                    self._look_s = _LOOK_MIN_S
                    self._write_group(group)
                else:
                    self._look_around()
            except Exception:
                log.exception("%s: the writer goes on", self.path)
        self._stopped.set()
        self._refuse_queued()
        self.connection.close()
        self.log.gate.close()

    def _next_group(self) -> tuple[list[Request], bool]:
        """Take what is queued, about GROUP_MAX verbs at most; also tell whether to go on after it."""
        waiting = self._queue
        try:
            request = waiting.get(timeout=self._look_s)
        except queue.Empty:
            return [], True
        group = []
        count = 0
        while request is not None:
            group.append(request)
            count += len(request.verbs)
            if count >= GROUP_MAX or waiting.empty():
                return group, True
            request = waiting.get()
        return group, False

    def _refuse_queued(self) -> None:
        while True:
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return
            if request is not None:
                request.error = StoreError(f"{self.path}: this store is closed; open a new SQLiteStore")
                request.answer()

    def _write_group(self, group: list[Request]) -> None:
        tx = self._tx
        tx.rings = {}
        sync = False
        for request in group:
            sync = sync or request.sync
        try:
            self._commit(group, sync=sync)
            if tx.rings:
                for bell in self._bells:
                    bell.ring(tx.rings)
        except BaseException as error:
            self._rollback()
            if not isinstance(error, sqlite3.Error):
                log.exception("%s: a group could not be written", self.path)
            for request in group:
                request.error = store_error(self.path, error)
        finally:
            for request in group:
                request.answer()
        tx.trim()
        self.log.keep(synced=sync)

    def _commit(self, group: list[Request], *, sync: bool) -> None:
        if len(group) > 1:
            group = sorted(group, key=_claims_last)
        tries = 1
        while True:
            try:
                self._begin(sync=sync)
                if not self._all_at_once(group):
                    self._rollback()
                    self._begin(sync=sync)
                    self._one_by_one(group)
                self._cursor.execute("COMMIT")
                return
            except sqlite3.Error as error:
                self._rollback()
                if not is_transient(error) or tries == _TRIES_MAX:
                    raise
                log.warning("%s: try %d failed: %s", self.path, tries, error)
            pause(_PAUSE_MAX_S * 4**tries)
            tries += 1

    def _begin(self, *, sync: bool) -> None:
        """Begin with the lock. Waits are short: who writes without a break leaves gaps of 0.1 ms."""
        execute = self._cursor.execute
        if sync is not self._syncs:
            execute("PRAGMA synchronous = FULL" if sync else "PRAGMA synchronous = NORMAL")
            self._syncs = sync
        waited_s = 0.0
        delay_s = _PAUSE_MIN_S
        while True:
            if self._shared:
                self.log.gate.wait()
            try:
                execute("BEGIN IMMEDIATE")
                break
            except sqlite3.Error as error:
                if not is_wait(error) or waited_s > BUSY_TIMEOUT_S:
                    raise
            jittered_s = delay_s * (0.5 + random.random())
            pause(jittered_s)
            waited_s += jittered_s
            delay_s = min(delay_s * 1.3, _PAUSE_MAX_S)
        version = self._data_version()
        if version != self._version:
            self._others_wrote(version)

    def _all_at_once(self, group: list[Request]) -> bool:
        """Run all members; return False if one broke off half-way, so that they have to be told apart."""
        tx = self._tx
        try:
            for request in group:
                tx.now_ns = request.clock.now_ns()
                answers: list[Any] = []
                for verb in request.verbs:
                    writes = tx.writes
                    try:
                        answers.append(verb(tx))
                    except DerechoError as error:
                        if tx.writes != writes:
                            return False
                        answers.append(error)
                request.answers = answers
            tx.flush()
        except Exception as error:
            if is_of_the_file(error):
                raise
            return False
        return True

    def _one_by_one(self, group: list[Request]) -> None:
        """Run each member under a savepoint, so that what breaks off takes only itself along."""
        execute = self._cursor.execute
        for request in group:
            request.answers = []
            for verb in request.verbs:
                self._tx.now_ns = request.clock.now_ns()
                execute("SAVEPOINT member")
                try:
                    answer = verb(self._tx)
                    self._tx.flush()
                except Exception as error:
                    if is_of_the_file(error) or not self.connection.in_transaction:
                        raise
                    execute("ROLLBACK TO member")
                    self._tx.forget()
                    answer = self._as_answer(error)
                execute("RELEASE member")
                request.answers.append(answer)

    def _as_answer(self, error: Exception) -> Exception:
        return store_error(self.path, error) if isinstance(error, sqlite3.Error) else error

    def _rollback(self) -> None:
        self._tx.forget()
        if self.connection.in_transaction:
            try:
                self._cursor.execute("ROLLBACK")
            except sqlite3.Error as error:
                log.warning("%s: rollback failed: %s", self.path, error)

    # Other processes.

    def _data_version(self) -> int:
        [version] = self._cursor.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _look_around(self) -> None:
        """While idle: ring if another process has written since, and look less often if nothing happens."""
        self._look_s = min(self._look_s * _LOOK_GROWTH, _LOOK_MAX_S)
        if any(bell.watched() for bell in self._bells):
            try:
                version = self._data_version()
            except sqlite3.Error:
                return  # It is busy; the next look or the next group will see.
            if version != self._version:
                self._others_wrote(version)
                self._look_s = _LOOK_MIN_S

    def _others_wrote(self, version: int) -> None:
        """Forget what is known: another connection has written. Wake all, nobody knows who is meant."""
        self._version = version
        self._tx.forget()
        for bell in self._bells:
            bell.ring(bell.watched())
        if not self._shared:
            self._shared = True
            if has_wal_reset_bug():
                self._warn()

    def _warn(self) -> None:
        log.warning(
            "%s is written by several processes, and SQLite %s has a bug that can then lose commits; "
            "Derecho avoids it as far as it can, SQLite 3.51.3 or newer is free of it",
            self.path,
            sqlite3.sqlite_version,
        )


def _claims_last(request: Request) -> bool:
    return not request.sync
