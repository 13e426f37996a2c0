"""The layers of ARCHITECTURE.md hold: for Python by import-linter's contracts, for Cython by reading it.

import-linter sees only `.py` files, so `make check` judges everything but imports of the compiled core. Here
the contracts of pyproject.toml run over a copy of the package in which `_core` is a Python module, its stub.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import derecho

ROOT: Final = Path(__file__).resolve().parent.parent
if not (ROOT / "setup.py").exists():
    pytest.skip("layers are checked in a checkout; these tests run against a wheel", allow_module_level=True)

LINT: Final = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"


@pytest.fixture
def shadow(tmp_path: Path) -> Path:
    """Copy the Python of the package, `_core` included, with the contracts beside it."""
    root = tmp_path / "shadow"
    for source in (ROOT / "derecho").rglob("*.py"):
        copy = root / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    shutil.copy(ROOT / "derecho" / "_core.pyi", root / "derecho" / "_core.py")
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def lint(root: Path) -> tuple[int, str]:
    """Run the contracts in `root` in a process of its own: in this one `derecho` is already imported."""
    done = subprocess.run([sys.executable, "-c", LINT], cwd=root, capture_output=True, encoding="utf-8")
    return done.returncode, done.stdout + done.stderr


def test_contracts_hold(shadow: Path) -> None:
    status, output = lint(shadow)
    assert status == 0, output
    assert "4 kept, 0 broken" in output, output


PLANTED: Final = {
    "upwards": ("errors.py", "from derecho.client import Client"),
    "sideways": ("errors.py", "import derecho.policies"),
    "through the root": ("clock.py", "from derecho import Engine"),
    "for types only": (
        "journal/planted.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import derecho.engine",
    ),
    "inside a function": ("policies.py", "def f():\n    import derecho.journal"),
    "a store sees the core": ("stores/memory.py", "from derecho._core import Scheduler"),
    "a store sees the replayer": ("stores/sqlite.py", "import derecho.replayer"),
    "payloads see the core": ("payloads.py", "import derecho._core"),
    "the client sees a store": ("client.py", "from derecho.stores.sqlite import SQLiteStore"),
    "a module without a layer": ("planted.py", '"""Nobody said where I live."""'),
}


@pytest.mark.parametrize(("path", "text"), PLANTED.values(), ids=list(PLANTED))
def test_contracts_find_the_planted_import(shadow: Path, path: str, text: str) -> None:
    with (shadow / "derecho" / path).open("a", encoding="utf-8") as module:
        module.write(f"\n{text}\n")
    status, output = lint(shadow)
    assert status == 1, output
    assert "broken" in output, output


# -------------------------------------------------------------------------------- the compiled core


CYTHON_IMPORT: Final = re.compile(
    r"^\s*(?:from\s+(?P<module>[\w.]+)\s+c?import\b|(?P<verb>c?import)\s+(?P<names>[\w., ]+))"
)
# Declarations, not code: the core's own index and greenlet's C API.
CORE_OWN: Final = re.compile(r"^\s*from\s+(?:derecho)?\.?(?:_core|_greenlet)?\s+cimport\b")


def derecho_imports(text: str) -> Iterator[str]:
    """Find lines of Cython that import from derecho, relative imports included."""
    for line in text.splitlines():
        found = CYTHON_IMPORT.match(line)
        if not found or CORE_OWN.match(line):
            continue
        modules = [found["module"]] if found["module"] else re.split(r"\s*,\s*", found["names"])
        if any(
            module.startswith(".") or module.split(".")[0].split(" ")[0] == "derecho" for module in modules
        ):
            yield line.strip()


def test_core_imports_nothing_of_derecho() -> None:
    package = ROOT / "derecho"
    parts = [*package.glob("_core*.p*"), *package.glob("_greenlet.pxd"), *(package / "_core").glob("*.p*")]
    assert len(parts) >= 3, f"the core's sources have moved: {parts}"
    problems = [f"{part.name}: {line}" for part in parts for line in derecho_imports(part.read_text("utf-8"))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "line",
    [
        "from derecho.errors import DerechoError",
        "    from derecho import errors",
        "import derecho.errors",
        "import time, derecho.errors as errors",
        "from .errors import DerechoError",
        "from derecho.journal cimport Event",
        "from derecho._greenlet import greenlet",
    ],
)
def test_planted_import_in_cython_is_found(line: str) -> None:
    assert list(derecho_imports(f"# cython\n{line}\n")) == [line.strip()]


@pytest.mark.parametrize(
    "line",
    [
        "from derecho._greenlet cimport greenlet",
        "from ._core cimport Fiber",
        "from cpython.ref cimport Py_INCREF",
        "import derechos",
        "# import derecho.errors",
    ],
)
def test_lawful_import_in_cython_passes(line: str) -> None:
    assert not list(derecho_imports(line))


# ------------------------------------------------------------------------- one name means one thing


def clashes(public: Iterable[str], value_of: Callable[[str], object], modules: Iterable[str]) -> list[str]:
    """Return public names that are also a submodule: importing one would hide the other."""
    taken = set(modules)
    return sorted(n for n in public if n in taken and not isinstance(value_of(n), ModuleType))


def test_no_submodule_carries_a_public_name() -> None:
    modules = {path.stem for path in (ROOT / "derecho").iterdir() if path.suffix == ".py" or path.is_dir()}
    public = [name for name in dir(derecho) if not name.startswith("_")]
    assert not clashes(public, lambda name: getattr(derecho, name), modules)


def test_planted_clash_is_found() -> None:
    values = {"replay": clashes, "journal": ModuleType("derecho.journal"), "timer": clashes}
    assert clashes(values, values.__getitem__, ["replay", "journal", "errors"]) == ["replay"]
