"""README.md tells the truth: its program runs as it stands, and every name in its tables exists."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import derecho
from derecho.journal import TimerFired, TimerScheduled
from derecho.stores.bell import TIMERS

ROOT: Final = Path(__file__).resolve().parent.parent
if not (ROOT / "README.md").exists():
    pytest.skip("README.md is in a checkout only; these tests run against a wheel", allow_module_level=True)

README: Final = (ROOT / "README.md").read_text("utf-8")
WEEK_S: Final = 7 * 24 * 3600
LOOKS_MAX: Final = 3000
# Names that the examples of the tables give to the reader's own things.
READERS_OWN: Final = {"charge", "wf", "paid"}


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language; "" for those without one."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def table_rows() -> list[list[str]]:
    """Return the cells of all rows of all tables."""
    rows = [line for line in README.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def code_in_tables() -> Iterator[str]:
    for row in table_rows():
        for cell in row:
            yield from re.findall(r"`([^`]+)`", cell)


# ------------------------------------------------------------------------------------- the program


class Leaping:
    """The machine's clock, which can leap forward."""

    def __init__(self) -> None:
        self._machine = derecho.SystemClock()
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return self._machine.now_ns() + self.ahead_ns


def test_program_is_short() -> None:
    [program] = blocks("python")
    # Twelve lines beside the imports and the blank ones.
    lines = [line for line in program.splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(("import ", "from "))]) <= 12


@pytest.mark.slow
def test_program_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [program] = blocks("python")
    monkeypatch.chdir(tmp_path)
    clock = Leaping()
    stores: list[derecho.SQLiteStore] = []
    real_store = derecho.SQLiteStore

    def open_store(path: str) -> derecho.SQLiteStore:
        stores.append(real_store(path, clock=clock))
        return stores[0]

    monkeypatch.setattr(derecho, "SQLiteStore", open_store)
    payments = ModuleType("payments")
    payments.__dict__["charge"] = lambda order_id, cents: f"{order_id} paid {cents}"
    leap = threading.Thread(target=leap_over_the_week, args=(clock, stores))
    leap.start()
    printed = StringIO()
    # The reader's own `import payments` is not in the block.
    with redirect_stdout(printed):
        exec(compile(program, "README.md", "exec"), {"payments": payments, "__name__": "shop"})
    leap.join()
    assert printed.getvalue() == "order-123 paid 4200\n"
    run = derecho.Client(stores[0]).get_workflow("order-123")
    [timer] = [event for event in run.events() if isinstance(event, TimerScheduled)]
    [fired] = [event for event in run.events() if isinstance(event, TimerFired)]
    assert timer.duration_ns == WEEK_S * 1_000_000_000
    assert fired.fired_at_ns >= timer.fire_at_ns
    assert (tmp_path / "shop.db").exists()
    stores[0].close()


def leap_over_the_week(clock: Leaping, stores: list[derecho.SQLiteStore]) -> None:
    """Wait until the program sleeps, then let its clock leap."""
    moment = threading.Event()
    for _ in range(LOOKS_MAX):
        if stores and (row := stores[0].find_run("order-123")) is not None:
            events = stores[0].load_events(row.run_id)
            if any(isinstance(event, TimerScheduled) for event in events):
                clock.ahead_ns = (WEEK_S + 1) * 1_000_000_000
                stores[0].bell.ring([TIMERS])
                return
        moment.wait(0.01)


# --------------------------------------------------------------------------------------- the words


def test_every_function_in_the_tables_exists() -> None:
    called = {name for code in code_in_tables() for name in re.findall(r"(?<![\w.])([A-Za-z]\w*)\(", code)}
    assert {"sleep", "spawn", "replay", "heartbeat"} <= called, "the tables were not found"
    unknown = sorted(name for name in called - READERS_OWN if not hasattr(derecho, name))
    assert not unknown, f"README names what derecho does not have: {unknown}"


def test_every_method_in_the_tables_exists() -> None:
    owners: tuple[Any, ...] = (
        derecho.Activity,
        derecho.ActivityInfo,
        derecho.Client,
        derecho.Future,
        derecho.Run,
        derecho.SignalChannel,
    )
    named = {name for code in code_in_tables() for name in re.findall(r"\.([a-z]\w*)", code)}
    assert {"execute", "receive", "events", "idempotency_key"} <= named, "the tables were not found"
    unknown = sorted(name for name in named if not any(hasattr(owner, name) for owner in owners))
    assert not unknown, f"README names methods that nothing has: {unknown}"


def test_what_the_rules_recommend_exists() -> None:
    named = set(re.findall(r"`derecho\.(\w+)\(\)`", README))
    assert {"now", "spawn", "sleep"} <= named
    assert not [name for name in named if not hasattr(derecho, name)]


def test_commands_and_links_lead_somewhere() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    commands = re.findall(r"^\$ make (\w+)", "".join(blocks("console")), re.MULTILINE)
    assert {"demo", "test"} <= set(commands) <= targets
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), f"README links to {link}"


# --------------------------------------------------------------------------------- the broken rule


def test_broken_rule_is_told_as_the_readme_shows(tmp_path: Path) -> None:
    """The block in the README, with its lines and words, but for numbers, the run's id and the paths."""
    [shown] = [block for block in blocks("") if "does not follow" in block]

    @derecho.activity
    def charge() -> str:
        return "receipt"

    @derecho.activity
    def refund() -> str:
        return "refund"

    @derecho.workflow(name="checkout")
    def before() -> str:
        return charge()

    @derecho.workflow(name="checkout")
    def after() -> str:
        return refund()

    with derecho.Engine(derecho.MemoryStore(), workflows=[before], activities=[charge]) as engine:
        run = engine.client.start_workflow(before, "order-123")
        run.get(timeout=30)
    with pytest.raises(derecho.NondeterminismError) as caught:
        derecho.replay(after, run.events())

    def shape(text: str) -> list[str]:
        text = re.sub(r"\(run [^)]*\)", "(run ID)", text)
        text = re.sub(r"\([^()]*\.py:\d+\)", "(PLACE)", text)
        return [re.sub(r"\d+", "N", line).strip() for line in text.strip().splitlines()]

    assert shape(str(caught.value))[:3] == shape(shown)
