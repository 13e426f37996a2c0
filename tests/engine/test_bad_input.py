"""Wrong input of every kind gives one clear error, at the earliest moment, that names the thing and the way out.

One table: what is done wrong, the error's type, and what its text must say. After each row, the store must hold
nothing of it.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

import derecho
from derecho import (
    CodecError,
    Engine,
    JournalError,
    MemoryStore,
    NotInWorkflowError,
    RegistrationError,
    RetryPolicy,
    StoreError,
    WorkflowNotFoundError,
    activity,
    activity_ref,
    workflow,
)
from derecho.journal import load_events
from derecho.testing.clock import FakeClock
from tests.rig import Rig


@activity
def note(text: str) -> str:
    return text


@activity
async def fetch(url: str) -> str:
    return url


@workflow
def order(item: str) -> str:
    return note(item)


@workflow
def takes_anything(value: Any) -> Any:
    return value


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> None: ...


class Unknown:
    """A class that nobody can decode."""


def hints_unknown(value: Unknown) -> None: ...


def hints_missing(value: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # The point of it.


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def _cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _start(workflow_id: Any = "id", *args: Any, of: Any = order, **kwargs: Any) -> Callable[[Engine], Any]:
    return lambda engine: engine.client.start_workflow(of, workflow_id, *args, **kwargs)


def _payload(value: Any) -> Callable[[Engine], Any]:
    return _start("id", value, of=takes_anything)


def _register(make: Callable[[], Any]) -> Callable[[Engine], Any]:
    return lambda engine: engine.register(make())


Row = tuple[Callable[[Engine], Any], type[BaseException], str]

IDS: dict[str, Row] = {
    "empty id": (_start("", "x"), ValueError, "workflow_id must not be empty"),
    "id over 1000 bytes": (_start("ä" * 501, "x"), ValueError, "at most 1000 bytes"),
    "id of a million characters": (_start("x" * 10**6, "x"), ValueError, "at most 1000 bytes"),
    "id with NUL": (_start("a\0b", "x"), ValueError, "control characters"),
    "id with a newline": (_start("a\nb", "x"), ValueError, "control characters"),
    "id with a lone surrogate": (_start("\ud800", "x"), ValueError, "lone surrogate"),
    "id that is bytes": (_start(b"id", "x"), TypeError, "workflow_id must be a str"),
    "signal name empty": (lambda e: e.client.signal_workflow("id", ""), ValueError, "name must not be empty"),
    "request id empty": (lambda e: e.client.options(request_id=""), ValueError, "request_id"),
    "worker id empty": (lambda e: Engine(e.store, worker_id=""), ValueError, "worker_id"),
    "workflow that is none": (_start("id", of=print), TypeError, "must be a @workflow or its name"),
}

PAYLOADS: dict[str, Row] = {
    "NaN": (_payload([1.0, math.nan]), CodecError, "nan"),
    "infinity": (_payload({"a": math.inf}), CodecError, "inf"),
    "over 2 MiB": (_payload("x" * (2 * 1024 * 1024)), CodecError, "2"),
    "nested 100,000 deep": (_payload(_deep(100_000)), CodecError, "deep"),
    "cyclic": (_payload(_cyclic()), CodecError, "argument 1 of workflow 'takes_anything'"),
    "int of 5,000 digits": (_payload(10**5000), CodecError, "int"),
    "a generator": (_payload(generator()), CodecError, "generator"),
    "an object": (_payload(Unknown()), CodecError, "Unknown"),
    "a lone surrogate": (_payload("\udfff"), CodecError, "surrogate"),
    "a function": (_payload(print), CodecError, "builtin_function_or_method"),
    "bytes for str": (_start("id", b"x"), CodecError, "argument 1 of workflow 'order'"),
    "too few arguments": (_start("id"), TypeError, "workflow 'order'"),
    "too many arguments": (_start("id", "a", "b"), TypeError, "workflow 'order'"),
    "unknown keyword": (_start("id", "a", colour=1), TypeError, "colour"),
    "signal payload": (lambda e: e.client.signal_workflow("id", "s", Unknown()), CodecError, "signal 's'"),
}

DURATIONS: dict[str, Row] = {
    "negative": (lambda e: activity(start_to_close_timeout=-1)(note.fn), ValueError, "must not be negative"),
    "NaN": (lambda e: activity(heartbeat_timeout=math.nan)(note.fn), ValueError, "finite"),
    "over 100 years": (lambda e: activity(start_to_close_timeout=10**12)(note.fn), ValueError, "100 years"),
    "timedelta.max": (lambda e: e.stop(grace=timedelta.max), ValueError, "100 years"),
    "a string": (lambda e: e.stop(grace="1 s"), TypeError, "grace must be seconds"),
    "zero timeout": (lambda e: activity(start_to_close_timeout=0)(note.fn), ValueError, "above zero"),
    "zero lease": (lambda e: Engine(e.store, activity_lease=0), ValueError, "activity_lease"),
    "naive datetime": (lambda e: FakeClock(datetime(2030, 1, 1)), ValueError, "time zone"),  # noqa: DTZ001
}

POLICIES: dict[str, Row] = {
    "attempts -1": (lambda e: RetryPolicy(max_attempts=-1), ValueError, "max_attempts"),
    "coefficient below 1": (
        lambda e: RetryPolicy(backoff_coefficient=0.5),
        ValueError,
        "backoff_coefficient",
    ),
    "coefficient NaN": (
        lambda e: RetryPolicy(backoff_coefficient=math.nan),
        ValueError,
        "backoff_coefficient",
    ),
    "max below initial": (
        lambda e: RetryPolicy(initial_interval=9, max_interval=1),
        ValueError,
        "max_interval",
    ),
    "names as one str": (lambda e: RetryPolicy(non_retryable_errors="x"), TypeError, "sequence of names"),
    "retry that is no policy": (lambda e: activity(retry=3)(note.fn), TypeError, "must be a RetryPolicy"),
    "concurrency 0": (lambda e: Engine(e.store, concurrency=0), ValueError, "concurrency"),
    "cache below 0": (lambda e: Engine(e.store, cache_size=-1), ValueError, "cache_size"),
}

REGISTRATION: dict[str, Row] = {
    "two workflows of one name": (
        _register(lambda: workflow(name="order")(takes_anything.fn)),
        RegistrationError,
        "two workflow functions are named 'order'",
    ),
    "two activities of one name": (
        _register(lambda: activity(name="note")(lambda text: text)),
        RegistrationError,
        "two activity functions are named 'note'",
    ),
    "a lambda": (lambda e: workflow(lambda: 1), RegistrationError, "no lasting name"),
    "a plain function": (_register(lambda: note.fn), RegistrationError, "put @workflow or @activity over"),
    "an async workflow": (lambda e: workflow(coroutine), RegistrationError, "plain `def`"),
    "a generator workflow": (lambda e: workflow(generator), RegistrationError, "generator"),
    "a generator activity": (lambda e: activity(generator), RegistrationError, "generator"),
    "a partial without a name": (
        lambda e: activity(functools.partial(note.fn)),
        RegistrationError,
        "no lasting name",
    ),
    "a hint that cannot be decoded": (
        _register(lambda: activity(hints_unknown)),
        RegistrationError,
        "activity 'hints_unknown'",
    ),
    "a hint that does not exist": (
        _register(lambda: activity(hints_missing)),
        RegistrationError,
        "NoSuchName",
    ),
    "a transactional activity": (
        lambda e: activity(transactional=True)(note.fn),
        RegistrationError,
        "transactional",
    ),
    "bad cancellation": (lambda e: workflow(cancellation="maybe"), ValueError, "cooperative"),
    "empty name": (lambda e: workflow(name="")(order.fn), ValueError, "must not be empty"),
}

OUTSIDE: dict[str, Row] = {
    name: (lambda e, call=call: call(), NotInWorkflowError, "workflow")
    for name, call in {
        "sleep": lambda: derecho.sleep(1),
        "timer": lambda: derecho.timer(1),
        "now": derecho.now,
        "info": derecho.info,
        "wait_for": lambda: derecho.wait_for(lambda: True),
        "spawn": lambda: derecho.spawn(print),
        "gather": derecho.gather,
        "select": derecho.select,
        "as_completed": lambda: derecho.as_completed([]),
        "signal_channel": lambda: derecho.signal_channel("x"),
        "signal_external": lambda: derecho.signal_external("x", "y"),
        "side_effect": lambda: derecho.side_effect(print),
        "random": derecho.random,
        "uuid4": derecho.uuid4,
        "is_cancelled": derecho.is_cancelled,
        "cancelled": derecho.cancelled,
        "execute": lambda: note.execute("x"),
        "an async activity": lambda: fetch("x"),
        "a reference": lambda: activity_ref("elsewhere")("x"),
        "a workflow called": lambda: order("x"),
    }.items()
}

MISSING: dict[str, Row] = {
    "signal to nobody": (
        lambda e: e.client.signal_workflow("nobody", "s"),
        WorkflowNotFoundError,
        "'nobody'",
    ),
    "cancel of nobody": (lambda e: e.client.cancel_workflow("nobody"), WorkflowNotFoundError, "'nobody'"),
    "terminate of nobody": (
        lambda e: e.client.terminate_workflow("nobody"),
        WorkflowNotFoundError,
        "'nobody'",
    ),
    "get of nobody": (lambda e: e.client.get_workflow("nobody"), WorkflowNotFoundError, "'nobody'"),
    "cursor garbage": (lambda e: e.client.list_workflows(cursor="%%%"), ValueError, "cursor"),
    "cursor of another shape": (lambda e: e.client.list_workflows(cursor="e30="), ValueError, "cursor"),
    "limit 0": (lambda e: e.client.list_workflows(limit=0), ValueError, "1 to 1000"),
    "limit 1001": (lambda e: e.client.list_workflows(limit=1001), ValueError, "1 to 1000"),
}

JOURNALS: dict[str, Row] = {
    name: (lambda e, data=data: derecho.replay(order, load_events(data)), JournalError, "")
    for name, data in {
        "empty": b"",
        "no array": b"{}",
        "truncated": b'[{"type":"workflow_star',
        "not UTF-8": b'[{"type":"\xff"}]',
        "no start": b'[{"id":1,"type":"workflow_task_scheduled"}]',
        "wrong type of a field": b'[{"id":"x","type":"workflow_task_scheduled"}]',
    }.items()
}

GROUPS = {
    "ids": IDS,
    "payloads": PAYLOADS,
    "durations": DURATIONS,
    "policies": POLICIES,
    "registration": REGISTRATION,
    "outside a workflow": OUTSIDE,
    "unknown": MISSING,
    "journals": JOURNALS,
}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{group}: {name}")
        for group, rows in GROUPS.items()
        for name, row in rows.items()
    ],
)
def test_bad_input_gives_its_own_clear_error_and_leaves_nothing(row: Row) -> None:
    act, error, text = row
    with Rig() as rig:
        engine = rig.engine([order, takes_anything], [note, fetch])
        with pytest.raises(error) as caught:
            act(engine)
        assert text in str(caught.value)
        assert len(str(caught.value)) < 2000, "an error is to be read, not to be scrolled"
        assert engine.client.count_workflows() == 0


# What is done wrong inside workflow code. The error is raised where the mistake is made, and fails the run.

other_runs_future: list[Any] = []


def _from_a_thread() -> None:
    caught: list[BaseException] = []

    def call() -> None:
        try:
            derecho.sleep(1)
        except NotInWorkflowError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    raise caught[0]


def _foreign_future() -> None:
    other_runs_future[0].get()


INSIDE: dict[str, tuple[Callable[[], Any], str, str]] = {
    "API in a side effect": (
        lambda: derecho.side_effect(derecho.sleep, 1),
        "SideEffectError",
        "side effect",
    ),
    "API in a predicate": (
        lambda: derecho.wait_for(lambda: derecho.timer(1)),
        "NotInWorkflowError",
        "predicate",
    ),
    "activity in a predicate": (
        lambda: derecho.wait_for(lambda: note("x")),
        "NotInWorkflowError",
        "predicate",
    ),
    "from another thread": (_from_a_thread, "NotInWorkflowError", "workflow"),
    "future of another run": (_foreign_future, "NotInWorkflowError", "another run"),
    "select of nothing": (derecho.select, "NotInWorkflowError", "at least one"),
    "select of a value": (lambda: derecho.select(3), "TypeError", "int"),  # type: ignore[arg-type]  # The mistake.
    "spawn of a call": (lambda: derecho.spawn(note("x")), "TypeError", "did you call"),  # type: ignore[arg-type]  # The mistake.
    "spawn of a coroutine": (lambda: derecho.spawn(coroutine), "TypeError", "plain function"),
    "negative sleep": (lambda: derecho.sleep(-1), "ValueError", "duration must not be negative"),
    "sleep of a string": (lambda: derecho.sleep("1"), "TypeError", "seconds"),  # type: ignore[arg-type]  # The mistake.
    "NaN timeout": (lambda: derecho.timer(1).get(timeout=math.nan), "ValueError", "finite"),
    "activity argument": (lambda: note(Unknown()), "CodecError", "argument 1 of activity 'note'"),  # type: ignore[arg-type]  # The mistake.
    "activity arity": (note, "TypeError", "activity 'note'"),  # type: ignore[call-arg]  # The mistake.
    "side effect value": (lambda: derecho.side_effect(Unknown), "SideEffectError", "side effect"),
    "empty signal name": (lambda: derecho.signal_channel(""), "ValueError", "name must not be empty"),
    "heartbeat in a workflow": (derecho.heartbeat, "DerechoError", "activity"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_misuse_inside_a_workflow_fails_the_run_with_its_own_error(name: str) -> None:
    act, error, text = INSIDE[name]

    @workflow(name="bad")
    def bad() -> None:
        act()

    @workflow
    def lender() -> None:
        other_runs_future[:] = [derecho.timer(3600)]
        derecho.sleep(7200)

    with Rig() as rig:
        engine = rig.engine([bad, lender], [note])
        lent = engine.client.start_workflow(lender, "lender")
        rig.settle()
        run = engine.client.start_workflow(bad, "bad")
        rig.settle()
        with pytest.raises(derecho.WorkflowFailedError) as caught:
            run.get(block=False)
        assert caught.value.failure.type == error
        assert text in caught.value.failure.message
        lent.terminate()
        other_runs_future.clear()


def test_an_unknown_workflow_name_stays_unclaimed_and_open() -> None:
    with Rig() as rig:
        engine = rig.engine([order], [note])
        run = engine.client.start_workflow("nobody has this", "id", 1)
        assert rig.settle() == 0
        assert run.status() is derecho.WorkflowStatus.RUNNING
        assert len(run.events()) == 2
        run.terminate()


def test_a_closed_store_refuses_with_a_next_step() -> None:
    store = MemoryStore()
    engine = Engine(store, workflows=[order], activities=[note])
    store.close()
    with pytest.raises(StoreError, match="closed"):
        engine.client.start_workflow(order, "id", "x")


def test_an_engine_is_not_started_twice() -> None:
    with Rig() as rig:
        engine = rig.engine([order], [note])
        engine.start()
        try:
            with pytest.raises(RuntimeError, match="started already"):
                engine.start()
        finally:
            engine.stop()


def test_odd_but_legal_ids_work() -> None:
    with Rig() as rig:
        engine = rig.engine([order], [note])
        for odd in ("a|b", "a/b", "%00", "ab \u202e rtl", "🦄", " ", "x" * 1000):
            engine.client.start_workflow(order, odd, "x")
        rig.settle()
        page = engine.client.list_workflows(limit=3)
        seen = [execution.workflow_id for execution in page.executions]
        while page.next_cursor is not None:
            page = engine.client.list_workflows(limit=3, cursor=page.next_cursor)
            seen += [execution.workflow_id for execution in page.executions]
        assert sorted(seen) == sorted(("a|b", "a/b", "%00", "ab \u202e rtl", "🦄", " ", "x" * 1000))
        assert engine.client.count_workflows(status=derecho.WorkflowStatus.COMPLETED) == 7
