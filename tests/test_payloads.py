"""Payloads: what comes back, what is refused and how, and that equal values give equal bytes anywhere."""

import asyncio
import base64
import enum
import functools
import json
import math
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, Unpack, cast
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derecho.errors import CodecError, RegistrationError
from derecho.payloads import (
    NESTING_MAX,
    PAYLOAD_BYTES_MAX,
    Codec,
    JSONCodec,
    decode_value,
    encode_value,
)
from derecho.signatures import Signature

CODEC = JSONCodec()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 9


class Mode(enum.StrEnum):
    FAST = "fast"


@dataclass
class Item:
    sku: str
    price: float
    note: str | None = None


@dataclass
class Order:
    id: uuid.UUID
    placed_at: datetime
    items: list[Item]
    tags: frozenset[str] = frozenset()
    _audit: int = 0
    total: Decimal = field(init=False, default=Decimal(0))


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


@dataclass
class Node:
    label: str
    children: list["Node"]


class Pair(NamedTuple):
    left: int
    right: set[int]


class Row(TypedDict):
    id: int
    name: str


@attrs.define
class Parcel:
    _weight: int
    labels: set[str] = attrs.field(factory=set)


class Circle(msgspec.Struct, tag="circle", rename="camel"):
    outer_radius: float
    marks: set[str] | msgspec.UnsetType = msgspec.UNSET


class Square(msgspec.Struct, tag="square", array_like=True):
    side: int
    corners: set[int]


class Plain(msgspec.Struct, tag=True):
    radius: int


class Customer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    name: str = pydantic.Field(alias="customerName")
    born: date
    tags: set[str] = set()
    groups: dict[str, set[frozenset[str]]] = {}
    limit: Decimal = Decimal(1)


CUSTOMER = Customer(customerName="Ada", born=date(1815, 12, 10), tags={"b", "a", "c"})


# ------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize(
    ("hint", "value", "encoded"),
    [
        (None | int, None, b"null"),
        (bool, True, b"true"),
        (int, 2**64 - 1, b"18446744073709551615"),
        (int, -(2**63), b"-9223372036854775808"),
        (float, 5e-324, b"5e-324"),
        (float, 3, b"3"),
        (str, "null and é\x00", '"null and é\\u0000"'.encode()),
        (bytes, b"\xff\x00", b'"/wA="'),
        (bytearray, bytearray(b"ab"), b'"YWI="'),
        (tuple[int, str], (1, "a"), b'[1,"a"]'),
        (tuple[int, ...], (1, 2), b"[1,2]"),
        (set[int], {10, 9}, b"[10,9]"),
        (frozenset[frozenset[str]], frozenset({frozenset("ba"), frozenset("a")}), b'[["a","b"],["a"]]'),
        (Pair, Pair(1, {3, 2}), b"[1,[2,3]]"),
        (Row, {"name": "a", "id": 1}, b'{"id":1,"name":"a"}'),
        (Colour, Colour.RED, b'"red"'),
        (Level, Level.HIGH, b"9"),
        (Mode, Mode.FAST, b'"fast"'),
        (Literal["a", 1], "a", b'"a"'),
        (uuid.UUID, uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Decimal, Decimal("1.50"), b'"1.50"'),
        (datetime, datetime(2026, 1, 2, 3, 4, 5, 6), b'"2026-01-02T03:04:05.000006"'),  # noqa: DTZ001
        (datetime, datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00+00:00"'),
        (date, date(2026, 1, 2), b'"2026-01-02"'),
        (time, time(1, 2, 3), b'"01:02:03"'),
        (time, time(1, 2, 3, tzinfo=UTC), b'"01:02:03+00:00"'),
        (timedelta, timedelta(days=1, microseconds=1), b'"P1DT0.000001S"'),
        (timedelta, timedelta.min, b'"-P999999999D"'),
        (Point, Point(1, 2), b'{"x":1,"y":2}'),
        (Parcel, Parcel(3, {"b", "a"}), b'{"_weight":3,"labels":["a","b"]}'),
        (Circle | Plain, Circle(1.5), b'{"outerRadius":1.5,"type":"circle"}'),
        (Circle, Circle(1.5, {"b", "a"}), b'{"marks":["a","b"],"outerRadius":1.5,"type":"circle"}'),
        (Square, Square(1, {3, 2}), b'["square",1,[2,3]]'),
        (Circle | Plain, Plain(2), b'{"radius":2,"type":"Plain"}'),
        (dict[int, str], {2: "b", 10: "a"}, b'{"10":"a","2":"b"}'),
        (dict[float, int], {1.5: 1}, b'{"1.5":1}'),
        (dict[Level, int], {Level.LOW: 1}, b'{"1":1}'),
        (dict[Mode, int], {Mode.FAST: 1}, b'{"fast":1}'),
        (dict[date, int], {date(2026, 1, 2): 1}, b'{"2026-01-02":1}'),
        (dict[datetime, int], {datetime(2026, 1, 2, tzinfo=UTC): 1}, b'{"2026-01-02T00:00:00+00:00":1}'),
        (
            dict[uuid.UUID, set[int]],
            {uuid.UUID(int=0): {2, 1}},
            b'{"%s":[1,2]}' % str(uuid.UUID(int=0)).encode(),
        ),
        (Customer | None, None, b"null"),
    ],
)
def test_value_comes_back_through_its_hint(hint: Any, value: Any, encoded: bytes) -> None:
    CODEC.check(hint)
    assert CODEC.encode(value) == encoded
    decoded = CODEC.decode(encoded, hint)
    assert decoded == value
    assert value == 3 or type(decoded) is type(value)


def test_nested_records_come_back_whole_private_fields_included() -> None:
    order = Order(uuid.uuid4(), datetime.now(UTC), [Item("a", 1.5), Item("b", 2.0, "x")], frozenset("ab"), 7)
    order.total = Decimal("3.5")
    assert CODEC.decode(CODEC.encode(order), Order) == order


def test_recursive_records_and_attributes_that_are_no_fields() -> None:
    node = Node("root", [Node("leaf", [])])
    node.__dict__["cached"] = object()
    assert CODEC.decode(CODEC.encode(node), Node) == node
    CODEC.check(Node)


def test_without_a_hint_plain_json_comes_back() -> None:
    assert CODEC.decode(CODEC.encode({"a": (1, {2}), "b": Colour.RED}), Any) == {"a": [1, [2]], "b": "red"}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1E+30"])
def test_every_decimal_comes_back(text: str) -> None:
    assert str(CODEC.decode(CODEC.encode(Decimal(text)), Decimal)) == text


def test_moment_before_time_zones_keeps_its_instant() -> None:
    moment = datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))  # +00:19:32
    assert CODEC.decode(CODEC.encode(moment), datetime) == moment
    assert moment.utcoffset() == timedelta(minutes=19, seconds=32)


def test_subclasses_of_plain_types_are_written_as_their_bases() -> None:
    class Text(str):
        __slots__ = ()

    class Real(float):
        __slots__ = ()

    class Moment(datetime):
        pass

    value = [Text("a"), Real(1.5), Moment(2026, 1, 2, tzinfo=UTC), {Text("k"): 1}, memoryview(b"ab")]
    assert CODEC.encode(value) == b'["a",1.5,"2026-01-02T00:00:00+00:00",{"k":1},"YWI="]'


def test_of_duplicate_keys_the_last_wins() -> None:
    assert CODEC.decode(b'{"a":1,"a":2}', dict[str, int]) == {"a": 2}


def test_integers_beyond_64_bits_in_foreign_payloads_are_read_exactly() -> None:
    assert CODEC.decode(str(10**30).encode(), Any) == 10**30


ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(ATOMS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(JSON)
def test_plain_json_round_trips_and_is_what_other_readers_read(value: Any) -> None:
    data = CODEC.encode(value)
    assert CODEC.decode(data, Any) == value
    assert json.loads(data) == value
    assert CODEC.encode(CODEC.decode(data, Any)) == data


@pytest.mark.parametrize(
    ("hint", "values"),
    [
        (
            datetime,
            st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-5.5)))),
        ),
        (timedelta, st.timedeltas()),
        (Decimal, st.decimals(allow_nan=False)),
        (bytes, st.binary()),
        (set[bytes], st.sets(st.binary())),
        (frozenset[tuple[int, str]], st.frozensets(st.tuples(st.integers(0, 9), st.text(max_size=2)))),
        (dict[int, set[str]], st.dictionaries(st.integers(-(2**63), 2**63), st.sets(st.text(max_size=3)))),
        (dict[float, float], st.dictionaries(st.floats(allow_nan=False, allow_infinity=False), st.just(0.5))),
        (list[Point | None], st.lists(st.none() | st.builds(Point, st.just(1), st.integers(0, 99)))),
    ],
)
def test_typed_values_round_trip(hint: Any, values: st.SearchStrategy[Any]) -> None:
    @given(values)
    def round_trip(value: Any) -> None:
        assert CODEC.decode(CODEC.encode(value), hint) == value

    round_trip()


# ------------------------------------------------------------------------------------------ pydantic


def test_pydantic_models_keep_aliases_strictness_and_sorted_sets() -> None:
    data = CODEC.encode([CUSTOMER])
    assert b'"customerName":"Ada"' in data
    assert b'"tags":["a","b","c"]' in data
    CODEC.check(list[Customer])
    assert CODEC.decode(data, list[Customer]) == [CUSTOMER]
    assert CODEC.decode(CODEC.encode(CUSTOMER), Customer) == CUSTOMER


def test_pydantic_sets_of_sets_are_sorted_at_every_level() -> None:
    customer = Customer(
        customerName="A", born=date(2000, 1, 1), groups={"g": {frozenset("ba"), frozenset("c")}}
    )
    assert b'"groups":{"g":[["a","b"],["c"]]}' in CODEC.encode(customer)


def test_pydantic_faults_name_the_field() -> None:
    with pytest.raises(CodecError, match="born"):
        CODEC.decode(b'{"customerName":"Ada","born":"soon"}', Customer)
    with pytest.raises(CodecError, match=r"customerName[\s\S]*\$\[0\]"):
        CODEC.decode(b"[{}]", list[Customer])


def test_nan_in_a_pydantic_model_is_found() -> None:
    class Reading(pydantic.BaseModel):
        celsius: float

    with pytest.raises(CodecError, match=r"^\$\[0\]\.celsius: float nan is not valid JSON"):
        CODEC.encode([Reading(celsius=math.nan)])


# ------------------------------------------------------------------------------------------ bad input


def short(parameter: object) -> str:
    return parameter[:40] if isinstance(parameter, str) else type(parameter).__name__


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def nested_sets(depth: int) -> frozenset[Any]:
    value: frozenset[Any] = frozenset()
    for _ in range(depth):
        value = frozenset({value})
    return value


def a_cycle() -> Any:
    node = Node("n", [])
    node.children.append(node)
    return node


def iter_of_one() -> Iterator[int]:
    yield 1


async def soon() -> int:
    return 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "$: float nan is not valid JSON; pass None or a string"),
        ({"items": [Item("a", 1), Item("b", math.inf)]}, "$.items[1].price: float inf is not valid JSON"),
        ({"a b": (None, {-math.inf})}, "$['a b'][1]['*']: float -inf"),
        ({"k": Pair(1, {cast("int", math.nan)})}, "$.k[1]['*']: float nan"),
        ([None, {1: math.nan}], "$[1][1]: float nan"),
        ({math.nan: 1}, "$: float nan is not valid JSON"),
        ([2**64], "$[0]: int of 65 bits, JSON takes 64; pass str(n), or hex(n)"),
        ([-(2**63) - 1], "$[0]: int of 64 bits"),
        (10**5000, "$: int of 16610 bits"),
        ({"a": "x\ud800"}, "$.a: str has a lone surrogate at index 1; repair it, or pass bytes"),
        ({"\ud800": 1}, "$: str is not valid UTF-8: surrogates not allowed"),
        ({b"a": 1}, "$: bytes b'a' cannot be a key in JSON"),
        ({Decimal(1): 1}, "$: Decimal Decimal('1') cannot be a key in JSON"),
        (nested(NESTING_MAX + 1), "nested deeper than 254 levels"),
        (nested(100_000), "nested deeper than 254 levels"),
        (nested_sets(5_000), "nested deeper than 254 levels"),
        (
            a_cycle(),
            "$.children[0].children[0].children[0].children[0].children[0]...: nested deeper than 254",
        ),
        ([iter_of_one()], "$[0]: generator object cannot be encoded; pass list(...) of it"),
        ({"f": len}, "$.f: builtin_function_or_method object cannot be encoded"),
        ({"f": nested}, "$.f: function object cannot be encoded; pass a name"),
        (asyncio.Future, "$: type object cannot be encoded"),
        (object(), "$: object object cannot be encoded; pass a dataclass, a dict or an id"),
        ([threading.Lock()], "$[0]: lock object cannot be encoded"),
        (1j, "$: complex object cannot be encoded"),
        ({(1, 2): 3}, "$: tuple (1, 2) cannot be a key in JSON; pass a list of pairs"),
        ({None: 3}, "$: NoneType None cannot be a key"),
        ({True: 3}, "$: bool True cannot be a key"),
        ({Point(1, 2): 3}, "$: Point Point(x=1, y=2) cannot be a key"),
        ({1: 1, "1": 2}, "$: two keys are both written as '1'; make them differ as strings"),
        (
            "x" * PAYLOAD_BYTES_MAX,
            f"encoded payload has {PAYLOAD_BYTES_MAX + 2} bytes, more than the 2097152",
        ),
    ],
    ids=short,
)
def test_what_cannot_be_encoded_is_named_with_its_place_and_a_way_out(value: Any, message: str) -> None:
    with pytest.raises(CodecError) as caught:
        CODEC.encode(value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_coroutine_is_named() -> None:
    coroutine = soon()
    with pytest.raises(CodecError, match=r"\$: coroutine object cannot be encoded; await it"):
        CODEC.encode(coroutine)
    coroutine.close()


def test_limits_are_reached_exactly() -> None:
    CODEC.encode(nested(NESTING_MAX))
    CODEC.encode("x" * (PAYLOAD_BYTES_MAX - 2))


def test_deep_records_with_a_null_are_searched_without_recursion() -> None:
    node: Any = {"end": None}
    for _ in range(120):
        node = Node("n", [node])
    assert b"null" in CODEC.encode(node)


def test_keyboard_interrupt_while_encoding_gets_through() -> None:
    presses: list[int] = []

    class Interrupted(tuple[int, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[int]:
            presses.append(1)
            if len(presses) == 1:
                raise KeyboardInterrupt
            return super().__iter__()

    with pytest.raises(KeyboardInterrupt):
        CODEC.encode(Interrupted())


@pytest.mark.parametrize(
    ("data", "hint", "message"),
    [
        (b"", Any, "truncated"),
        (b"1 2", Any, "trailing characters"),
        (b'"\xff"', str, "'utf-8' codec can't decode byte 0xff in position 0"),
        (b'"\\ud800"', str, "DecodeError"),
        (b'{"a":', dict[str, int], "truncated"),
        (b"NaN", float, "DecodeError"),
        (b"[" * 100_000, Any, "nested deeper than"),
        (b'{"sku":"a"}', Item, "Object missing required field `price`"),
        (b'[{"sku":"a","price":"1"}]', list[Item], "Expected `float`, got `str` - at `$[0].price`"),
        (b"1.0", int, "Expected `int`, got `float`"),
        (b'"1"', int, "Expected `int`, got `str`"),
        (b"1", str, "Expected `str`, got `int`"),
        (b'"***"', bytes, "Invalid base64"),
        (b'"green"', Colour, "Invalid enum value 'green'"),
        (b"1" * 5000, int, "out of range"),
        (b"[[1]]", set[list[int]], "unhashable"),
        (b"1", complex, "no JSON form"),
    ],
)
def test_bytes_that_cannot_be_decoded_say_why(data: bytes, hint: Any, message: str) -> None:
    with pytest.raises(CodecError) as caught:
        CODEC.decode(data, hint)
    assert message in str(caught.value)


@given(st.binary(max_size=40))
def test_garbage_gives_a_value_or_a_codec_error(data: bytes) -> None:
    for hint in (Any, Item, dict[int, datetime]):
        try:
            CODEC.decode(data, hint)
        except CodecError:
            pass


# ------------------------------------------------------------------------------------------ same bytes everywhere

SEEDED = """
import sys; sys.path[:0] = [{tests!r}, {root!r}]
import test_payloads as t
names = ["n%d" % i for i in range(50)]
customer = t.Customer(customerName="a", born=t.date(2000, 1, 1), tags=set(names),
                      groups={{n: {{frozenset(names[:5]), frozenset(names[5:9])}} for n in set(names)}})
value = [set(names), frozenset(map(frozenset, names)), t.Pair(1, {{2, 1}}), t.Parcel(1, set(names)), customer,
         t.Circle(1.0, set(names)), {{n: 1 for n in set(names)}}, {{(n, 1) for n in names}}, set(t.Colour),
         {{t.Point(i, 0) for i in range(9)}}, {{1: None, 2: {{b"a", b"b"}}}}]
s = t.Signature.of_result(t.Any, "x")
sys.stdout.buffer.write(s.encode_args(t.CODEC, (value,), {{n: set(names) for n in set(names)}}))
"""


@pytest.mark.slow
@pytest.mark.process
def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    here = Path(__file__).resolve()
    program = SEEDED.format(tests=str(here.parent), root=str(here.parent.parent))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "77")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 10_000


def test_equal_dicts_give_equal_bytes() -> None:
    assert CODEC.encode({"a": 1, "b": 2}) == CODEC.encode({"b": 2, "a": 1})


@pytest.mark.process
def test_importing_loads_no_json_library() -> None:
    code = (
        "import sys, derecho.payloads; print({'orjson', 'msgspec', 'pydantic', 'attrs'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------ type hints


@pytest.mark.parametrize(
    "hint",
    [
        complex,
        list[threading.Thread],
        Callable[[], int],
        Iterator[int],
        dict[tuple[int, int], str],
        dict[Point, str],
        dict[bool, str],
        datetime | str,
        Colour | str | Mode,
        dict[str, dict[str, Path]],
    ],
)
def test_hints_that_cannot_be_decoded_are_refused(hint: Any) -> None:
    with pytest.raises(TypeError):
        CODEC.check(hint)


@pytest.mark.parametrize(
    "hint", [Any, Order, list[Any], dict[int, Item], Customer, object, Annotated[int, msgspec.Meta(ge=3)]]
)
def test_hints_that_can_be_decoded_pass(hint: Any) -> None:
    CODEC.check(hint)


# ------------------------------------------------------------------------------------------ signatures


def one(value: Any) -> None: ...
def one_typed(value: Item) -> Item:
    return value


def two(order_id: str, cents: int = 1) -> str:
    return f"{order_id}{cents}"


def none() -> None: ...
def rest(*values: int, scale: float = 1.0, **more: Item) -> None: ...
def keyword_only(*, key: str) -> None: ...
def only_positional(value: int, /, other: int = 2) -> None: ...
def optional(value: int | None = None) -> None: ...


def of(fn: Callable[..., Any]) -> Signature:
    signature = Signature.of(fn, "activity 'charge'")
    signature.check()
    return signature


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "encoded"),
    [
        (one, (1,), {}, b"1"),
        (one, (None,), {}, b'{"$args":[null],"$kwargs":{}}'),
        (one, ({"$args": [1], "$kwargs": {}},), {}, b'{"$args":[{"$args":[1],"$kwargs":{}}],"$kwargs":{}}'),
        (one, ({"!": 1, "$args": 2},), {}, b'{"$args":[{"!":1,"$args":2}],"$kwargs":{}}'),
        (one, (), {"value": 1}, b'{"$args":[],"$kwargs":{"value":1}}'),
        (one_typed, (Item("a", 1.5),), {}, b'{"note":null,"price":1.5,"sku":"a"}'),
        (none, (), {}, b"null"),
        (optional, (), {}, b"null"),
        (optional, (None,), {}, b'{"$args":[null],"$kwargs":{}}'),
        (two, ("a",), {}, b'"a"'),
        (two, ("a", 2), {}, b'{"$args":["a",2],"$kwargs":{}}'),
        (two, ("a",), {"cents": 2}, b'{"$args":["a"],"$kwargs":{"cents":2}}'),
        (rest, (1, 2), {"b": Item("b", 1.0), "a": Item("a", 1.0), "scale": 2.0}, None),
        (rest, (5,), {}, b"5"),
        (rest, (), {}, b"null"),
        (keyword_only, (), {"key": "k"}, b'{"$args":[],"$kwargs":{"key":"k"}}'),
        (only_positional, (1,), {"other": 3}, b'{"$args":[1],"$kwargs":{"other":3}}'),
    ],
)
def test_arguments_come_back_in_their_wire_form(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], encoded: bytes | None
) -> None:
    signature = of(fn)
    for _ in range(2):  # The first call finds out the parameters, the second takes the fast path.
        data = signature.encode_args(CODEC, args, kwargs)
        assert encoded is None or data == encoded
        assert signature.decode_args(CODEC, data) == (args, kwargs)
        assert Signature.of(fn, "x").decode_args(CODEC, data) == (args, kwargs)


def test_null_is_one_none_only_where_one_parameter_is_required() -> None:
    assert of(one).decode_args(CODEC, b"null") == ((None,), {})
    assert of(optional).decode_args(CODEC, b"null") == ((), {})
    assert of(rest).decode_args(CODEC, b"null") == ((), {})
    assert Signature.of_result(int, "x").decode_args(CODEC, b"null") == ((), {})
    with pytest.raises(CodecError, match="argument 1 of activity 'charge': Expected `object`, got `null`"):
        of(one_typed).decode_args(CODEC, b"null")


@pytest.mark.parametrize("spaced", [b' { "$kwargs": {}, "$args": [ "a", 2 ] } ', b'{"$args":["a",2]}'])
def test_envelopes_by_other_writers_are_understood(spaced: bytes) -> None:
    assert of(two).decode_args(CODEC, spaced) == (("a", 2), {})


def test_foreign_dict_that_only_mentions_the_mark_is_a_bare_value() -> None:
    data = b'{"a": ["$args"], "$args": 5}'
    assert of(one).decode_args(CODEC, data) == (({"a": ["$args"], "$args": 5},), {})


@given(JSON, st.lists(JSON, max_size=3), st.dictionaries(st.sampled_from(["a", "$args", "é"]), JSON))
def test_any_call_comes_back(value: Any, more: list[Any], kwargs: dict[str, Any]) -> None:
    signature = Signature.of_result(Any, "x")
    for args in ((value,), ({"$args": [value]},), (value, *more), ()):
        for named in ({}, kwargs):
            assert signature.decode_args(CODEC, signature.encode_args(CODEC, args, named)) == (args, named)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "message"),
    [
        (one, (), {}, "activity 'charge': missing a required argument: 'value'"),
        (one, (1, 2), {}, "activity 'charge': too many positional arguments"),
        (one, (1,), {"x": 2}, "got an unexpected keyword argument 'x'"),
        (one, (1,), {"value": 2}, "multiple values for argument 'value'"),
        (none, (1,), {}, "too many positional arguments"),
        (keyword_only, (), {}, "missing a required"),
        (keyword_only, ("k",), {}, "too many positional arguments"),
    ],
)
def test_wrong_call_is_refused_at_the_call(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    signature = of(fn)
    for _ in range(2):
        with pytest.raises(TypeError, match=message):
            signature.encode_args(CODEC, args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("a", math.nan), {}, "argument 2 of activity 'charge': $: float nan is not valid JSON"),
        (([object()],), {}, "argument 1 of activity 'charge': $[0]: object object cannot be encoded"),
        (("a",), {"cents": 2**70}, "argument 'cents' of activity 'charge': $: int of 71 bits"),
        ((b"a",), {}, "argument 1 of activity 'charge': bytes where the type hint says str"),
        ((bytearray(b"a"), 1), {}, "argument 1 of activity 'charge': bytearray where the type hint says str"),
        (("x" * PAYLOAD_BYTES_MAX,), {}, "argument 1 of activity 'charge': encoded payload has"),
        (
            ("a",),
            {"cents": "y" * PAYLOAD_BYTES_MAX},
            "argument 'cents' of activity 'charge': encoded payload has",
        ),
        (("x" * 2_000_000, "y" * 2_000_000), {}, "arguments of activity 'charge': encoded payload has"),
    ],
    ids=short,
)
def test_encoding_faults_name_the_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    signature = of(two)
    signature.encode_args(CODEC, ("a",), {})
    with pytest.raises(CodecError) as caught:
        signature.encode_args(CODEC, args, kwargs)
    assert message in str(caught.value)


def test_str_for_bytes_is_refused_before_it_is_taken_for_base64() -> None:
    def keep(blob: bytes) -> bytes:
        return blob

    with pytest.raises(
        CodecError, match="argument 1 of activity 'charge': str where the type hint says bytes"
    ):
        of(keep).encode_args(CODEC, ("abcd",), {})
    with pytest.raises(CodecError, match="result of activity 'charge': str where"):
        of(keep).encode_result(CODEC, "abcd")
    assert of(keep).decode_args(CODEC, of(keep).encode_args(CODEC, (b"abcd",), {})) == ((b"abcd",), {})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1", "argument 1 of activity 'charge': Expected `str`, got `int`"),
        (b'{"$args":["a","b"]}', "argument 2 of activity 'charge': Expected `int`, got `str`"),
        (b'{"$args":["a"],"$kwargs":{"cents":"b"}}', "argument 'cents' of activity 'charge': Expected `int`"),
        (b'{"$args":["a",1,2]}', "the recorded arguments do not fit activity 'charge': too many positional"),
        (
            b'{"$args":["a"],"$kwargs":{"euros":1}}',
            "got an unexpected keyword argument 'euros'; was it changed?",
        ),
        (b"null", "argument 1 of activity 'charge': Expected `str`, got `null`"),
        (b'"a', "argument 1 of activity 'charge': DecodeError"),
    ],
)
def test_decoding_faults_name_the_argument(data: bytes, message: str) -> None:
    with pytest.raises(CodecError) as caught:
        of(two).decode_args(CODEC, data)
    assert message in str(caught.value)


def test_bare_value_for_a_function_that_takes_none_is_a_codec_error() -> None:
    with pytest.raises(CodecError, match="do not fit activity 'charge': too many positional"):
        of(none).decode_args(CODEC, b"1")


def test_results_follow_the_return_hint() -> None:
    item = Item("a", 1.5)
    signature = of(one_typed)
    assert signature.decode_result(CODEC, signature.encode_result(CODEC, item)) == item
    assert of(one).decode_result(CODEC, b"5") == 5  # "-> None" promises nothing.
    assert Signature.of_result(Point, "x").decode_result(CODEC, b'{"x":1,"y":2}') == Point(1, 2)
    assert Signature.of_result(None, "x").decode_result(CODEC, b"null") is None
    with pytest.raises(CodecError, match="result of activity 'charge': Expected `object`, got `int`"):
        signature.decode_result(CODEC, b"5")
    with pytest.raises(CodecError, match=r"result of activity 'charge': \$\.price: float nan"):
        signature.encode_result(CODEC, Item("a", math.nan))


class Payments:
    def charge(self, order: Item, cents: int) -> Point:
        return Point(cents, 0)

    def __call__(self, item: Item) -> Point:
        return Point(0, 0)


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (Payments().charge, (Item("a", 1.0), 3)),
        (Payments(), (Item("a", 1.0),)),
        (functools.partial(Payments().charge, cents=3), (Item("a", 1.0),)),
    ],
)
def test_bound_methods_partials_and_callables_have_their_hints(
    fn: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    signature = of(fn)
    assert signature.decode_args(CODEC, signature.encode_args(CODEC, args, {})) == (args, {})
    assert signature.decode_result(CODEC, b'{"x":1,"y":2}') == Point(1, 2)


def test_wrapped_functions_have_the_hints_of_what_they_wrap() -> None:
    @functools.wraps(one_typed)
    def logged(*args: Any, **kwargs: Any) -> Any:
        return one_typed(*args, **kwargs)

    assert of(logged).decode_args(CODEC, b'{"sku":"a","price":1.0}') == ((Item("a", 1.0),), {})


def test_hints_may_name_what_is_defined_later_and_are_read_once() -> None:
    def fn(value: "Later") -> "Later": ...  # noqa: F821

    signature = Signature.of(fn, "activity 'fn'")
    with pytest.raises(
        RegistrationError, match="activity 'fn': type hints cannot be resolved: name 'Later' is not"
    ):
        signature.check()
    fn.__globals__["Later"] = Point
    try:
        signature.check()
    finally:
        del fn.__globals__["Later"]
    assert signature.decode_result(CODEC, b'{"x":1,"y":2}') == Point(1, 2)


def test_unpacked_and_missing_hints_are_any() -> None:
    def fn(a, *args, **kwargs: Unpack[Row]): ...  # The lack of hints is the point.

    signature = of(fn)
    data = signature.encode_args(CODEC, (1, "b"), {"id": 1, "name": "x"})
    assert signature.decode_args(CODEC, data) == ((1, "b"), {"id": 1, "name": "x"})


def numbers() -> Iterator[int]:
    yield 1


async def later_numbers() -> Any:
    yield 1


def bad_hint(a: int, b: complex) -> int:
    return a


def bad_result() -> Iterator[int]:
    return iter(())


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (numbers, "activity 'charge': a generator function cannot be durable; collect what it yields"),
        (later_numbers, "a generator function cannot"),
        (functools.partial(numbers), "a generator function cannot"),
        (5, "5 is not a function"),
        (Point, "is not a function"),
        (classmethod(one), "is not a function"),
        (
            bad_hint,
            "the type hint <class 'complex'> of 'b' cannot be decoded: <class 'complex'> has no JSON form",
        ),
        (bad_result, "of 'return' cannot be decoded"),
    ],
)
def test_registration_refuses_what_cannot_run(fn: Any, message: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        Signature.of(fn, "activity 'charge'").check()
    assert message in str(caught.value)


def test_lambda_needs_a_name_of_its_own() -> None:
    with pytest.raises(RegistrationError, match="no name that journals can rely on"):
        Signature.of(lambda x: x, "activity '<lambda>'")
    assert Signature.of(lambda x: x, "activity 'echo'").decode_args(CODEC, b"5") == ((5,), {})


# ------------------------------------------------------------------------------------------ other codecs


class PickleCodec:
    def encode(self, value: Any, /) -> bytes:
        return pickle.dumps(value)

    def decode(self, data: bytes, type: Any, /) -> Any:
        return pickle.loads(data)


class ReversingCodec(JSONCodec):
    """Stands for encryption: the output of the base is no JSON any more."""

    def encode(self, value: Any, /) -> bytes:
        return super().encode(value)[::-1]

    def decode(self, data: bytes, type: Any, /) -> Any:
        return super().decode(data[::-1], type)


class PlainCodec:
    """Writes JSON, None and look-alikes of envelopes included."""

    def encode(self, value: Any, /) -> bytes:
        return json.dumps(value).encode()

    def decode(self, data: bytes, type: Any, /) -> Any:
        return json.loads(data)


@pytest.mark.parametrize("codec", [PickleCodec(), ReversingCodec()])
def test_custom_codec_gets_each_value_with_its_hint(codec: Codec) -> None:
    signature = Signature.of(Payments().charge, "activity 'charge'")
    other = of(one)
    for _ in range(2):
        data = signature.encode_args(codec, (Item("a", 1.5),), {"cents": 3})
        assert signature.decode_args(codec, data) == ((Item("a", 1.5),), {"cents": 3})
        assert signature.decode_result(codec, signature.encode_result(codec, Point(1, 2))) == Point(1, 2)
        assert other.decode_args(codec, other.encode_args(codec, (None,), {})) == ((None,), {})
        assert other.decode_args(codec, b"null") == ((None,), {})
        assert signature.decode_result(CODEC, b'{"x":1,"y":2}') == Point(1, 2)  # Codecs may alternate.
    piece = base64.b64encode(codec.encode(3))
    assert data.endswith(b'"$kwargs":{"cents":"%b"}}' % piece)


@pytest.mark.parametrize("value", [None, {"$args": [1]}, "null", [None]])
def test_custom_codec_may_write_what_looks_like_our_own_forms(value: Any) -> None:
    signature, codec = of(one), PlainCodec()
    assert signature.decode_args(codec, signature.encode_args(codec, (value,), {})) == ((value,), {})


def test_errors_of_custom_codecs_become_codec_errors_that_name_the_value() -> None:
    class Broken:
        def encode(self, value: Any, /) -> bytes:
            raise LookupError("no key")

        def decode(self, data: bytes, type: Any, /) -> Any:
            raise LookupError("no key")

    signature = Signature.of(one, "activity 'charge'")
    with pytest.raises(CodecError, match="argument 1 of activity 'charge': LookupError: no key") as caught:
        signature.encode_args(Broken(), (1,), {})
    assert isinstance(caught.value.__cause__, LookupError)
    for call in (signature.decode_args, signature.decode_result):
        with pytest.raises(CodecError, match="of activity 'charge': LookupError: no key"):
            call(Broken(), b"1")
    with pytest.raises(CodecError, match="payload of signal 'paid': LookupError"):
        encode_value(Broken(), 1, "payload of signal 'paid'")
    with pytest.raises(CodecError, match="payload of signal 'paid': LookupError"):
        decode_value(Broken(), b"1", int, "payload of signal 'paid'")


@pytest.mark.parametrize("codec", [PickleCodec(), ReversingCodec()])
@pytest.mark.parametrize("data", [b'{"$args":[1,"a"],"$kwargs":{}}', b'{"$args":["gA=","a"]}', b'{"sku":1}'])
def test_payload_of_another_codec_is_a_codec_error(codec: Codec, data: bytes) -> None:
    with pytest.raises(CodecError, match="activity 'charge'"):
        of(two).decode_args(codec, data)


def test_names_in_journals_do_not_fill_the_memory() -> None:
    signature = of(rest)
    for number in range(10):
        signature.decode_args(CODEC, b'{"$args":[],"$kwargs":{"k%d":{"sku":"a","price":1.0}}}' % number)
    assert signature._known is not None
    assert not [name for name in signature._known.decoders if str(name).startswith("k")]


def test_lack_of_memory_is_not_the_value_s_fault() -> None:
    class Full(PickleCodec):
        def encode(self, value: Any, /) -> bytes:
            raise MemoryError

    with pytest.raises(MemoryError):
        of(one).encode_args(Full(), (1,), {})


def test_payloads_of_custom_codecs_are_limited_too() -> None:
    with pytest.raises(CodecError, match="argument 1 of activity 'charge': encoded payload has"):
        of(one).encode_args(PickleCodec(), ("x" * PAYLOAD_BYTES_MAX,), {})


def test_codec_without_check_takes_any_hint() -> None:
    Signature.of(bad_hint, "activity 'charge'").check(PickleCodec())
