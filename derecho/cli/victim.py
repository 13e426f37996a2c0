"""The worker process that the demo starts and kills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_LEAVE_S: Final = 10.0
_LAST_WORDS_MAX: Final = 2000
# Without the current directory in front (-P), but with all that this process can import.
_PROGRAM: Final = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which ends its worker.
sys.path[:] = sys.argv[2:]
from derecho.cli.indexing import serve
serve(sys.argv[1])
"""


class WorkerProcess:
    """A child process that works on the database in a folder, until it is killed or this block is left.

    It ends when its stdin is closed; so it does not outlive this process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "worker.log"
        self._folder = folder

    def __enter__(self) -> Self:
        path = [os.path.abspath(entry) for entry in sys.path]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(self._folder), *path],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it end by itself; after an error there is no time for that."""
        assert self._process.stdin is not None
        if error is not None:
            self._process.kill()
        self._process.stdin.close()
        if not self.has_left(_LEAVE_S):
            self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it with SIGKILL: it has no say, and runs no handler."""
        self._process.kill()
        self._process.wait()

    def has_left(self, wait_s: float) -> bool:
        """Wait a moment, and tell whether it has ended."""
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        """Return the end of what it wrote."""
        return self._log.read_text(errors="replace")[-_LAST_WORDS_MAX:].strip()
