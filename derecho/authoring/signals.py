"""Signals: messages from outside and from other workflows, in order of arrival."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import derecho._core as _core
from derecho.names import check_name
from derecho.payloads import decode_value, encode_value
from derecho.policies import Duration

if TYPE_CHECKING:
    from derecho._core import Future

T = TypeVar("T")
D = TypeVar("D")


class SignalChannel(Generic[T]):
    """The signals of one name; made by `signal_channel`. A signal that is no `T` is skipped with a warning."""

    __slots__ = ("_codec", "_mailbox", "name", "type")

    def __init__(self, mailbox: _core.Mailbox, codec: Any, name: str, type: Any) -> None:
        self._mailbox = mailbox
        self._codec = codec
        self.name = name
        self.type = type

    def receive(self, timeout: Duration | None = None) -> T:
        """Wait for the next signal and return its payload.

        Args:
            timeout: seconds or timedelta; None waits for ever.

        Raises:
            TimeoutError: no signal came in time. A signal that came together with the timeout goes first.
        """
        value: T = self._mailbox.receive(timeout, self._decode)
        return value

    @overload
    def try_receive(self) -> T | None: ...
    @overload
    def try_receive(self, default: D) -> T | D: ...
    def try_receive(self, default: Any = None) -> Any:
        """Return the payload of the next signal that is there, or `default`; never waits."""
        return self._mailbox.try_receive(default, self._decode)

    def receive_future(self) -> Future[T]:
        """Return the future of one signal, for `select`; it takes one only while a fiber waits for it."""
        return self._mailbox.receive_future(self._decode)

    def __iter__(self) -> Iterator[T]:
        while True:
            yield self.receive()

    def _decode(self, data: bytes) -> T:
        value: T = decode_value(self._codec, data, self.type, f"signal {self.name!r}")
        return value


@overload
def signal_channel(name: str, type: type[T]) -> SignalChannel[T]: ...
@overload
def signal_channel(name: str, type: Any = Any) -> SignalChannel[Any]: ...
def signal_channel(name: str, type: Any = Any) -> SignalChannel[Any]:
    """Return the channel of this run's signals of one name, decoded as `type`."""
    scheduler = _core.enter()
    return SignalChannel(scheduler.mailbox(check_name(name, "name")), scheduler.env.codec, name, type)


def signal_external(workflow_id: str, name: str, payload: Any = None) -> None:
    """Send a signal to another workflow, exactly once, with this task's commit.

    Fire and forget: whether an open run took it stands in the journal, and this run is not told.

    Raises:
        CodecError: the payload cannot be encoded.
    """
    env = _core.enter().env
    data = encode_value(env.codec, payload, f"payload of signal {name!r}")
    _core.send(check_name(workflow_id, "workflow_id"), check_name(name, "name"), data)
