"""The replay laws over the whole corpus, on both stores."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from derecho.journal import (
    SignalReceived,
    TimerCancelled,
    TimerFired,
    WorkflowTaskCompleted,
    WorkflowTaskStarted,
    dump_events,
)
from tests.laws.corpus import CORPUS
from tests.laws.laws import LawBroken, check_r1, check_r2, check_r4, check_r5, commands_of
from tests.laws.lives import Life, live
from tests.laws.plants import PLANTS
from tests.laws.stores import MakeStores, memory

ROOT = Path(__file__).resolve().parents[2]
HASH_SEEDS = ("1", "4711")
# Faults for one shape: all of most shapes on the memory store, some of the long loop, and samples in a file.
FAULTS_MAX, FAULTS_OF_LONG_MAX, FAULTS_IN_FILE = 100, 20, 4
CALLS_OF_LONG = 200

every_shape = pytest.mark.parametrize("name", CORPUS)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@cache
def lived(name: str) -> Life:
    """Live a shape warm, on the memory store."""
    return live(CORPUS[name])


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 24


@every_shape
def test_the_shape_ends_as_written(name: str) -> None:
    life = lived(name)
    assert json.loads(json.dumps(life.ending)) == json.loads(json.dumps(CORPUS[name].expect))
    assert not life.computed_again
    assert set(life.drawn.values()) <= {1}


def test_a_stuck_run_says_so() -> None:
    [reason] = lived("stuck_and_woken").stuck
    assert reason.startswith("stuck: ")


@pytest.mark.parametrize("name", ["fire_loses_to_cancel", "timeout_fires_too_late"])
def test_a_fire_stands_before_the_cancellation_that_won(name: str) -> None:
    events = lived(name).journals["main"]
    [cancelled] = [event for event in events if isinstance(event, TimerCancelled)]
    fired = next(event for event in events if isinstance(event, TimerFired))
    assert fired.scheduled_by_id == cancelled.scheduled_by_id
    assert fired.id < cancelled.id


@pytest.mark.parametrize("name", ["signals_while_it_runs", "unseen_while_it_runs"])
def test_signals_arrive_while_a_task_runs(name: str) -> None:
    events = lived(name).journals["main"]
    signals = [event.id for event in events if isinstance(event, SignalReceived)]
    tasks = [event for event in events if isinstance(event, WorkflowTaskStarted)]
    assert any(task.visible_through < signal < task.id for task in tasks for signal in signals)


def test_both_ways_of_skipping_a_signal_are_lived() -> None:
    events = lived("undecodable_signals").journals["main"]
    skipped = [event.skipped for event in events if isinstance(event, WorkflowTaskCompleted)]
    assert sum(map(len, skipped)) == 2


def test_the_end_is_refused_once() -> None:
    committed = [call for call in lived("closing_refused").calls if call.name == "commit_tasks"]
    tasks = [e for e in lived("closing_refused").journals["main"] if isinstance(e, WorkflowTaskStarted)]
    assert (len(committed), len(tasks)) == (3, 2)


def test_activities_that_fail_run_again() -> None:
    assert [deed.attempt for deed in lived("retries").ledger] == [1, 2, 3, 1, 1, 2, 3]


@every_shape
def test_r1_a_finished_journal_replays(name: str) -> None:
    check_r1(lived(name))


@every_shape
def test_r2_cut_anywhere(name: str) -> None:
    check_r2(lived(name))


@pytest.mark.slow
@every_shape
def test_r4_crash_anywhere(name: str) -> None:
    is_long = len(lived(name).calls) > CALLS_OF_LONG
    assert check_r4(CORPUS[name], memory, FAULTS_OF_LONG_MAX if is_long else FAULTS_MAX)


@pytest.mark.slow
@every_shape
def test_r4_crash_and_open_the_file_again(name: str, sqlite: MakeStores) -> None:
    assert check_r4(CORPUS[name], sqlite, FAULTS_IN_FILE) == FAULTS_IN_FILE


@pytest.mark.slow
@every_shape
def test_r5_one_journal_on_every_store_and_cache(name: str, sqlite: MakeStores) -> None:
    check_r5(CORPUS[name], {"memory": memory, "sqlite": sqlite})


# --- R3 -------------------------------------------------------------------------------------------------------------


def check_r3(names: list[str], folder: Path, plant: str = "") -> None:
    """Other processes, with other hash seeds, give the same commands, and write the same journals."""
    lives = {name: lived(name) for name in names}
    journals = {
        name: {key: dump_events(events).decode() for key, events in life.journals.items()}
        for name, life in lives.items()
    }
    expected = {name: [*commands_of(lives[name]), *texts.values()] for name, texts in journals.items()}
    inbox = folder / "journals.json"
    inbox.write_text(json.dumps(journals), encoding="utf-8")
    children = []
    for seed in HASH_SEEDS:
        command = [sys.executable, "-m", "tests.laws.other_process", inbox, folder / f"answer-{seed}.json"]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        children.append(
            subprocess.Popen(
                [*map(str, command), *([plant] if plant else [])],
                cwd=ROOT,
                env=environment,
                stderr=subprocess.PIPE,
            )
        )
    complaints = [child.communicate(timeout=60)[1].decode() for child in children]
    answers = {}
    for seed, child, complaint in zip(HASH_SEEDS, children, complaints, strict=True):
        if child.returncode:
            raise LawBroken(f"R3 broken under PYTHONHASHSEED={seed}: {complaint[-2000:]}")
        answers[seed] = json.loads((folder / f"answer-{seed}.json").read_text(encoding="utf-8"))
    for seed, answer in answers.items():
        for name in names:
            for got, wanted in zip(answer[name], expected[name], strict=True):
                if got != wanted:
                    raise LawBroken(
                        f"R3 broken in shape {name!r} under PYTHONHASHSEED={seed}: {got} is not {wanted}"
                    )


@pytest.mark.process
@pytest.mark.slow
def test_r3_other_processes_give_the_same_bytes(tmp_path: Path) -> None:
    check_r3(list(CORPUS), tmp_path)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("plant", [name for name, plant in PLANTS.items() if plant.law == "R3"])
def test_r3_turns_red(plant: str, tmp_path: Path) -> None:
    with pytest.raises(LawBroken, match=r"^R3 broken "):
        check_r3(list(PLANTS[plant].shapes), tmp_path, plant)
