"""Journals as bytes: what is exchanged with the Go original, what is stored, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings

from derecho.errors import JournalError
from derecho.journal import (
    EVENT_TYPES,
    ActivityCompleted,
    ActivityScheduled,
    ChildWorkflowScheduled,
    Event,
    Failure,
    SideEffectRecorded,
    SignalReceived,
    TimerCancelled,
    TimerFired,
    TimerScheduled,
    UnknownEvent,
    WorkflowCancelRequested,
    WorkflowFailed,
    WorkflowTaskScheduled,
    codec,
    dump_events,
    load_events,
)
from derecho.journal.codec import ROW_CODE_MAX, decode_row, encode_row
from tests.journal.strategies import events_of, journals, numbered

SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.json"))
ALL_KINDS = [*EVENT_TYPES.values(), UnknownEvent]


def loaded(**members: Any) -> Event:
    """Load a journal of one object."""
    (event,) = load_events(json.dumps([{"id": 1, **members}]))
    return event


def dumped(event: Event) -> dict[str, Any]:
    (written,) = json.loads(dump_events(numbered([event])))
    return dict(written)


# Exchange.


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_journal_of_the_original_survives_byte_for_byte(path: Path) -> None:
    data = path.read_bytes().strip()
    events = load_events(data)
    assert dump_events(events) == data
    assert not any(isinstance(event, UnknownEvent) or event.extra for event in events)


def test_there_are_samples_of_the_original() -> None:
    assert [path.stem for path in SAMPLES] == ["approval-1", "order-1"]


@pytest.mark.parametrize("cls", ALL_KINDS)
def test_every_kind_survives_a_round_trip(cls: type[Event]) -> None:
    @settings(max_examples=40)
    @given(events_of(cls))
    def survives(event: Event) -> None:
        (exchanged,) = load_events(dump_events([event]))
        (stored,) = decode_row(encode_row([event]))
        assert exchanged == event
        assert stored == event
        assert type(exchanged) is type(stored) is cls

    survives()


@given(journals())
def test_a_journal_survives_a_round_trip(events: list[Event]) -> None:
    assert load_events(dump_events(events)) == events
    assert decode_row(encode_row(events)) == events


@given(journals())
def test_the_exchanged_form_is_a_fixed_point(events: list[Event]) -> None:
    data = dump_events(events)
    assert dump_events(load_events(data)) == data


@pytest.mark.parametrize("as_type", [bytes, bytearray, memoryview, lambda data: bytes(data).decode()])
def test_a_journal_is_loaded_from_anything_that_holds_bytes(as_type: Any) -> None:
    events = numbered([WorkflowTaskScheduled(), WorkflowTaskScheduled()])
    assert load_events(as_type(dump_events(events))) == events


@pytest.mark.parametrize(
    ("event", "written"),
    [
        pytest.param(TimerCancelled(), {}, id="nothing but the base"),
        pytest.param(TimerCancelled(scheduled_by_id=4), {"scheduled_by_id": 4}, id="answering"),
        pytest.param(
            TimerCancelled(command=2, site="a.py:3"), {"command": 2, "site": "a.py:3"}, id="our own fields"
        ),
        pytest.param(ActivityCompleted(result=b""), {"result": ""}, id="empty bytes are written"),
        pytest.param(ActivityCompleted(result=b"\xff\x00>"), {"result": "/wA+"}, id="standard base64"),
        pytest.param(
            TimerScheduled(duration_ns=2**63 - 1, fire_at_ns=0),
            {"duration": 2**63 - 1, "fire_at": "1970-01-01T00:00:00Z"},
            id="exact durations",
        ),
        pytest.param(
            WorkflowCancelRequested(requested_at_ns=0),
            {"requested_at": "1970-01-01T00:00:00Z"},
            id="no deadline, no timeout, no reason",
        ),
        pytest.param(
            SideEffectRecorded(error=Failure(kind="application", message="m")),
            {"result": "", "error": {"kind": "application", "message": "m"}},
            id="empty bytes are written even where they are the default",
        ),
        pytest.param(
            ChildWorkflowScheduled(workflow_type="c", workflow_id="c-1", input=b""),
            {
                "workflow_type": "c",
                "workflow_id": "c-1",
                "input": "",
                "parent_workflow_id": "",
                "parent_run_id": "",
                "parent_close_policy": 0,
            },
            id="what the original always writes",
        ),
        pytest.param(
            WorkflowFailed(error=None), {"error": None}, id="an error is written even if there is none"
        ),
        pytest.param(
            WorkflowFailed(error=Failure(kind="panic", message="")),
            {"error": {"kind": "panic", "message": ""}},
            id="a failure leaves out what is empty",
        ),
        pytest.param(
            WorkflowFailed(error=Failure(kind="timeout", message="m", type="T", next_retry_delay_ns=5)),
            {"error": {"kind": "timeout", "message": "m", "type": "T", "next_retry_delay": 5}},
            id="a failure",
        ),
    ],
)
def test_keys_and_values_are_those_of_the_original(event: Event, written: Mapping[str, Any]) -> None:
    assert dumped(event) == {"id": 1, "type": event.type, **written}


@pytest.mark.parametrize(
    ("text", "moment_ns", "normal"),
    [
        ("1970-01-01T00:00:00Z", 0, None),
        ("2026-11-22T14:29:06.096469064Z", 1_795_357_746_096_469_064, None),
        ("2026-11-22T14:29:06.09Z", 1_795_357_746_090_000_000, None),
        ("1969-12-31T23:59:59.999999999Z", -1, None),
        ("0001-01-01T00:00:00Z", -62_135_596_800 * 10**9, None),  # Go's zero time.
        ("9999-12-31T23:59:59.999999999Z", 253_402_300_800 * 10**9 - 1, None),
        ("1970-01-01T02:00:00+02:00", 0, "1970-01-01T00:00:00Z"),
        ("1969-12-31T20:30:00.5-03:30", 500_000_000, "1970-01-01T00:00:00.5Z"),
        ("1970-01-01T00:00:00.100Z", 100_000_000, "1970-01-01T00:00:00.1Z"),
    ],
)
def test_moments_keep_every_nanosecond(text: str, moment_ns: int, normal: str | None) -> None:
    event = loaded(type="timer_fired", fired_at=text)
    assert isinstance(event, TimerFired)
    assert event.fired_at_ns == moment_ns
    assert dumped(event)["fired_at"] == (normal or text)


@pytest.mark.parametrize("missing", [{"payload": None}, {}])
def test_a_payload_that_go_left_nil_is_empty(missing: dict[str, Any]) -> None:
    event = loaded(type="signal_received", signal_name="s", sent_at="1970-01-01T00:00:00Z", **missing)
    assert isinstance(event, SignalReceived)
    assert event.payload == b""


def test_a_policy_full_of_zeros_is_loaded_unjudged() -> None:
    policy = {"initial_interval": 0, "backoff_coefficient": 0, "max_interval": -1, "max_attempts": -5}
    event = loaded(
        type="activity_scheduled",
        name="a",
        input="",
        scheduled_at="1970-01-01T00:00:00Z",
        retry_policy=policy,
    )
    assert isinstance(event, ActivityScheduled)
    assert event.retry_policy == policy


@pytest.mark.parametrize(
    "scheduled_by_id", [{}, {"scheduled_by_id": 0}, {"scheduled_by_id": None}, {"scheduled_by_id": 9}]
)
def test_an_unknown_kind_survives_exactly(scheduled_by_id: dict[str, Any]) -> None:
    source = {"id": 1, "type": "moon_landed", "crew": [1, {"eagle": None}], "reason": "", **scheduled_by_id}
    (event,) = load_events(json.dumps([source]))
    assert isinstance(event, UnknownEvent)
    assert event.unknown_type == "moon_landed"
    assert json.loads(dump_events([event])) == [source]
    assert decode_row(encode_row([event])) == [event]


def test_unknown_keys_survive_at_both_levels() -> None:
    source = {
        "id": 1,
        "type": "activity_failed",
        "min_reader": 7,
        "error": {"kind": "application", "message": "m", "stack": ["a", {"b": 1.5}]},
    }
    (event,) = load_events(json.dumps([source]))
    assert event.extra == {"min_reader": 7}
    assert json.loads(dump_events([event])) == [source]
    assert decode_row(encode_row([event])) == [event]


def test_the_same_events_give_the_same_bytes_whatever_the_order_of_a_mapping() -> None:
    one, other = (
        WorkflowFailed(error=Failure(kind="timeout", message="", details=details))
        for details in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    )
    assert dump_events([one]) == dump_events([other])


def test_any_mapping_can_be_written() -> None:
    event = ActivityScheduled(
        id=1, name="a", input=b"", scheduled_at_ns=0, retry_policy=MappingProxyType({"max_attempts": 3})
    )
    assert load_events(dump_events([event])) == [event]
    assert decode_row(encode_row([event])) == [event]


# What is refused when loading.

FIRED = {"id": 1, "type": "timer_fired", "fired_at": "1970-01-01T00:00:00Z"}
SCHEDULED = {
    "id": 1,
    "type": "activity_scheduled",
    "name": "a",
    "input": "",
    "scheduled_at": "1970-01-01T00:00:00Z",
}
FAILURE = {"kind": "application", "message": ""}
FAILED = {"id": 1, "type": "activity_failed", "error": FAILURE}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not an array in JSON"),
        (b"  ", "not an array in JSON"),
        (b'[{"id":1,"type":"workflow_task_scheduled"}', "not an array in JSON"),
        (b'[{"id":1,"type":"workflow_task_sch\xff"}]', "not an array in JSON"),
        ("\ud800", "not an array in JSON"),
        (b"[" * 100_000, "not an array in JSON"),
        (b'[{"id":NaN}]', "not an array in JSON"),
        (b"{}", "must be an array"),
        (b'"[]"', "must be an array"),
        (None, "not an array in JSON"),
        (b"[]", "holds no event"),
    ],
)
def test_what_is_not_a_journal_is_refused(data: Any, told: str) -> None:
    with pytest.raises(JournalError, match=told):
        load_events(data)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (None, "events[0] (no event): must be an object, not None"),
        ([], "events[0] (no event): must be an object, not []"),
        ({"id": 1}, "events[0] (no event): type is missing"),
        ({"id": 1, "type": ""}, "type is missing"),
        ({"id": 1, "type": 5}, "type is missing"),
        ({"type": "timer_cancelled"}, "events[0] (timer_cancelled): id must be 1, not 0: ids are dense"),
        ({**FIRED, "id": 2}, "events[0] (timer_fired): id must be 1, not 2: ids are dense"),
        ({**FIRED, "id": True}, "id must be an integer of 64 bits, not True"),
        ({**FIRED, "id": 1.0}, "id must be an integer of 64 bits, not 1.0"),
        ({**FIRED, "id": "1"}, "id must be an integer of 64 bits, not '1'"),
        ({**FIRED, "scheduled_by_id": 2**63}, "scheduled_by_id must be an integer of 64 bits"),
        ({**FIRED, "scheduled_by_id": 2**64}, "scheduled_by_id must be an integer of 64 bits"),
        ({"id": 1, "type": "timer_fired"}, "events[0] (timer_fired): fired_at is missing"),
        ({**FIRED, "fired_at": None}, "fired_at is missing"),
        ({**FIRED, "fired_at": 12}, "fired_at must be a string, not 12"),
        ({**FIRED, "fired_at": "1970-01-01T00:00:00"}, "fired_at must be a moment such as"),
        ({**FIRED, "fired_at": "1970-01-01 00:00:00Z"}, "fired_at must be a moment such as"),
        ({**FIRED, "fired_at": "1970-01-01T00:00:00.Z"}, "fired_at must be a moment such as"),
        ({**FIRED, "fired_at": "1970-01-01T00:00:00.1234567890Z"}, "fired_at must be a moment such as"),
        ({**FIRED, "fired_at": "1970-01-01T00:00:00+24:00"}, "fired_at must be a moment such as"),
        ({**FIRED, "fired_at": "1970-01-01T00:00:00Z\n"}, "fired_at must be a moment such as"),
        ({**FIRED, "fired_at": "\u0661970-01-01T00:00:00Z"}, "fired_at must be a moment such as"),
        ({**FIRED, "fired_at": "2026-02-30T00:00:00Z"}, "fired_at must be a moment of the calendar"),
        ({**FIRED, "fired_at": "0000-01-01T00:00:00Z"}, "fired_at must be a moment of the calendar"),
        ({**SCHEDULED, "name": 2}, "name must be a string, not 2"),
        ({**SCHEDULED, "input": "{}"}, "input must be base64, not '{}'"),
        ({**SCHEDULED, "input": "YQ"}, "input must be base64"),
        ({**SCHEDULED, "input": "YQ==YQ=="}, "input must be base64"),
        ({**SCHEDULED, "input": "\u00e9"}, "input must be base64"),
        ({**SCHEDULED, "input": [1]}, "input must be base64"),
        ({**SCHEDULED, "retry_policy": []}, "retry_policy must be an object, not []"),
        ({**SCHEDULED, "command": "1"}, "command must be an integer"),
        ({**FAILED, "error": "bad"}, "error must be an object, not 'bad'"),
        ({**FAILED, "error": {"kind": "application"}}, "error message is missing"),
        (
            {**FAILED, "error": {**FAILURE, "details": {"a": 1}}},
            "error details must be an object of strings",
        ),
        (
            {**FAILED, "error": {**FAILURE, "non_retryable": 1}},
            "error non_retryable must be true or false",
        ),
        ({"id": 1, "type": "workflow_task_completed", "skipped": 3}, "skipped must be a list of integers"),
        ({"id": 1, "type": "workflow_task_completed", "skipped": ["3"]}, "skipped must be an integer"),
        (
            {"id": 1, "type": "moon_landed", "scheduled_by_id": "x"},
            "events[0] (moon_landed): scheduled_by_id must be",
        ),
    ],
)
def test_a_malformed_event_is_refused_by_index_and_field(source: Any, told: str) -> None:
    with pytest.raises(JournalError) as caught:
        load_events(json.dumps([source]))
    assert told in str(caught.value)


def test_a_gap_in_the_ids_is_refused_where_it_is() -> None:
    data = dump_events(
        [WorkflowTaskScheduled(id=1), WorkflowTaskScheduled(id=2), WorkflowTaskScheduled(id=4)]
    )
    with pytest.raises(JournalError, match=r"events\[2\] \(workflow_task_scheduled\): id must be 3, not 4"):
        load_events(data)


def test_an_error_shows_only_the_beginning_of_a_long_value() -> None:
    with pytest.raises(JournalError) as caught:
        loaded(type="timer_fired", fired_at="x" * 1_000_000)
    assert len(str(caught.value)) < 300


# What is refused when writing.


@pytest.mark.parametrize("write", [dump_events, encode_row])
@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            SignalReceived(signal_name="\ud800", payload=b"", sent_at_ns=0),
            "events[1] (signal_received): signal_name ",
        ),
        (
            TimerScheduled(duration_ns=2**64, fire_at_ns=0),
            "events[1] (timer_scheduled): duration cannot be written",
        ),
        (TimerFired(fired_at_ns=2**80), "events[1] (timer_fired): fired_at cannot be written"),
        (TimerFired(fired_at_ns=-(2**70)), "events[1] (timer_fired): fired_at cannot be written"),
        (ActivityCompleted(result="text"), "events[1] (activity_completed): result cannot be written"),  # type: ignore[arg-type]  # On purpose.
        (SideEffectRecorded(result=None), "result cannot be written"),  # type: ignore[arg-type]  # On purpose.
        (
            WorkflowFailed(error=Failure(kind="panic", message="\udc80")),
            "events[1] (workflow_failed): error ",
        ),
        (WorkflowFailed(error="bad"), "error cannot be written"),  # type: ignore[arg-type]  # On purpose.
        (
            UnknownEvent(unknown_type="moon", extra={"crew": object()}),
            "events[1] (moon): crew cannot be written",
        ),
        (
            UnknownEvent(unknown_type="moon", extra={"crew": {1: 2}}),
            "events[1] (moon): crew cannot be written",
        ),
        ("no event", "events[1] (no event): str is not a kind of event"),
    ],
)
def test_what_cannot_be_written_is_refused_by_index_and_field(write: Any, event: Any, told: str) -> None:
    with pytest.raises(JournalError) as caught:
        write([WorkflowTaskScheduled(id=1), event])
    assert told in str(caught.value)


def test_a_value_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    event = UnknownEvent(id=1, unknown_type="moon", extra={"deep": deep})
    for write in (dump_events, encode_row):
        with pytest.raises(JournalError, match=r"events\[0\] \(moon\): deep cannot be written"):
            write([event])
    while deep:  # Taken apart by hand: the interpreter would do it by recursion.
        deep = deep.pop()


# Rows.


def test_what_a_row_gives_back_is_as_frozen_as_what_went_in() -> None:
    (event,) = decode_row(encode_row([TimerFired(id=3, scheduled_by_id=2, fired_at_ns=5)]))
    assert type(event) is TimerFired
    assert repr(event) == "TimerFired(id=3, scheduled_by_id=2, fired_at_ns=5)"
    assert dataclasses.replace(event, id=4).id == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.id = 4  # type: ignore[misc]  # It is frozen.
    with pytest.raises(dataclasses.FrozenInstanceError):
        del event.id


def test_a_row_need_not_begin_at_the_first_id() -> None:
    events: list[Event] = [WorkflowTaskScheduled(id=7), WorkflowTaskScheduled(id=0)]
    assert decode_row(encode_row(iter(events))) == events
    assert decode_row(encode_row([])) == []


# Rows that are in databases must stay readable: this table never changes. A new field of an old kind is
# declared with {"later": True} in its metadata, and does not appear here.
LAYOUT = {
    1: "id scheduled_by_id workflow_type args started_at_ns workflow_id run_id chain_id parent request_id",
    2: "id scheduled_by_id command site result",
    3: "id scheduled_by_id command site error terminated",
    4: "id scheduled_by_id reason requested_at_ns cancel_timeout_ns deadline_ns request_id",
    5: "id scheduled_by_id command site forced remaining_fibers error",
    6: "id scheduled_by_id command site new_input new_run_id",
    7: "id scheduled_by_id",
    8: "id scheduled_by_id worker_id started_at_ns visible_through",
    9: "id scheduled_by_id skipped",
    10: "id scheduled_by_id command site name input retry_policy timeout_policy scheduled_at_ns",
    11: "id scheduled_by_id worker_id started_at_ns attempt",
    12: "id scheduled_by_id result",
    13: "id scheduled_by_id error",
    14: "id scheduled_by_id command site duration_ns fire_at_ns",
    15: "id scheduled_by_id fired_at_ns",
    16: "id scheduled_by_id command site",
    17: "id scheduled_by_id command site result error",
    18: "id scheduled_by_id signal_name payload sent_at_ns request_id",
    19: "id scheduled_by_id command site target_workflow_id signal_name payload delivered",
    20: "id scheduled_by_id command site workflow_type workflow_id input "
    "parent_workflow_id parent_run_id parent_close_policy",
    21: "id scheduled_by_id child_run_id started_at_ns",
    22: "id scheduled_by_id child_workflow_id child_run_id result",
    23: "id scheduled_by_id child_workflow_id child_run_id error",
}


def test_the_layout_of_stored_events_never_changes() -> None:
    actual = {
        cls.code: " ".join(
            field.name
            for field in dataclasses.fields(cls)
            if field.name != "extra" and not field.metadata.get("later")
        )
        for cls in EVENT_TYPES.values()
        if cls.code <= ROW_CODE_MAX
    }
    assert actual == LAYOUT


@pytest.mark.parametrize("cls", EVENT_TYPES.values())
def test_every_kind_has_a_place_in_a_row(cls: type[Event]) -> None:
    values = {"int": 5, "str": "s", "bytes": b"{}", "Failure | None": None}
    required = [field for field in dataclasses.fields(cls) if field.default is field.default_factory]
    members: dict[str, Any] = {field.name: values[str(field.type)] for field in required}
    event = cls(id=3, **members)
    row = encode_row([event])
    ((code, event_id, *rest),) = json.loads(row)
    assert (code, event_id, len(rest) + 1) == (cls.code, 3, len(LAYOUT[code].split()))
    assert decode_row(row) == [event]


def test_a_stored_event_is_an_array_that_stays_readable() -> None:
    error = Failure(kind="application", message="m", type="ValueError", details={"a": "b"})
    events: list[Event] = [
        ActivityCompleted(id=7, scheduled_by_id=4, result=b'"\xc3\xa9"'),
        WorkflowFailed(id=8, command=3, site="a.py:9", error=error),
    ]
    stored = (
        b'[[12,7,4,"\\"\xc3\xa9\\""],[3,8,0,3,"a.py:9",'
        b'{"kind":"application","message":"m","type":"ValueError","details":{"a":"b"}},false]]'
    )
    assert encode_row(events) == stored
    assert decode_row(stored) == events


@pytest.mark.parametrize(
    "event",
    [
        ActivityCompleted(id=1, result=b"\xff"),
        TimerFired(id=1, fired_at_ns=-62_135_596_800 * 10**9),
        TimerCancelled(id=1, extra={"min_reader": 2}),
        UnknownEvent(id=1, unknown_type="moon_landed"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_has_no_place_in_a_row_is_stored_in_the_exchanged_form(event: Event) -> None:
    row = encode_row([event])
    assert json.loads(row) == [[0, json.loads(dump_events([event]))[0]]]
    assert decode_row(row) == [event]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NextTimerCancelled(Event):
    """TimerCancelled of a later version."""

    type: ClassVar[str] = TimerCancelled.type
    code: ClassVar[int] = TimerCancelled.code

    command: int = 0
    site: str = ""
    reason: str = dataclasses.field(default="", metadata={"later": True})


def test_versions_that_know_a_later_field_and_that_do_not_read_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(codec, "_EVENT_CLASSES", {NextTimerCancelled})
    encode, decode = codec._row_functions(NextTimerCancelled)
    without, with_reason = (
        NextTimerCancelled(id=1, command=2),
        NextTimerCancelled(id=1, command=2, reason="late"),
    )
    assert decode(encode(without)) == without
    assert decode_row(json.dumps([encode(without), encode(with_reason)]).encode()) == [
        TimerCancelled(id=1, command=2),
        TimerCancelled(id=1, command=2, extra={"reason": "late"}),
    ]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b"", "malformed"),
        (b"[[7,1,0]", "malformed"),
        (b"[[7,1,0],\xff]", "malformed"),
        (b"{}", "must be an array"),
        (b'""', "must be an array"),
        (b"7", "must be an array"),
        (b"[7]", r"events\[0\]"),
        (b"[[7,1,0],[7,2]]", r"events\[1\]"),
        (b"[[7,1,0],[7,2,0,0]]", r"events\[1\]"),
        (b"[[7,1,0],[99,2,0]]", r"events\[1\]"),
        (b"[[7,1,0],[[],2,0]]", r"events\[1\]"),
        (b"[[7,1,0],[]]", r"events\[1\]"),
        (b"[[7,1,0],{}]", r"events\[1\]"),
        (b"[[12,1,0,5]]", r"events\[0\]"),
        (b"[[13,1,0,5]]", r"events\[0\].*must be an object"),
        (b"[[9,1,0,null]]", r"events\[0\]"),
        (b"[[0]]", r"events\[0\]"),
        (b'[[0,{"type":"timer_fired","id":1}]]', r"events\[0\].*fired_at is missing"),
    ],
)
def test_a_malformed_row_is_refused_by_index(row: bytes, told: str) -> None:
    with pytest.raises(JournalError, match=told):
        decode_row(row)


@pytest.mark.process
def test_the_journal_does_not_load_a_json_library_before_it_needs_one() -> None:
    program = "import sys, derecho.journal; print({'orjson', 'msgspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")
