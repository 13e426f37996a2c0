"""What is said in several places about versions, files and builds is the same everywhere."""

import importlib
import importlib.metadata
import importlib.util
import os
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from setuptools import find_packages

import derecho

ROOT: Final = Path(__file__).resolve().parent.parent
if not (ROOT / "setup.py").exists():
    pytest.skip(
        "packaging is checked in a checkout; these tests run against a wheel", allow_module_level=True
    )

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SUPPORTED: Final = ("3.11", "3.12", "3.13", "3.14", "3.15")


def load_check_dist() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_dist", ROOT / "wheels" / "check_dist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_dist: Final = load_check_dist()


# ------------------------------------------------------------------------------ one fact, one value


def test_version_is_the_same_everywhere() -> None:
    assert derecho.__version__ == PROJECT["project"]["version"]
    assert importlib.metadata.version("derecho") == derecho.__version__


def test_supported_versions_are_the_same_everywhere() -> None:
    prefix = "Programming Language :: Python :: 3."
    classifiers = [c for c in PROJECT["project"]["classifiers"] if c.startswith(prefix)]
    assert tuple(c.rsplit(" ", 1)[1] for c in classifiers) == SUPPORTED
    assert PROJECT["project"]["requires-python"] == f">={SUPPORTED[0]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == SUPPORTED[0]
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + SUPPORTED[0].replace(".", "")
    selectors = PROJECT["tool"]["cibuildwheel"]["build"]
    assert tuple(selectors) == tuple(f"cp{version.replace('.', '')}-*" for version in SUPPORTED)


def test_ci_tests_every_supported_version() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    matrix = re.search(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert matrix is not None
    assert tuple(re.findall(r"\"(3\.\d+)\"", matrix[1])) == SUPPORTED


def test_free_threaded_builds_are_not_selected() -> None:
    selectors = PROJECT["tool"]["cibuildwheel"]["build"]
    assert not any(fnmatch("cp314t-manylinux_x86_64", selector) for selector in selectors)


def test_builds_with_and_without_isolation_need_the_same() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_greenlet_at_build_is_greenlet_at_run() -> None:
    at_build = next(r for r in PROJECT["build-system"]["requires"] if r.startswith("greenlet"))
    at_run = next(r for r in PROJECT["project"]["dependencies"] if r.startswith("greenlet"))
    assert at_run.split(",")[0] == at_build


# -------------------------------------------------------------------------------- files and folders


def test_folders_of_parts_are_not_packages() -> None:
    packages = find_packages(str(ROOT), include=PROJECT["tool"]["setuptools"]["packages"]["find"]["include"])
    assert "derecho" in packages
    assert not {"derecho._core", "derecho.stores.sql"}.intersection(packages)
    for name in packages:
        assert (ROOT / name.replace(".", "/") / "__init__.py").is_file()


def test_every_file_of_the_package_is_shipped_or_compiled() -> None:
    compiled = ("*.pyx", "_core/*", "_bell*.c", "_bell*.h", "*.so", "*.pyd", "_core.c", "_core.html")
    shipped = (*PROJECT["tool"]["setuptools"]["package-data"]["derecho"], "*.py")
    package = ROOT / "derecho"
    names = [path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()]
    forgotten = [
        n for n in names if "__pycache__" not in n and not any(fnmatch(n, p) for p in shipped + compiled)
    ]
    assert not forgotten, f"neither package-data nor a source of the core: {forgotten}"


def test_sdist_carries_every_folder() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text("utf-8").splitlines()
    grafted = {line.split()[1] for line in manifest if line.startswith("graft ")}
    ours = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in ("build", "dist", "wheelhouse")
    }
    ours = {name for name in ours if not name.startswith((".", "_")) and not name.endswith(".egg-info")}
    assert ours <= grafted, f"MANIFEST.in forgets {ours - grafted}"


def test_entry_points_lead_somewhere() -> None:
    module, name = PROJECT["project"]["scripts"]["derecho"].split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_gate_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_change_fragments_have_a_kind_and_one_sentence() -> None:
    for path in sorted((ROOT / "changes").glob("*.md")):
        if path.name == "README.md":
            continue
        assert re.fullmatch(r"[a-z0-9-]+\.(feature|fix|change|removal|doc)\.md", path.name), path.name
        text = path.read_text("utf-8").strip()
        assert text.endswith("."), path.name
        assert len(text) < 400, f"{path.name}: one sentence for the user"


def test_decisions_are_numbered_and_name_what_lost() -> None:
    pages = sorted(p for p in (ROOT / "docs" / "decisions").glob("*.md") if p.name != "README.md")
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text("utf-8")
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name), page.name
        for heading in ("# ", "## Problem", "## Decision", "## Options that lost", "## What it costs"):
            assert f"\n{heading}" in f"\n{text}", f"{page.name} lacks {heading!r}"


# -------------------------------------------------------------- wheels/check_dist.py finds its prey


GOOD_WHEEL: Final = (
    "derecho/__init__.py",
    "derecho/py.typed",
    "derecho/_core.pyi",
    "derecho/_core.cpython-311-x86_64-linux-gnu.so",
    "derecho/stores/sqlite.py",
    "derecho/stores/sql/schema.sql",
    "derecho-0.1.0.dist-info/METADATA",
)
REPOSITORY: Final = ("setup.py", "derecho/_core.pyx", ".gitignore")
GOOD_SDIST: Final = ("setup.py", "derecho/_core.pyx", "PKG-INFO", "derecho.egg-info/SOURCES.txt")


def test_good_distributions_pass() -> None:
    assert not check_dist.wheel_tag_problems("derecho-0.1.0-cp311-cp311-manylinux_2_28_x86_64.whl")
    assert not check_dist.wheel_content_problems(GOOD_WHEEL, 100_000)
    assert not check_dist.sdist_problems(GOOD_SDIST, REPOSITORY)


@pytest.mark.parametrize("tags", ["py3-none-any", "cp311-abi3-linux_x86_64", "cp311-cp312-linux_x86_64"])
def test_planted_wheel_tags_are_found(tags: str) -> None:
    assert check_dist.wheel_tag_problems(f"derecho-0.1.0-{tags}.whl")


@pytest.mark.parametrize("missing", GOOD_WHEEL[:4] + GOOD_WHEEL[5:6])
def test_planted_gap_in_wheel_is_found(missing: str) -> None:
    assert check_dist.wheel_content_problems([name for name in GOOD_WHEEL if name != missing], 100_000)


@pytest.mark.parametrize("extra", ["derecho/_core.pyx", "derecho/_core.c", "tests/test_tidy.py"])
def test_planted_stray_in_wheel_is_found(extra: str) -> None:
    assert check_dist.wheel_content_problems([*GOOD_WHEEL, extra], 100_000)


def test_planted_size_of_wheel_is_found() -> None:
    assert check_dist.wheel_content_problems(GOOD_WHEEL, 50_000_000)


def test_planted_metadata_gap_is_found() -> None:
    good = (
        "Name: derecho\nVersion: 0.1.0\nSummary: s\nLicense-Expression: MIT\nLicense-File: LICENSE\n"
        "Requires-Python: >=3.11\n\nREADME\n"
    )
    assert not check_dist.metadata_problems(good)
    assert check_dist.metadata_problems(good.replace("License-Expression: MIT\n", ""))
    assert check_dist.metadata_problems(good.replace("README\n", ""))


@pytest.mark.parametrize(
    "names",
    [GOOD_SDIST[1:], (*GOOD_SDIST, "build/cython/derecho/_core.c"), (*GOOD_SDIST, "derecho/_core.so")],
)
def test_planted_difference_of_sdist_is_found(names: tuple[str, ...]) -> None:
    assert check_dist.sdist_problems(names, REPOSITORY)
