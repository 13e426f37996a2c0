"""The conformance suite over SQLite, also with nothing remembered, and with each verb on its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from derecho.stores._sqlite_tx import SQLiteTx
from derecho.stores._writer import Request, Writer
from derecho.stores.base import Store
from derecho.stores.sqlite import SQLiteStore
from derecho.testing import FakeClock, cases, run_case

CASES = list(cases())
Case = Callable[[Store, FakeClock], None]


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_case(tmp_path: Path, case: Case) -> None:
    run_case(case, lambda clock: SQLiteStore(tmp_path / "runs.db", clock=clock))


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_case_with_nothing_remembered(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another process wrote before each group: every row is read from the file."""
    monkeypatch.setattr(SQLiteTx, "trim", SQLiteTx.forget)
    run_case(case, lambda clock: SQLiteStore(tmp_path / "runs.db", clock=clock, durability="normal"))


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_case_with_each_verb_apart(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a member of every group broke off."""

    def break_off(_: Writer, __: list[Request]) -> bool:
        return False

    monkeypatch.setattr(Writer, "_all_at_once", break_off)
    run_case(case, lambda clock: SQLiteStore(tmp_path / "runs.db", clock=clock, durability="normal"))
