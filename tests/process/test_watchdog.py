"""Workflow code that does not yield: it is taken away, backed off, and holds up nobody else."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from derecho import Client, SQLiteStore, WorkflowStatus
from derecho.journal.lifecycle import check_journal
from tests.process.support import Child, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow]

BAD_CODE = {
    "loops": "while True: pass",
    "sleeps": "time.sleep(3600)",
    "wanders": "while True: here(); there()",
    "asks": "while True: derecho.now()",
    "polls": "while signal_channel('never').try_receive() is None: pass",
    "swallows": """
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass""",
}
THREAD_STAYS = {"sleeps", "swallows"}

# {bad} is the code that does not yield; `entries` counts how often it was entered.
SHOP = """
entries = []

def here():
    return sum(range(100))

def there():
    return sorted(range(100), reverse=True)

@activity
def double(number: int) -> int:
    return 2 * number

@workflow
def good(number: int) -> int:
    derecho.sleep(0.02)
    return double(double(number))

@workflow
def bad(number: int) -> int:
    first = double(number)
    entries.append(time.monotonic())
    {bad}
    return double(first)

engine = Engine(SQLiteStore(path), workflows=[good, bad], activities=[double], deadlock_timeout=0.3)
engine.start()
client = engine.client
"""

SUFFERING = """
import logging
logging.getLogger("derecho").setLevel(logging.CRITICAL)
run = client.start_workflow(bad, "bad", 1)
def goods(first):
    runs = client.start_workflows(good, [(f"good-{n}", (n,)) for n in range(first, first + 10)])
    assert [r.get(20) for r in runs] == [4 * n for n in range(first, first + 10)]
goods(0)
wait_until(lambda: run.describe().blocked_reason, 20, "the watchdog bites")
say("blocked", run.describe().status.name, run.describe().blocked_reason)
say("health", engine.health)
goods(10)
say("entered", *[f"{moment - entries[0]:.3f}" for moment in entries])
begun = time.monotonic()
engine.stop()
say("stopped", time.monotonic() - begun)
"""


def shop(bad: str) -> str:
    return SHOP.replace("{bad}", bad)


@pytest.mark.parametrize("deed", BAD_CODE)
def test_code_that_does_not_yield_blocks_its_run_alone(
    deed: str, path: Path, spawn: Callable[..., Child]
) -> None:
    child = spawn(shop(BAD_CODE[deed]) + SUFFERING, path)
    blocked = child.said("blocked")
    assert blocked.startswith("RUNNING DeadlockError: workflow code did not yield for 0.3 s")
    health = child.said("health")
    if deed in THREAD_STAYS:
        assert "1 workflow threads did not yield and were abandoned" in health
    assert float(child.said("stopped")) < 8
    assert child.wait() == 0
    assert child.stderr == ""

    mended = """
print(client.get_workflow("bad").get(20))
engine.stop()
"""
    assert spawn(shop("pass") + mended, path, strict=True).finish() == ["4\n"]
    store = SQLiteStore(path)
    run = Client(store).get_workflow("bad")
    check_journal(run.events())
    assert run.status() is WorkflowStatus.COMPLETED
    assert run.describe().blocked_reason == ""
    store.close()


def test_blocked_run_is_backed_off_by_the_process_that_failed_it(
    path: Path, spawn: Callable[..., Child]
) -> None:
    script = """
import logging
logging.getLogger("derecho").setLevel(logging.CRITICAL)
run = client.start_workflow(bad, "bad", 1)
wait_until(lambda: len(entries) == 3, 20, "the third attempt")
say("entered", *[moment - entries[0] for moment in entries])
engine.stop()
"""
    child = spawn(shop("while True: pass") + script, path)
    first, second, third = [float(word) for word in child.said("entered").split()]
    assert second - first >= 1.0, "after the first failure 1 s, counted from its end"
    assert third - second >= 2.0, "and twice that after the second"
    assert child.wait() == 0


def test_engine_with_too_many_stuck_threads_says_so_and_drains(
    path: Path, spawn: Callable[..., Child]
) -> None:
    script = """
import logging
logging.getLogger("derecho").setLevel(logging.CRITICAL)
client.start_workflows(bad, [(f"bad-{n}", (n,)) for n in range(6)])
wait_until(lambda: "stopping" in engine.health, 30, "the engine drains")
say("health", engine.health)
begun = time.monotonic()
engine.stop()
say("stopped", time.monotonic() - begun)
"""
    child = spawn(shop("time.sleep(3600)") + script, path)
    assert "4 workflow threads did not yield" in child.said("health", 40)
    assert float(child.said("stopped")) < 8
    assert child.wait() == 0
    assert child.stderr.startswith("4 workflow threads are abandoned; this engine drains")


def test_long_replay_does_not_trip(path: Path, spawn: Callable[..., Child]) -> None:
    script = """
import logging
@workflow
def long(legs: int) -> int:
    total = 0
    for leg in range(legs):
        total += double(leg)
        until = time.process_time() + 0.008  # It computes, between its calls, much less than the limit.
        while time.process_time() < until: pass
    return total + signal_channel("end", int).receive()

{bad}
store = SQLiteStore(path, durability="normal")
if sys.argv[2] == "make":
    engine = Engine(store, workflows=[long], activities=[double])
    engine.start()
    run = engine.client.start_workflow(long, "long", 150)
    wait_until(lambda: len(run.events()) > 150 * 5, 30, "all legs")
    engine.stop()
    store.close()
else:
    engine = Engine(store, workflows=[long], activities=[double], deadlock_timeout=0.2)
    engine.start()
    run = engine.client.get_workflow("long", returns=int)
    run.signal("end", 7)
    begun = time.monotonic()
    say("got", run.get(30), time.monotonic() - begun)
    engine.stop()
    store.close()
"""
    double = """
@activity
def double(number: int) -> int:
    return 2 * number
"""
    spawn(double + script.replace("{bad}", ""), path, "make").finish(60)
    child = spawn(double + script.replace("{bad}", ""), path, "replay")
    result, took_s = child.said("got", 40).split()
    assert int(result) == sum(2 * leg for leg in range(150)) + 7
    assert float(took_s) > 1, "the replay is longer than the deadlock timeout"
    child.finish()


def test_run_that_is_taken_away_can_be_terminated(path: Path, spawn: Callable[..., Child]) -> None:
    script = """
import logging
logging.getLogger("derecho").setLevel(logging.CRITICAL)
run = client.start_workflow(bad, "bad", 1)
wait_until(lambda: entries, 20, "it is stuck")
run.terminate("enough")
say("status", run.status().name)
assert client.start_workflow(good, "good", 1).get(20) == 4
engine.stop()
"""
    child = spawn(shop("time.sleep(3600)") + script, path)
    assert child.said("status") == "TERMINATED"
    assert child.wait() == 0
    assert child.stderr == ""


@pytest.mark.parametrize("bad", ["time.sleep(3600)", "while True: pass"])
@pytest.mark.parametrize("cache_size", [1, 10], ids=["evicted", "stopped"])
def test_cleanup_that_does_not_end_holds_up_nobody(
    bad: str, cache_size: int, path: Path, spawn: Callable[..., Child]
) -> None:
    script = """
import logging
logging.getLogger("derecho").setLevel(logging.CRITICAL)

@workflow
def nasty() -> int:
    try:
        return signal_channel("go", int).receive()
    finally:
        {bad}

engine = Engine(MemoryStore(), workflows=[good, nasty], activities=[double], deadlock_timeout=0.3,
                cache_size=int(sys.argv[2]))
engine.start()
run = engine.client.start_workflow(nasty, "nasty")
wait_until(lambda: len(run.events()) > 3, 20)
assert engine.client.start_workflow(good, "good", 1).get(20) == 4
begun = time.monotonic()
engine.stop()
say("stopped", time.monotonic() - begun)
"""
    child = spawn(shop("pass") + "engine.stop()" + script.replace("{bad}", bad), path, cache_size)
    assert float(child.said("stopped")) < 8
    assert child.wait() == 0
    assert child.stderr == ""


def test_machine_that_stood_still_is_no_deadlock(path: Path, spawn: Callable[..., Child]) -> None:
    script = """
@workflow
def computing() -> int:
    say("computing")
    until = time.process_time() + 0.2
    while time.process_time() < until: pass
    return 7

engine = Engine(SQLiteStore(path), workflows=[computing], workflow_task_timeout=60, deadlock_timeout=1.5)
engine.start()
say("got", engine.client.start_workflow(computing, "c").get(20))
engine.stop()
"""
    child = spawn(script, path)
    child.said("computing")
    child.signal(signal.SIGSTOP)
    until_s = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > until_s, 5, "it has stood still for longer than the limit")
    child.signal(signal.SIGCONT)
    assert child.said("got") == "7"
    assert child.wait() == 0
    assert child.stderr == "", "the watchdog has not bitten"
