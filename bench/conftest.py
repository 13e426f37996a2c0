"""How benches are collected, sized and reported.

With `--benchmark-disable` every bench runs once on a small part of its size: a smoke test that keeps it alive.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

_SMOKE_PART: Final = 50
_SMOKE_MIN: Final = 4
_FIGURES: Final = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []
    # Median and spread; a mean of a shared machine says little.
    config.option.benchmark_columns = ["median", "iqr", "min", "max", "rounds"]
    config.option.benchmark_sort = "fullname"
    # What was measured before leaves objects that the collector walks: the same before each, so always in one order.
    config.option.randomly_reorganize = False


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Take `bench_*.py` for modules of tests."""
    config = parent.config
    known = any(file_path.match(pattern) for pattern in config.getini("python_files"))
    if not file_path.match("bench_*.py") or known or parent.session.isinitpath(file_path):
        return None
    return pytest.Module.from_parent(parent, path=file_path)


@pytest.fixture(scope="session")
def sized(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """Return the size to measure with: the full one, or a small one in a smoke test."""
    if pytestconfig.getoption("benchmark_disable"):
        return lambda size: max(size // _SMOKE_PART, min(size, _SMOKE_MIN))
    return lambda size: size


@pytest.fixture
def rate(benchmark: Any, request: pytest.FixtureRequest) -> Iterator[Callable[[int, str], None]]:
    """Say how much one round did, so that the report can say how much that is per second."""
    said: list[tuple[int, str]] = []
    yield lambda count, unit: said.append((count, unit))
    if not said or benchmark.stats is None:
        return
    [(count, unit)] = said
    stats = benchmark.stats.stats
    spread = stats.iqr / stats.median
    benchmark.extra_info[f"{unit}_per_s"] = count / stats.median
    request.config.stash[_FIGURES].append(
        f"{request.node.path.stem}::{request.node.name}: {count / stats.median:,.0f} {unit}/s, "
        f"{stats.median / count * 1e6:,.2f} us each (median of {stats.rounds}, spread {spread:.0%})"
    )


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a line to the report."""
    return lambda text: request.config.stash[_FIGURES].append(
        f"{request.node.path.stem}::{request.node.name}: {text}"
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.stash[_FIGURES]:
        return
    terminalreporter.section("figures")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    terminalreporter.write_line(f"{platform.python_implementation()} {platform.python_version()}, {machine}")
    for line in config.stash[_FIGURES]:
        terminalreporter.write_line(line)
