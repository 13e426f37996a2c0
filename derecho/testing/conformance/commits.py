"""Cases: what a commit writes, and the commits that write nothing."""

from __future__ import annotations

from derecho.journal.commit import Draft
from derecho.journal.events import (
    ActivityScheduled,
    Failure,
    SideEffectRecorded,
    TimerCancelled,
    WorkflowTaskCompleted,
    WorkflowTaskStarted,
)
from derecho.stores.base import CommitOutcome, Committed, Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance.scene import (
    activity,
    attempts,
    claim,
    claimed,
    claims,
    commit,
    completed,
    events_of,
    expect,
    journal,
    kinds,
    row,
    sent,
    signal,
    start,
    task,
    terminate,
    the,
    timer,
    timer_cancelled,
    turn,
)


def _outcomes(answers: list[Committed | Exception]) -> list[object]:
    return [getattr(answer, "outcome", answer) for answer in answers]


def case_a_commit_writes_the_whole_task(store: Store, clock: FakeClock) -> None:
    """B9: task, commands and completion in one transaction, with dense ids."""
    start(store)
    clock.advance(1)
    of = claim(store)
    clock.advance(1)
    answer = commit(store, of, activity(), timer(clock, 5))
    expect(
        (answer.outcome, list(answer.command_ids), answer.commit_no),
        (CommitOutcome.DONE, [4, 5], 1),
        "answer",
    )
    wanted = ["workflow_task_started", "activity_scheduled", "timer_scheduled", "workflow_task_completed"]
    expect(kinds(journal(store)[2:]), wanted, "journal")
    began = the(store, WorkflowTaskStarted)
    expect((began.scheduled_by_id, began.visible_through, began.worker_id), (2, 2, "a"), "task")
    expect((began.started_at_ns, row(store).workflow_time_ns), (of.now_ns, of.now_ns), "workflow time")
    expect(the(store, WorkflowTaskCompleted).scheduled_by_id, 2, "what the completion answers")
    expect((row(store).commit_no, row(store).lease_until_ns), (1, 0), "row")


def case_a_task_may_ask_for_nothing(store: Store, clock: FakeClock) -> None:
    start(store)
    expect(turn(store), [], "command ids")
    expect(kinds(journal(store)[2:]), ["workflow_task_started", "workflow_task_completed"], "journal")


def case_each_commit_carries_the_number_of_the_last(store: Store, clock: FakeClock) -> None:
    start(store)
    numbers: list[int] = []
    for _ in range(3):
        of = claim(store)
        expect(of.run.commit_no, len(numbers), "commit_no of the claim")
        numbers.append(commit(store, of).commit_no)
        signal(store)
    expect(numbers, [1, 2, 3], "commit_no of the answers")


def case_a_worker_that_lost_its_lease_is_fenced(store: Store, clock: FakeClock) -> None:
    """B5: it comes first, and writes nothing all the same; the rightful owner commits."""
    start(store)
    zombie = claim(store, "a")
    clock.advance(10)
    owner = claim(store, "b")
    before = journal(store)
    expect(commit(store, zombie, activity(), completed()).outcome, CommitOutcome.FENCED, "zombie's commit")
    expect((journal(store), attempts(store)), (before, []), "journal and activities")
    expect(row(store).lease_owner, "b", "owner of the lease")
    expect(commit(store, owner, activity()).outcome, CommitOutcome.DONE, "owner's commit")


def case_an_empty_commit_is_fenced_too(store: Store, clock: FakeClock) -> None:
    """B5."""
    start(store)
    zombie = claim(store, "a")
    clock.advance(10)
    owner = claim(store, "b")
    expect(commit(store, zombie).outcome, CommitOutcome.FENCED, "zombie's commit")
    expect(commit(store, owner).outcome, CommitOutcome.DONE, "owner's commit")


def case_a_task_is_committed_once(store: Store, clock: FakeClock) -> None:
    """B2 and B9: the token is still the same, the commit_no is not."""
    start(store)
    of = claim(store)
    expect(commit(store, of, activity()).outcome, CommitOutcome.DONE, "first commit")
    signal(store)
    expect(commit(store, of, activity()).outcome, CommitOutcome.FENCED, "second commit")
    expect(len(events_of(store, ActivityScheduled)), 1, "activities scheduled")


def case_a_closed_run_takes_no_commit(store: Store, clock: FakeClock) -> None:
    """B23 and B58."""
    start(store)
    of = claim(store)
    terminate(store)
    before = journal(store)
    expect(commit(store, of, completed()).outcome, CommitOutcome.FENCED, "commit after terminate")
    expect(journal(store), before, "journal")


def case_an_unknown_run_takes_no_commit(store: Store, clock: FakeClock) -> None:
    start(store)
    lost = task(store, claim(store), completed())
    lost.run_id = "nobody"
    expect(_outcomes(store.commit_tasks([lost])), [CommitOutcome.FENCED], "outcome")


def case_a_late_commit_counts_if_nobody_took_over(store: Store, clock: FakeClock) -> None:
    start(store)
    of = claim(store)
    clock.advance(1000)
    expect(commit(store, of, activity()).outcome, CommitOutcome.DONE, "outcome")


def case_a_fenced_member_does_not_fail_the_others(store: Store, clock: FakeClock) -> None:
    """B6."""
    for workflow_id in "uvw":
        start(store, workflow_id)
    u, v, w = claims(store)
    terminate(store, "v")
    group = [task(store, of, activity(of.run.workflow_id)) for of in (u, v, w)]
    wanted = [CommitOutcome.DONE, CommitOutcome.FENCED, CommitOutcome.DONE]
    expect(_outcomes(store.commit_tasks(group)), wanted, "outcomes")
    expect(sorted(work.name for work in attempts(store)), ["u", "w"], "activities")


def case_a_group_may_hold_one_task_twice(store: Store, clock: FakeClock) -> None:
    """Members act as if committed one after another: the second finds another commit_no."""
    start(store)
    of = claim(store)
    group = [task(store, of, activity("first")), task(store, of, activity("second"))]
    wanted = [CommitOutcome.DONE, CommitOutcome.FENCED]
    expect(_outcomes(store.commit_tasks(group)), wanted, "outcomes")
    expect(the(store, ActivityScheduled).name, "first", "activity")


def case_a_closed_member_takes_no_signal_of_a_later_one(store: Store, clock: FakeClock) -> None:
    start(store, "v")
    start(store, "w")
    v, w = claims(store)
    store.commit_tasks([task(store, v, completed()), task(store, w, sent("v"))])
    expect(getattr(journal(store, "w")[3], "delivered", None), False, "delivered")


def case_a_timer_that_ends_in_its_own_task_is_never_there(store: Store, clock: FakeClock) -> None:
    """Its cancellation points at it, also when other events took ids meanwhile."""
    start(store)
    of = claim(store)
    signal(store)
    cancelled = Draft(event=TimerCancelled(), answers=2)
    answer = commit(store, of, timer(clock, 1), timer(clock, 2), cancelled, timer(clock, 3))
    expect(list(answer.command_ids), [5, 6, 7, 8], "command ids")
    expect(the(store, TimerCancelled).scheduled_by_id, 6, "what the cancellation points at")
    clock.advance(10)
    expect(store.fire_timers(10), 2, "timers fired")
    fired = [event.scheduled_by_id for event in journal(store) if event.type == "timer_fired"]
    expect(fired, [5, 8], "which timers fired")


def case_a_timer_of_an_earlier_task_is_cancelled(store: Store, clock: FakeClock) -> None:
    start(store)
    [kept, dropped] = turn(store, timer(clock, 1), timer(clock, 1))
    signal(store)
    turn(store, timer_cancelled(dropped))
    clock.advance(10)
    expect(store.fire_timers(10), 1, "timers fired")
    expect(journal(store)[-2].scheduled_by_id, kept, "which timer fired")


def case_a_stuck_run_says_why(store: Store, clock: FakeClock) -> None:
    """It is not run again before an event comes, and then it is no longer stuck."""
    start(store)
    commit(store, claim(store), stuck_reason="nothing can wake it")
    expect(
        (row(store).blocked_reason, row(store).blocked_since_ns),
        ("nothing can wake it", clock.now_ns()),
        "row",
    )
    clock.advance(1000)
    expect(claimed(store), [], "claims")
    signal(store)
    turn(store, activity())
    expect((row(store).blocked_reason, row(store).blocked_since_ns), ("", 0), "row after an event")


def case_commands_come_back_as_they_were(store: Store, clock: FakeClock) -> None:
    """Numbers, call sites, policies, errors, and keys that this version does not know."""
    failure = Failure(kind="application", type="ValueError", message="no", details={"a": "b"})
    commands = (
        SideEffectRecorded(result=b"\x00\xff", site="orders.py:41"),
        SideEffectRecorded(error=failure, extra={"later": [1, {"x": None}]}),
        activity("ship", heartbeat_timeout=3, schedule_to_close_timeout=2.5),
    )
    start(store)
    turn(store, *commands)
    written = journal(store)[3:6]
    for number, (event, command) in enumerate(zip(written, commands, strict=True), 1):
        names = [name for name in type(command).__dataclass_fields__ if name not in ("id", "command")]
        for name in names:
            expect(getattr(event, name), getattr(command, name), f"{name} of {event.type}")
        expect(getattr(event, "command", 0), number, "command")


def case_a_run_of_many_tasks_stays_dense(store: Store, clock: FakeClock) -> None:
    start(store)
    for number in range(50):
        turn(store, *[activity(f"step {number}")] * (number % 3))
        signal(store)
    events = journal(store)
    expect([event.id for event in events], list(range(1, len(events) + 1)), "ids")
    expect(row(store).workflow_time_ns, clock.now_ns(), "workflow time")
