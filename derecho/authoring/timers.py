"""Time in workflows: the workflow clock, sleeps, timers, and waiting for a condition."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import derecho._core as _core
from derecho.authoring.context import scheduler
from derecho.clock import to_datetime
from derecho.policies import Duration, duration_ns

if TYPE_CHECKING:
    from derecho._core import Timer


def now() -> datetime:
    """Return the workflow time: fixed during a workflow task, and the same on every replay (G4)."""
    return to_datetime(scheduler().time_ns)


def sleep(duration: Duration) -> None:
    """Pause this fiber, durably: it takes no thread and no memory, and survives any downtime (G7).

    Args:
        duration: seconds or timedelta.
    """
    _core.sleep(duration_ns(duration, "duration"))


def timer(duration: Duration) -> Timer:
    """Start a timer: a future of the moment at which it fires, with `.cancel()`.

    Args:
        duration: seconds or timedelta.
    """
    return _core.timer(duration_ns(duration, "duration"))


def wait_for(predicate: Callable[[], object], timeout: Duration | None = None) -> bool:
    """Wait until `predicate()` is true; it is still true on return.

    Args:
        predicate: a pure read of the workflow's variables; looked at again whenever another fiber went on.
        timeout: seconds or timedelta; None waits for ever.

    Returns:
        False if the time was up first.
    """
    return _core.wait_for(predicate, timeout)
