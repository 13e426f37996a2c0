"""What a function takes and returns, and the one payload that all arguments of a call go into.

Arguments are encoded one by one, so a codec gets the type hint of each value it decodes and need not know of the
envelope that holds several.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from derecho.errors import CodecError, RegistrationError
from derecho.payloads import (
    PAYLOAD_BYTES_MAX,
    Codec,
    Decode,
    JSONCodec,
    encode_value,
    fail,
    fail_length,
    json_decoder,
    json_dumper,
)

__all__ = ["Signature"]


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
            fail(self._name(place), error)

    def _enclose(self, codec: Codec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        known, dumps = self._resolve(), json_dumper()

        def piece(value: Any, place: int | str) -> bytes:
            data = encode_value(codec, value, self._name(place), known.hint(place))
            return data if type(codec) is JSONCodec else b'"%b"' % b64encode(data)

        named = [b"%b:%b" % (dumps(name), piece(kwargs[name], name)) for name in sorted(kwargs)]
        pieces = [piece(value, index) for index, value in enumerate(args)]
        data = b'{"$args":[%b],"$kwargs":{%b}}' % (b",".join(pieces), b",".join(named))
        return data if len(data) <= PAYLOAD_BYTES_MAX else fail_length(f"arguments of {self.subject}", data)

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
        self.decoders: dict[int | str | None, Decode] = {}
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

    def decoder(self, place: int | str | None) -> Decode:
        found = json_decoder(self.hint(place))
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
        envelope = json_decoder(_envelope())(data)
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
