"""How long a worker may rest, from the moment at which its store says that work may be due."""

from __future__ import annotations

from typing import Final

from derecho.workers.loop import IDLE_MAX_S

# Due, and yet there was nothing to do: another process is at it, or it is not for this worker.
OUT_OF_REACH_S: Final = 0.05


def rest_s(due_ns: int, *, looked_ns: int, now_ns: int, out_of_reach_s: float = OUT_OF_REACH_S) -> float:
    """Return the seconds to rest.

    Args:
        due_ns: when work may be due; 0 = there is none.
        looked_ns: when the worker last looked, and found nothing that it could do.
        out_of_reach_s: what to wait for work that was due by then.
    """
    if not due_ns:
        return IDLE_MAX_S
    if due_ns <= looked_ns:
        return out_of_reach_s
    return min(max(due_ns - now_ns, 0) / 1e9, IDLE_MAX_S)
