"""Hypothesis strategies for events and journals: every field of every kind, read off the classes.

`journals()` gives events with dense ids that are well formed one by one, not a legal journal.
"""

import dataclasses
from typing import Any, Final

from hypothesis import strategies as st

from derecho.journal import EVENT_TYPES, Event, Failure, UnknownEvent

INT64: Final = st.integers(-(2**63), 2**63 - 1)

# From the first to the last nanosecond that RFC 3339 can write.
MOMENTS: Final = st.integers(-62_135_596_800 * 10**9, 253_402_300_800 * 10**9 - 1)

JSON: Final = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
# No key of ours begins with "x".
EXTRAS: Final = st.dictionaries(st.text(max_size=5).map("x{}".format), JSON, max_size=2)


def _failures() -> st.SearchStrategy[Failure]:
    return st.builds(
        Failure,
        kind=st.sampled_from(
            ["application", "timeout", "cancelled", "cancel_timeout", "nondeterminism", "panic"]
        ),
        message=st.text(),
        type=st.text(),
        details=st.dictionaries(st.text(), st.text(), max_size=2),
        non_retryable=st.booleans(),
        next_retry_delay_ns=INT64,
        extra=EXTRAS,
    )


_BY_ANNOTATION: Final[dict[str, st.SearchStrategy[Any]]] = {
    "int": INT64,
    "str": st.text(),
    "bytes": st.binary() | st.text().map(str.encode),
    "bool": st.booleans(),
    "bool | None": st.none() | st.booleans(),
    "tuple[int, ...]": st.lists(INT64, max_size=3).map(tuple),
    "Mapping[str, Any]": EXTRAS,
    "Mapping[str, Any] | None": st.none() | st.dictionaries(st.text(), JSON, max_size=3),
    "Failure | None": st.none() | _failures(),
}


def _values(field: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    _, form = field.metadata.get("json", (None, "plain"))
    return MOMENTS if form == "moment" else _BY_ANNOTATION[str(field.type)]


def events_of(cls: type[Event]) -> st.SearchStrategy[Event]:
    """Return a strategy for one kind of event; the id is 1."""
    values = {field.name: _values(field) for field in dataclasses.fields(cls) if field.name != "id"}
    if cls is UnknownEvent:
        values["unknown_type"] = st.text(min_size=1).filter(lambda kind: kind not in EVENT_TYPES)
    return st.builds(cls, id=st.just(1), **values)


def events() -> st.SearchStrategy[Event]:
    """Return a strategy for events of all kinds, unknown ones included; the id is 1."""
    return st.one_of([events_of(cls) for cls in (*EVENT_TYPES.values(), UnknownEvent)])


def numbered(sequence: list[Event]) -> list[Event]:
    """Return the events with the ids 1, 2, 3..."""
    return [dataclasses.replace(event, id=place) for place, event in enumerate(sequence, 1)]


def journals(min_size: int = 1, max_size: int = 8) -> st.SearchStrategy[list[Event]]:
    """Return a strategy for lists of any events with dense ids."""
    return st.lists(events(), min_size=min_size, max_size=max_size).map(numbered)
