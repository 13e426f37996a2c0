"""Cases: listing and counting runs, and reading journals."""

from __future__ import annotations

from derecho.journal.commit import WorkflowStatus
from derecho.stores.base import RunFilter, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.runs import ODD_IDS
from derecho.testing.conformance.scene import (
    ALL,
    activity,
    all_runs,
    asked,
    attempt,
    claim,
    claims,
    commit,
    completed,
    expect,
    finish,
    journal,
    kinds,
    row,
    signal,
    start,
    terminate,
    timer,
    turn,
)


def _many(store: Store, clock: FakeClock, number: int) -> list[str]:
    """Start runs, two at each moment; return their run ids in the order of a listing."""
    keys = []
    for place in range(number):
        keys.append((clock.now_ns(), start(store, f"w{place}", workflow_type=f"type {place % 3}")))
        clock.advance(place % 2)
    return [run_id for _, run_id in sorted(keys, reverse=True)]


def case_runs_are_listed_newest_first(store: Store, clock: FakeClock) -> None:
    wanted = _many(store, clock, 9)
    expect([run.run_id for run in all_runs(store)], wanted, "listing")
    expect(all_runs(store)[0], row(store, all_runs(store)[0].workflow_id), "listed row")


def case_pages_neither_miss_nor_repeat_a_run(store: Store, clock: FakeClock) -> None:
    """B64: also where a page ends between runs of one moment, and for any limit."""
    wanted = _many(store, clock, 9)
    for limit in (1, 2, 3, 4, 9, 10):
        page = store.list_runs(ALL, limit, None)
        expect(len(page.runs) <= limit, True, f"whether a page of {limit} keeps to its limit")
        expect([run.run_id for run in all_runs(store, ALL, limit)], wanted, f"pages of {limit}")


def case_new_runs_do_not_disturb_a_listing(store: Store, clock: FakeClock) -> None:
    wanted = _many(store, clock, 6)
    page = store.list_runs(ALL, 3, None)
    clock.advance(1)
    for place in range(3):
        start(store, f"later {place}")
    rest = store.list_runs(ALL, 100, page.next_after)
    expect([run.run_id for run in [*page.runs, *rest.runs]], wanted, "both pages")
    expect(len(all_runs(store)), 9, "listing from the start")


def case_a_cursor_may_hold_any_character(store: Store, clock: FakeClock) -> None:
    """B64."""
    for workflow_id in ODD_IDS:
        request = asked(store, workflow_id, workflow_type=workflow_id)
        object.__setattr__(request, "run_id", f"{workflow_id}|{workflow_id}")
        store.start_runs([request])
    listed = [run.workflow_id for run in all_runs(store, ALL, 1)]
    expect(sorted(listed), sorted(ODD_IDS), "listing")
    for workflow_id in ODD_IDS:
        for which in (RunFilter(workflow_id=workflow_id), RunFilter(workflow_type=workflow_id)):
            found = [run.workflow_id for run in all_runs(store, which)]
            expect((found, store.count_runs(which)), ([workflow_id], 1), f"runs that match {which}")


def case_runs_are_listed_and_counted_by_what_they_are(store: Store, clock: FakeClock) -> None:
    wanted = _many(store, clock, 9)
    done = claims(store, names=("type 1",))
    for of in done:
        commit(store, of, completed())
    terminate(store, "w0")
    filters = {
        RunFilter(): 9,
        RunFilter(workflow_type="type 1"): 3,
        RunFilter(workflow_type="type"): 0,
        RunFilter(status=WorkflowStatus.RUNNING): 5,
        RunFilter(status=WorkflowStatus.COMPLETED): 3,
        RunFilter(status=WorkflowStatus.TERMINATED): 1,
        RunFilter(status=WorkflowStatus.FAILED): 0,
        RunFilter(workflow_id="w3"): 1,
        RunFilter(workflow_id="w"): 0,
        RunFilter(workflow_id="w0", status=WorkflowStatus.RUNNING): 0,
        RunFilter(workflow_type="type 0", status=WorkflowStatus.RUNNING): 2,
        RunFilter(workflow_type="type 0", status=WorkflowStatus.TERMINATED, workflow_id="w0"): 1,
    }
    for which, number in filters.items():
        found = [run.run_id for run in all_runs(store, which, 2)]
        expect((len(found), store.count_runs(which)), (number, number), f"runs that match {which}")
        expect(found, [run_id for run_id in wanted if run_id in found], f"order of those that match {which}")


def case_all_runs_of_a_workflow_id_are_listed(store: Store, clock: FakeClock) -> None:
    run_ids = []
    for _ in range(3):
        run_ids.append(start(store))
        terminate(store)
        clock.advance(1)
        start(store, f"other {len(run_ids)}")
    which = RunFilter(workflow_id="w")
    for limit in (1, 2, 3):
        expect([run.run_id for run in all_runs(store, which, limit)], run_ids[::-1], f"pages of {limit}")
    expect(store.count_runs(which), 3, "number")


def case_a_blocked_run_is_listed_with_its_reason(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    store.fail_task(of.run.run_id, of.run.token, "recorded: charge, now: ship")
    [found] = all_runs(store, RunFilter(status=WorkflowStatus.RUNNING))
    expect((found.blocked_reason, found.attempt), ("recorded: charge, now: ship", 1), "row")


def case_an_empty_store_lists_nothing(store: Store, clock: FakeClock) -> None:
    page = store.list_runs(ALL, 10, None)
    expect((page.runs, page.next_after, store.count_runs(ALL)), ([], None, 0), "listing and count")


def case_a_journal_is_read_from_any_event_on(store: Store, clock: FakeClock) -> None:
    """Also from the middle of what one commit wrote."""
    run_id = start(store)
    turn(store, activity(), timer(clock, 5), activity())
    signal(store)
    turn(store)
    events = store.load_events(run_id)
    expect(len(events), 11, "events")
    for after_id in range(len(events) + 3):
        expect(store.load_events(run_id, after_id), events[after_id:], f"events after {after_id}")


def case_reading_a_journal_consumes_nothing(store: Store, clock: FakeClock) -> None:
    """B1."""
    run_id = start(store)
    signal(store)
    readings = [store.load_events(run_id, 1) for _ in range(3)]
    expect(readings, [readings[0]] * 3, "readings")
    expect(len(claims(store)), 1, "claims")


def case_external_events_can_be_read_alone(store: Store, clock: FakeClock) -> None:
    """A live run knows what its tasks wrote; a WorkflowTaskScheduled tells it nothing and may be left out."""
    run_id = start(store)
    turn(store, activity(), timer(clock, 5))
    signal(store)
    of = claim(store)
    finish(store, attempt(store))
    commit(store, of, activity())
    clock.advance(5)
    store.fire_timers(10)
    wanted = {
        0: ["workflow_started", "signal_received", "activity_started", "activity_completed", "timer_fired"],
        7: ["activity_started", "activity_completed", "timer_fired"],
        9: ["activity_completed", "timer_fired"],
        10: ["timer_fired"],
    }
    for after_id, names in wanted.items():
        events = store.load_events(run_id, after_id, external_only=True)
        told = [event for event in events if event.type != "workflow_task_scheduled"]
        expect(kinds(told), names, f"external events after {after_id}")
        whole = store.load_events(run_id)
        expect([event == whole[event.id - 1] for event in events], [True] * len(events), "same events")


def case_an_unknown_run_has_no_events(store: Store, clock: FakeClock) -> None:
    start(store)
    expect((store.load_events("nobody"), store.load_events("w")), ([], []), "events")


def case_runs_keep_their_own_journals(store: Store, clock: FakeClock) -> None:
    for workflow_id in "vw":
        start(store, workflow_id)
        turn(store, activity(workflow_id), timer(clock, 1))
    for workflow_id in "vw":
        scheduled = [getattr(event, "name", None) for event in journal(store, workflow_id)]
        expect([name for name in scheduled if name], [workflow_id], "activities")
