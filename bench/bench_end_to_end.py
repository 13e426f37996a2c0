"""How many 3-step workflows run per second, alone and together, on each store?

Targets P2, P4 and P5: 10,000/s in memory; alone on SQLite at most 2.5 ms; 5,000/s on SQLite at full durability. All
are started by one `start_workflows`, and every result is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from bench.shapes import ACTIVITIES, WORKFLOWS, three_steps
from derecho import Engine, MemoryStore, SQLiteStore, Store

STORES: Final[dict[str, Callable[[Path], Store]]] = {
    "memory": lambda _folder: MemoryStore(),
    "sqlite-full": lambda folder: SQLiteStore(folder / "bench.db"),
    "sqlite-normal": lambda folder: SQLiteStore(folder / "bench.db", durability="normal"),
}


@pytest.fixture(params=STORES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    store = STORES[request.param](tmp_path)
    with Engine(store, workflows=WORKFLOWS, activities=ACTIVITIES) as engine:
        yield engine
    store.close()


@pytest.mark.benchmark(group="end to end")
@pytest.mark.parametrize(("together", "rounds"), [(1, 50), (300, 7), (3000, 3)])
def test_three_step_workflows(
    benchmark: Any,
    rate: Callable[..., None],
    sized: Callable[[int], int],
    engine: Engine,
    together: int,
    rounds: int,
) -> None:
    together = sized(together)
    numbers = count()

    def run_all() -> list[int]:
        starts = [(f"run-{next(numbers)}", (seed,)) for seed in range(together)]
        return [run.get(timeout=120) for run in engine.client.start_workflows(three_steps, starts)]

    rate(together, "workflows")
    results = benchmark.pedantic(run_all, rounds=rounds, warmup_rounds=1)
    assert results == [8 * seed for seed in range(together)]
