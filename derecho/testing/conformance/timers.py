"""Cases: timers. They never fire early, never twice, and looking at them consumes nothing."""

from __future__ import annotations

from derecho.journal.events import TimerFired
from derecho.stores.base import Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    S,
    claim,
    claimed,
    commit,
    completed,
    events_of,
    expect,
    journal,
    kinds,
    row,
    start,
    the,
    timer,
    timer_cancelled,
    turn,
)


def _sleeping(store: Store, clock: FakeClock, *durations_s: float, workflow_id: str = "w") -> list[int]:
    start(store, workflow_id)
    return turn(store, *[timer(clock, duration_s) for duration_s in durations_s])


def case_a_timer_fires_when_its_time_has_come_and_once(store: Store, clock: FakeClock) -> None:
    """B7 and G7."""
    [timer_id] = _sleeping(store, clock, 5)
    clock.advance(4.999999999)
    expect((store.fire_timers(10), claimed(store)), (0, []), "timers fired before the time")
    clock.advance(0.000000001)
    expect((store.fire_timers(10), store.fire_timers(10)), (1, 0), "timers fired")
    expect(kinds(journal(store)[-2:]), ["timer_fired", "workflow_task_scheduled"], "journal")
    fired = the(store, TimerFired)
    expect((fired.scheduled_by_id, fired.fired_at_ns), (timer_id, clock.now_ns()), "event")
    expect(claimed(store), ["w"], "claims")


def case_a_timer_fires_after_any_downtime(store: Store, clock: FakeClock) -> None:
    """G7."""
    _sleeping(store, clock, 5)
    clock.advance(10 * 365 * 24 * 3600)
    expect((store.fire_timers(10), claimed(store)), (1, ["w"]), "timers fired, and claims")


def case_timers_fire_in_the_order_of_their_moments(store: Store, clock: FakeClock) -> None:
    ids = _sleeping(store, clock, 3, 1, 2, 1)
    clock.advance(10)
    expect(store.fire_timers(10), 4, "timers fired")
    fired = [event.scheduled_by_id for event in events_of(store, TimerFired)]
    expect((fired[2:], sorted(fired[:2])), ([ids[2], ids[0]], [ids[1], ids[3]]), "order")
    expect(kinds(journal(store)).count("workflow_task_scheduled"), 2, "tasks scheduled")


def case_the_earliest_timers_of_all_runs_fire_first(store: Store, clock: FakeClock) -> None:
    """B7: those beyond the limit are left."""
    for number in range(5):
        _sleeping(store, clock, 5 - number, workflow_id=f"w{number}")
    clock.advance(10)
    expect((store.fire_timers(2), sorted(claimed(store))), (2, ["w3", "w4"]), "first two")
    expect((store.fire_timers(2), sorted(claimed(store))), (2, ["w1", "w2"]), "second two")
    expect((store.fire_timers(2), claimed(store)), (1, ["w0"]), "the last")


def case_looking_at_timers_consumes_nothing(store: Store, clock: FakeClock) -> None:
    """B7."""
    _sleeping(store, clock, 5)
    due_ns = clock.now_ns() + 5 * S
    expect([store.next_due("a").timers_ns for _ in range(3)], [due_ns] * 3, "next timer")
    clock.advance(6)
    expect(store.next_due("b").timers_ns, due_ns, "next timer, when its time has come")
    expect(store.fire_timers(0), 0, "timers fired, with a limit of none")
    expect((store.fire_timers(10), store.next_due("a").timers_ns), (1, 0), "timers fired, and the next")


def case_a_late_commit_does_not_make_a_timer_fire_early(store: Store, clock: FakeClock) -> None:
    """G7: the duration counts from the commit by the store's clock."""
    start(store)
    of = claim(store)
    sleeping = timer(clock, 5)
    clock.advance(3)
    commit(store, of, sleeping)
    clock.advance(4)
    expect(store.fire_timers(10), 0, "timers fired 7 s after the claim")
    clock.advance(1)
    expect(store.fire_timers(10), 1, "timers fired 5 s after the commit")


def case_a_workflow_time_ahead_counts_for_timers(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    ahead = FakeClock(clock.now())
    ahead.advance(2)
    commit(store, of, timer(ahead, 5))
    clock.advance(6)
    expect(store.fire_timers(10), 0, "timers fired before their fire_at")
    clock.advance(1)
    expect(store.fire_timers(10), 1, "timers fired")


def case_a_timer_may_fire_unseen_by_the_task_that_cancels_it(store: Store, clock: FakeClock) -> None:
    """The fire has lost; it stays in the journal, and nothing fires again."""
    first, second = _sleeping(store, clock, 1, 5)
    clock.advance(1)
    store.fire_timers(10)
    of = claim(store)
    clock.advance(4)
    store.fire_timers(10)
    commit(store, of, timer_cancelled(second))
    fired = [event.scheduled_by_id for event in events_of(store, TimerFired)]
    expect((fired, store.fire_timers(10), claimed(store)), ([first, second], 0, ["w"]), "what fired")


def case_a_cancelled_timer_does_not_fire(store: Store, clock: FakeClock) -> None:
    _, kept = _sleeping(store, clock, 1, 5)
    clock.advance(1)
    store.fire_timers(10)
    turn(store, timer_cancelled(kept))
    clock.advance(100)
    expect((store.fire_timers(10), store.next_due("a").timers_ns), (0, 0), "timers fired, and the next")


def case_a_timer_of_a_closed_run_does_not_fire(store: Store, clock: FakeClock) -> None:
    _sleeping(store, clock, 1, 5)
    clock.advance(1)
    store.fire_timers(10)
    turn(store, completed())
    events = len(journal(store))
    clock.advance(10)
    expect((store.fire_timers(10), len(journal(store))), (0, events), "timers fired, and events")


def case_timers_of_equal_number_in_two_runs_are_two(store: Store, clock: FakeClock) -> None:
    for workflow_id in "vw":
        expect(_sleeping(store, clock, 5, workflow_id=workflow_id), [4], "event id")
    clock.advance(5)
    expect((store.fire_timers(10), sorted(claimed(store))), (2, ["v", "w"]), "timers fired, and claims")


def case_a_timer_of_no_duration_fires_at_once(store: Store, clock: FakeClock) -> None:
    _sleeping(store, clock, 0)
    expect((store.fire_timers(10), row(store).is_ready), (1, True), "timers fired, and readiness")
