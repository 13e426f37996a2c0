"""`@activity` and `@workflow`: descriptors of functions. They register nothing and start nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

import derecho._core as _core
from derecho.errors import NotInWorkflowError, RegistrationError
from derecho.journal.events import ActivityScheduled
from derecho.journal.failures import activity_error
from derecho.names import check_name
from derecho.policies import Duration, RetryPolicy, TimeoutPolicy
from derecho.signatures import Signature

if TYPE_CHECKING:
    from derecho._core import Future

P = ParamSpec("P")
R = TypeVar("R")


class _Unset:
    """The retry policy of an activity that leaves it to the engine."""

    def __repr__(self) -> str:
        return "<the engine's default>"


UNSET: Final = _Unset()
RetryOption = RetryPolicy | None | _Unset


class Activity(Generic[P, R]):
    """A function with side effects that workflows call; made by `@activity` or `activity_ref`.

    Inside a workflow, calling it schedules it and waits; `execute` only schedules it. Outside, a sync one is the
    plain function.
    """

    kind: Final = "activity"

    def __init__(
        self,
        fn: Callable[P, Any] | None,
        name: str,
        signature: Signature,
        retry: RetryOption,
        timeouts: TimeoutPolicy,
        transactional: bool = False,
    ) -> None:
        if transactional:
            raise RegistrationError(
                f"activity {name!r}: transactional activities need a store that offers its transaction to user code, "
                "which none of this version does"
            )
        self._fn = fn
        self.name = name
        self.signature = signature
        self.retry = retry
        self.timeouts = timeouts
        self.is_async = inspect.iscoroutinefunction(fn)
        self._timeouts_payload = timeouts.to_payload()
        self._retry_payload = retry.to_payload() if isinstance(retry, RetryPolicy) else None
        self.__doc__ = getattr(fn, "__doc__", None)
        self.__name__ = name

    @property
    def fn(self) -> Callable[P, Any]:
        """The undecorated function.

        Raises:
            RegistrationError: this is a reference to an activity whose code lives elsewhere.
        """
        if self._fn is None:
            raise RegistrationError(
                f"activity_ref({self.name!r}) has no code here; register the activity itself"
            )
        return self._fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Schedule the activity and wait for its result (in a workflow), or call the function (elsewhere).

        Raises:
            ActivityError, ActivityTimeoutError: it failed for good.
            NotInWorkflowError: an async activity or a reference is called outside a workflow.
        """
        if _core.current() is None:
            if self._fn is None or self.is_async:
                raise NotInWorkflowError(
                    f"activity {self.name!r} is called outside a workflow; "
                    + ("await its plain function, .fn, instead" if self._fn else "its code is not here")
                )
            return cast(R, self._fn(*args, **kwargs))  # A sync function's own result.
        return self.execute(*args, **kwargs).get()

    def execute(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule the activity and return the future of its result.

        Raises:
            TypeError: the function takes no such arguments.
            CodecError: an argument cannot be encoded.
            NotInWorkflowError: called outside a workflow.
        """
        env = _core.enter().env
        payload = self.signature.encode_args(env.codec, args, kwargs)
        retry = env.default_retry if self.retry is UNSET else self._retry_payload
        return _core.schedule(
            ActivityScheduled.code,
            self.name,
            payload,
            options=(retry, self._timeouts_payload),
            decode=env.result_decoder(self.signature),
            decode_error=activity_error,
        )

    def options(
        self,
        *,
        name: str | None = None,
        retry: RetryOption = UNSET,
        schedule_to_start_timeout: Duration | None = None,
        start_to_close_timeout: Duration | None = None,
        schedule_to_close_timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
    ) -> Activity[P, R]:
        """Return this activity with some options changed; those not named stay as they are."""
        given = {
            "schedule_to_start_timeout": schedule_to_start_timeout,
            "start_to_close_timeout": start_to_close_timeout,
            "schedule_to_close_timeout": schedule_to_close_timeout,
            "heartbeat_timeout": heartbeat_timeout,
        }
        timeouts = {
            key: getattr(self.timeouts, key) if value is None else value for key, value in given.items()
        }
        return Activity(
            self._fn,
            self.name if name is None else check_name(name, "name"),
            self.signature,
            self.retry if retry is UNSET else _checked_retry(retry),
            TimeoutPolicy(**timeouts),
        )

    def __get__(self, instance: object, owner: type | None = None) -> Activity[..., R]:
        if instance is None or self._fn is None:
            return self
        bound = self._fn.__get__(instance, owner)
        subject = f"activity {self.name!r}"
        return Activity(bound, self.name, Signature.of(bound, subject), self.retry, self.timeouts)

    def __repr__(self) -> str:
        return f"<activity {self.name!r}>"


class Workflow(Generic[P, R]):
    """A deterministic function that survives its process; made by `@workflow`."""

    kind: Final = "workflow"

    def __init__(
        self,
        fn: Callable[P, R],
        name: str,
        signature: Signature,
        cancellation: Literal["raise", "cooperative"],
    ) -> None:
        self.fn = fn
        self.name = name
        self.signature = signature
        self.cancellation = cancellation
        self.__doc__ = fn.__doc__
        self.__name__ = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """Refuse: a workflow is started by a client; its plain function is `.fn`."""
        raise NotInWorkflowError(
            f"workflow {self.name!r} is not called like a function: start it with client.start_workflow(), "
            "or call its plain function, .fn, inside another workflow"
        )

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"


if TYPE_CHECKING:

    class _Decorator(Protocol):
        """What `@activity(...)` returns; to workflow code, an async activity gives what it would be awaited for."""

        @overload
        def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
        @overload
        def __call__(self, fn: Callable[P, R], /) -> Activity[P, R]: ...


@overload
def activity(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
@overload
def activity(fn: Callable[P, R], /) -> Activity[P, R]: ...
@overload
def activity(
    *,
    name: str | None = None,
    retry: RetryOption = UNSET,
    schedule_to_start_timeout: Duration | None = None,
    start_to_close_timeout: Duration | None = None,
    schedule_to_close_timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    transactional: bool = False,
) -> _Decorator: ...
def activity(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryOption = UNSET,
    schedule_to_start_timeout: Duration | None = None,
    start_to_close_timeout: Duration | None = None,
    schedule_to_close_timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    transactional: bool = False,
) -> Any:
    """Make an activity of a function with side effects.

    Args:
        name: under which workflows and journals know it; the function's name unless given.
        retry: when a failed attempt is tried again; None = never; unset = the engine's `default_retry_policy`.
        schedule_to_start_timeout, start_to_close_timeout, schedule_to_close_timeout, heartbeat_timeout:
            seconds or timedelta; None = no limit. See `TimeoutPolicy`.
        transactional: not offered by the stores of this version.

    Raises:
        RegistrationError: the function cannot be an activity (a generator, a lambda without a name...).
        TypeError, ValueError: an option is out of range.
    """
    timeouts = TimeoutPolicy(
        schedule_to_start_timeout=schedule_to_start_timeout,
        start_to_close_timeout=start_to_close_timeout,
        schedule_to_close_timeout=schedule_to_close_timeout,
        heartbeat_timeout=heartbeat_timeout,
    )

    def decorate(function: Callable[..., Any]) -> Activity[..., Any]:
        known_as = _name_of(function, name, "activity")
        signature = Signature.of(function, f"activity {known_as!r}")
        return Activity(function, known_as, signature, _checked_retry(retry), timeouts, transactional)

    return decorate if fn is None else decorate(fn)


@overload
def activity_ref(name: str, returns: type[R], **options: Any) -> Activity[..., R]: ...
@overload
def activity_ref(name: str, returns: Any = Any, **options: Any) -> Activity[..., Any]: ...
def activity_ref(name: str, returns: Any = Any, **options: Any) -> Activity[..., Any]:
    """Return an activity whose code lives elsewhere, to call it from workflows.

    Args:
        name: under which the workers that have it know it.
        returns: the type that its result is decoded into.
        options: as of `@activity`.
    """
    checked = check_name(name, "name")
    reference: Activity[..., Any] = Activity(
        None, checked, Signature.of_result(returns, f"activity {checked!r}"), UNSET, TimeoutPolicy()
    )
    return reference.options(**options) if options else reference


@overload
def workflow(fn: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, cancellation: Literal["raise", "cooperative"] = "raise"
) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    cancellation: Literal["raise", "cooperative"] = "raise",
) -> Any:
    """Make a workflow of a plain, blocking-style, deterministic function.

    Args:
        name: under which clients and journals know it; the function's name unless given.
        cancellation: "raise": a cancel request raises CancelledError in its fibers; "cooperative": it only shows
            in `cancelled()` and `is_cancelled()`.

    Raises:
        RegistrationError: the function cannot be a workflow (async, a generator, a lambda without a name...).
    """
    if cancellation not in ("raise", "cooperative"):
        raise ValueError(f'cancellation must be "raise" or "cooperative", not {cancellation!r}')

    def decorate(function: Callable[..., Any]) -> Workflow[..., Any]:
        known_as = _name_of(function, name, "workflow")
        if inspect.iscoroutinefunction(function):
            raise RegistrationError(
                f"workflow {known_as!r} is async; write it as a plain `def`: a derecho workflow blocks, "
                "and needs no await"
            )
        return Workflow(function, known_as, Signature.of(function, f"workflow {known_as!r}"), cancellation)

    return decorate if fn is None else decorate(fn)


def _name_of(function: Any, name: str | None, kind: str) -> str:
    if not callable(function):
        raise RegistrationError(f"@{kind} goes over a function, not over {function!r}")
    if isinstance(function, staticmethod | classmethod):
        function = function.__func__
    known_as = getattr(function, "__name__", "") if name is None else name
    if known_as == "<lambda>" or (name is None and not known_as):
        raise RegistrationError(f"{function!r} has no lasting name; give it one with @{kind}(name=...)")
    return check_name(known_as, f"the name of the {kind}")


def _checked_retry(retry: RetryOption) -> RetryOption:
    if retry is not None and retry is not UNSET and not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy or None, not {type(retry).__name__}")
    return retry
