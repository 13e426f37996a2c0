"""Turn the values of users into bytes and back: arguments, results, signals, heartbeat details.

A `Codec` handles one value at a time. A `Signature` puts the arguments of a call into one payload, encoded
one by one: so a codec gets the type hint of each value it decodes and need not know of the envelope.
orjson writes; msgspec reads, checking type hints in the same pass. As a writer msgspec would put sets down in
their order of iteration, which differs between processes, and replay compares bytes. orjson leaves sets to
`_reduce`, and all that it would lose something of: dataclass fields named `_x`, seconds in an offset.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import typing
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Any, Final, NoReturn, Protocol

from derecho.errors import CodecError, RegistrationError

__all__ = ["PAYLOAD_BYTES_MAX", "Codec", "JSONCodec", "Signature", "decode_value", "encode_value"]

PAYLOAD_BYTES_MAX: Final = 2 * 1024 * 1024  # Of one payload: all arguments of a call, or one result.
NESTING_MAX: Final = 254  # Of lists and dicts in each other; orjson's own limit.
CLASSES_MAX: Final = 4096  # Of which we remember how to write or read them.

_Decode = Callable[[bytes], Any]
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
            data = _dumper()(value)
        except TypeError as error:
            if error.__cause__ is not None and not isinstance(error.__cause__, Exception):
                raise error.__cause__ from None  # orjson wraps even a KeyboardInterrupt that hits `_reduce`.
            _search(value)
            try:
                data = _dumper(True)(value)
            except TypeError as last:
                _fail("$", last)
        # orjson writes NaN as null, without a word. Only payloads with a null in them pay for the search.
        if data.find(b"null") >= 0 and value is not None and _holds_nan(value):
            _search(value)
        return data if len(data) <= PAYLOAD_BYTES_MAX else _fail_length("", data)

    def decode(self, data: bytes, type: Any, /) -> Any:
        """Return the value of the hint `type` in `data`. Raises CodecError, with the path of the fault."""
        try:
            return _json_decoder(type)(data)
        except Exception as error:
            _fail("", error)

    def check(self, type: Any, /) -> None:
        """Raise TypeError, with the reason, if values of the hint `type` cannot be decoded."""
        import msgspec.inspect

        _json_decoder(type)
        _check_node(msgspec.inspect.type_info(type), set())


def encode_value(codec: Codec, value: Any, what: str, hint: Any = Any) -> bytes:
    """Return the payload of one value, at most PAYLOAD_BYTES_MAX bytes.

    `what` begins the text of an error: "payload of signal 'paid'". `hint` is the type hint by which the value
    will be decoded, if known: it lets us refuse bytes for str, and str for bytes. Raises CodecError.
    """
    try:
        data = codec.encode(value)
    except Exception as error:
        _fail(what, error)
    if (hint is str or hint is bytes) and isinstance(value, _MIXUPS[hint]) and type(codec) is JSONCodec:
        problem = f"{type(value).__name__} where the type hint says {hint.__name__}, and JSON mixes them up"
        raise CodecError(f"{what}: {problem}; convert it")
    return data if len(data) <= PAYLOAD_BYTES_MAX else _fail_length(what, data)


def decode_value(codec: Codec, data: bytes, type: Any, what: str) -> Any:
    """Return the value in one payload, by a type hint or Any; `what` as above. Raises CodecError."""
    try:
        return codec.decode(data, type)
    except Exception as error:
        _fail(what, error)


class Signature:
    """Puts the arguments of one workflow or activity into one payload and takes them out by the type hints.

    Wire form: exactly one positional argument alone is its bare payload, no argument is `null`, all else is
    `{"$args": [...], "$kwargs": {...}}`; so is a lone None, or a payload with "$args" in it, lest it be taken
    for one of the others. `null` is read as one None if exactly one parameter is required. Safe in threads.
    `subject` tells messages what it belongs to: "activity 'charge'".
    """

    __slots__ = ("_first", "_first_hint", "_fn", "_known", "_result", "_result_hint", "_takes_one", "subject")

    def __init__(self, fn: Callable[..., Any] | None, result_hint: Any, subject: str) -> None:
        self.subject = subject
        self._fn, self._result_hint = fn, result_hint
        self._known: _Parameters | None = None  # Read at first use: hints may name what is defined later.
        self._takes_one = False
        self._first, self._result = f"argument 1 of {subject}", f"result of {subject}"  # For messages.
        self._first_hint: Any = Any

    @classmethod
    def of(cls, fn: Callable[..., Any], subject: str) -> Signature:
        """Return the signature of a function or bound method. Cheap: hints wait for first use, or `check`.

        Raises RegistrationError for generators, non-functions, and lambdas that `subject` calls "<lambda>".
        """
        problem, body = "", _body(fn)
        if body is None:
            problem = f"{fn!r} is not a function; pass a function or a bound method"
        elif inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            problem = "a generator function cannot be durable; collect what it yields and return a list"
        elif getattr(body, "__name__", "") == "<lambda>" and "<lambda>" in subject:
            problem = "a lambda has no name that journals can rely on; use def, or pass name=..."
        if problem:
            raise RegistrationError(f"{subject}: {problem}")
        return cls(fn, Any, subject)

    @classmethod
    def of_result(cls, type: Any, subject: str) -> Signature:
        """Return the signature of code that lives elsewhere: any arguments, results of the hint `type`."""
        return cls(None, _decodable(type), subject)

    def check(self, codec: Codec | None = None) -> None:
        """Raise RegistrationError if a hint cannot be resolved, or `codec` (None: JSON) cannot decode it."""
        known = self._resolve()
        check = getattr(JSONCodec() if codec is None else codec, "check", lambda hint: None)
        for place, hint in known.hints.items():
            try:
                check(hint)
            except Exception as error:
                where = "return" if place is None else place
                problem = f"the type hint {hint!r} of {where!r} cannot be decoded: {error}"
                raise RegistrationError(f"{self.subject}: {problem}") from error

    def encode_args(self, codec: Codec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the payload of the arguments of a call, at most PAYLOAD_BYTES_MAX bytes.

        Raises TypeError for a wrong call, CodecError with the place, RegistrationError for unresolved hints.
        """
        if len(args) != 1 or kwargs or not self._takes_one:
            problem = self._resolve().mismatch(args, kwargs)
            if problem:
                raise TypeError(f"{self.subject}: {problem}")
            if len(args) != 1 or kwargs:
                return self._enclose(codec, args, kwargs) if args or kwargs else b"null"
        data = encode_value(codec, args[0], self._first, self._first_hint)
        # `in` would take 230 ns, this 60: bytes try to make an integer of what they look for.
        ambiguous = data == b"null" or data.find(b'"$args"') >= 0
        return self._enclose(codec, args, kwargs) if ambiguous else data

    def decode_args(self, codec: Codec, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments in `data`, by the type hints. Raises CodecError."""
        known = self._known or self._resolve()
        marked = data.find(b'"$args"') >= 0
        if data != b"null" and not marked and self._takes_one:
            return (self._decode(codec, data, 0),), {}
        envelope = _open(data, bytes if type(codec) is JSONCodec else b64decode) if marked else None
        needs_one = known.args_min == 1 <= known.args_max
        bare: list[bytes] = [data] if needs_one or data != b"null" else []
        args, kwargs = envelope or (bare, dict[str, bytes]())
        problem = known.mismatch(args, kwargs)
        if problem:
            raise CodecError(f"the recorded arguments do not fit {self.subject}: {problem}; was it changed?")
        if type(codec) is not JSONCodec and data == b"null":
            return (None,) * len(args), {}  # Not by this codec: where it writes `null`, we enclose it.
        values = tuple([self._decode(codec, piece, index) for index, piece in enumerate(args)])
        return values, {name: self._decode(codec, piece, name) for name, piece in kwargs.items()}

    def encode_result(self, codec: Codec, value: Any) -> bytes:
        """Return the payload of a result, at most PAYLOAD_BYTES_MAX bytes. Raises CodecError."""
        return encode_value(codec, value, self._result, (self._known or self._resolve()).hints[None])

    def decode_result(self, codec: Codec, data: bytes) -> Any:
        """Return the result in `data`, by the return hint (Any if missing or None). Raises CodecError."""
        return self._decode(codec, data, None)

    def _decode(self, codec: Codec, data: bytes, place: int | str | None) -> Any:
        known = self._known or self._resolve()
        try:
            if type(codec) is JSONCodec:
                return (known.decoders.get(place) or known.decoder(place))(data)
            return codec.decode(data, known.hint(place))
        except Exception as error:
            _fail(self._name(place), error)

    def _enclose(self, codec: Codec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        known, dumps = self._resolve(), _dumper()

        def piece(value: Any, place: int | str) -> bytes:
            data = encode_value(codec, value, self._name(place), known.hint(place))
            return data if type(codec) is JSONCodec else b'"%b"' % b64encode(data)

        named = [b"%b:%b" % (dumps(name), piece(kwargs[name], name)) for name in sorted(kwargs)]
        pieces = [piece(value, index) for index, value in enumerate(args)]
        data = b'{"$args":[%b],"$kwargs":{%b}}' % (b",".join(pieces), b",".join(named))
        return data if len(data) <= PAYLOAD_BYTES_MAX else _fail_length(f"arguments of {self.subject}", data)

    def _name(self, place: int | str | None) -> str:
        number = place + 1 if isinstance(place, int) else repr(place)
        return self._result if place is None else f"argument {number} of {self.subject}"

    def _resolve(self) -> _Parameters:
        known = self._known
        if known is None:
            known = _Parameters(self._fn, self._result_hint, self.subject)
            self._known, self._first_hint = known, known.hint(0)
            self._takes_one = known.args_min <= 1 <= known.args_max  # Last: it opens the fast path.
        return known


class _Parameters:
    """What a function takes and returns. Without a function: takes anything."""

    __slots__ = ("args_max", "args_min", "bind", "decoders", "hints")

    def __init__(self, fn: Callable[..., Any] | None, result: Any, subject: str) -> None:
        self.hints: dict[int | str | None, Any] = {None: result}  # By name, by position; None: the result.
        self.decoders: dict[int | str | None, _Decode] = {}
        self.args_min, self.args_max = 0, sys.maxsize
        self.bind: Callable[..., Any] | None = None
        if fn is not None:
            self.read(fn, subject)

    def read(self, fn: Callable[..., Any], subject: str) -> None:
        try:
            hints = typing.get_type_hints(_body(fn), include_extras=True)
        except Exception as error:
            advice = "their names must exist in the module at run time, not only under TYPE_CHECKING"
            raise RegistrationError(f"{subject}: type hints cannot be resolved: {error}; {advice}") from error
        signature = inspect.signature(fn)
        self.bind, self.hints[None] = signature.bind, _decodable(hints.get("return", Any))
        kind = inspect.Parameter
        stars: dict[Any, str] = {kind.VAR_POSITIONAL: "*args", kind.VAR_KEYWORD: "**kwargs"}
        positional, keyword_needed = 0, False
        for name, parameter in signature.parameters.items():
            place, needed = stars.get(parameter.kind, name), parameter.default is parameter.empty
            self.hints[place] = _decodable(hints.get(name, Any))
            if parameter.kind is kind.KEYWORD_ONLY:
                keyword_needed = keyword_needed or needed
            elif place == name:
                self.hints[positional] = self.hints[name]
                positional, self.args_min = positional + 1, self.args_min + needed
        # Where a keyword is needed, no number of positional arguments is enough, and `bind` says so.
        self.args_max = -1 if keyword_needed else sys.maxsize if "*args" in self.hints else positional

    def mismatch(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return why a call with these arguments is not possible, or an empty string."""
        if self.bind is not None and (kwargs or not self.args_min <= len(args) <= self.args_max):
            try:
                self.bind(*args, **kwargs)
            except TypeError as error:
                return str(error)
        return ""

    def hint(self, place: int | str | None) -> Any:
        return self.hints.get(place, self.hints.get("*args" if isinstance(place, int) else "**kwargs", Any))

    def decoder(self, place: int | str | None) -> _Decode:
        found = _json_decoder(self.hint(place))
        if place in self.hints:  # Not each name that a journal gives to one of **kwargs.
            self.decoders[place] = found
        return found


def _body(fn: Any) -> Any:
    """Return the function behind a partial or a callable object, or None if there is none."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not callable(fn) or isinstance(fn, type):
        return None
    return fn if inspect.isroutine(fn) else type(fn).__call__


def _decodable(hint: Any) -> Any:
    """Return the hint to decode by. Who promises nothing (None, Never) may still return something."""
    vague = hint in (object, None, type(None), typing.NoReturn, typing.Never)
    special = isinstance(hint, typing.ParamSpecArgs | typing.ParamSpecKwargs)
    return Any if vague or special or typing.get_origin(hint) is typing.Unpack else hint


def _open(data: bytes, open_piece: Callable[[Any], bytes]) -> tuple[list[bytes], dict[str, bytes]] | None:
    """Return the pieces in an envelope, or None for a bare payload: ours with "$args" are never bare."""
    try:
        envelope = _json_decoder(_envelope())(data)
        named = {name: open_piece(raw) for name, raw in envelope.kwargs.items()}
        return list(map(open_piece, envelope.args)), named  # b64decode skips the quotes.
    except (ValueError, RecursionError):
        return None


@functools.cache
def _envelope() -> Any:
    import msgspec

    args: Any = ("args", list[msgspec.Raw], msgspec.field(name="$args"))
    kwargs: Any = ("kwargs", dict[str, msgspec.Raw], msgspec.field(name="$kwargs", default_factory=dict))
    return msgspec.defstruct("Envelope", [args, kwargs], forbid_unknown_fields=True)


@functools.cache
def _dumper(any_keys: bool = False) -> Callable[[Any], bytes]:
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

    return orjson.Fragment(b"[%b]" % b",".join(sorted(map(_dumper(), value))))


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
        return native if nested else sorted(plain, key=_dumper())
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
                _fail(_path(place), error)
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
def _json_decoder(type: Any) -> _Decode:
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


def _fail_length(what: str, data: bytes) -> NoReturn:
    problem = f"encoded payload has {len(data)} bytes, more than the {PAYLOAD_BYTES_MAX} allowed"
    _fail(what, CodecError(f"{problem}; store it elsewhere and pass a reference"))


def _fail(what: str, error: Exception) -> NoReturn:
    """Raise CodecError for `error`, its text begun by `what`."""
    if isinstance(error, MemoryError):
        raise error  # The machine's trouble, not the value's; it may pass.
    reason = str(error) if isinstance(error, CodecError | TypeError) else f"{type(error).__name__}: {error}"
    if isinstance(error, RecursionError):
        reason = _TOO_DEEP
    elif _is_a(type(error), "msgspec", "ValidationError"):
        reason = f"{error}; the payload does not fit the type hint, was the hint changed?"
    raise CodecError(f"{what}: {reason}" if what else reason) from error
