"""Items by moment: a heap with lazy deletion, for what waits in memory for its time to come.

Moving or dropping an item leaves its old entry in the heap, to be skipped when it comes up: O(log n), and a
heap in which such entries have the majority is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final, Generic, TypeVar

# Entries that moved on may outnumber the others by so many before a heap is made anew.
STALE_MAX: Final = 64

T = TypeVar("T")
Entry = tuple[int, Any, T]  # Moment, key, item; the key decides between equal moments.


class Agenda(Generic[T]):
    """Items by moment and key: a heap, and for each key the one entry that counts."""

    __slots__ = ("_entry_of", "_heap")

    def __init__(self) -> None:
        self._heap: list[Entry[T]] = []
        self._entry_of: dict[Any, Entry[T]] = {}

    def put(self, moment_ns: int, key: Any, item: T) -> None:
        """Place an item, or move it."""
        known = self._entry_of.get(key)
        if known is not None and known[0] == moment_ns:
            return
        entry = (moment_ns, key, item)
        self._entry_of[key] = entry
        if len(self._heap) > 2 * len(self._entry_of) + STALE_MAX:
            self._heap = sorted(self._entry_of.values())
        else:
            heappush(self._heap, entry)

    def drop(self, key: Any) -> None:
        """Remove an item if it is there."""
        self._entry_of.pop(key, None)

    def front(self) -> Entry[T] | None:
        """Return the first entry, and throw away what moved on before it."""
        heap = self._heap
        entry_of = self._entry_of
        while heap:
            entry = heap[0]
            if entry_of.get(entry[1]) is entry:
                return entry
            heappop(heap)
        return None

    def pop(self) -> None:
        """Remove the entry that `front` returned."""
        del self._entry_of[heappop(self._heap)[1]]


def take_due(
    agendas: Iterable[Agenda[T]], now_ns: int, limit: int, skips: Callable[[T], bool] | None = None
) -> list[tuple[Agenda[T], Entry[T]]]:
    """Take the first entries whose moment has come out of agendas that share no key, in one order over all.

    Args:
        skips: tells of an item whether it stays where it is.
    """
    fronts = [(front, agenda) for agenda in agendas if (front := agenda.front()) is not None]
    heapify(fronts)
    taken: list[tuple[Agenda[T], Entry[T]]] = []
    skipped: list[tuple[Agenda[T], Entry[T]]] = []
    while fronts and len(taken) < limit and fronts[0][0][0] <= now_ns:
        entry, agenda = fronts[0]
        agenda.pop()
        (skipped if skips is not None and skips(entry[2]) else taken).append((agenda, entry))
        front = agenda.front()
        if front is None:
            heappop(fronts)
        else:
            heapreplace(fronts, (front, agenda))
    put_back(skipped)
    return taken


def put_back(taken: Iterable[tuple[Agenda[T], Entry[T]]]) -> None:
    """Undo `take_due`."""
    for agenda, entry in taken:
        agenda.put(*entry)
