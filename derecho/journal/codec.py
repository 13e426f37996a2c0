"""Turn events into bytes and back: the JSON that is exchanged, and the form that is kept in a database row.

Both forms are read off the fields of the event classes, once per class; there is no switch over kinds.

The exchanged form (`dump_events`, `load_events`) is the JSON of the Go original: an array of objects with a
"type". Keys and kinds that this version does not know survive a round trip. What comes in may be foreign, so
every field is checked, and an error names the event and the field. Policies are never judged here: the
original writes zeros that we refuse from users.

The row form (`encode_row`, `decode_row`) is our own, and the hot path. A row is an array of events, and an
event is an array: the `code` of its kind, then its fields in the order of the class. Rows outlive versions,
therefore:

- The order is frozen. A field that is added later says so with `"later": True` in its metadata; a kind that
  is added later has a code above `ROW_CODE_MAX`.
- What has no place in such an array (a later kind, a later field that is set, unknown keys, bytes that are
  not UTF-8, an integer of more than 64 bits) is written as `[0, object]`, the object being the exchanged
  form.

A row was written by us: its shape is checked, the type of each value is not.

Ways that lost, in ns per event (six events of one activity step, CPython 3.11, two slow cores): objects with
keys take 500 to parse, arrays 165; a frozen event takes 990 to build through `__init__`, 420 through its slot
descriptors, 175 through a twin. In all `encode_row` takes 370 and `decode_row` 540.
"""

from __future__ import annotations

import functools
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, cast

from derecho.clock import from_datetime, to_datetime
from derecho.errors import JournalError
from derecho.journal.events import BYTES, EVENT_TYPES, FAILURE, MOMENT, PLAIN, Event, Failure, UnknownEvent

__all__ = ["ROW_CODE_MAX", "decode_row", "dump_events", "encode_row", "load_events"]

ROW_CODE_MAX: Final = 23

_NS: Final = 1_000_000_000
_INT64_MAX: Final = 2**63 - 1
_REQUIRED: Final = object()
_DEFAULT: Final = object()
_EVENT_CLASSES: Final = frozenset({*EVENT_TYPES.values(), UnknownEvent})

# What goes wrong when a value has the wrong type, or is one that JSON or the calendar cannot hold.
_REFUSALS: Final = (TypeError, ValueError, OverflowError, AttributeError, LookupError)

_Record = TypeVar("_Record", bound="Event | Failure")


# Values of the exchanged form. A reader's message goes on from "events[3] (timer_fired): fired_at ".


def _refuse(value: Any, wanted: str) -> NoReturn:
    text = repr(value)
    raise ValueError(f"must be {wanted}, not {text if len(text) <= 60 else text[:60] + '...'}")


def _read_int(value: Any) -> int:
    if type(value) is not int or not -_INT64_MAX - 1 <= value <= _INT64_MAX:
        _refuse(value, "an integer of 64 bits")
    return value


def _read_str(value: Any) -> str:
    return value if type(value) is str else _refuse(value, "a string")


def _read_bool(value: Any) -> bool:
    return value if type(value) is bool else _refuse(value, "true or false")


def _read_mapping(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else _refuse(value, "an object")


def _read_texts(value: Any) -> dict[str, str]:
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        _refuse(value, "an object of strings")
    return value


def _read_ids(value: Any) -> tuple[int, ...]:
    return tuple(map(_read_int, value)) if type(value) is list else _refuse(value, "a list of integers")


def _read_bytes(value: Any) -> bytes:
    try:
        return a2b_base64(_read_str(value), strict_mode=True)
    except ValueError:
        _refuse(value, "base64")


def _write_bytes(value: bytes) -> str:
    return b2a_base64(value, newline=False).decode("ascii")


# RFC 3339 as Go writes it: nanoseconds, trailing zeros cut.
_MOMENT: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)


def _read_moment(value: Any) -> int:
    match = _MOMENT.fullmatch(_read_str(value))
    if match is None:
        _refuse(value, "a moment such as 2026-11-22T14:29:06.096469064Z")
    text, fraction, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) if sign else timedelta()
    zone = timezone(-offset if sign == "-" else offset)
    try:
        whole_ns = from_datetime(datetime.fromisoformat(text).replace(tzinfo=zone))
    except ValueError:
        _refuse(value, "a moment of the calendar")
    return whole_ns + int((fraction or "").ljust(9, "0"))


def _write_moment(moment_ns: int) -> str:
    seconds, fraction = divmod(moment_ns, _NS)
    text = to_datetime(seconds * _NS).isoformat()[:19]
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else text + "Z"


def _read_failure(value: Any) -> Failure:
    return _read_record(Failure, _read_mapping(value))


def _write_failure(failure: Failure | None) -> dict[str, Any] | None:
    return None if failure is None else _write_record(failure)


def _write_plain(value: Any) -> Any:
    return value


# By the form of the field or, if that is plain, by its annotation.
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    MOMENT: _read_moment,
    BYTES: _read_bytes,
    FAILURE: _read_failure,
    "int": _read_int,
    "str": _read_str,
    "bool": _read_bool,
    "bool | None": _read_bool,
    "Mapping[str, Any] | None": _read_mapping,
    "Mapping[str, str]": _read_texts,
    "tuple[int, ...]": _read_ids,
}
_WRITERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    MOMENT: _write_moment,
    BYTES: _write_bytes,
    FAILURE: _write_failure,
    PLAIN: _write_plain,
}
# Go writes an empty slice that was never made, and an error that is not there, as null.
_NULLS: Final[Mapping[str, Any]] = {BYTES: b"", FAILURE: None}


# Records of the exchanged form: one table of columns per class.


class _Column(NamedTuple):
    """One field in JSON.

    Attributes:
        name, key: of the field, and in the object.
        null: the value if the key is missing or null; `_REQUIRED`: refuse, `_DEFAULT`: that of the class.
        omitted: the value that is not written; `_REQUIRED`: none.
    """

    name: str
    key: str
    null: Any
    omitted: Any
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return _REQUIRED if field.default is MISSING else field.default


def _form(field: Field[Any]) -> str:
    return cast(str, field.metadata["json"][1]) if "json" in field.metadata else PLAIN


def _column(field: Field[Any]) -> _Column:
    form = _form(field)
    default = _default(field)
    always = form == BYTES or field.metadata.get("always", False)
    return _Column(
        name=field.name,
        key=field.metadata.get("json", (None,))[0] or field.name,
        null=_NULLS.get(form, _REQUIRED) if default is _REQUIRED else _DEFAULT,
        omitted=_REQUIRED if always else default,
        read=_READERS[str(field.type) if form == PLAIN else form],
        write=_WRITERS[form],
    )


_COLUMNS: Final[dict[type[Any], Mapping[str, _Column]]] = {}


def _columns(cls: type[Any]) -> Mapping[str, _Column]:
    """Return the columns of a class by their keys; made once."""
    if cls not in _COLUMNS:
        columns = [_column(field) for field in fields(cls) if field.name != "extra"]
        _COLUMNS[cls] = {column.key: column for column in columns}
    return _COLUMNS[cls]


def _write_record(record: Event | Failure) -> dict[str, Any]:
    cls = type(record)
    written = dict(record.extra)
    if issubclass(cls, Event):
        written["type"] = cls.type
    for key, column in _columns(cls).items():
        value = getattr(record, column.name)
        if column.omitted is _REQUIRED or value != column.omitted:
            try:
                written[key] = column.write(value)
            except _REFUSALS as error:
                raise ValueError(f"{key} cannot be written: {error}") from error
    return written


def _read_record(cls: type[_Record], source: Mapping[str, Any]) -> _Record:
    columns = _columns(cls)
    values: dict[str, Any] = {}
    for key, column in columns.items():
        value = source.get(key)
        if value is None:
            if column.null is _REQUIRED:
                raise ValueError(f"{key} is missing")
            if column.null is not _DEFAULT:
                values[column.name] = column.null
            continue
        try:
            values[column.name] = column.read(value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
    extra = {key: value for key, value in source.items() if key not in columns and key != "type"}
    if cls is UnknownEvent and not source.get("scheduled_by_id", True):
        extra["scheduled_by_id"] = source["scheduled_by_id"]  # Left out of known kinds only.
    if extra:
        values["extra"] = extra
    return cls(**values)


def _read_event(source: Any) -> Event:
    kind = _read_mapping(source).get("type")
    if type(kind) is not str or not kind:
        raise ValueError("type is missing")
    return _read_record(EVENT_TYPES.get(kind, UnknownEvent), source)


def _write_event(event: Event) -> dict[str, Any]:
    if type(event) not in _EVENT_CLASSES:
        raise ValueError(f"{type(event).__name__} is not a kind of event")
    return _write_record(event)


# The row form: two functions per class, written out so that an event costs no loop.


def _twin(cls: type[Event]) -> type[Any]:
    """Return a class laid out in memory like a frozen one, whose attributes CPython can set at full speed.

    An object that is filled as a twin and then has its `__class__` set is a true object of the frozen class.
    Both methods are needed: a class that keeps the frozen one of either sets attributes the slow way.
    """
    members = {
        "__slots__": cls.__dict__["__slots__"],
        "__setattr__": object.__setattr__,
        "__delattr__": object.__delattr__,
    }
    return type(f"_{cls.__name__}Twin", cls.__bases__, members)


_ROW_WRITES: Final[Mapping[str, str]] = {
    BYTES: "e.{0}.decode()",
    FAILURE: "None if e.{0} is None else write_failure(e.{0})",
}
_ROW_READS: Final[Mapping[str, str]] = {
    BYTES: "{0}.encode()",
    FAILURE: "None if {0} is None else read_failure({0})",
    "tuple[int, ...]": "tuple({0})",
}


def _row_functions(cls: type[Event]) -> tuple[Callable[[Event], list[Any]], Callable[[list[Any]], Event]]:
    """Compile the encoder and the decoder of a class, as `dataclass` compiles its `__init__`."""
    stored = [field for field in fields(cls) if field.name != "extra" and not field.metadata.get("later")]
    absent = [field for field in fields(cls) if field.name == "extra" or field.metadata.get("later")]
    names = [field.name for field in stored]
    writes = [_ROW_WRITES.get(_form(field), "e.{0}").format(field.name) for field in stored]
    reads = [
        _ROW_READS.get(_form(field), _ROW_READS.get(str(field.type), "{0}")).format(field.name)
        for field in stored
    ]
    set_if = [
        "e.extra",
        *(f"e.{field.name} != absent_{field.name}" for field in absent if field.name != "extra"),
    ]
    lines = [
        "def encode(e):",
        f"    if {' or '.join(set_if)}:",
        "        return [0, write_event(e)]",
        f"    return [{cls.code}, {', '.join(writes)}]",
        "def decode(row):",
        f"    _, {', '.join(names)} = row",
        "    e = new(twin)",
        *(f"    e.{name} = {read}" for name, read in zip(names, reads, strict=True)),
        *(f"    e.{field.name} = absent_{field.name}" for field in absent),
        "    e.__class__ = cls",
        "    return e",
    ]
    scope: dict[str, Any] = {
        "cls": cls,
        "twin": _twin(cls),
        "new": object.__new__,
        "write_event": _write_event,
        "write_failure": _write_failure,
        "read_failure": _read_failure,
        **{f"absent_{field.name}": _default(field) for field in absent},
    }
    # The text is made of the names of our own fields. Without it, with attrgetter and a borrowed dataclass
    # `__init__`: encode_row 370 -> 450 ns, decode_row 540 -> 690 ns.
    exec("\n".join(lines), scope)
    return scope["encode"], scope["decode"]


def _write_as_object(event: Event) -> list[Any]:
    return [0, _write_event(event)]


def _read_as_object(row: list[Any]) -> Event:
    return _read_event(row[1])


def _as_dict(value: Any) -> dict[Any, Any]:
    """Give orjson a mapping that is not a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


class _Tools(NamedTuple):
    """What is made at first use: importing orjson takes longer than importing the rest of the journal."""

    dumps: Callable[[Any], bytes]
    dumps_sorted: Callable[[Any], bytes]
    loads: Callable[[Any], Any]
    encoders: Mapping[type[Event], Callable[[Event], list[Any]]]
    decoders: Mapping[int, Callable[[list[Any]], Event]]


@functools.cache
def _tools() -> _Tools:
    import orjson

    compiled = {cls: _row_functions(cls) for cls in EVENT_TYPES.values() if cls.code <= ROW_CODE_MAX}
    as_object: Mapping[type[Event], Callable[[Event], list[Any]]] = dict.fromkeys(
        _EVENT_CLASSES, _write_as_object
    )
    return _Tools(
        dumps=functools.partial(orjson.dumps, default=_as_dict),
        dumps_sorted=functools.partial(orjson.dumps, default=_as_dict, option=orjson.OPT_SORT_KEYS),
        loads=orjson.loads,
        encoders={**as_object, **{cls: encode for cls, (encode, _) in compiled.items()}},
        decoders={0: _read_as_object, **{cls.code: decode for cls, (_, decode) in compiled.items()}},
    )


def encode_row(events: Iterable[Event]) -> bytes:
    """Return the events of one commit in the form that is stored.

    Raises:
        JournalError: an event holds something that cannot be written; the message names it.
    """
    tools = _tools()
    encoders = tools.encoders
    events = events if isinstance(events, Sequence) else list(events)
    try:
        return tools.dumps([encoders[type(event)](event) for event in events])
    except _REFUSALS:
        return tools.dumps([_row_or_object(index, event) for index, event in enumerate(events)])


def _row_or_object(index: int, event: Event) -> list[Any]:
    tools = _tools()
    try:
        row = tools.encoders[type(event)](event)
        tools.dumps([row])
    except _REFUSALS:
        row = [0, _checked_object(index, event)]
    return row


def decode_row(data: bytes) -> list[Event]:
    """Return the events of one stored row; that ids are dense is the caller's to check.

    Raises:
        JournalError: the row does not have the shape that `encode_row` writes.
    """
    tools = _tools()
    decoders = tools.decoders
    try:
        rows = tools.loads(data)
        if type(rows) is list:
            return [decoders[row[0]](row) for row in rows]
    except _REFUSALS:
        pass
    raise _row_error(data)


def _row_error(data: bytes) -> JournalError:
    tools = _tools()
    index = 0
    try:
        for index, row in enumerate(_read_array(tools.loads(data))):  # noqa: B007 (the message needs it)
            tools.decoders[row[0]](row)
    except _REFUSALS as error:
        return JournalError(f"a row of the journal is malformed at events[{index}]: {error!r}")
    raise AssertionError("a row was refused and then accepted")


def dump_events(events: Iterable[Event]) -> bytes:
    """Return a journal as JSON that the Go original can read; the same events always give the same bytes.

    Raises:
        JournalError: an event holds something that cannot be written; the message names it.
    """
    events = list(events)
    try:
        return _tools().dumps_sorted([_write_event(event) for event in events])
    except (ValueError, TypeError) as error:
        for index, event in enumerate(events):
            _checked_object(index, event)
        raise JournalError(f"the journal cannot be written: {error}") from error


def _checked_object(index: int, event: Event) -> dict[str, Any]:
    """Return the exchanged form of an event that may be faulty, or raise JournalError naming the field."""
    try:
        written = _write_event(event)
        for key, value in written.items():
            try:
                _tools().dumps([[{key: value}]])  # As deep as it will be.
            except TypeError as error:
                raise ValueError(f"{key} cannot be written: {error}") from error
    except ValueError as error:
        kind = getattr(event, "unknown_type", "") or getattr(event, "type", "")
        raise JournalError(f"events[{index}] ({kind or 'no event'}): {error}") from error
    return written


def load_events(data: bytes | bytearray | memoryview | str) -> list[Event]:
    """Return the events of a journal in JSON, of ours or of the Go original.

    Integers of more than 64 bits under keys that are not known here become floating point numbers.

    Raises:
        JournalError: it is not JSON, holds no event, has a gap in the ids, or a field is wrong; the message
            names the event by its index in the array, and the field.
    """
    try:
        sources = _read_array(_tools().loads(data))
    except ValueError as error:
        raise JournalError(f"the journal is not an array in JSON: {error}") from error
    if not sources:
        raise JournalError("the journal holds no event; a journal begins with workflow_started")
    events: list[Event] = []
    for index, source in enumerate(sources):
        try:
            event = _read_event(source)
            if event.id != index + 1:
                raise ValueError(f"id must be {index + 1}, not {event.id}: ids are dense, from 1")
        except ValueError as error:
            kind = source.get("type") if isinstance(source, dict) else None
            raise JournalError(f"events[{index}] ({kind or 'no event'}): {error}") from error
        events.append(event)
    return events


def _read_array(value: Any) -> list[Any]:
    return value if type(value) is list else _refuse(value, "an array")
