"""Cases: cancel, its deadline, and terminate."""

from __future__ import annotations

from derecho.journal.commit import WorkflowStatus
from derecho.journal.events import WorkflowCancelled, WorkflowCancelRequested, WorkflowFailed
from derecho.stores.base import CommitOutcome, LeaseState, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    S,
    activity,
    attempts,
    cancel,
    claim,
    claimed,
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
    terminate,
    the,
    timer,
    turn,
)


def case_a_cancel_request_is_an_event_like_others(store: Store, clock: FakeClock) -> None:
    run_id = start(store)
    turn(store)
    signal(store)
    clock.advance(1)
    expect(store.cancel("w", run_id, "enough", 5 * S, "r-3"), run_id, "run that took it")
    expect(kinds(journal(store))[4:], ["signal_received", "workflow_task_scheduled", _ASKED], "journal")
    asked, now_ns = the(store, WorkflowCancelRequested), clock.now_ns()
    expect((asked.reason, asked.requested_at_ns, asked.request_id), ("enough", now_ns, "r-3"), "event")
    expect((asked.cancel_timeout_ns, asked.deadline_ns), (5 * S, now_ns + 5 * S), "deadline")
    expect((row(store).status, claimed(store)), (WorkflowStatus.CANCELLING, ["w"]), "status and claims")


_ASKED = WorkflowCancelRequested.type


def case_a_cancel_request_wakes_an_idle_run(store: Store, clock: FakeClock) -> None:
    """It ends nothing by itself."""
    start(store)
    turn(store, timer(clock, 5), activity())
    cancel(store)
    turn(store)
    clock.advance(5)
    expect((store.fire_timers(10), len(attempts(store))), (1, 1), "timers fired, and attempts")
    expect(row(store).status, WorkflowStatus.CANCELLING, "status")
    turn(store, completed())
    expect(row(store).status, WorkflowStatus.COMPLETED, "status at the end")


def case_a_cancel_deadline_ends_the_run(store: Store, clock: FakeClock) -> None:
    """B63: by any worker, without the run's code; whoever runs it is fenced, and its work is gone."""
    start(store)
    turn(store, activity(), timer(clock, 5))
    [work] = attempts(store)
    cancel(store, timeout_s=5)
    of = claim(store)
    clock.advance(4.999999999)
    expect(store.expire(10), 0, "runs ended before the deadline")
    clock.advance(0.000000001)
    expect((store.expire(10), store.expire(10)), (1, 0), "runs ended")
    expect(
        (the(store, WorkflowCancelled).forced, journal(store)[-1].type), (True, "workflow_cancelled"), "end"
    )
    expect((row(store).status, row(store).closed_at_ns), (WorkflowStatus.CANCELLED, clock.now_ns()), "row")
    expect(commit(store, of, completed()).outcome, CommitOutcome.FENCED, "commit")
    expect((finish(store, work), store.fire_timers(10), claimed(store)), (False, 0, []), "work")


def case_a_cancel_deadline_is_only_brought_forward(store: Store, clock: FakeClock) -> None:
    start(store)
    now_ns = clock.now_ns()
    wanted_s = ((0, 0), (60, 60), (100, 60), (0, 60), (5, 5))
    for timeout_s, deadline_s in wanted_s:
        cancel(store, timeout_s=timeout_s)
        wanted_ns = now_ns + deadline_s * S if deadline_s else 0
        expect(store.next_due("a").timeouts_ns, wanted_ns, f"deadline after a timeout of {timeout_s} s")
    expect(len(events_of(store, WorkflowCancelRequested)), 5, "requests")
    clock.advance(5)
    expect(store.expire(10), 1, "runs ended")


def case_a_run_that_ends_in_time_is_not_ended_again(store: Store, clock: FakeClock) -> None:
    start(store)
    cancel(store, timeout_s=5)
    turn(store, WorkflowCancelled())
    clock.advance(10)
    expect((store.expire(10), store.next_due("a").timeouts_ns), (0, 0), "runs ended, and the next deadline")
    expect(the(store, WorkflowCancelled).forced, False, "forced")


def case_deadlines_beyond_the_limit_are_left(store: Store, clock: FakeClock) -> None:
    for number in range(5):
        start(store, f"w{number}")
        cancel(store, f"w{number}", timeout_s=5)
    clock.advance(5)
    expect([store.expire(2) for _ in range(4)], [2, 2, 1, 0], "runs ended")


def case_terminate_needs_no_worker(store: Store, clock: FakeClock) -> None:
    """B58 and B60."""
    run_id = start(store)
    turn(store, activity(), timer(clock, 5))
    clock.advance(1)
    expect(store.terminate("w", "", "enough", "r-4"), run_id, "run that ended")
    end = the(store, WorkflowFailed)
    expect((end.terminated, end.error.kind if end.error else None), (True, "cancelled"), "event")
    expect(end.error.message if end.error else None, "enough", "reason")
    expect((row(store).status, row(store).closed_at_ns), (WorkflowStatus.TERMINATED, clock.now_ns()), "row")
    clock.advance(10)
    expect((attempts(store), store.fire_timers(10), claimed(store)), ([], 0, []), "work")


def case_terminate_fences_whoever_runs_it(store: Store, clock: FakeClock) -> None:
    """B58: nothing comes after the end, and the worker learns of it."""
    start(store)
    turn(store, activity())
    [work] = attempts(store)
    signal(store)
    of = claim(store)
    terminate(store)
    end = journal(store)
    expect(store.renew_runs([(of.run.run_id, of.run.token)], S), [LeaseState.LOST], "renewal")
    expect(store.fail_task(of.run.run_id, of.run.token, "broken"), False, "failure of the task")
    store.release_runs([(of.run.run_id, of.run.token)])
    expect((commit(store, of).outcome, finish(store, work)), (CommitOutcome.FENCED, False), "late writes")
    expect((journal(store), claimed(store)), (end, []), "journal and claims")


def case_terminate_frees_the_workflow_id(store: Store, clock: FakeClock) -> None:
    old = start(store)
    cancel(store, timeout_s=5)
    terminate(store)
    new = start(store)
    clock.advance(10)
    expect((store.expire(10), old != new), (0, True), "runs ended by the old deadline")
    expect((row(store).run_id, row(store).status), (new, WorkflowStatus.RUNNING), "new run")


def case_a_broken_run_can_be_ended(store: Store, clock: FakeClock) -> None:
    """G8."""
    start(store)
    of = claim(store)
    store.fail_task(of.run.run_id, of.run.token, "broken")
    cancel(store)
    terminate(store)
    expect(row(store).status, WorkflowStatus.TERMINATED, "status")
