"""Cases: signals from clients and from other runs, also to a run that is busy or wants to close."""

from __future__ import annotations

from derecho.errors import RunClosingError, WorkflowNotFoundError
from derecho.journal.commit import Draft, WorkflowStatus
from derecho.journal.events import SignalExternalScheduled, SignalReceived, WorkflowTaskStarted
from derecho.stores.base import CLOSE_REFUSALS_MAX, CLOSING_NS, Claim, CommitOutcome, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    S,
    activity,
    attempt,
    cancel,
    claim,
    claimed,
    claims,
    commit,
    completed,
    events_of,
    expect,
    expect_error,
    finish,
    journal,
    kinds,
    row,
    sent,
    signal,
    start,
    task,
    the,
    timer,
    turn,
)


def case_a_signal_wakes_an_idle_run(store: Store, clock: FakeClock) -> None:
    run_id = start(store)
    turn(store)
    expect(claimed(store), [], "claims of an idle run")
    clock.advance(1)
    expect(store.signal("w", "", "go", b"\x00\xff", "r-2"), run_id, "run that took it")
    expect(kinds(journal(store)[4:]), ["signal_received", "workflow_task_scheduled"], "journal")
    got = the(store, SignalReceived)
    wanted = ("go", b"\x00\xff", clock.now_ns(), "r-2")
    expect((got.signal_name, got.payload, got.sent_at_ns, got.request_id), wanted, "signal")
    expect(claimed(store), ["w"], "claims")


def case_a_second_signal_schedules_no_second_task(store: Store, clock: FakeClock) -> None:
    """B2."""
    start(store)
    turn(store)
    for name in ("one", "two", "three"):
        signal(store, name=name)
    wanted = ["signal_received", "workflow_task_scheduled", "signal_received", "signal_received"]
    expect(kinds(journal(store)[4:]), wanted, "journal")
    names = [event.signal_name for event in events_of(store, SignalReceived)]
    expect(names, ["one", "two", "three"], "order of the signals")
    turn(store)
    expect(claimed(store), [], "claims, after one task saw all three")


def case_a_signal_during_a_task_is_left_to_the_next(store: Store, clock: FakeClock) -> None:
    """B1 and B3: it has a smaller id than the task's commands, and the task was not shown it."""
    start(store)
    turn(store)
    signal(store, name="first")
    of = claim(store)
    signal(store, name="second")
    expect(commit(store, of, activity()).outcome, CommitOutcome.DONE, "outcome")
    ids = [event.id for event in events_of(store, SignalReceived)]
    shown = [event.visible_through for event in events_of(store, WorkflowTaskStarted)]
    expect((ids, shown), ([5, 7], [2, 6]), "ids of the signals, and what the tasks were shown")
    wanted = ["workflow_task_started", "activity_scheduled", "workflow_task_completed"]
    expect(kinds(journal(store)[7:]), [*wanted, "workflow_task_scheduled"], "journal")
    turn(store)
    expect(events_of(store, WorkflowTaskStarted)[-1].visible_through, 11, "what the next task was shown")
    expect(claimed(store), [], "claims at the end")


def case_a_signal_that_arrives_during_the_closing_task_is_not_lost(store: Store, clock: FakeClock) -> None:
    """B53."""
    start(store)
    of = claim(store)
    signal(store)
    before = journal(store)
    expect(commit(store, of, activity(), completed()).outcome, CommitOutcome.REFUSED, "outcome")
    expect((journal(store), row(store).commit_no), (before, 0), "journal and commit_no")
    expect(row(store).status, WorkflowStatus.RUNNING, "status")
    again = claim(store, "b")
    expect(again.run.last_event_id, 3, "what the task is shown that runs again")
    expect(commit(store, again, completed()).outcome, CommitOutcome.DONE, "outcome")


def case_a_cancel_request_during_the_closing_task_is_not_lost(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    cancel(store)
    expect(commit(store, of, completed()).outcome, CommitOutcome.REFUSED, "outcome")
    turn(store, completed())
    expect(row(store).status, WorkflowStatus.COMPLETED, "status")


def case_other_unseen_events_do_not_hinder_closing(store: Store, clock: FakeClock) -> None:
    start(store)
    turn(store, activity(), timer(clock, 1))
    signal(store)
    of = claim(store)
    finish(store, attempt(store))
    clock.advance(1)
    store.fire_timers(10)
    expect(commit(store, of, completed()).outcome, CommitOutcome.DONE, "outcome")
    expect(claimed(store), [], "claims of a closed run")


def _refused(store: Store, times: int) -> Claim:
    for _ in range(times):
        of = claim(store)
        signal(store)
        expect(commit(store, of, completed()).outcome, CommitOutcome.REFUSED, "outcome")
    return claim(store)


def case_a_storm_of_signals_cannot_keep_a_run_open(store: Store, clock: FakeClock) -> None:
    start(store)
    of = _refused(store, CLOSE_REFUSALS_MAX)
    expect(expect_error(RunClosingError, lambda: signal(store)).workflow_id, "w", "field of the error")
    expect(commit(store, of, completed()).outcome, CommitOutcome.DONE, "outcome")


def case_a_closing_run_takes_signals_again_after_a_while(store: Store, clock: FakeClock) -> None:
    start(store)
    _refused(store, CLOSE_REFUSALS_MAX)
    clock.advance((CLOSING_NS - S) // S)
    expect_error(RunClosingError, lambda: signal(store))
    clock.advance(1)
    signal(store)


def case_a_closing_run_that_goes_on_takes_signals_again(store: Store, clock: FakeClock) -> None:
    start(store)
    commit(store, _refused(store, CLOSE_REFUSALS_MAX), timer(clock, 1))
    signal(store)
    expect(row(store).refusals, 0, "refusals")


def case_a_closing_run_still_takes_cancels_and_messages(store: Store, clock: FakeClock) -> None:
    """Only clients can be told to come again."""
    start(store)
    of = _refused(store, CLOSE_REFUSALS_MAX)
    start(store, "v")
    turn(store, sent("w"))
    expect(the(store, SignalExternalScheduled, "v").delivered, True, "whether the message was delivered")
    cancel(store)
    expect(commit(store, of, completed()).outcome, CommitOutcome.REFUSED, "outcome")


def case_a_signal_may_name_the_run_it_is_for(store: Store, clock: FakeClock) -> None:
    run_id = start(store)
    expect(signal(store, run_id=run_id), run_id, "run that took it")
    expect_error(WorkflowNotFoundError, lambda: signal(store, run_id="another"))
    expect(len(events_of(store, SignalReceived)), 1, "signals")


def case_a_run_sends_a_signal_in_its_commit(store: Store, clock: FakeClock) -> None:
    start(store, "w")
    turn(store)
    start(store, "v")
    clock.advance(1)
    turn(store, sent("w", "hello", b"\xff"), sent("w", "again"))
    expect([e.delivered for e in events_of(store, SignalExternalScheduled, "v")], [True, True], "delivered")
    got = events_of(store, SignalReceived)
    expect([event.signal_name for event in got], ["hello", "again"], "signals")
    expect((got[0].payload, got[0].sent_at_ns), (b"\xff", clock.now_ns()), "payload and moment")
    expect(claimed(store), ["w"], "claims")


def case_a_signal_to_nobody_is_undelivered(store: Store, clock: FakeClock) -> None:
    """Fire and forget: the sender goes on, and its journal says what became of it."""
    start(store, "closed")
    turn(store, completed())
    start(store)
    turn(store, sent("closed"), sent("unknown"))
    expect([e.delivered for e in events_of(store, SignalExternalScheduled)], [False, False], "delivered")
    expect((events_of(store, SignalReceived, "closed"), store.find_run("unknown")), ([], None), "targets")


def case_a_run_may_signal_itself(store: Store, clock: FakeClock) -> None:
    start(store)
    turn(store, sent("w"))
    expect(the(store, SignalExternalScheduled).delivered, True, "delivered")
    expect(kinds(journal(store)[-2:]), ["signal_received", "workflow_task_scheduled"], "journal")
    expect(claimed(store), ["w"], "claims")


def case_a_signal_to_oneself_at_the_end_is_undelivered(store: Store, clock: FakeClock) -> None:
    start(store)
    turn(store, sent("w"), completed())
    expect(the(store, SignalExternalScheduled).delivered, False, "delivered")
    expect(events_of(store, SignalReceived), [], "signals")


def case_a_signal_from_a_run_counts_as_unseen(store: Store, clock: FakeClock) -> None:
    start(store, "w")
    of = claim(store)
    start(store, "v")
    turn(store, sent("w"))
    expect(commit(store, of, completed()).outcome, CommitOutcome.REFUSED, "outcome")


def case_runs_may_signal_one_another_in_one_group(store: Store, clock: FakeClock) -> None:
    """Members act as if committed one after another."""
    for workflow_id in "uvw":
        start(store, workflow_id)
    u, v, w = claims(store)
    group = [
        task(store, u, sent("v"), sent("w")),
        task(store, v, completed()),  # Refused: u's signal came first.
        task(store, w, sent("u"), sent("v")),
    ]
    outcomes = [getattr(answer, "outcome", answer) for answer in store.commit_tasks(group)]
    expect(outcomes, [CommitOutcome.DONE, CommitOutcome.REFUSED, CommitOutcome.DONE], "outcomes")
    counts = [len(events_of(store, SignalReceived, workflow_id)) for workflow_id in "uvw"]
    expect(counts, [1, 2, 1], "signals of u, v and w")
    expect(sorted(claimed(store)), ["u", "v", "w"], "claims")


def case_skipped_signals_are_recorded(store: Store, clock: FakeClock) -> None:
    start(store)
    signal(store)
    of = claim(store)
    decided = task(store, of, Draft(event=activity()))
    decided.task.skipped = (3,)
    store.commit_tasks([decided])
    expect(getattr(journal(store)[-1], "skipped", None), (3,), "skipped")
