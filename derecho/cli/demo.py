"""`derecho demo`: index a folder in a worker process, kill it with SIGKILL on the way, and check what comes out.

The worker (`derecho.cli.indexing`) runs in a child process on a SQLite file. This process starts the workflow,
follows its journal, and kills the child when a part of the batches is recorded. At the end the manifest is compared
with hashes taken directly, and the ledger of real attempts with the journal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Final

from derecho.cli.indexing import (
    DATABASE,
    LEDGER,
    MANIFEST,
    Job,
    Listing,
    batches_of,
    digest_of,
    hash_files,
    index,
    list_files,
    listing_of,
    manifest_of,
)
from derecho.cli.screen import Screen
from derecho.cli.victim import WorkerProcess
from derecho.client import Client
from derecho.errors import DerechoError
from derecho.journal.events import TERMINAL_EVENTS, ActivityCompleted, ActivityScheduled, WorkflowFailed
from derecho.payloads import JSONCodec
from derecho.stores.base import Store
from derecho.stores.sqlite import SQLiteStore

KILLS_MAX: Final = 20
_LOOK_S: Final = 0.005
_PRUNED: Final = ["__pycache__", "dist-packages", "site-packages"]


class DemoError(Exception):
    """Why the demo cannot go on."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the demo."""
    parser.description = (
        "Index a folder into a manifest of SHA-256 digests with a durable workflow, kill its worker process with "
        "SIGKILL on the way, start it again, and check the result against a direct pass. Takes a few seconds."
    )
    parser.add_argument("--path", metavar="DIR", help="the folder (default: this Python's standard library)")
    parser.add_argument("--kills", type=_kills, default=2, metavar="N", help=f"0 to {KILLS_MAX} (default: 2)")
    parser.add_argument("--keep", action="store_true", help="keep the database, the ledger and the manifest")


def run(options: argparse.Namespace) -> int:
    """Run the demo; 0 = the manifest is right, 1 = it is not, 2 = the path is no readable folder."""
    root = Path(options.path if options.path is not None else sysconfig.get_paths()["stdlib"]).resolve()
    try:
        os.listdir(root)
    except OSError as error:
        print(f"derecho demo: --path {str(root)!r}: {error.strerror}; give a folder", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="derecho-demo-")).resolve()
    in_main = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, _leave) if in_main else None
    screen = Screen(sys.stdout)
    job = Job(str(root), _PRUNED if options.path is None else [], str(folder))
    try:
        return Demo(job, options.kills, screen).run()
    except (DemoError, DerechoError) as error:
        screen.line()
        print(f"derecho demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        screen.line()
        screen.line("  stopped; the worker is gone" + ("" if options.keep else ", nothing is left behind"))
        raise
    finally:
        if options.keep:
            screen.line(f"  kept         {folder} ({DATABASE}, {MANIFEST}, {LEDGER})")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        if in_main:
            signal.signal(signal.SIGTERM, former)


class Demo:
    """One run of the workflow, and the worker processes that it survives."""

    def __init__(self, job: Job, kills: int, screen: Screen) -> None:
        self._job = job
        self._kills = kills
        self._screen = screen
        self._folder = Path(job.folder)
        self._begun_s = monotonic()
        self._killed = 0
        # After each kill: how long the ledger was, and which activities had a recorded outcome.
        self._marks: list[tuple[int, frozenset[int]]] = []

    def run(self) -> int:
        """Tell the whole story; return the exit status."""
        times = {0: "no kill", 1: "1 kill"}.get(self._kills, f"{self._kills} kills")
        self._screen.line(f"derecho demo: index {self._job.root}, {times} on the way")
        self._screen.line()
        store = SQLiteStore(self._folder / DATABASE)
        try:
            run = Client(store).start_workflow(index, "index", self._job)
            journal = Journal(store, run.run_id)
            self._survive(journal)
            return self._report(journal)
        finally:
            store.close()

    def _survive(self, journal: Journal) -> None:
        """Start a worker, kill it, start the next; the last one comes to the end."""
        while True:
            with WorkerProcess(self._folder) as worker:
                again = f"; it replays {journal.length} events and goes on" if self._killed else ""
                self._screen.line(f"  worker {worker.pid} started{again}")
                self._follow(worker, journal)
                if journal.is_closed:
                    return
                worker.kill()
            self._killed += 1
            journal.read()
            self._marks.append((len(self._ledger()), frozenset(journal.recorded)))
            done, total = journal.progress
            self._screen.line(f"  kill -9 {worker.pid}: {done} of {total} batches are recorded")

    def _follow(self, worker: WorkerProcess, journal: Journal) -> None:
        """Return when the run is closed, or when it is time for the next kill."""
        while True:
            journal.read()
            done, total = journal.progress
            self._screen.bar(done, total)
            if journal.is_closed or (
                self._killed < self._kills and done and done * (self._kills + 1) >= total * (self._killed + 1)
            ):
                return
            if worker.has_left(_LOOK_S):
                raise DemoError(f"the worker left by itself:\n{worker.last_words()}")

    def _report(self, journal: Journal) -> int:
        if journal.failure:
            raise DemoError(f"the workflow failed: {journal.failure}")
        listing = listing_of(self._job)
        digests = [digest_of(os.path.join(self._job.root, name)) for name in listing.names]
        expected = manifest_of(listing.names, digests)
        written = (self._folder / MANIFEST).read_bytes()
        ledger = self._ledger()
        again = sum(event in recorded for length, recorded in self._marks for event in ledger[length:])
        is_right = written == expected and not again
        unreadable = digests.count(None)
        lines = {
            "files": f"{len(listing.names):,}"
            + (f", {unreadable:,} of them unreadable" if unreadable else "")
            + ("; there are more, the demo takes no more" if listing.is_cut else ""),
            "events": f"{journal.length:,} in the journal",
            "kills": f"{self._killed} survived"
            + (f" of {self._kills}: there was too little to do" if self._killed < self._kills else ""),
            "attempts": f"{len(ledger):,} in the activities' own ledger, "
            f"{len(ledger) - len(journal.recorded):,} of them cut short by a kill and made again",
            "outcomes": f"{len(journal.recorded):,} recorded, each once; {again:,} computed again",
            "manifest": "equals a direct hashlib pass, byte for byte"
            if written == expected
            else "DIFFERS from a direct hashlib pass: " + _difference(written, expected),
            "time": f"{monotonic() - self._begun_s:.1f} s",
        }
        self._screen.line()
        for word, text in lines.items():
            self._screen.line(f"  {word:<12} {text}")
        return 0 if is_right else 1

    def _ledger(self) -> list[int]:
        path = self._folder / LEDGER
        return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


class Journal:
    """The journal of a run as it grows, read from the database while the worker writes there."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._batches: set[int] = set()
        self._listed_by = 0
        self._done = 0
        self._total = 0
        self.length = 0
        self.recorded: set[int] = set()
        self.is_closed = False
        self.failure = ""

    @property
    def progress(self) -> tuple[int, int]:
        """How many batches have a recorded outcome, and how many there are; 0, 0 before the listing."""
        return self._done, self._total

    def read(self) -> None:
        """Take in what was written since the last look."""
        for event in self._store.load_events(self._run_id, self.length):
            self.length = event.id
            if isinstance(event, ActivityScheduled):
                if event.name == hash_files.name:
                    self._batches.add(event.id)
                elif event.name == list_files.name:
                    self._listed_by = event.id
            elif isinstance(event, ActivityCompleted):
                self.recorded.add(event.scheduled_by_id)
                self._done += event.scheduled_by_id in self._batches
                if event.scheduled_by_id == self._listed_by:
                    listing: Listing = JSONCodec().decode(event.result, Listing)
                    self._total = len(batches_of(listing.names))
            elif isinstance(event, TERMINAL_EVENTS):
                self.is_closed = True
                if isinstance(event, WorkflowFailed) and event.error is not None:
                    self.failure = event.error.describe()


def _difference(written: bytes, expected: bytes) -> str:
    """Name the first line that differs; a file may have changed meanwhile."""
    ours, theirs = written.decode().splitlines(), expected.decode().splitlines()
    first = next((a for a, b in zip(ours, theirs, strict=False) if a != b), "")
    return f"{len(ours):,} lines against {len(theirs):,}; {first!r}. Did files change meanwhile?"


def _kills(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= KILLS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to {KILLS_MAX}")
    return number


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Turn SIGTERM into an ordinary way out, so that the worker and the folder go too."""
    sys.exit(128 + signal.SIGTERM)
