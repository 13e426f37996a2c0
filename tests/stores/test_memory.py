"""MemoryStore: the conformance suite, all or nothing for every verb, and costs that do not grow with the runs."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derecho.journal.commit import WorkflowStatus
from derecho.policies import RetryPolicy
from derecho.stores import memory, transactions, work
from derecho.stores._agenda import STALE_MAX, Agenda, put_back, take_due
from derecho.stores._copies import copy_of_activity, copy_of_run
from derecho.stores._memory_tx import Tables
from derecho.stores.base import (
    ActivityResult,
    ActivityRow,
    AttemptFailed,
    CommitOutcome,
    Failure,
    RunFilter,
    RunRow,
    Store,
    Tx,
)
from derecho.stores.bell import Bell
from derecho.stores.memory import MemoryStore
from derecho.stores.shared import SharedStore
from derecho.testing import FakeClock, cases, run_case
from derecho.testing.conformance import scene

CASES = list(cases())
S = 1_000_000_000


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_case(case: Callable[[Store, FakeClock], None]) -> None:
    run_case(case, MemoryStore)


# --- all or nothing -------------------------------------------------------------------------------


def counted_ids() -> Callable[[], str]:
    numbers = iter(range(10**6))
    return lambda: f"run-{next(numbers):06}"


def busy_store() -> tuple[MemoryStore, FakeClock]:
    """Make a store with a bit of everything: runs in all states, timers, activities, deadlines, requests."""
    clock = FakeClock()
    store = MemoryStore(clock, counted_ids())
    for workflow_id in ("idle", "busy", "closing", "closed", "ready", "working", "sticky"):
        scene.start(store, workflow_id, request_id=f"start {workflow_id}")
        clock.advance(1)
    of = {claim.run.workflow_id: claim for claim in scene.claims(store, passed_over=("run-000004",))}
    policy = RetryPolicy(initial_interval=5)
    work = [scene.activity("charge", retry=policy, start_to_close_timeout=5), scene.activity("ship")]
    scene.commit(store, of["working"], *work, scene.timer(clock, 2), scene.timer(clock, 60))
    scene.commit(store, of["idle"], scene.timer(clock, 2))
    scene.commit(store, of["closed"], scene.completed())
    scene.commit(store, of["sticky"])
    store.signal("sticky", "", "go", b"1", "signal sticky")
    store.cancel("closing", "", "enough", 3 * S, "cancel closing")
    clock.advance(1)
    scene.attempts(store, names=("charge",))
    clock.advance(1)
    return store, clock


def everything(store: MemoryStore, clock: FakeClock) -> dict[str, Any]:
    """Return all rows, and the work that the indexes would give, without changing either."""
    tables = store._tables
    agendas = {
        "cancels": tables.cancels,
        "limits": tables.limits,
        "timers": tables.timers,
        "leases": tables.leases,
        **{f"waiting {name}": agenda for name, agenda in tables.waiting.items()},
        **{f"preferred {owner}": agenda for owner, agenda in tables.preferences.items()},
        **{
            f"ready {owner} {name}": agenda
            for owner, by_type in tables.ready.items()
            for name, agenda in by_type.items()
        },
    }
    return {
        "now": clock.now_ns(),
        "runs": {
            run_id: (
                dataclasses.astuple(life.row),
                [dataclasses.astuple(event) for event in life.journal],
                bytes(life.by_task),
                {key: dataclasses.astuple(work.row) for key, work in life.activities.items()},
                {key: dataclasses.astuple(timer) for key, timer in life.timers.items()},
                life.older and life.older.row.run_id,
            )
            for run_id, life in tables.lives.items()
        },
        "newest": {workflow_id: life.row.run_id for workflow_id, life in tables.newest.items()},
        "listed": list(tables.listed),
        "counts": {kind: number for kind, number in tables.counts.items() if number},
        "requests": dict(tables._requests),
        "agendas": {
            name: {key: entry[0] for key, entry in agenda._entry_of.items()}
            for name, agenda in agendas.items()
            if agenda._entry_of
        },
        # Every entry that counts must be in its heap, or it is lost for ever.
        "lost": [
            name
            for name, agenda in agendas.items()
            for entry in agenda._entry_of.values()
            if not any(entry is other for other in agenda._heap)
        ],
    }


def calls_on(store: MemoryStore) -> dict[str, Callable[[], object]]:
    """Return one call of each verb that writes, ready to be made on a busy store."""
    busy = store._tables.lives["run-000001"].row
    [charge] = (
        w.row for w in store._tables.lives["run-000005"].activities.values() if w.row.name == "charge"
    )
    claim = transactions.Claim(run=busy, now_ns=store.now_ns())
    failed = AttemptFailed(failure=Failure(kind="application", message="no"))
    commands = [
        scene.activity(),
        scene.timer(FakeClock(), 1),
        scene.sent("idle"),
        scene.sent("busy"),
        scene.sent("ready"),
    ]
    of_charge = scene.token(charge)
    return {
        "start": lambda: scene.start(store, "new", request_id="start new"),
        "start again": lambda: scene.start(store, "closed", request_id="start closed again"),
        "signal": lambda: store.signal("idle", "", "go", b"1", "r"),
        "cancel": lambda: store.cancel("busy", "", "", 5 * S, "r"),
        "terminate": lambda: store.terminate("working", "", "", "r"),
        "claim": lambda: scene.claims(store, "b"),
        "claim preferred": lambda: scene.claims(store, "a"),
        "commit": lambda: raised(store.commit_tasks([scene.task(store, claim, *commands)])),
        "close": lambda: raised(store.commit_tasks([scene.task(store, claim, *commands, scene.completed())])),
        "fail": lambda: store.fail_task(busy.run_id, busy.token, "broken"),
        "release": lambda: store.release_runs([(busy.run_id, busy.token)]),
        "renew": lambda: store.renew_runs([(busy.run_id, busy.token)], 60 * S),
        "attempt": lambda: scene.attempts(store),
        "finish": lambda: store.finish_activity(of_charge, ActivityResult(result=b"1")),
        "retry": lambda: store.finish_activity(of_charge, failed),
        "release activity": lambda: store.release_activities([of_charge]),
        "heartbeat": lambda: store.heartbeat(of_charge, b"half"),
        "renew activity": lambda: store.renew_activities([of_charge], 60 * S),
        "fire": lambda: store._transact(fire_all, durable=False),
        "expire": lambda: store._transact(expire_all, durable=False),
    }


def fire_all(tx: Tx) -> list[bool]:
    return [work.fire_timer(tx, timer) for timer in tx.due_timers(10)]


def expire_all(tx: Tx) -> list[bool]:
    return [
        *[work.expire_activity(tx, row.run_id, row.scheduled_id) for row in tx.due_activities(10)],
        *[transactions.end_overdue_cancel(tx, row.run_id) for row in tx.cancels_due(10)],
    ]


def raised(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


VERBS = list(calls_on(busy_store()[0]))
WRITES = [
    "insert_run",
    "save_run",
    "append",
    "insert_request",
    "insert_activities",
    "save_activity",
    "delete_activity",
    "insert_timers",
    "delete_timer",
    "delete_work",
    "ring",
]


def moments(state: dict[str, Any]) -> dict[str, list[int]]:
    """Return the moments in each index; the ages that tell equal ones apart have gaps after a failure."""
    return {name: sorted(dict(agenda).values()) for name, agenda in state["agendas"].items()}


class BrokenOffError(Exception):
    """Planted in the middle of a verb."""


class Saboteur:
    """Makes the n-th write of a transaction raise after it was done; counts them all."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.breaks_at = -1
        self.writes = 0
        for name in WRITES:
            patch.setattr(Tables, name, self.sabotaged(getattr(Tables, name)))

    def sabotaged(self, write: Callable[..., object]) -> Callable[..., object]:
        def sabotaged(*args: Any, **kwargs: Any) -> object:
            answer = write(*args, **kwargs)
            self.writes += 1
            if self.writes == self.breaks_at:
                raise BrokenOffError
            return answer

        return sabotaged


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_breaks_off_leaves_no_trace(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any of its writes; and then the same verb works as if nothing had been."""
    twin, twin_clock = busy_store()
    clock_s = 5 if verb == "expire" else 0
    twin_clock.advance(clock_s)
    saboteur = Saboteur(monkeypatch)
    calls_on(twin)[verb]()
    writes, wanted = saboteur.writes, everything(twin, twin_clock)
    assert writes > 0
    for breaks_at in range(1, writes + 1):
        saboteur.breaks_at = -1
        store, clock = busy_store()
        clock.advance(clock_s)
        call = calls_on(store)[verb]
        before = everything(store, clock)
        saboteur.writes, saboteur.breaks_at = 0, breaks_at
        with pytest.raises(BrokenOffError):
            call()
        after = everything(store, clock)
        # A claim first lets go of leases that ran out: that is no part of the verb, and stays done.
        moved = {"agendas"} if verb.startswith("claim") else set()
        assert {k: v for k, v in after.items() if k not in moved} == {
            k: v for k, v in before.items() if k not in moved
        }
        if verb.startswith("start"):
            continue  # The run id of the second try is another.
        calls_on(store)[verb]()
        again = everything(store, clock)
        assert again | {"agendas": moments(again)} == wanted | {"agendas": moments(wanted)}


def test_a_busy_store_loses_no_entry_of_its_indexes() -> None:
    store, clock = busy_store()
    for call in calls_on(store).values():
        try:
            call()
        except Exception:
            continue
        clock.advance(1)
        assert everything(store, clock)["lost"] == []


def test_a_member_that_breaks_off_does_not_touch_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(FakeClock(), counted_ids())
    saboteur = Saboteur(monkeypatch)
    requests = [scene.asked(store, workflow_id) for workflow_id in "uvw"]
    saboteur.breaks_at = 6  # A start makes four writes: the second of v.
    answers = store.start_runs(requests)
    assert [type(answer) for answer in answers] == [str, BrokenOffError, str]
    assert [store.find_run(workflow_id) is not None for workflow_id in "uvw"] == [True, False, True]
    assert scene.start(store, "v")
    scene.check_all_journals(store)


def test_an_interrupt_undoes_its_verb_and_goes_on() -> None:
    store = MemoryStore(FakeClock(), counted_ids())
    scene.start(store)

    def interrupted(tx: Tables) -> None:
        transactions.signal(tx, "w", "", "go", b"1", "r-1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._transact_all(
            [lambda tx: transactions.signal(tx, "w", "", "a", b"1", "r-0"), interrupted], durable=True
        )
    assert len(scene.journal(store)) == 3
    assert scene.signal(store)  # The lock is free.


def test_a_row_may_be_saved_more_than_once_in_a_verb() -> None:
    """Also if it is changed between: counts and indexes follow the last state."""
    store = MemoryStore(FakeClock())
    run_id = scene.start(store)

    def save_twice(tx: Tables) -> None:
        row = tx.run(run_id)
        assert row is not None
        row.cancel_deadline_ns = 1
        tx.save_run(row)
        row.cancel_deadline_ns = 0
        row.status = WorkflowStatus.COMPLETED
        tx.save_run(row)

    store._transact_all([save_twice], durable=True)
    assert [store.count_runs(RunFilter(status=status)) for status in WorkflowStatus][:3] == [0, 0, 1]
    assert store.next_due("a").timeouts_ns == 0


# --- the bell -------------------------------------------------------------------------------------


class LookingBell(Bell):
    """Looks at the store from another thread whenever it is rung."""

    __slots__ = ("found", "store")

    def ring(self, topics: Any) -> None:
        def look() -> None:
            found = self.store.find_run("w")
            self.found.append(found.last_event_id if found else 0)

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(10)
        assert not looking.is_alive(), "the bell rang while the store was locked"
        super().ring(topics)


def test_the_bell_rings_after_the_change_and_with_the_store_free() -> None:
    store = MemoryStore(FakeClock())
    bell = LookingBell()
    bell.store, bell.found = store, []
    store.bell = bell
    scene.start(store)
    scene.signal(store)
    scene.terminate(store)
    assert bell.found == [2, 3, 4]


def test_a_verb_that_failed_does_not_ring_for_what_it_undid() -> None:
    store = MemoryStore(FakeClock())
    store.bell.watch("runs")

    def breaks_off(tx: Tables) -> None:
        tx.ring("runs")
        raise BrokenOffError

    [answer] = store._transact_all([breaks_off], durable=True)
    assert isinstance(answer, BrokenOffError)
    assert store.bell.seq("runs") == 0


def test_closing_wakes_who_waits() -> None:
    store = MemoryStore(FakeClock())
    store.bell.watch("runs")
    store.close()
    assert store.bell.wait("runs", 0, timeout_s=0)


# --- costs ----------------------------------------------------------------------------------------


def calls_of(work: Callable[[], object]) -> int:
    """Count the calls, of C functions too, that some work takes: a measure that no busy machine disturbs."""
    number = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return number


def cost_of_ten_steps(runs: int) -> list[int]:
    """Let ten of many runs take a step; return the cost of each kind of call."""
    clock = FakeClock()
    store = MemoryStore(clock, counted_ids())
    for number in range(runs):
        scene.start(store, f"w{number}")
    for claim in scene.claims(store, limit=runs):
        scene.commit(store, claim, scene.activity(), scene.timer(clock, 3600))
    due = (
        store.next_due("a"),
        store.next_due("b"),
    )  # Throws away what moved on: each entry once, whoever looks.
    assert due[0].timers_ns == due[1].timers_ns
    found: list[Any] = []
    costs = [calls_of(lambda: found.extend(scene.attempts(store, limit=10)))]
    costs.append(calls_of(lambda: [scene.finish(store, work) for work in found]))
    claims: list[Any] = []
    costs.append(calls_of(lambda: claims.extend(scene.claims(store, limit=10))))
    costs.append(calls_of(lambda: [scene.commit(store, claim) for claim in claims]))
    costs.append(calls_of(lambda: (store.next_due("a"), store.next_due("b"))))
    costs.append(calls_of(lambda: store.count_runs(RunFilter(status=WorkflowStatus.RUNNING))))
    costs.append(calls_of(lambda: store.list_runs(scene.ALL, 10, (FakeClock().now_ns(), "run-000100"))))
    clock.advance(3600)
    costs.append(calls_of(lambda: store.fire_timers(10)))
    return costs


def test_no_call_costs_more_with_more_runs() -> None:
    few, many = cost_of_ten_steps(150), cost_of_ten_steps(1500)
    assert few == many


def test_reading_the_end_of_a_journal_does_not_walk_it() -> None:
    costs = []
    for signals in (10, 1000):
        store = MemoryStore(FakeClock())
        run_id = scene.start(store)
        for _ in range(signals):
            scene.signal(store)
        costs.append(calls_of(lambda: store.load_events(run_id, signals, external_only=True)))  # noqa: B023
        assert len(store.load_events(run_id, signals)) == 2
    assert costs[0] == costs[1]


def test_what_moved_on_does_not_pile_up() -> None:
    """A run that is renewed, or signalled while it is leased, for ever; and one whose timers are always cancelled."""
    clock = FakeClock()
    store = MemoryStore(clock)
    scene.start(store)
    of = scene.claim(store)
    for _ in range(1000):
        clock.advance(1)
        store.renew_runs([(of.run.run_id, of.run.token)], 10 * S)
        scene.signal(store)
    tables = store._tables
    assert len(tables.leases._heap) <= 2 + STALE_MAX + 1
    scene.commit(store, of, scene.timer(clock, 60))
    for _ in range(300):
        of = scene.claim(store)
        cancelled = next(iter(store._tables.lives[of.run.run_id].timers))
        scene.commit(store, of, scene.timer_cancelled(cancelled), scene.timer(clock, 60))
        scene.signal(store)
    for agenda in (tables.timers, tables.leases, tables.preferences["a"], tables.ready["a"]["order"]):
        assert len(agenda._heap) <= 2 * len(agenda._entry_of) + STALE_MAX + 3


def test_a_filtered_listing_goes_on_beyond_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIST_WINDOW_MAX", 4)
    store = MemoryStore(FakeClock(), counted_ids())
    for number in range(23):
        scene.start(store, f"w{number}", workflow_type="rare" if number % 10 == 0 else "order")
    first = store.list_runs(RunFilter(workflow_type="rare"), 10, None)
    assert len(first.runs) == 1
    assert first.next_after is not None
    rare = scene.all_runs(store, RunFilter(workflow_type="rare"))
    assert [run.workflow_id for run in rare] == ["w20", "w10", "w0"]
    assert len(scene.all_runs(store)) == 23


def test_a_listing_has_a_limit_of_its_own() -> None:
    store = MemoryStore(FakeClock())
    store.start_runs([scene.asked(store, f"w{number}") for number in range(1001)])
    assert len(store.list_runs(scene.ALL, 10**9, None).runs) == 1000


# --- small parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "copy"), [(RunRow, copy_of_run), (ActivityRow, copy_of_activity)])
def test_a_copy_has_every_field(kind: type[Any], copy: Callable[[Any], Any]) -> None:
    values = {field.name: object() for field in dataclasses.fields(kind)}
    row = kind(**values)
    twin = copy(row)
    assert twin is not row
    assert {name: getattr(twin, name) for name in values} == values


def test_the_store_goes_by_the_machines_clock_if_none_is_given() -> None:
    store = MemoryStore()
    before_ns = store.now_ns()
    run_id = scene.start(store)
    assert before_ns <= scene.row(store).started_at_ns <= store.now_ns()
    assert len(run_id) == 36


def test_run_ids_come_from_the_given_generator() -> None:
    store = MemoryStore(FakeClock(), counted_ids())
    assert [scene.start(store, workflow_id) for workflow_id in "vw"] == ["run-000000", "run-000001"]


def test_a_store_is_what_workers_ask_for() -> None:
    store: Store = MemoryStore()
    assert isinstance(store, SharedStore)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), max_size=60), st.integers(0, 6))
def test_an_agenda_is_a_sorted_table(moves: list[tuple[int, int]], limit: int) -> None:
    """Put, move (0 = drop) and take agree with the same on a dict that is sorted each time."""
    agenda: Agenda[str] = Agenda()
    model: dict[int, int] = {}
    for moment, key in moves:
        if moment:
            agenda.put(moment, key, f"item {key}")
            model[key] = moment
        else:
            agenda.drop(key)
            model.pop(key, None)
    wanted = sorted((moment, key) for key, moment in model.items())
    front = agenda.front()
    assert (front[:2] if front else None) == (wanted[0] if wanted else None)
    due = [entry for entry in wanted if entry[0] <= 3]
    taken = take_due([agenda], 3, limit)
    assert [entry[:2] for _, entry in taken] == due[:limit]
    put_back(taken)
    skipping = take_due([agenda], 3, limit, lambda item: item == "item 1")
    assert [entry[:2] for _, entry in skipping] == [entry for entry in due if entry[1] != 1][:limit]
    put_back(skipping)
    assert [entry[:2] for _, entry in take_due([agenda], 10, 100)] == wanted
    assert agenda.front() is None


def test_items_of_several_agendas_are_taken_in_one_order() -> None:
    agendas: list[Agenda[int]] = [Agenda() for _ in range(3)]
    for key in range(30):
        agendas[key % 3].put(100 - key // 2, key, key)
    taken = [entry[2] for _, entry in take_due(agendas, 100, 30)]
    assert taken == sorted(range(30), key=lambda key: (100 - key // 2, key))


# --- the clock of tests ---------------------------------------------------------------------------


def test_a_fake_clock_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(datetime(2024, 2, 29, tzinfo=UTC))
    assert clock.now() == datetime(2024, 2, 29, tzinfo=UTC)
    assert clock.now_ns() == clock.now_ns() == 1_709_164_800 * S
    clock.advance(1.5)
    clock.advance(timedelta(days=1))
    assert clock.now() == datetime(2024, 3, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    clock.set(datetime(2020, 1, 1, tzinfo=UTC))
    assert clock.now() == FakeClock().now()


def test_a_fake_clock_is_exact_to_the_nanosecond() -> None:
    clock = FakeClock()
    before_ns = clock.now_ns()
    for _ in range(3):
        clock.advance(0.000000001)
    assert clock.now_ns() == before_ns + 3


@pytest.mark.parametrize("duration", [-1, float("nan"), "1", None, True])
def test_a_fake_clock_refuses_what_is_no_duration(duration: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        FakeClock().advance(duration)


def test_a_fake_clock_refuses_naive_moments() -> None:
    naive = datetime(2024, 1, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="time zone"):
        FakeClock(naive)
    with pytest.raises(ValueError, match="time zone"):
        FakeClock().set(naive)


def test_a_fake_clock_may_be_moved_by_many_threads() -> None:
    clock = FakeClock()
    before_ns = clock.now_ns()
    threads = [threading.Thread(target=lambda: [clock.advance(0.001) for _ in range(200)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now_ns() == before_ns + 1200 * 1_000_000


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Let threads change places a thousand times as often, so that a missing lock shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


def test_threads_that_share_a_store_see_whole_transactions() -> None:
    """One thread commits tasks that signal two runs each; another never sees only one of both."""
    clock = FakeClock()
    store = MemoryStore(clock)
    for workflow_id in "uvw":
        scene.start(store, workflow_id)
    claims = {claim.run.workflow_id: claim for claim in scene.claims(store)}
    stopped = threading.Event()
    seen: list[tuple[int, int]] = []

    def watch() -> None:
        while not stopped.is_set():
            rows = {run.workflow_id: run.last_event_id for run in store.list_runs(scene.ALL, 10, None).runs}
            seen.append((rows["u"], rows["v"]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    claim = claims["w"]
    for _ in range(100):
        answer = scene.commit(store, claim, scene.sent("u"), scene.sent("v"), scene.sent("w"))
        assert answer.outcome is CommitOutcome.DONE
        claim = scene.claim(store)
    stopped.set()
    watcher.join(20)
    assert seen
    assert {u - v for u, v in seen} == {0}
