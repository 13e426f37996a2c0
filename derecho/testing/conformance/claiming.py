"""Cases: which runs a worker is given, for how long, and how it lets go of them."""

from __future__ import annotations

from derecho.journal.commit import WorkflowStatus
from derecho.stores.base import STICKY_NS, CommitOutcome, LeaseState, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    S,
    activity,
    attempt,
    claim,
    claimed,
    claims,
    commit,
    completed,
    expect,
    finish,
    journal,
    row,
    signal,
    start,
    terminate,
    turn,
)


def case_a_claimed_run_is_not_claimed_again(store: Store, clock: FakeClock) -> None:
    """B2: at most one task of a run is in flight, also when more arrives meanwhile."""
    start(store)
    of = claim(store)
    expect((of.run.token, of.run.commit_no, of.run.lease_owner), (1, 0, "a"), "claim")
    expect((of.now_ns, of.run.lease_until_ns), (clock.now_ns(), clock.now_ns() + 10 * S), "moments")
    signal(store)
    expect((claimed(store, "a"), claimed(store, "b")), ([], []), "claims")


def case_a_run_is_claimed_once_per_call(store: Store, clock: FakeClock) -> None:
    for workflow_id in "uvw":
        start(store, workflow_id)
    expect(sorted(claimed(store)), ["u", "v", "w"], "claims")


def case_a_lease_that_runs_out_is_anyones(store: Store, clock: FakeClock) -> None:
    """B3 and B24: and the next worker is shown what came meanwhile."""
    start(store)
    claim(store, "a", lease_s=10)
    clock.advance(9.999999999)
    expect(claimed(store, "b"), [], "claims before the end")
    signal(store)
    clock.advance(0.000000001)
    of = claim(store, "b")
    expect((of.run.token, of.run.lease_owner, of.run.last_event_id), (2, "b", 3), "claim")
    expect(len(journal(store)), 3, "events: a lost task leaves none")


def case_a_worker_is_given_only_what_it_knows(store: Store, clock: FakeClock) -> None:
    """B11: what it does not know stays where it is, to be seen and to be claimed by others."""
    for workflow_id in ("u1", "v1", "u2", "v2"):
        start(store, workflow_id, workflow_type=workflow_id[0])
    expect(claimed(store, names=()), [], "claims of a worker that knows nothing")
    expect(claimed(store, names=("x", "y")), [], "claims of a worker that knows others")
    expect(claimed(store, names=("x", "v")), ["v1", "v2"], "claims of a worker that knows v")
    expect(row(store, "u1").status, WorkflowStatus.RUNNING, "status of what nobody knows")
    expect(claimed(store, names=frozenset("u")), ["u1", "u2"], "claims of a worker that knows u")


def case_a_worker_may_take_any_name(store: Store, clock: FakeClock) -> None:
    start(store, "v", workflow_type="x")
    start(store, "w", workflow_type="y")
    expect(sorted(claimed(store, names=None)), ["v", "w"], "claims")


def case_a_worker_may_pass_over_runs(store: Store, clock: FakeClock) -> None:
    """They stay claimable by others, and by itself later; and they do not use up the limit."""
    run_ids = [start(store, workflow_id) for workflow_id in "uvw"]
    expect(claimed(store, passed_over=run_ids[:2], limit=1), ["w"], "claims")
    expect(sorted(claimed(store, "b", passed_over=(run_ids[0],))), ["v"], "claims of another")
    expect(claimed(store), ["u"], "claims later")


def case_a_claim_takes_no_more_than_its_limit(store: Store, clock: FakeClock) -> None:
    """B22."""
    for workflow_id in "stuvw":
        start(store, workflow_id)
    numbers = [len(claims(store, limit=limit)) for limit in (2, 2, 2, 2)]
    expect(numbers, [2, 2, 1, 0], "number of runs claimed")


def case_runs_are_claimed_longest_ready_first(store: Store, clock: FakeClock) -> None:
    """Of all types alike; and what arrives at a ready run does not send it to the end."""
    for number, workflow_id in enumerate("stuvw"):
        start(store, workflow_id, workflow_type=f"type {number % 2}")
        clock.advance(1)
    signal(store, "s")
    expect(claimed(store, limit=2), ["s", "t"], "first claims")
    expect(claimed(store), ["u", "v", "w"], "further claims")


def case_a_run_that_wakes_again_goes_to_the_end(store: Store, clock: FakeClock) -> None:
    """What counts is since when it is ready: an event woke it, or a commit left something unseen."""
    for workflow_id in ("woken", "busy"):
        start(store, workflow_id)
    woken, busy = claims(store)
    commit(store, woken)
    signal(store, "busy")
    for step in (lambda: start(store), lambda: signal(store, "woken"), lambda: commit(store, busy)):
        clock.advance(1)
        step()
    expect(claimed(store), ["w", "woken", "busy"], "claims")


def case_an_idle_run_is_not_claimed(store: Store, clock: FakeClock) -> None:
    start(store)
    turn(store, activity())
    clock.advance(1000)
    expect(claimed(store), [], "claims")
    finish(store, attempt(store))
    expect(claimed(store), ["w"], "claims")


def case_a_run_prefers_the_worker_that_holds_it_live(store: Store, clock: FakeClock) -> None:
    """B4: for a while, and then it is anyone's."""
    start(store)
    turn(store, worker="a")
    clock.advance(1)
    signal(store)
    expect(claimed(store, "b"), [], "claims of another")
    expect(claimed(store, "a"), ["w"], "claims of the worker that holds it")


def case_nobody_waits_long_for_a_preferred_worker(store: Store, clock: FakeClock) -> None:
    """B4."""
    start(store)
    turn(store, worker="a")
    signal(store)
    clock.advance((STICKY_NS - 1) / S)
    expect(claimed(store, "b"), [], "claims of another, before the end")
    clock.advance(0.000000001)
    expect(claimed(store, "b"), ["w"], "claims of another")


def case_a_preferred_worker_keeps_its_right_later(store: Store, clock: FakeClock) -> None:
    start(store)
    turn(store, worker="a")
    signal(store)
    clock.advance(60)
    expect(claimed(store, "a"), ["w"], "claims")


def case_a_renewed_lease_holds_longer(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    for _ in range(3):
        clock.advance(9)
        expect(store.renew_runs([(of.run.run_id, of.run.token)], 10 * S), [LeaseState.HELD], "renewal")
        expect(claimed(store, "b"), [], "claims")
    clock.advance(10)
    # Late, but nobody took it.
    expect(store.renew_runs([(of.run.run_id, of.run.token)], 10 * S), [LeaseState.HELD], "late renewal")
    expect(claimed(store, "b"), [], "claims after the late renewal")


def case_a_lost_lease_cannot_be_renewed(store: Store, clock: FakeClock) -> None:
    """B5: each of many says for itself whether it is held."""
    for workflow_id in "tuvw":
        start(store, workflow_id)
    held = [(of.run.run_id, of.run.token) for of in claims(store)]
    terminate(store, "u")
    store.release_runs(held[2:3])
    expect(claimed(store, "b"), ["v"], "claims of another")
    store.release_runs(held[3:])
    states = store.renew_runs([*held, ("nobody", 1)], 10 * S)
    expect(states, [LeaseState.HELD, *[LeaseState.LOST] * 4], "renewals")
    expect(claimed(store, "b"), ["w"], "claims: what was let go of stays free")


def case_a_committed_task_holds_no_lease(store: Store, clock: FakeClock) -> None:
    """A renewal that comes too late must not keep an idle run from its next worker."""
    start(store)
    of = claim(store)
    commit(store, of, activity())
    expect(store.renew_runs([(of.run.run_id, of.run.token)], 60 * S), [LeaseState.LOST], "renewal")
    signal(store)
    expect(claimed(store, "a"), ["w"], "claims")


def case_a_released_run_is_anyones_at_once(store: Store, clock: FakeClock) -> None:
    """Also when the worker that releases it was preferred; and it keeps its place in the line."""
    start(store)
    turn(store, worker="a")
    signal(store)
    of = claim(store, "a")
    clock.advance(1)
    start(store, "later")
    store.release_runs([(of.run.run_id, of.run.token)])
    expect(claimed(store, "b"), ["w", "later"], "claims")


def case_only_the_current_claim_can_be_released(store: Store, clock: FakeClock) -> None:
    start(store)
    old = claim(store, "a")
    clock.advance(10)
    claim(store, "b")
    store.release_runs([(old.run.run_id, old.run.token), ("nobody", 1)])
    expect(claimed(store, "c"), [], "claims")


def case_a_broken_run_waits_for_a_worker_that_can_run_it(store: Store, clock: FakeClock) -> None:
    """It is listed with its reason, and nothing of it is in the journal."""
    start(store)
    for attempt_no in (1, 2):
        of = claim(store, "a")
        expect(store.fail_task(of.run.run_id, of.run.token, f"broken {attempt_no}"), True, "answer")
        failed = row(store)
        expect((failed.attempt, failed.blocked_reason), (attempt_no, f"broken {attempt_no}"), "row")
        clock.advance(60)
    expect(row(store).blocked_since_ns, clock.now_ns() - 120 * S, "blocked since the first failure")
    expect((row(store).status, len(journal(store))), (WorkflowStatus.RUNNING, 2), "status and events")
    turn(store, activity(), worker="b")
    mended = row(store)
    expect((mended.attempt, mended.blocked_reason, mended.blocked_since_ns), (0, "", 0), "row after a commit")


def case_only_the_current_claim_can_fail(store: Store, clock: FakeClock) -> None:
    start(store)
    old = claim(store, "a")
    clock.advance(10)
    new = claim(store, "b")
    expect(store.fail_task(old.run.run_id, old.run.token, "broken"), False, "answer")
    expect(store.fail_task("nobody", 1, "broken"), False, "answer for an unknown run")
    expect((row(store).blocked_reason, claimed(store, "c")), ("", []), "row and claims")
    commit(store, new, completed())
    expect(store.fail_task(new.run.run_id, new.run.token, "broken"), False, "answer for a closed run")


def case_a_run_that_failed_keeps_its_place(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    clock.advance(1)
    start(store, "later")
    store.fail_task(of.run.run_id, of.run.token, "broken")
    expect(claimed(store, "b"), ["w", "later"], "claims")


def case_next_due_tells_when_a_run_may_be_claimed(store: Store, clock: FakeClock) -> None:
    expect(store.next_due("a").runs_ns, 0, "when there is nothing")
    start(store)
    now_ns = clock.now_ns()
    expect(0 < store.next_due("a").runs_ns <= now_ns, True, "whether a ready run is due")
    of = claim(store, "a")
    expect(store.next_due("b").runs_ns, now_ns + 10 * S, "while it is leased")
    expect(commit(store, of).outcome, CommitOutcome.DONE, "outcome")
    expect(store.next_due("b").runs_ns, 0, "while it is idle")
    signal(store)
    expect(0 < store.next_due("a").runs_ns <= now_ns, True, "whether it is due for the worker it prefers")
    expect(store.next_due("b").runs_ns, now_ns + STICKY_NS, "for another worker")
