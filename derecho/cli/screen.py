"""What a verb shows while it works: lines, and a progress bar where somebody watches."""

from __future__ import annotations

import shutil
from typing import Final, TextIO

_BAR_MAX: Final = 40
_QUARTERS: Final = 4


class Screen:
    """Writes lines to a stream, and below them a bar if it is a terminal; else a line at each quarter."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_watched = stream.isatty()
        self._encoding = stream.encoding or "ascii"
        self._bar = ""
        self._quarter = 0
        self._full, self._empty = ("█", "░") if self._can_show("█░") else ("#", ".")

    def line(self, text: str = "") -> None:
        """Write one line."""
        self._wipe()
        # A path may hold what the terminal cannot show.
        shown = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
        print(shown, file=self._stream, flush=True)

    def bar(self, done: int, total: int) -> None:
        """Show that so many batches of all are done."""
        if not total:
            return
        if not self._is_watched:
            quarter = done * _QUARTERS // total
            if quarter > self._quarter:
                self._quarter = quarter
                self.line(f"  {done} of {total} batches")
            return
        width = min(_BAR_MAX, max(shutil.get_terminal_size().columns - 30, 1))
        full = width * done // total
        bar = f"  {self._full * full}{self._empty * (width - full)} {done} of {total} batches"
        if bar != self._bar:
            self._wipe()
            self._bar = bar
            print(bar, end="", file=self._stream, flush=True)

    def _wipe(self) -> None:
        if self._bar:
            print("\r" + " " * len(self._bar) + "\r", end="", file=self._stream)
            self._bar = ""

    def _can_show(self, text: str) -> bool:
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            return False
        return True
