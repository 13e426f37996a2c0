"""Workers killed with SIGKILL at random moments: nothing is lost, nothing that was recorded is done again.

`DERECHO_KILLS` sets how many kills (20), `DERECHO_KILL_SEED` repeats a run's random choices; the moments at which
the operating system really kills differ, so a seed is a hint, not a replay.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from derecho import Client, Engine, MemoryStore, SQLiteStore, WorkflowStatus
from derecho.journal.events import (
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    Event,
    SignalReceived,
    WorkflowTaskStarted,
)
from derecho.journal.lifecycle import check_journal
from tests.process import voyage as program
from tests.process.support import Child, Entry, Ledger, wait_until, whole_lines
from tests.process.voyage import name_of, result_of, voyage, words_of

pytestmark = [pytest.mark.process, pytest.mark.slow]

KILLS = int(os.environ.get("DERECHO_KILLS", "20"))
SEED = int(os.environ.get("DERECHO_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
RUNS = 50
# The client is killed too, now and then: what it sends again must not arrive twice.
CLIENT_KILLS = 0.2
KILLED_AT_START = 0.15
# The last, worst-placed activity may have been lost several times, and then waits before its next attempt.
FINISH_S = 60.0

SERVE = "from tests.process import voyage; voyage.serve(path, Path(sys.argv[2]))"
SEND = "from tests.process import voyage; voyage.send(path, Path(sys.argv[2]))"


class Ordeal:
    """Runs that are worked on, while what works on them is killed."""

    def __init__(self, directory: Path, spawn: Callable[..., Child], chance: random.Random) -> None:
        self.path = directory / "runs.db"
        self.ledger = Ledger(directory / "ledger")
        self.acks = directory / "acks"
        self.chance = chance
        self.store = SQLiteStore(self.path)
        self.client = Client(self.store)
        self.spawn = spawn
        self.numbers: list[int] = []
        self.settled: dict[tuple[str, int], int] = {}
        self.closed: set[int] = set()
        self.sender = self._start_sender()

    def start_runs(self, count: int) -> None:
        first = len(self.numbers)
        fresh = list(range(first, first + count))
        self.client.start_workflows(voyage, [(name_of(number), (number,)) for number in fresh])
        self.numbers += fresh
        for number in fresh:
            self.sender.tell(str(number))

    def open_runs(self) -> int:
        return self.client.count_workflows(status=WorkflowStatus.RUNNING)

    def kill_a_worker(self) -> None:
        """Let a worker work for a random while, kill it, and see that it did nothing again."""
        worker = self.spawn(SERVE, self.path, self.ledger.path)
        if self.chance.random() > KILLED_AT_START:
            worker.said("ready")
        wait_s = self.chance.uniform(0.0, 0.8)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(wait_s)
        worker.kill()
        self.look()
        if self.chance.random() < CLIENT_KILLS:
            self.sender.kill()
            self.sender = self._start_sender()
            for number in self.numbers:
                self.sender.tell(str(number))

    def look(self) -> None:
        """Check the ledger against what was recorded by the last look, and note what is recorded now.

        Called while no worker runs: whatever is in the ledger below this line was begun before this moment.
        """
        entries = self.ledger.entries()
        check_order(entries, self.settled)
        for number in self.numbers:
            if number in self.closed:
                continue
            run = self.client.get_workflow(name_of(number))
            if run.status() is WorkflowStatus.COMPLETED:
                self.closed.add(number)
            for event in run.events():
                if isinstance(event, ActivityCompleted | ActivityFailed):
                    self.settled.setdefault((run.run_id, event.scheduled_by_id), len(entries))

    def finish(self) -> None:
        """Let one worker finish everything, and every signal be acknowledged."""
        worker = self.spawn(SERVE, self.path, self.ledger.path)
        wait_until(lambda: not self.open_runs(), FINISH_S, "all runs are closed")
        wanted = {str(word) for number in self.numbers for word in words_of(number)}
        wait_until(lambda: set(whole_lines(self.acks)) >= wanted, 20, "all signals are acknowledged")
        worker.end_input()
        assert worker.wait(20) == 0, worker.stderr
        self.look()

    def close(self) -> None:
        self.sender.kill()
        self.store.close()

    def _start_sender(self) -> Child:
        child = self.spawn(SEND, self.path, self.acks)
        child.said("ready")
        return child


def check_order(entries: Sequence[Entry], settled: Mapping[tuple[str, int], int]) -> None:
    """Check that nothing begins below the line at which its outcome was seen in the journal."""
    for place, entry in enumerate(entries):
        since = settled.get((entry.run_id, entry.scheduled_id))
        assert since is None or entry.at == "end" or place < since, (
            f"{entry} began after its outcome was recorded"
        )


def check_run(journal: Sequence[Event], entries: Sequence[Entry]) -> int:
    """Compare a finished run's journal with what its activities noted; return how many attempts were repeats."""
    check_journal(journal)
    begun = Counter((entry.scheduled_id, entry.attempt) for entry in entries if entry.at == "begin")
    ended = {(entry.scheduled_id, entry.attempt) for entry in entries if entry.at == "end"}
    assert max(begun.values(), default=1) == 1, f"an attempt began twice: {begun}"
    started = {e.scheduled_by_id: e.attempt for e in journal if isinstance(e, ActivityStarted)}
    for event in journal:
        if isinstance(event, ActivityCompleted):
            settled_by = (event.scheduled_by_id, started[event.scheduled_by_id])
            assert settled_by in ended, f"the outcome at event {event.id} comes from no attempt that ended"
    for scheduled_id, attempt in begun:
        recorded = started.get(scheduled_id)
        assert recorded is not None, f"activity {scheduled_id} was begun and has no outcome"
        assert attempt <= recorded, f"activity {scheduled_id} was begun again after its outcome"
    asked = [event.id for event in journal if isinstance(event, ActivityScheduled)]
    assert all((scheduled_id, started[scheduled_id]) in begun for scheduled_id in asked)
    return len(begun) - len(asked)


@pytest.mark.timeout(60 + 6 * KILLS)
def test_killed_workers_lose_nothing_and_repeat_nothing_recorded(
    tmp_path: Path, spawn: Callable[..., Child]
) -> None:
    sys.stdout.write(f"seed {SEED}, {KILLS} kills\n")
    ordeal = Ordeal(tmp_path, spawn, random.Random(SEED))
    ordeal.start_runs(RUNS)
    for _ in range(KILLS):
        ordeal.kill_a_worker()
        if ordeal.open_runs() < RUNS // 5:
            ordeal.start_runs(RUNS)
    ordeal.finish()

    entries: dict[str, list[Entry]] = {}
    for entry in ordeal.ledger.entries():
        entries.setdefault(entry.run_id, []).append(entry)
    repeats = 0
    workers = set()
    for number in ordeal.numbers:
        run = ordeal.client.get_workflow(name_of(number))
        journal = run.events()
        repeats += check_run(journal, entries[run.run_id])
        words = words_of(number)
        assert run.get(block=False) == result_of(number, words)
        signals = [event.payload for event in journal if isinstance(event, SignalReceived)]
        assert signals == [str(word).encode() for word in words], "each once, in the order of its sender"
        workers |= {event.worker_id for event in journal if isinstance(event, WorkflowTaskStarted)}
    ordeal.close()
    sys.stdout.write(
        f"{len(ordeal.numbers)} runs, {len(workers)} workers, {repeats} attempts more than outcomes\n"
    )


def test_ledger_checks_can_fail(tmp_path: Path) -> None:
    """The checkers' own planted bug: an activity that is done again after its outcome."""
    ledger = program._ledger = Ledger(tmp_path / "ledger")
    store = MemoryStore()
    with Engine(store, workflows=[voyage], activities=[program.step, program.shaky]) as engine:
        run = engine.client.start_workflow(voyage, "v", 3)
        for word in words_of(3):
            run.signal("word", word)
        assert run.get(20) == result_of(3, words_of(3))
    journal = run.events()
    assert check_run(journal, ledger.entries()) == 3, "each shaky activity has one attempt too many"
    last = ledger.entries()[-1]
    again = Entry("begin", last.run_id, last.scheduled_id, last.key, last.attempt + 1, 0)
    with pytest.raises(AssertionError, match="begun again after its outcome"):
        check_run(journal, [*ledger.entries(), again])
    settled = {(last.run_id, last.scheduled_id): len(ledger.entries())}
    check_order(ledger.entries(), settled)
    with pytest.raises(AssertionError, match="began after its outcome"):
        check_order([*ledger.entries(), again], settled)
    with pytest.raises(AssertionError, match="no attempt that ended"):
        check_run(journal, [entry for entry in ledger.entries() if entry.at == "begin"])
    store.close()
