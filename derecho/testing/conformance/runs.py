"""Cases: how runs begin, end, and are found."""

from __future__ import annotations

from functools import partial

from derecho.errors import StoreError, WorkflowAlreadyRunningError, WorkflowNotFoundError
from derecho.journal.commit import WorkflowStatus
from derecho.journal.events import (
    Failure,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowStarted,
)
from derecho.stores.base import StartRequest, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    ALL,
    S,
    activity,
    asked,
    attempts,
    cancel,
    claim,
    close,
    commit,
    completed,
    expect,
    expect_error,
    journal,
    kinds,
    row,
    signal,
    start,
    terminate,
    the,
    timer,
    turn,
)

# Slashes, bars, quotes and wildcards that a key, a cursor or a LIKE may trip over (B64).
ODD_IDS = ("a|b", "a/b", "a", "a|", "'; DROP TABLE runs; --", "%_\\", "naïve ☂ 雨 🌀", " \t\n", "A")


def case_a_started_run_waits_for_a_worker(store: Store, clock: FakeClock) -> None:
    run_id = start(store, request_id="r-1")
    expect(kinds(journal(store)), ["workflow_started", "workflow_task_scheduled"], "journal")
    began = the(store, WorkflowStarted)
    wanted = ("order", b"[1]", clock.now_ns(), "w", run_id, run_id, "r-1")
    got = (began.workflow_type, began.args, began.started_at_ns, began.workflow_id)
    expect((*got, began.run_id, began.chain_id, began.request_id), wanted, "workflow_started")
    found = row(store)
    expect((found.run_id, found.workflow_id, found.workflow_type), (run_id, "w", "order"), "row")
    expect((found.chain_id, found.status), (run_id, WorkflowStatus.RUNNING), "chain and status")
    expect((found.started_at_ns, found.closed_at_ns), (clock.now_ns(), 0), "moments")


def case_a_workflow_id_has_at_most_one_open_run(store: Store, clock: FakeClock) -> None:
    """B51."""
    run_id = start(store)
    error = expect_error(WorkflowAlreadyRunningError, lambda: start(store))
    expect((error.workflow_id, error.run_id), ("w", run_id), "fields of the error")
    cancel(store)
    expect_error(WorkflowAlreadyRunningError, lambda: start(store))
    expect(store.count_runs(ALL), 1, "number of runs")


def case_a_closed_workflow_id_may_start_again(store: Store, clock: FakeClock) -> None:
    """B51: what is asked of a workflow id goes to its open run, also if both began at one moment."""
    first = close(store)
    second = start(store)
    expect(row(store).run_id, second, "run found by workflow id")
    expect(row(store, run_id=first).run_id, first, "run found by run id")
    signal(store)
    terminate(store)
    expect(row(store).run_id, second, "newest run, when both are closed")
    expect(len(store.load_events(first)), 5, "events of the first run")


def case_starts_in_one_group_see_one_another(store: Store, clock: FakeClock) -> None:
    first, second, third = asked(store, "w"), asked(store, "w"), asked(store, "v")
    answers = store.start_runs([first, second, third])
    expect((answers[0], answers[2]), (first.run_id, third.run_id), "answers")
    expect(type(answers[1]), WorkflowAlreadyRunningError, "answer to the second start")
    expect(store.count_runs(ALL), 2, "number of runs")


def case_an_unknown_run_is_not_found(store: Store, clock: FakeClock) -> None:
    """B23 and B62: nothing is made up for it, and nobody waits for it."""
    start(store, "other")
    other = row(store, "other").run_id
    expect(store.find_run("w"), None, "unknown workflow id")
    expect(store.find_run("w", other), None, "run id of another workflow id")
    expect(store.find_run("other", "nobody"), None, "unknown run id")
    for ask in (signal, cancel, terminate):
        error = expect_error(WorkflowNotFoundError, partial(ask, store, "w"))
        expect(error.workflow_id, "w", "field of the error")
        expect_error(WorkflowNotFoundError, partial(ask, store, "other", run_id="nobody"))
    expect(store.find_run("w"), None, "after the requests")
    expect(len(journal(store, "other")), 2, "events of the other run")


def case_nothing_reaches_a_closed_run(store: Store, clock: FakeClock) -> None:
    """B23."""
    run_id = close(store)
    before = store.load_events(run_id)
    for ask in (signal, cancel, terminate):
        expect_error(WorkflowNotFoundError, partial(ask, store))
        expect_error(WorkflowNotFoundError, partial(ask, store, run_id=run_id))
    expect(store.load_events(run_id), before, "journal")


def case_a_status_is_stored_and_not_guessed(store: Store, clock: FakeClock) -> None:
    """B60: failing with the error of a cancelled child is still a failure."""
    error = Failure(kind="cancelled", message="the child was cancelled")
    ends = {
        WorkflowStatus.COMPLETED: WorkflowCompleted(result=b"1"),
        WorkflowStatus.FAILED: WorkflowFailed(error=error),
        WorkflowStatus.CANCELLED: WorkflowCancelled(error=error),
    }
    for status, end in ends.items():
        start(store)
        clock.advance(1)
        turn(store, end)
        expect((row(store).status, row(store).closed_at_ns), (status, clock.now_ns()), "status and moment")


def case_a_closed_run_leaves_no_work(store: Store, clock: FakeClock) -> None:
    """What the closing task asked for besides is not done either."""
    start(store)
    turn(store, activity(start_to_close_timeout=5), timer(clock, 5))
    signal(store)
    turn(store, activity(), timer(clock, 5), completed())
    clock.advance(100)
    expect(attempts(store), [], "activities")
    expect((store.fire_timers(100), store.expire(100)), (0, 0), "timers and timeouts")
    due = store.next_due("a")
    expect((due.runs_ns, due.activities_ns, due.timers_ns, due.timeouts_ns), (0, 0, 0, 0), "next due")


def case_ids_may_hold_any_character(store: Store, clock: FakeClock) -> None:
    """B64."""
    for workflow_id in ODD_IDS:
        request = StartRequest(
            workflow_id=workflow_id,
            workflow_type=workflow_id,
            args=b"",
            request_id=workflow_id,
            run_id=f"run {workflow_id}",
        )
        expect(store.start_runs([request]), [request.run_id], "answer")
    for workflow_id in ODD_IDS:
        found = row(store, workflow_id)
        expect((found.run_id, found.workflow_type), (f"run {workflow_id}", workflow_id), "row")
        expect(signal(store, workflow_id, name=workflow_id), found.run_id, "run that took the signal")
        expect(len(journal(store, workflow_id)), 3, f"events of {workflow_id!r}")


def case_payloads_come_back_as_they_were(store: Store, clock: FakeClock) -> None:
    payload = bytes(range(256)) * 4096
    start(store)
    signal(store, payload=payload)
    turn(store, activity(input=payload), WorkflowCompleted(result=payload))
    found = [
        getattr(event, name, None) for event in journal(store) for name in ("payload", "input", "result")
    ]
    expect([value == payload for value in found if value is not None], [True] * 3, "payloads")


def case_moments_are_exact_to_the_nanosecond(store: Store, clock: FakeClock) -> None:
    clock.advance(0.000000001)
    now_ns = clock.now_ns()
    expect((store.now_ns(), now_ns % 10), (now_ns, 1), "store's clock")
    start(store)
    turn(store, timer(clock, 1))
    clock.advance(1)
    store.fire_timers(1)
    expect(getattr(journal(store)[-2], "fired_at_ns", 0), now_ns + S, "fired_at_ns")
    expect(row(store).started_at_ns, now_ns, "started_at_ns")


def case_what_is_handed_out_is_a_copy(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    commit(store, of, activity(schedule_to_close_timeout=5))
    [work] = attempts(store)
    work.token = of.run.token = 99
    work.due_ns = of.run.last_external_id = row(store).last_external_id = 99
    store.list_runs(ALL, 1, None).runs[0].status = WorkflowStatus.FAILED
    journal(store).clear()
    expect((row(store).token, row(store).last_external_id), (1, 1), "row")
    expect((row(store).status, len(journal(store))), (WorkflowStatus.RUNNING, 5), "status and journal")
    clock.advance(5)
    expect(store.expire(100), 1, "activities that timed out")


def case_run_ids_are_fresh(store: Store, clock: FakeClock) -> None:
    expect(len({store.new_id() for _ in range(1000)}), 1000, "different ids")


def case_a_closed_store_refuses_every_call(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    committing = asked(store, "v")
    store.close()
    store.close()
    calls = (
        lambda: store.start_runs([committing]),
        lambda: signal(store),
        lambda: store.find_run("w"),
        lambda: store.list_runs(ALL, 1, None),
        lambda: store.count_runs(ALL),
        lambda: store.load_events(of.run.run_id),
        lambda: store.claim_runs("a", None, 1, S),
        lambda: store.fail_task(of.run.run_id, of.run.token, "broken"),
        lambda: store.claim_activities("a", None, 1, S),
        lambda: store.fire_timers(1),
        lambda: store.expire(1),
        lambda: store.next_due("a"),
    )
    for call in calls:
        error = expect_error(StoreError, call)
        expect("closed" in str(error), True, f"whether {error} says why")
