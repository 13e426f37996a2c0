"""Turn the values of users into bytes and back: arguments, results, signals, heartbeat details.

A `Codec` handles one value at a time; `derecho.signatures` puts the arguments of a call together.
orjson writes; msgspec reads, checking type hints in the same pass. As a writer msgspec would put sets down in
their order of iteration, which differs between processes, and replay compares bytes. orjson leaves sets to
`_reduce`, and all that it would lose something of: dataclass fields named `_x`, seconds in an offset.
"""

from __future__ import annotations

import functools
import math
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Any, Final, NoReturn, Protocol

from derecho.errors import CodecError

__all__ = ["PAYLOAD_BYTES_MAX", "Codec", "JSONCodec", "decode_value", "encode_value"]

PAYLOAD_BYTES_MAX: Final = 2 * 1024 * 1024  # Of one payload: all arguments of a call, or one result.
NESTING_MAX: Final = 254  # Of lists and dicts in each other; orjson's own limit.
CLASSES_MAX: Final = 4096  # Of which we remember how to write or read them.

Decode = Callable[[bytes], Any]
_TOO_DEEP: Final = f"nested deeper than {NESTING_MAX} levels, or in itself; flatten it, pass ids"
_MIXUPS: Final[dict[Any, tuple[type, ...]]] = {str: (bytes, bytearray, memoryview), bytes: (str,)}
_SOUND: Final[frozenset[type]] = frozenset({str, int, bool, type(None), date, datetime})  # Hold no NaN.
_ADVICE: Final = {
    "coroutine": "await it, or pass the arguments from which it was made",
    "generator": "pass list(...) of it",
    "Future": "pass its result, .get()",
    "function": "pass a name, and look the function up on the other side",
}


class Codec(Protocol):
    """Turn one value into bytes and back. The methods are called from many threads at a time.

    A value is one argument, one result, or the payload of one signal. Its bytes must depend on nothing else
    (hash seed, process, time), because replay compares them with the journal: a codec that encrypts must
    derive its nonce from the text. The envelope of several arguments is not the codec's business: the pieces
    by any codec but `JSONCodec` itself stand in it as base64, and names of keywords as they are.
    A codec may have `check(type)`, too; type hints for which it raises are refused at registration.
    """

    def encode(self, value: Any, /) -> bytes:
        """Return the bytes of `value`, at most PAYLOAD_BYTES_MAX. Any Exception becomes a CodecError."""

    def decode(self, data: bytes, type: Any, /) -> Any:
        """Return the value of `data`, by a type hint or Any. Any Exception becomes a CodecError."""


class JSONCodec:
    """JSON with types from the hints: written by the value, read by the hint. Threads may share an instance.

    Written: None, bool, int of 64 bits, finite float, str, list, tuple, dict, dataclasses, TypedDict, UUID,
    NamedTuple, Enum (its value), attrs classes, `msgspec.Struct`, pydantic models (by their own rules). As
    strings: datetime, date, time in ISO 8601 (naive ones stay naive; of a zone only the offset is kept),
    timedelta as ISO 8601 duration, Decimal, bytes and the like in base64. Sets are sorted by encoded bytes.
    Keys of dicts and fields are sorted, so equal dicts give equal bytes; where order matters, pass a list of
    pairs. Keys may be str, int, float, Enum, UUID, date, time or datetime; all are written as strings, and
    come back as themselves only under a hint such as `dict[int, str]`. Of duplicate keys the last one is read.
    Reading is strict: neither "1" nor 1.0 is an int. Unknown fields are ignored. Without a hint plain JSON comes.
    """

    def encode(self, value: Any, /) -> bytes:
        """Return `value` as UTF-8 JSON without spaces, at most PAYLOAD_BYTES_MAX bytes.

        Raises CodecError with the place ("$.items[3].price: float nan is not valid JSON; ...") and a way out.
        """
        try:
            data = json_dumper()(value)
        except TypeError as error:
            if error.__cause__ is not None and not isinstance(error.__cause__, Exception):
                raise error.__cause__ from None  # orjson wraps even a KeyboardInterrupt that hits `_reduce`.
            _search(value)
            try:
                data = json_dumper(True)(value)
            except TypeError as last:
                fail("$", last)
        # orjson writes NaN as null, without a word. Only payloads with a null in them pay for the search.
        if data.find(b"null") >= 0 and value is not None and _holds_nan(value):
            _search(value)
        return data if len(data) <= PAYLOAD_BYTES_MAX else fail_length("", data)

    def decode(self, data: bytes, type: Any, /) -> Any:
        """Return the value of the hint `type` in `data`. Raises CodecError, with the path of the fault."""
        try:
            return json_decoder(type)(data)
        except Exception as error:
            fail("", error)

    def check(self, type: Any, /) -> None:
        """Raise TypeError, with the reason, if values of the hint `type` cannot be decoded."""
        import msgspec.inspect

        json_decoder(type)
        _check_node(msgspec.inspect.type_info(type), set())


def encode_value(codec: Codec, value: Any, what: str, hint: Any = Any) -> bytes:
    """Return the payload of one value, at most PAYLOAD_BYTES_MAX bytes.

    `what` begins the text of an error: "payload of signal 'paid'". `hint` is the type hint by which the value
    will be decoded, if known: it lets us refuse bytes for str, and str for bytes. Raises CodecError.
    """
    try:
        data = codec.encode(value)
    except Exception as error:
        fail(what, error)
    if (hint is str or hint is bytes) and isinstance(value, _MIXUPS[hint]) and type(codec) is JSONCodec:
        problem = f"{type(value).__name__} where the type hint says {hint.__name__}, and JSON mixes them up"
        raise CodecError(f"{what}: {problem}; convert it")
    return data if len(data) <= PAYLOAD_BYTES_MAX else fail_length(what, data)


def decode_value(codec: Codec, data: bytes, type: Any, what: str) -> Any:
    """Return the value in one payload, by a type hint or Any; `what` as above. Raises CodecError."""
    try:
        return codec.decode(data, type)
    except Exception as error:
        fail(what, error)


@functools.cache
def json_dumper(any_keys: bool = False) -> Callable[[Any], bytes]:
    import orjson

    dumps = orjson.dumps
    options = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    options |= orjson.OPT_NON_STR_KEYS if any_keys else 0
    # Not a partial: that takes 210 ns for a short string, this 100.
    return lambda value: dumps(value, _reduce, options)


def _reduce(value: Any) -> Any:
    """Return `value` as something that orjson writes, one level deep."""
    return _reducer(type(value))(value)  # type: ignore[arg-type]  # type[Any] is hashable.


@functools.lru_cache(CLASSES_MAX)
def _reducer(cls: Any) -> Callable[[Any], Any]:
    """Choose how instances of `cls` are reduced. Raises TypeError if they cannot be."""
    if _is_a(cls, "pydantic", "BaseModel"):
        return _reduce_model
    if hasattr(cls, "__struct_fields__"):
        return _reduce_struct
    members = fields(cls) if hasattr(cls, "__dataclass_fields__") else getattr(cls, "__attrs_attrs__", None)
    if members is not None:
        return functools.partial(_reduce_fields, frozenset(member.name for member in members))
    for base, reducer in _REDUCERS:
        if issubclass(cls, base):
            return reducer
    if _is_a(cls, "decimal", "Decimal") or _is_a(cls, "uuid", "UUID"):
        return str
    advice = _ADVICE.get(cls.__name__, "pass a dataclass, a dict or an id, or use a codec that knows it")
    raise TypeError(f"{cls.__qualname__} object cannot be encoded; {advice}")


def _reduce_fields(names: frozenset[str], value: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = getattr(value, "__dict__", {})
    return attributes if attributes.keys() == names else {name: getattr(value, name) for name in names}


def _reduce_set(value: Any) -> Any:
    import orjson

    return orjson.Fragment(b"[%b]" % b",".join(sorted(map(json_dumper(), value))))


def _reduce_datetime(value: datetime) -> str:
    offset = value.utcoffset()
    if offset is not None and offset % timedelta(minutes=1):
        value = value.astimezone(UTC)  # A local mean time; ISO 8601 has no seconds in offsets.
    return datetime.isoformat(value)


def _reduce_timedelta(value: timedelta) -> Any:
    import msgspec

    return msgspec.to_builtins(timedelta(value.days, value.seconds, value.microseconds))


def _reduce_struct(value: Any) -> Any:
    import msgspec

    config, names = value.__struct_config__, value.__struct_fields__
    members = dict(zip(value.__struct_encode_fields__, (getattr(value, name) for name in names), strict=True))
    if config.tag_field is not None:
        members = {config.tag_field: config.tag, **members}
    if config.array_like:
        return list(members.values())
    return {name: member for name, member in members.items() if member is not msgspec.UNSET}


def _reduce_model(value: Any) -> Any:
    plain = value.model_dump(mode="json", by_alias=True, round_trip=True)
    return _sort_sets(plain, value.model_dump(by_alias=True, round_trip=True))


def _sort_sets(plain: Any, native: Any) -> Any:
    """Return `plain`, the JSON form that pydantic made of `native`, with lists sorted that were sets."""
    if isinstance(native, set | frozenset) and isinstance(plain, list):
        nested = any(isinstance(item, frozenset | tuple) for item in native)
        return native if nested else sorted(plain, key=json_dumper())
    if isinstance(native, dict) and isinstance(plain, dict) and len(native) == len(plain):
        return dict(zip(plain, map(_sort_sets, plain.values(), native.values()), strict=True))
    if isinstance(native, list | tuple) and isinstance(plain, list) and len(native) == len(plain):
        return list(map(_sort_sets, plain, native))
    return plain


# What derives from another stands before it: datetime is a date.
_REDUCERS: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    ((set, frozenset), _reduce_set),
    (tuple, tuple),
    ((bytes, bytearray, memoryview), lambda value: b64encode(value).decode("ascii")),
    (datetime, _reduce_datetime),
    (date, date.isoformat),
    (time, time.isoformat),
    (timedelta, _reduce_timedelta),
    (float, float),
)


def _holds_nan(value: Any) -> bool:
    """Tell if a NaN or an infinity is anywhere in `value`, which has been written, so it has no cycles."""
    pending = [value]
    for item in pending:
        cls = type(item)
        if cls is float:
            if not math.isfinite(item):
                return True
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending += item
        elif isinstance(item, Enum):
            pending.append(item.value)
        elif cls not in _SOUND and not isinstance(item, (str, int)):
            pending.append(_reduce(item))
    return False


def _search(value: Any) -> None:
    """Raise CodecError with the path of the first thing in `value` that JSON cannot hold, if there is one."""
    pending: list[tuple[Any, Any, int]] = [
        (value, None, 0)
    ]  # With the place (of the parent, key), and depth.
    while pending:
        item, place, depth = pending.pop()
        members: Iterable[tuple[Any, Any]] = ()
        fault = ""
        if item is None or isinstance(item, (str, int, float)):
            fault = _atom_fault(item)
        elif depth >= NESTING_MAX:
            fault = _TOO_DEEP
        elif isinstance(item, dict):
            fault, members = _keys_fault(item), item.items()
        elif isinstance(item, (list, tuple)):
            members = enumerate(item)
        elif isinstance(item, (set, frozenset)):
            members = (("*", member) for member in item)
        else:
            try:
                pending.append((item.value if isinstance(item, Enum) else _reduce(item), place, depth))
            except Exception as error:
                fail(_path(place), error)
        if fault:
            raise CodecError(f"{_path(place)}: {fault}")
        pending += [(member, (place, key), depth + 1) for key, member in members][::-1]


def _path(place: Any) -> str:
    steps: list[str] = []
    while place is not None:
        place, key = place
        steps.append(f".{key}" if str(key).isidentifier() else f"[{key!r:.40}]")
    path = "".join(reversed(steps))
    return f"${path[:60]}{'...' * (len(path) > 60)}"


def _atom_fault(value: Any) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"str has a lone surrogate at index {error.start}; repair it, or pass bytes"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"float {value} is not valid JSON; pass None or a string"
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        return f"int of {value.bit_length()} bits, JSON takes 64; pass str(n), or hex(n)"
    return ""


def _keys_fault(keys: Mapping[Any, Any]) -> str:
    texts = set()
    for key in keys if set(map(type, keys)) != {str} else ():
        plain = key.value if isinstance(key, Enum) else key
        fault = ""
        if isinstance(plain, (str, int, float)) and not isinstance(plain, bool):
            fault = _atom_fault(plain)
        elif not (isinstance(plain, (date, time)) or _is_a(type(plain), "uuid", "UUID")):
            fault = f"{type(key).__name__} {key!r:.40} cannot be a key in JSON; pass a list of pairs"
        if not fault and str(plain) in texts:
            fault = f"two keys are both written as {str(plain)!r}; make them differ as strings"
        if fault:
            return fault
        texts.add(str(plain))
    return ""


@functools.lru_cache(CLASSES_MAX)
def json_decoder(type: Any) -> Decode:
    import msgspec

    return msgspec.json.Decoder(type, dec_hook=_decode_custom).decode


def _decode_custom(type: Any, value: Any) -> Any:
    """Return `value`, plain JSON, as an instance of a class that msgspec does not know."""
    if _is_a(type, "pydantic", "BaseModel"):
        import msgspec

        return type.model_validate_json(msgspec.json.encode(value))  # Strict ones take dates from JSON only.
    if type is object:
        return value
    raise TypeError(f"{type!r} has no JSON form")


def _check_node(node: Any, seen: set[int]) -> None:
    """Raise TypeError if part of msgspec's type tree cannot be decoded; it takes unknown classes on trust."""
    import msgspec.inspect as tree

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, tree.CustomType):
        if node.cls is not object and not _is_a(node.cls, "pydantic", "BaseModel"):
            raise TypeError(f"{node.cls!r} has no JSON form; use a dataclass, or a codec that knows it")
    elif isinstance(node, tree.DictType):
        keys = node.key_type.types if isinstance(node.key_type, tree.UnionType) else (node.key_type,)
        bad = tree.BoolType | tree.NoneType | tree.TupleType | tree.VarTupleType | tree.FrozenSetType
        if any(isinstance(key, bad | tree.CustomType) or hasattr(key, "fields") for key in keys):
            raise TypeError("keys of a dict must have a form as string; use a list of pairs")
    for child in (getattr(node, name) for name in node.__struct_fields__):
        for item in child if isinstance(child, tuple) else (child,):
            if isinstance(item, tree.Type | tree.Field):
                _check_node(item, seen)


def _is_a(cls: Any, module_name: str, class_name: str) -> bool:
    """Tell if `cls` derives from a class of a module. Imports nothing: who has the class has imported it."""
    base = getattr(sys.modules.get(module_name), class_name, None)
    return base is not None and isinstance(cls, type) and issubclass(cls, base)


def fail_length(what: str, data: bytes) -> NoReturn:
    problem = f"encoded payload has {len(data)} bytes, more than the {PAYLOAD_BYTES_MAX} allowed"
    fail(what, CodecError(f"{problem}; store it elsewhere and pass a reference"))


def fail(what: str, error: Exception) -> NoReturn:
    """Raise CodecError for `error`, its text begun by `what`."""
    if isinstance(error, MemoryError):
        raise error  # The machine's trouble, not the value's; it may pass.
    reason = str(error) if isinstance(error, CodecError | TypeError) else f"{type(error).__name__}: {error}"
    if isinstance(error, RecursionError):
        reason = _TOO_DEEP
    elif _is_a(type(error), "msgspec", "ValidationError"):
        reason = f"{error}; the payload does not fit the type hint, was the hint changed?"
    raise CodecError(f"{what}: {reason}" if what else reason) from error
