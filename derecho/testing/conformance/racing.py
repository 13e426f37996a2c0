"""Cases: many threads at once. Each starts them together, and judges what they left behind."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from derecho.errors import WorkflowAlreadyRunningError
from derecho.journal.events import SignalReceived, WorkflowTaskStarted
from derecho.stores.base import CommitOutcome, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    ALL,
    activity,
    attempt,
    claim,
    claimed,
    claims,
    commit,
    completed,
    events_of,
    expect,
    finish,
    journal,
    kinds,
    row,
    signal,
    start,
    timer,
    turn,
)

T = TypeVar("T")
THREADS = 6


def _together(work: Callable[[int], T]) -> list[T | BaseException]:
    """Run `work(0)`, `work(1)`... in threads that begin together; return the answers or errors."""
    gate = threading.Barrier(THREADS)
    answers: list[T | BaseException] = [TimeoutError()] * THREADS

    def run(number: int) -> None:
        try:
            gate.wait(20)
            answers[number] = work(number)
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def case_each_run_is_claimed_by_one_of_many(store: Store, clock: FakeClock) -> None:
    """B2."""
    ids = [f"w{number}" for number in range(40)]
    for workflow_id in ids:
        start(store, workflow_id)

    def work(number: int) -> list[str]:
        return [workflow_id for _ in range(20) for workflow_id in claimed(store, f"worker {number}", limit=3)]

    found = [workflow_id for answer in _together(work) for workflow_id in _listed(answer)]
    expect(sorted(found), sorted(ids), "claims of all")


def _listed(answer: list[str] | BaseException) -> list[str]:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def case_one_of_many_starts_wins(store: Store, clock: FakeClock) -> None:
    """B51."""
    answers = _together(lambda number: start(store))
    lost = [answer for answer in answers if isinstance(answer, WorkflowAlreadyRunningError)]
    expect((len(lost), store.count_runs(ALL)), (THREADS - 1, 1), "starts that lost, and runs")
    expect({error.run_id for error in lost}, {row(store).run_id}, "run that they name")


def case_one_request_sent_by_many_is_one(store: Store, clock: FakeClock) -> None:
    """B55."""
    answers = _together(lambda number: start(store, request_id="r-1"))
    expect(answers, [row(store).run_id] * THREADS, "answers")
    answers = _together(lambda number: store.signal("w", "", "go", b"1", "r-2"))
    expect(answers, [row(store).run_id] * THREADS, "answers to the signal")
    expect(len(journal(store)), 3, "events")


def case_one_of_many_commits_of_a_task_counts(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    answers = _together(lambda number: commit(store, of, activity(f"of {number}")))
    outcomes = Counter(getattr(answer, "outcome", answer) for answer in answers)
    expect(outcomes, Counter({CommitOutcome.DONE: 1, CommitOutcome.FENCED: THREADS - 1}), "outcomes")
    expect(kinds(journal(store)).count("activity_scheduled"), 1, "activities")


def case_one_of_many_results_of_an_attempt_counts(store: Store, clock: FakeClock) -> None:
    """B29."""
    start(store)
    turn(store, activity())
    work = attempt(store)
    answers = _together(lambda number: finish(store, work))
    expect(sorted(map(bool, answers)), [False] * (THREADS - 1) + [True], "answers")
    expect(kinds(journal(store)).count("activity_completed"), 1, "outcomes")


def case_each_timer_is_fired_by_one_of_many(store: Store, clock: FakeClock) -> None:
    """B7."""
    for number in range(10):
        start(store, f"w{number}")
        turn(store, timer(clock, 1), timer(clock, 1))
    clock.advance(1)
    answers = _together(lambda number: sum(store.fire_timers(2) for _ in range(10)))
    expect(sum(answer for answer in answers if isinstance(answer, int)), 20, "timers fired")
    fired = [kinds(journal(store, f"w{number}")).count("timer_fired") for number in range(10)]
    expect(fired, [2] * 10, "timers fired by run")


def case_signals_sent_while_tasks_commit_all_arrive(store: Store, clock: FakeClock) -> None:
    """B1 and B53: none is lost, none is there twice, and each sender's stay in order."""
    start(store)
    each = 15

    def work(number: int) -> None:
        if number:
            for place in range(each):
                signal(store, name=f"{number}", payload=b"%d" % place)
            return
        for _ in range(200):
            for of in claims(store):
                commit(store, of, activity())

    expect(_together(work), [None] * THREADS, "answers")
    for _ in range(3):
        for of in claims(store):
            commit(store, of, activity())
    signals = events_of(store, SignalReceived)
    for number in range(1, THREADS):
        got = [int(event.payload) for event in signals if event.signal_name == f"{number}"]
        expect(got, list(range(each)), f"signals of sender {number}")
    shown = events_of(store, WorkflowTaskStarted)[-1].visible_through
    expect(shown >= signals[-1].id, True, "whether the last task was shown the last signal")
    signal(store)
    turn(store, completed())
