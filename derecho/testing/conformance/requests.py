"""Cases: a request that is sent again changes nothing and is answered as before (B55)."""

from __future__ import annotations

from derecho.errors import WorkflowAlreadyRunningError, WorkflowNotFoundError
from derecho.journal.events import WorkflowCancelRequested, WorkflowFailed
from derecho.stores.base import Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    ALL,
    S,
    asked,
    claimed,
    completed,
    events_of,
    expect,
    expect_error,
    journal,
    kinds,
    row,
    start,
    terminate,
    turn,
)


def case_a_start_sent_again_starts_nothing(store: Store, clock: FakeClock) -> None:
    """B55: neither while the run is open nor after its end."""
    run_id = start(store, request_id="r-1")
    expect((start(store, request_id="r-1"), len(journal(store))), (run_id, 2), "answer and events")
    turn(store, completed())
    expect((start(store, request_id="r-1"), store.count_runs(ALL)), (run_id, 1), "answer after the end")
    expect(claimed(store), [], "claims")


def case_a_signal_sent_again_is_recorded_once(store: Store, clock: FakeClock) -> None:
    """B55: after the end it is no error either."""
    run_id = start(store)
    answers = [store.signal("w", "", "go", b"1", "r-1") for _ in range(2)]
    expect((answers, kinds(journal(store)).count("signal_received")), ([run_id] * 2, 1), "answers, events")
    turn(store, completed())
    before = journal(store)
    expect(store.signal("w", "", "go", b"1", "r-1"), run_id, "answer after the end")
    expect(journal(store), before, "journal")
    expect_error(WorkflowNotFoundError, lambda: store.signal("w", "", "go", b"1", "r-2"))


def case_a_cancel_sent_again_is_recorded_once(store: Store, clock: FakeClock) -> None:
    """B55: and it does not move the deadline."""
    run_id = start(store)
    answers = [store.cancel("w", "", "", timeout_ns, "r-1") for timeout_ns in (60 * S, S)]
    expect((answers, len(events_of(store, WorkflowCancelRequested))), ([run_id] * 2, 1), "answers, events")
    expect(store.next_due("a").timeouts_ns, clock.now_ns() + 60 * S, "deadline")
    turn(store, completed())
    expect(store.cancel("w", "", "", 0, "r-1"), run_id, "answer after the end")


def case_a_terminate_sent_again_ends_nothing_else(store: Store, clock: FakeClock) -> None:
    run_id = start(store)
    expect(store.terminate("w", "", "", "r-1"), run_id, "answer")
    new = start(store)
    expect(store.terminate("w", "", "", "r-1"), run_id, "answer to the same request")
    expect((row(store).run_id, row(store).status.is_open), (new, True), "new run")
    expect(events_of(store, WorkflowFailed), [], "its end")


def case_a_request_belongs_to_its_workflow_id_and_operation(store: Store, clock: FakeClock) -> None:
    for workflow_id in "vw":
        run_id = start(store, workflow_id, request_id="r-1")
        expect(store.signal(workflow_id, "", "go", b"1", "r-1"), run_id, "run that took the signal")
        expect(store.cancel(workflow_id, "", "", 0, "r-1"), run_id, "run that took the request to cancel")
        wanted = [
            "workflow_started",
            "workflow_task_scheduled",
            "signal_received",
            "workflow_cancel_requested",
        ]
        expect(kinds(journal(store, workflow_id)), wanted, "journal")
        expect(store.terminate(workflow_id, "", "", "r-1"), run_id, "run that ended")
        expect(row(store, workflow_id).status.is_open, False, "whether it is open")


def case_a_request_is_remembered_over_all_runs_of_its_id(store: Store, clock: FakeClock) -> None:
    first = start(store)
    store.signal("w", "", "go", b"1", "r-1")
    terminate(store)
    start(store)
    expect(store.signal("w", "", "go", b"1", "r-1"), first, "run that took the signal")
    expect(len(journal(store)), 2, "events of the new run")


def case_one_request_twice_in_a_group_starts_one_run(store: Store, clock: FakeClock) -> None:
    first, second = (asked(store, "w", request_id="r-1") for _ in range(2))
    expect(store.start_runs([first, second]), [first.run_id] * 2, "answers")
    expect(store.count_runs(ALL), 1, "number of runs")


def case_a_request_that_was_refused_may_come_again(store: Store, clock: FakeClock) -> None:
    expect_error(WorkflowNotFoundError, lambda: store.signal("w", "", "go", b"1", "r-1"))
    start(store)
    expect_error(WorkflowAlreadyRunningError, lambda: start(store, request_id="r-2"))
    store.signal("w", "", "go", b"1", "r-1")
    expect(kinds(journal(store)).count("signal_received"), 1, "signals")
    terminate(store)
    new = start(store, request_id="r-2")
    expect(row(store).run_id, new, "run that the request started at last")
