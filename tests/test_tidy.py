"""The house style as tests. A rule is a function from a source to problems, tested by planting one."""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
if not (ROOT / "setup.py").exists():
    pytest.skip("style is checked in a checkout; these tests run against a wheel", allow_module_level=True)

# Of code: a docstring and a comment make the package easier to read, not longer. See docs/decisions/0004.
PACKAGE_LINES_MAX: Final = 12_000
NOT_THE_ENGINE: Final = ("derecho/web/", "derecho/testing/", "derecho/cli/", "derecho/_core.pyi")
MODULE_LINES_MAX: Final = 600
CYTHON_PART_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70


@dataclass(frozen=True)
class Source:
    """One hand-written file: its path from the root, with slashes, and its text."""

    path: str
    text: str

    @property
    def is_python(self) -> bool:
        return self.path.endswith((".py", ".pyi"))

    @property
    def is_cython(self) -> bool:
        return self.path.endswith((".pyx", ".pxd"))

    @property
    def is_packaged(self) -> bool:
        return self.path.startswith("derecho/")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def comments(self) -> Iterator[tuple[int, str]]:
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


Rule = Callable[[Source], Iterable[str]]


# -------------------------------------------------------------------------------------------- sizes


def module_is_short(source: Source) -> Iterator[str]:
    limit = CYTHON_PART_LINES_MAX if source.is_cython else MODULE_LINES_MAX
    if source.is_packaged and (source.is_python or source.is_cython) and len(source.lines) > limit:
        yield f"{source.path}: {len(source.lines)} lines, at most {limit}; look for the second noun in it"


def functions_are_short(source: Source) -> Iterator[str]:
    if not source.is_packaged:
        return
    spans = cython_functions(source) if source.is_cython else python_functions(source)
    for name, first, last in spans:
        if last - first + 1 > FUNCTION_LINES_MAX:
            yield f"{source.path}:{first}: {name} has {last - first + 1} lines, at most {FUNCTION_LINES_MAX}"


def python_functions(source: Source) -> Iterator[tuple[str, int, int]]:
    if source.is_python:
        for node in source.functions():
            yield node.name, node.lineno, node.end_lineno or node.lineno


CYTHON_FUNCTION: Final = re.compile(
    r"^( *)(?:async def|def|cpdef|cdef)\b(?!.*\b(?:class|extern|struct|enum)\b).*?(\w+)\("
)


def cython_functions(source: Source) -> Iterator[tuple[str, int, int]]:
    """Find functions by indentation: no parser but Cython's own reads these files."""
    for first, line in enumerate(source.lines, 1):
        if not (found := CYTHON_FUNCTION.match(line)):
            continue
        indent, last, in_header = len(found[1]), first, not line.rstrip().endswith(":")
        for number, below in enumerate(source.lines[first:], first + 1):
            if in_header:
                in_header = not below.rstrip().endswith(":")
            elif below.strip() and len(below) - len(below.lstrip()) <= indent:
                break
            if below.strip():
                last = number
        yield found[2], first, last


def package_is_small(sources: Iterable[Source]) -> Iterator[str]:
    """Count the code of the engine; the web page, the test kit and the command line aside."""
    total = sum(
        code_lines(source)
        for source in sources
        if source.is_packaged and not source.path.startswith(NOT_THE_ENGINE)
    )
    if total >= PACKAGE_LINES_MAX:
        yield f"derecho/ has {total} lines of code; the promise is fewer than {PACKAGE_LINES_MAX}"


def code_lines(source: Source) -> int:
    """Count the lines that are neither blank, nor comment, nor docstring."""
    text = re.sub(r'^( *)"""(?:.|\n)*?"""[ ]*$', "", source.text, flags=re.MULTILINE)
    return sum(bool(line.strip()) and not line.lstrip().startswith(("#", "--")) for line in text.splitlines())


# -------------------------------------------------------------------------------------------- calls


@dataclass(frozen=True)
class Ban:
    """A call nobody makes in the package, what to do instead, and the places that are the 'instead'."""

    instead: str
    except_in: tuple[str, ...] = ()


BANNED_CALLS: Final = {
    "time.sleep": Ban(
        "only the worker loop sleeps; a fiber parks in Fiber.park", ("derecho/workers/loop.py",)
    ),
    "asyncio.sleep": Ban("only the worker loop waits for time to pass", ("derecho/workers/loop.py",)),
    "time.time": Ban("ask the clock you were given", ("derecho/clock.py",)),
    "time.time_ns": Ban("ask the clock you were given", ("derecho/clock.py",)),
    "datetime.now": Ban("ask the clock you were given", ("derecho/clock.py",)),
    "datetime.utcnow": Ban("ask the clock you were given; moments are aware"),
    "datetime.datetime.now": Ban("ask the clock you were given", ("derecho/clock.py",)),
    "datetime.datetime.utcnow": Ban("ask the clock you were given; moments are aware"),
    "print": Ban("log, or return it; only the command line prints", ("derecho/cli/",)),
    "hash": Ban("zlib.crc32: hash() of a string differs between processes"),
    "eval": Ban("decode with the codec"),
    # The row codec compiles one function for each kind of event from our own field names, as dataclasses do.
    "exec": Ban("decode with the codec", ("derecho/journal/",)),
    "pickle.loads": Ban("decode with the codec: a payload must not run code"),
    "pickle.dumps": Ban("encode with the codec"),
}


def banned_calls_are_absent(source: Source) -> Iterator[str]:
    if not (source.is_python and source.is_packaged):
        return
    origins = imported_names(source.tree)
    for node, function in calls(source.tree):
        name = dotted(node.func, origins)
        ban = BANNED_CALLS.get(name)
        if ban is None or source.path.startswith(ban.except_in) or (name, function) == ("hash", "__hash__"):
            continue
        yield f"{source.path}:{node.lineno}: {name}(): {ban.instead}"


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Map each imported name to its origin: `from time import sleep` gives {"sleep": "time.sleep"}."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return names


def calls(tree: ast.AST, function: str = "") -> Iterator[tuple[ast.Call, str]]:
    """Walk every call with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield node, function
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from calls(node, inside)


def dotted(node: ast.expr, origins: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return origins.get(name, name)
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted(value, origins)}.{attr}"
        case _:
            return "?"


def sets_are_not_walked(source: Source) -> Iterator[str]:
    """Find loops over a set made on the spot: order becomes history, and a set has none."""
    if not (source.is_python and source.is_packaged):
        return
    for node in ast.walk(source.tree):
        walked = node.iter if isinstance(node, ast.For | ast.comprehension) else None
        match walked:
            case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset")):
                yield f"{source.path}:{walked.lineno}: a set has no order; sort it, or use dict.fromkeys"


def no_test_sleeps(source: Source) -> Iterator[str]:
    """Find real sleeps, but for tests of real processes: those in tests/process/ or marked `process`."""
    if (
        not source.path.startswith("tests/")
        or source.path.startswith("tests/process/")
        or not source.is_python
    ):
        return
    marked = {name for name, mark in marks(source.tree) if mark == "process"}
    if "" in marked:
        return
    origins = imported_names(source.tree)
    for node, function in calls(source.tree):
        real = dotted(node.func, origins) in ("time.sleep", "asyncio.sleep")
        yields = node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        if real and not yields and function not in marked:
            yield f"{source.path}:{node.lineno}: a test sleeps; advance the clock, or mark it process"


def marks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """List (function, mark); the function is "" for what `pytestmark` says of the whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            places, owner = node.decorator_list, node.name
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets
        ):
            places, owner = [node.value], ""
        else:
            continue
        for place in places:
            for part in ast.walk(place):
                if isinstance(part, ast.Attribute):
                    yield owner, part.attr


# -------------------------------------------------------------------------------- words and imports


# In two halves, so that this file does not find itself.
LEFTOVER: Final = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")


def nothing_is_left_over(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.lines, 1):
        if found := LEFTOVER.search(line):
            yield f"{source.path}:{number}: {found[0]}: do it, or open an issue and say why it waits"


IGNORE: Final = re.compile(r"#\s*type:\s*ignore")
IGNORE_EXPLAINED: Final = re.compile(r"#\s*type:\s*ignore\[[\w, -]+\]\s+#\s*\w+")


def type_ignores_have_reasons(source: Source) -> Iterator[str]:
    if not source.is_python:
        return
    for number, comment in source.comments():
        if IGNORE.match(comment) and not IGNORE_EXPLAINED.match(comment):
            yield f"{source.path}:{number}: write `{'# type'}: ignore[code]  # why`"


# The plugin is loaded in every run of pytest, also for projects that do not use it: it imports late.
MAY_IMPORT_LATE: Final = ("derecho/cli/", "derecho/__main__.py", "derecho/testing/plugin.py")


def imports_are_at_the_top(source: Source) -> Iterator[str]:
    """Find imports of derecho inside functions: they hide cycles."""
    if not (source.is_python and source.is_packaged) or source.path.startswith(MAY_IMPORT_LATE):
        return
    for function in source.functions():
        for node in ast.walk(function):
            match node:
                case ast.Import(names=names) if any(n.name.split(".")[0] == "derecho" for n in names):
                    pass
                case ast.ImportFrom(level=level, module=module) if (
                    level or (module or "").split(".")[0] == "derecho"
                ):
                    pass
                case _:
                    continue
            yield f"{source.path}:{node.lineno}: {function.name}() imports derecho; import it at the top"


BANNED_WORDS: Final = frozenset(
    ["common", "data2", "helper", "helpers", "impl", "info2", "manager", "managers", "misc", "util", "utils"]
)
CYTHON_NAME: Final = re.compile(r"^\s*(?:cdef class|class|def|cpdef\b.*?|cdef\b.*?)\s+(\w+)\s*[(:]")
WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


def names_say_something(source: Source) -> Iterator[str]:
    if not source.is_packaged:
        return
    names = [(1, part) for part in source.path.removeprefix("derecho/").rsplit(".", 1)[0].split("/")]
    if source.is_python:
        defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        names += [(node.lineno, node.name) for node in ast.walk(source.tree) if isinstance(node, defined)]
    elif source.is_cython:
        names += [
            (n, found[1]) for n, line in enumerate(source.lines, 1) if (found := CYTHON_NAME.match(line))
        ]
    for number, name in names:
        empty = BANNED_WORDS.intersection(word.lower() for word in WORD.findall(name))
        if empty:
            yield f"{source.path}:{number}: {name}: {min(empty)!r} says nothing; name the thing or the deed"


def modules_introduce_themselves(source: Source) -> Iterator[str]:
    if source.path.endswith(".py") and source.is_packaged and not ast.get_docstring(source.tree):
        yield f"{source.path}:1: a module says what it is, what it promises and who may call it"


# ------------------------------------------------------------------------------------- the checking


RULES: Final[tuple[Rule, ...]] = (
    module_is_short,
    functions_are_short,
    banned_calls_are_absent,
    sets_are_not_walked,
    no_test_sleeps,
    nothing_is_left_over,
    type_ignores_have_reasons,
    imports_are_at_the_top,
    names_say_something,
    modules_introduce_themselves,
)

HAND_WRITTEN: Final = (".py", ".pyi", ".pyx", ".pxd", ".sql", ".c", ".h")
FOLDERS: Final = ("derecho", "tests", "bench", "examples", "wheels")
GENERATED: Final = ("derecho/_core.c",)


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    paths = sorted(
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in HAND_WRITTEN
    )
    named = [(path.relative_to(ROOT).as_posix(), path) for path in paths]
    return [Source(name, path.read_text(encoding="utf-8")) for name, path in named if name not in GENERATED]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sources_keep_the_rule(rule: Rule, sources: list[Source]) -> None:
    problems = [problem for source in sources for problem in rule(source)]
    assert not problems, "\n" + "\n".join(problems)


def test_package_is_small(sources: list[Source]) -> None:
    assert not list(package_is_small(sources))


def test_sources_are_found(sources: list[Source]) -> None:
    paths = {source.path for source in sources}
    assert {"derecho/__init__.py", "derecho/_core.pyx", "tests/test_tidy.py"} <= paths


# ------------------------------------------------------------------------------- planted violations


LONG_FUNCTION: Final = "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX
FITTING_FUNCTION: Final = "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1)

# rule -> (path, text that breaks it), (path, text that keeps it)
PLANTED: Final[list[tuple[Rule, list[tuple[str, str]], list[tuple[str, str]]]]] = [
    (
        module_is_short,
        [("derecho/a.py", "\n" * 601), ("derecho/_core/a.pyx", "\n" * 501)],
        [("derecho/a.py", "\n" * 600), ("derecho/_core/a.pyx", "\n" * 500), ("tests/a.py", "\n" * 601)],
    ),
    (
        functions_are_short,
        [
            ("derecho/a.py", LONG_FUNCTION),
            ("derecho/a.py", "async " + LONG_FUNCTION),
            ("derecho/_core/a.pyx", "c" + LONG_FUNCTION.replace("def", "def int", 1)),
            ("derecho/_core/a.pyx", LONG_FUNCTION + "\ndef g():\n    pass\n"),
        ],
        [
            ("derecho/a.py", FITTING_FUNCTION * 2),
            ("derecho/_core/a.pyx", FITTING_FUNCTION * 2),
            ("derecho/_core/a.pyx", "cdef class F(object):\n" + "    cdef int a\n" * 99),
        ],
    ),
    (
        banned_calls_are_absent,
        [
            ("derecho/a.py", "import time\ntime.sleep(1)"),
            ("derecho/a.py", "from time import sleep as nap\ndef f():\n    nap(1)"),
            ("derecho/a.py", "import datetime as dt\ndt.datetime.now()"),
            ("derecho/a.py", "from datetime import datetime\ndatetime.now(UTC)"),
            ("derecho/engine.py", "print(1)"),
            ("derecho/a.py", "def bucket(name):\n    return hash(name) % 64"),
            ("derecho/a.py", "import pickle\npickle.loads(b'')"),
        ],
        [
            ("derecho/workers/loop.py", "import time\ntime.sleep(1)"),
            ("derecho/cli/show.py", "print(1)"),
            ("derecho/clock.py", "import time\ntime.time()"),
            ("derecho/a.py", "def __hash__(self):\n    return hash(self.key)"),
            ("derecho/a.py", "from derecho import sleep\nsleep(1)\nclock.now()\nfile.print(1)"),
            ("examples/a.py", "print(1)"),
        ],
    ),
    (
        sets_are_not_walked,
        [
            ("derecho/a.py", "for x in {1, 2}: pass"),
            ("derecho/a.py", "[x for x in set(names)]"),
            ("derecho/a.py", "for x in {n.id for n in nodes}: pass"),
        ],
        [("derecho/a.py", "for x in sorted({1, 2}): pass"), ("derecho/a.py", "y = x in {1, 2}")],
    ),
    (
        no_test_sleeps,
        [
            ("tests/test_a.py", "import time\ndef test_a():\n    time.sleep(0.01)"),
            ("tests/test_a.py", "from asyncio import sleep\nasync def test_a():\n    await sleep(1)"),
            ("tests/test_a.py", "import time\n@pytest.mark.slow\ndef test_a():\n    time.sleep(1)"),
        ],
        [
            ("tests/process/test_a.py", "import time\ntime.sleep(1)"),
            ("tests/test_a.py", "import time\n@pytest.mark.process\ndef test_a():\n    time.sleep(1)"),
            (
                "tests/test_a.py",
                "import time\npytestmark = [pytest.mark.process]\ndef f():\n    time.sleep(1)",
            ),
            ("tests/test_a.py", "import asyncio\nasync def f():\n    await asyncio.sleep(0)"),
            ("tests/test_a.py", "import derecho\ndef test_a():\n    derecho.sleep(3600)"),
        ],
    ),
    (
        nothing_is_left_over,
        [("derecho/a.sql", "-- TO" + "DO index"), ("tests/a.py", "# XX" + "X")],
        [("derecho/a.py", "# the to-do list of a customer")],
    ),
    (
        type_ignores_have_reasons,
        [
            ("derecho/a.py", "x = 1  # type:" + " ignore"),
            ("derecho/a.py", "x = 1  # type:" + " ignore[misc]"),
            ("tests/a.py", "x = 1  # type:" + " ignore  # because"),
        ],
        [
            ("derecho/a.py", "x = 1  # type:" + " ignore[misc]  # The stub forgets it."),
            ("derecho/a.py", "x = '# type:" + " ignore'"),
        ],
    ),
    (
        imports_are_at_the_top,
        [
            ("derecho/a.py", "def f():\n    import derecho.engine"),
            (
                "derecho/a.py",
                "class A:\n    def f(self):\n        if self:\n            from derecho import engine",
            ),
            ("derecho/a.py", "def f():\n    from . import engine"),
        ],
        [
            ("derecho/a.py", "import derecho.errors\ndef f():\n    import psycopg"),
            ("derecho/cli/show.py", "def f():\n    from derecho import engine"),
        ],
    ),
    (
        names_say_something,
        [
            ("derecho/utils.py", ""),
            ("derecho/common/a.py", ""),
            ("derecho/a.py", "class LeaseManager: pass"),
            ("derecho/a.py", "def load_impl(): pass"),
            ("derecho/_core/a.pyx", "cdef class FiberHelper:\n    pass"),
            ("derecho/_core/a.pyx", "    cdef inline int push_impl(self) except -1:\n        pass"),
        ],
        [
            ("derecho/commit.py", "class Implicit: pass\ndef commonest(): pass"),
            ("derecho/_core/a.pyx", "cdef class Fiber:\n    cdef int push(self) except -1:\n        pass"),
        ],
    ),
    (
        modules_introduce_themselves,
        [("derecho/a.py", "x = 1"), ("derecho/__init__.py", "")],
        [("derecho/a.py", '"""What it is."""'), ("tests/a.py", "")],
    ),
]


@pytest.mark.parametrize(("rule", "bad", "good"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_rule_finds_the_planted_violation(
    rule: Rule, bad: list[tuple[str, str]], good: list[tuple[str, str]]
) -> None:
    for path, text in bad:
        assert list(rule(Source(path, text))), f"not found in {path}:\n{text}"
    for path, text in good:
        assert not list(rule(Source(path, text))), f"falsely found in {path}:\n{text}"


def test_every_rule_has_a_planted_violation() -> None:
    assert [rule for rule, _, _ in PLANTED] == list(RULES)


def test_package_over_the_limit_is_found() -> None:
    source, page = (
        Source("derecho/a.py", "x = 1\n" * PACKAGE_LINES_MAX),
        Source("derecho/web/a.js", "x = 1\n" * PACKAGE_LINES_MAX),
    )
    prose = Source("derecho/a.py", '"""One\n\ntwo.\n"""\n# Why.\n\nx = 1\n')
    assert code_lines(prose) == 1
    assert list(package_is_small([source]))
    assert not list(package_is_small([page, Source("tests/a.py", "x = 1\n" * PACKAGE_LINES_MAX)]))
