"""The conformance suite itself: it is complete, says what failed, and needs no test framework."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from derecho.stores.memory import MemoryStore
from derecho.testing import ConformanceError, FakeClock, cases, check_store, run_case

# The faults of the original that a store can have; each is named by the cases that would see it.
STORE_FAULTS = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    11,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    29,
    37,
    51,
    53,
    55,
    58,
    60,
    62,
    63,
    64,
]


def test_every_case_has_a_name_of_its_own() -> None:
    names = Counter(name for name, _ in cases())
    assert len(names) >= 80
    assert set(names.values()) == {1}


def test_every_fault_of_the_original_is_looked_for() -> None:
    named = {int(number) for _, case in cases() for number in re.findall(r"\bB(\d+)\b", case.__doc__ or "")}
    assert set(STORE_FAULTS) <= named


def test_all_failures_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "new_id", lambda store: "same")
    with pytest.raises(ConformanceError, match=r"\d+ of \d+ cases failed") as caught:
        check_store(MemoryStore)
    failures = caught.value.failures
    assert "runs.run_ids_are_fresh" in failures
    assert len(failures) > 1
    assert all(name in str(caught.value) for name in failures)


def test_journals_are_checked_after_each_case() -> None:
    def leaves_a_gap(store: MemoryStore, clock: FakeClock) -> None:
        dict(cases())["runs.a_started_run_waits_for_a_worker"](store, clock)
        [life] = store._tables.lives.values()
        life.journal.pop(0)

    with pytest.raises(AssertionError, match="event 2"):
        run_case(leaves_a_gap, MemoryStore)


def test_stores_are_closed_after_each_case() -> None:
    made: list[MemoryStore] = []

    def make(clock: FakeClock) -> MemoryStore:
        made.append(MemoryStore(clock))
        return made[-1]

    check_store(make)
    assert len(made) == len(list(cases()))
    assert all(store._closed for store in made)


@pytest.mark.process
def test_the_suite_works_without_asserts_and_without_pytest() -> None:
    """`python -O` drops `assert`: the suite must not rest on it."""
    program = """
import sys
from derecho.stores.memory import MemoryStore
from derecho.testing import ConformanceError, check_store
check_store(lambda clock: MemoryStore(clock))
MemoryStore.fire_timers = lambda store, limit: 0
try:
    check_store(lambda clock: MemoryStore(clock))
except ConformanceError as error:
    print(len(error.failures), "pytest" in sys.modules)
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-O", "-c", program], cwd=root, capture_output=True, encoding="utf-8", timeout=60
    )
    failures, pytest_loaded = done.stdout.split()
    assert int(failures) > 5
    assert pytest_loaded == "False"
