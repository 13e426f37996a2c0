"""What the tests of real processes share: children with a deadline, waiting for a condition, a ledger on disk.

Nothing here sleeps blindly: a wait is for something, and has a limit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from derecho.activities import ActivityInfo

ROOT: Final = Path(__file__).resolve().parents[2]
_LOOK_EVERY_S: Final = 0.01

PRELUDE: Final = """
import logging, os, signal, sys, threading, time
from pathlib import Path
import derecho
from derecho import *
import derecho._core as _core
from tests.process.support import Ledger, wait_until
logging.getLogger("derecho.stores.sqlite").setLevel(logging.ERROR)  # It warns of a shared file.
path = Path(sys.argv[1])
def say(*words):
    print(*words, flush=True)
"""


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str = "") -> Any:
    """Wait until `condition()` is true and return what it gave.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what or condition}"
        time.sleep(_LOOK_EVERY_S)
    return found


class Child:
    """A Python process of our own: its lines are read as they come, and it never outlives its test.

    Args:
        script: source that follows `PRELUDE`; `path` in it is the first argument.
        strict: run it in development mode, with every warning an error.
    """

    def __init__(self, script: str, path: Path, *args: object, strict: bool = False) -> None:
        modes = ["-X", "dev", "-W", "error"] if strict else []
        self.process = subprocess.Popen(
            [sys.executable, *modes, "-c", PRELUDE + script, str(path), *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=_read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=_read, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return "".join(self.errors)

    def said(self, word: str, timeout_s: float = 20.0) -> str:
        """Wait for a line that begins with a word, and return the rest of it."""

        def found() -> str | None:
            for line in self.lines:
                if line.split(" ", 1)[0].strip() == word:
                    return line
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.stderr}"
            return None

        line: str = wait_until(found, timeout_s, f"{word!r} of the child; it said {self.lines} {self.stderr}")
        return line.partition(" ")[2].strip()

    def tell(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone."""
        self.process.kill()
        self.wait()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(10)  # A grandchild may hold the other end of the pipe.
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass
        return code

    def finish(self, timeout_s: float = 30.0) -> list[str]:
        """Wait for its end and return its lines; it must have gone well and said nothing on stderr."""
        code = self.wait(timeout_s)
        assert (code, self.stderr) == (0, ""), self.stderr
        return self.lines


def _read(stream: Any, lines: list[str]) -> None:
    while line := stream.readline():
        lines.append(line)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger: an attempt of an activity began or ended, in a process."""

    at: str
    run_id: str
    scheduled_id: int
    key: str
    attempt: int
    pid: int


class Ledger:
    """What activities really did, kept apart from any store: lines appended to a file, each synced to the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, at: str, info: ActivityInfo, key: str) -> None:
        """Note that an attempt is at its "begin" or "end"."""
        entry = Entry(at, info.run_id, info.scheduled_at, key, info.attempt, os.getpid())
        append_line(self.path, json.dumps(asdict(entry)))

    def entries(self) -> list[Entry]:
        """Return all whole lines, in order."""
        return [Entry(**json.loads(line)) for line in whole_lines(self.path)]


def append_line(path: Path, line: str) -> None:
    """Append a line in one write and sync it: it is there whole, whatever happens to this process next."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def whole_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file that another process appends to; nothing if it is not there yet."""
    if path.exists():
        yield from path.read_text().splitlines()
