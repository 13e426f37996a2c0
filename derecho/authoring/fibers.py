"""Fibers and futures: doing several things in one run, one at a time.

Fibers run in the order in which they became ready, ties by creation; the order is the same on every replay.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import derecho._core as _core
from derecho.authoring.definitions import Activity

if TYPE_CHECKING:
    from derecho._core import Future

P = ParamSpec("P")
T = TypeVar("T")


def spawn(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start a fiber: `fn(*args, **kwargs)` runs when its turn comes, and the caller goes on.

    Returns:
        The future of its result or exception. An exception that nobody takes fails the run when it ends.
    """
    if not callable(fn):
        raise TypeError(f"spawn() takes a function and its arguments, not {fn!r}; did you call the function?")
    if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn):
        raise TypeError(f"spawn() takes a plain function; {fn!r} is async or a generator")
    if isinstance(fn, Activity):
        return fn.execute(*args, **kwargs)
    return _core.spawn(fn, *args, **kwargs)


def gather(*futures: Future[T]) -> list[T]:
    """Wait for all futures and return their results in order, or raise the first failure by completion."""
    return _core.gather(*futures)


def select(*futures: Future[Any]) -> Future[Any]:
    """Wait for the first of the futures and return it; the others are released and lose nothing."""
    return _core.select(*futures)


def as_completed(futures: Iterable[Future[T]]) -> Iterator[Future[T]]:
    """Iterate over futures in the order of their completion."""
    return _core.Completions(futures)
