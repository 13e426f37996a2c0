"""The conformance suite: what every store must do, as plain functions without a test framework.

A store passes if each case passes against a fresh one:

    from derecho.testing import check_store
    check_store(lambda clock: MyStore(clock=clock))

With pytest, one test for each case:

    @pytest.mark.parametrize(("name", "case"), list(cases()))
    def test_my_store(name, case):
        run_case(case, lambda clock: MyStore(clock=clock))

A case is a function of a store and the `FakeClock` that it was given. After each one, all journals in the
store must be legal, and the rows must agree with them. A fault of the original that a case guards against is
named in its docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from derecho.stores.base import Store
from derecho.testing.clock import FakeClock
from derecho.testing.conformance import (
    attempting,
    claiming,
    commits,
    ending,
    racing,
    reading,
    requests,
    runs,
    signals,
    timeouts,
    timers,
    waking,
)
from derecho.testing.conformance.scene import check_all_journals

__all__ = ["Case", "ConformanceError", "MakeStore", "cases", "check_store", "run_case"]

MakeStore: TypeAlias = "Callable[[FakeClock], Store]"
Case: TypeAlias = "Callable[[Store, FakeClock], None]"

_GROUPS: Final = (
    runs,
    signals,
    claiming,
    commits,
    attempting,
    timeouts,
    timers,
    ending,
    requests,
    reading,
    waking,
    racing,
)
_PREFIX: Final = "case_"


class ConformanceError(AssertionError):
    """A store does not do what every store must.

    Attributes:
        failures: the error of each case that failed, by its name.
    """

    def __init__(self, failures: dict[str, Exception], number: int) -> None:
        lines = [f"  {name}: {type(error).__name__}: {error}" for name, error in failures.items()]
        super().__init__(f"{len(failures)} of {number} cases failed:\n" + "\n".join(lines))
        self.failures = failures


def cases() -> Iterator[tuple[str, Case]]:
    """Return all cases by name, in a fixed order."""
    for group in _GROUPS:
        for name, case in vars(group).items():
            if name.startswith(_PREFIX):
                yield f"{group.__name__.rpartition('.')[2]}.{name.removeprefix(_PREFIX)}", case


def run_case(case: Case, make_store: MakeStore) -> None:
    """Run one case against a fresh store, check what it left behind, and close the store."""
    clock = FakeClock()
    store = make_store(clock)
    try:
        case(store, clock)
        if case is not runs.case_a_closed_store_refuses_every_call:
            check_all_journals(store)
    finally:
        store.close()


def check_store(make_store: MakeStore) -> None:
    """Run all cases, each against a store of its own.

    Args:
        make_store: makes an empty store that goes by the clock it is given.

    Raises:
        ConformanceError: some failed; it names them all.
    """
    failures: dict[str, Exception] = {}
    number = 0
    for name, case in cases():
        number += 1
        try:
            run_case(case, make_store)
        except Exception as error:
            failures[name] = error
    if failures:
        raise ConformanceError(failures, number)
