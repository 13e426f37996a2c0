"""Cases: the bell. It rings after the commit and only then, and for the topic that changed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from derecho.errors import WorkflowNotFoundError
from derecho.policies import RetryPolicy
from derecho.stores.base import Store
from derecho.stores.bell import ACTIVITIES, RUNS, TIMEOUTS, TIMERS
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    activity,
    attempt,
    attempts,
    cancel,
    claim,
    claimed,
    commit,
    completed,
    expect,
    expect_error,
    fail,
    finish,
    signal,
    start,
    terminate,
    timer,
    token,
    turn,
)

TOPICS = (RUNS, ACTIVITIES, TIMERS, TIMEOUTS)


def _rung(store: Store, change: Callable[[], object], *more: str) -> set[str]:
    """Return the topics that rang while something changed."""
    topics = (*TOPICS, *more)
    for topic in topics:
        store.bell.watch(topic)
    before = [store.bell.seq(topic) for topic in topics]
    change()
    rung = {topic for topic, seq in zip(topics, before, strict=True) if store.bell.seq(topic) != seq}
    for topic in topics:
        store.bell.unwatch(topic)
    return rung


def case_new_work_rings_for_its_workers(store: Store, clock: FakeClock) -> None:
    """Work that is due within a second must ring: later work is found by the look that each worker takes anyway."""
    expect(RUNS in _rung(store, lambda: start(store)), True, "runs, at a start")
    asked_for = _rung(store, lambda: turn(store, activity(schedule_to_close_timeout=0.5), timer(clock, 0.5)))
    expect({ACTIVITIES, TIMERS, TIMEOUTS} <= asked_for, True, "activities, timers and timeouts, at a commit")
    work = attempt(store)
    expect(RUNS in _rung(store, lambda: finish(store, work)), True, "runs, at an outcome")
    turn(store)
    expect(RUNS in _rung(store, lambda: signal(store)), True, "runs, at a signal")
    turn(store)
    expect(
        {RUNS, TIMEOUTS} <= _rung(store, lambda: cancel(store, timeout_s=0.5)), True, "at a cancel request"
    )
    turn(store)
    clock.advance(5)
    expect(RUNS in _rung(store, lambda: store.fire_timers(1)), True, "runs, at a fired timer")


def case_an_attempt_that_is_over_rings_for_the_next(store: Store, clock: FakeClock) -> None:
    """B27: a delayed attempt on an idle engine; a lost one; a released one; and a claim begins a lease."""
    start(store)
    turn(store, activity(retry=RetryPolicy()))
    works = []
    expect(
        TIMEOUTS in _rung(store, lambda: works.append(attempt(store, lease_s=0.5))),
        True,
        "timeouts, at a claim",
    )
    expect(ACTIVITIES in _rung(store, lambda: fail(store, works[0])), True, "activities, at a failure")
    clock.advance(10)
    work = attempt(store)
    released = _rung(store, lambda: store.release_activities([token(work)]))
    expect(ACTIVITIES in released, True, "activities, at a release")
    attempt(store)
    clock.advance(100)
    expect(ACTIVITIES in _rung(store, lambda: store.expire(10)), True, "activities, at a loss")


def case_a_run_that_is_let_go_of_rings(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    failed = _rung(store, lambda: store.fail_task(of.run.run_id, of.run.token, "broken"))
    expect(RUNS in failed, True, "runs, when a task failed")
    again = claim(store)
    released = _rung(store, lambda: store.release_runs([(again.run.run_id, again.run.token)]))
    expect(RUNS in released, True, "runs, at a release")
    last = claim(store)
    signal(store)
    expect(RUNS in _rung(store, lambda: commit(store, last, completed())), True, "runs, at a refusal")
    one_more = claim(store)
    signal(store)
    expect(RUNS in _rung(store, lambda: commit(store, one_more)), True, "runs, when events were left unseen")


def case_the_end_of_a_run_rings_for_who_waits_for_it(store: Store, clock: FakeClock) -> None:
    """B62."""
    for end in (lambda: turn(store, completed()), lambda: terminate(store)):
        run_id = start(store)
        expect(run_id in _rung(store, end, run_id), True, "run id, at its end")
    run_id = start(store)
    cancel(store, timeout_s=5)
    clock.advance(5)
    expect(run_id in _rung(store, lambda: store.expire(10), run_id), True, "run id, at its deadline")


def case_what_changes_nothing_does_not_ring(store: Store, clock: FakeClock) -> None:
    start(store)
    turn(store)
    silent = (
        lambda: expect_error(WorkflowNotFoundError, lambda: signal(store, "unknown")),
        lambda: (claimed(store), attempts(store)),
        lambda: (store.fire_timers(10), store.expire(10)),
        lambda: (store.count_runs, store.next_due("a"), store.find_run("w")),
    )
    for number, call in enumerate(silent):
        expect(_rung(store, call), set(), f"topics that rang at {number}")


def case_whoever_wakes_finds_the_change(store: Store, clock: FakeClock) -> None:
    """The bell rings when the commit is there to be seen, and the store is free."""
    store.bell.watch(RUNS)
    found: list[str] = []

    def wait() -> None:
        if store.bell.wait(RUNS, seq, 10):
            found.extend(claimed(store))

    seq = store.bell.seq(RUNS)
    waiter = threading.Thread(target=wait)
    waiter.start()
    start(store)
    rang = store.bell.seq(RUNS) != seq
    if not rang:
        store.bell.ring([RUNS])  # Let the waiter go.
    waiter.join(20)
    store.bell.unwatch(RUNS)
    expect((rang, found), (True, ["w"]), "whether it rang, and claims of the waiter")
