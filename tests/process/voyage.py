"""The program of the kill test: a workflow with activities, timers, signals and fibers, and the model of its result.

`serve` is the life of a worker, `send` that of the client which sends the signals and keeps a file of the acks.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any, Final

import derecho
from derecho import (
    Client,
    Engine,
    RetryPolicy,
    SQLiteStore,
    activity,
    activity_info,
    gather,
    select,
    side_effect,
    signal_channel,
    spawn,
    wait_for,
    workflow,
)
from tests.process.support import Ledger, append_line, whole_lines

SIGNALS: Final = 4
LEGS: Final = 3
LEASE_S: Final = 0.4
_ledger = Ledger(Path("unset"))


@activity
def step(number: int, key: str) -> int:
    """Take a moment, without any timeout: only its lease can tell that its worker is dead."""
    info = activity_info()
    _ledger.write("begin", info, key)
    time.sleep(0.01)
    _ledger.write("end", info, key)
    return len(key) + number


@activity(retry=RetryPolicy(initial_interval=0.05, max_attempts=50))
async def shaky(number: int, key: str) -> int:
    """Fail once on purpose, at its first attempt."""
    info = activity_info()
    _ledger.write("begin", info, key)
    await asyncio.sleep(0.01)
    if info.attempt == 1:
        raise OSError("a shaky first attempt")
    _ledger.write("end", info, key)
    return 100 * number


@workflow
def voyage(number: int) -> dict[str, Any]:
    words: list[int] = []

    def listen() -> None:
        channel = signal_channel("word", int)
        while len(words) < SIGNALS:
            words.append(channel.receive())
            step(number, f"heard-{len(words)}")

    def leg(nth: int) -> int:
        before = step(number, f"out-{nth}")
        derecho.sleep(0.05 * nth)
        return before + shaky(number, f"back-{nth}")

    listener = spawn(listen)
    drawn = side_effect(lambda: number * 7)
    legs = gather(*[spawn(leg, nth) for nth in range(1, LEGS + 1)])
    first = select(derecho.timer(60), step.execute(number, "race"))
    wait_for(lambda: len(words) == SIGNALS)
    both = step(number, "all-heard")
    listener.get()
    return {"legs": legs, "first": first.get(), "drawn": drawn, "words": words, "both": both}


def result_of(number: int, words: list[int]) -> dict[str, Any]:
    """Return what a voyage gives that hears these words: plain arithmetic, no engine."""
    return {
        "legs": [len(f"out-{nth}") + number + 100 * number for nth in range(1, LEGS + 1)],
        "first": len("race") + number,
        "drawn": number * 7,
        "words": words,
        "both": len("all-heard") + number,
    }


def name_of(number: int) -> str:
    return f"voyage-{number}"


def words_of(number: int) -> list[int]:
    """Return the values of the signals that a voyage is sent, no two alike."""
    return [number * 10 + nth for nth in range(SIGNALS)]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve(path: Path, ledger: Path) -> None:
    """Be a worker until killed."""
    global _ledger
    _ledger = Ledger(ledger)
    engine = Engine(
        SQLiteStore(path),
        workflows=[voyage],
        activities=[step, shaky],
        concurrency=8,
        workflow_task_timeout=LEASE_S,
        activity_lease=LEASE_S,
    )
    engine.start()
    _say("ready")
    sys.stdin.read()
    engine.stop()


def send(path: Path, acks: Path) -> None:
    """Send the words of each voyage that is named on stdin; note each one when it is acknowledged.

    After a restart it sends again what was not acknowledged, under the same request id.
    """
    client = Client(SQLiteStore(path))
    known = set(whole_lines(acks))
    _say("ready")
    for line in sys.stdin:
        number = int(line)
        for word in words_of(number):
            if str(word) not in known:
                client.options(request_id=f"word-{word}").signal_workflow(name_of(number), "word", word)
                append_line(acks, str(word))
        _say(f"sent {number}")
