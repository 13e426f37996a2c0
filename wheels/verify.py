"""Prove that an installed derecho works: python wheels/verify.py, run by the interpreter that has it.

Needs nothing but derecho itself. Refuses to look at a source checkout, where it would prove something else.
Exit status: 0 all proved, 1 something is broken, 2 this is not an installed derecho.
"""

import importlib.machinery
import importlib.metadata
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import derecho
from derecho import Engine, MemoryStore, SQLiteStore, activity, replay, workflow

PACKAGE = Path(derecho.__file__).resolve().parent
CHILD_S_MAX = 60.0
LEASE_S = 1.0  # How soon the second process may take over what the first one died with.
ORDER_ID = "order-1"


# ------------------------------------------------------------------------ the workflow of the proof


def note(text: str) -> None:
    """Append a line to the witness: a file that no crash takes back."""
    with Path(os.environ["DERECHO_VERIFY_WITNESS"]).open("a", encoding="utf-8") as witness:
        witness.write(text + "\n")


def notes() -> list[str]:
    witness = Path(os.environ["DERECHO_VERIFY_WITNESS"])
    return witness.read_text(encoding="utf-8").split() if witness.exists() else []


def die() -> None:
    """End this process as `kill -9` does: no handler, no flush, no goodbye."""
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)


@activity
def charge(cents: int) -> str:
    note("charge")
    return f"receipt-{cents}"


@activity
def ship(receipt: str) -> str:
    note("ship")
    if notes().count("ship") == 1 and os.environ.get("DERECHO_VERIFY_CRASH") == "1":
        die()
    return f"parcel-for-{receipt}"


@workflow
def order(cents: int) -> list[str]:
    receipt = charge(cents)
    derecho.sleep(0.01)
    return [receipt, ship(receipt)]


EXPECTED = ["receipt-4200", "parcel-for-receipt-4200"]


# --------------------------------------------------------------------------------------- the checks


def check_core_is_compiled() -> None:
    from derecho import _core

    path = Path(_core.__file__ or "")
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    assert path.name.endswith(suffixes), f"derecho._core is {path.name!r}, not a compiled module {suffixes}"


def check_version_is_the_metadata() -> None:
    recorded = importlib.metadata.version("derecho")
    assert derecho.__version__ == recorded, f"derecho says {derecho.__version__}, its metadata {recorded}"


def check_files_are_there() -> None:
    for name in ("py.typed", "_core.pyi"):
        assert (PACKAGE / name).is_file(), f"{name} is missing: type checkers will not see the types"
    if (PACKAGE / "stores" / "sqlite.py").is_file():
        found = sorted(path.name for path in (PACKAGE / "stores" / "sql").glob("*.sql"))
        assert found, "stores/sql/*.sql are missing: no SQL store can open"
    strays = sorted(path.name for path in PACKAGE.rglob("*") if path.suffix in (".pyx", ".c", ".cpp"))
    assert not strays, f"sources of the compiled core were installed: {strays}"


def check_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "derecho", "--help"], capture_output=True, text=True, timeout=CHILD_S_MAX
    )
    assert done.returncode == 0, f"python -m derecho --help: {done.stderr}"
    assert "derecho" in done.stdout, f"python -m derecho --help printed {done.stdout!r}"


def check_demo() -> None:
    """Let the demo kill a worker of this very wheel."""
    command = [sys.executable, "-m", "derecho", "demo", "--path", str(PACKAGE), "--kills", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S_MAX)
    assert done.returncode == 0, f"derecho demo:\n{done.stdout}{done.stderr}"
    assert "equals a direct hashlib pass" in done.stdout, f"derecho demo printed:\n{done.stdout}"


def check_memory_store() -> None:
    with Engine(MemoryStore(), workflows=[order], activities=[charge, ship]) as engine:
        run = engine.client.start_workflow(order, ORDER_ID, 4200)
        result = run.get(timeout=CHILD_S_MAX)
        events = run.events()
    assert result == EXPECTED, f"got {result}"
    replayed = replay(order, events)
    assert replayed.complete, "the journal replays, but not to its end"
    assert replayed.result == EXPECTED, f"the replay of the journal ends with {replayed.result}"


def check_crash_and_replay() -> None:
    """Kill a process inside an activity; a second one has to end the workflow without charging again."""
    with tempfile.TemporaryDirectory() as folder:
        crashed = run_child(folder, "start", crash=True)
        assert crashed.returncode != 0, f"the first process was to die inside ship: {crashed.stdout}"
        witness = Path(folder, "witness").read_text(encoding="utf-8").split()
        assert witness == ["charge", "ship"], f"the first process did {witness}\n{crashed.stderr}"
        resumed = run_child(folder, "resume", crash=False)
        assert resumed.returncode == 0, f"the second process failed:\n{resumed.stdout}{resumed.stderr}"
        witness = Path(folder, "witness").read_text(encoding="utf-8").split()
        assert witness == ["charge", "ship", "ship"], f"both processes together did {witness}"


def run_child(folder: str, verb: str, *, crash: bool) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "DERECHO_VERIFY_WITNESS": str(Path(folder, "witness")),
        "DERECHO_VERIFY_CRASH": "1" if crash else "0",
    }
    return subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), verb, folder],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=CHILD_S_MAX,
    )


def child(verb: str, folder: str) -> None:
    """Be one of the two processes of `check_crash_and_replay`."""
    store = SQLiteStore(str(Path(folder, "orders.db")))
    with Engine(store, workflows=[order], activities=[charge, ship], activity_lease=LEASE_S) as engine:
        if verb == "start":
            run = engine.client.start_workflow(order, ORDER_ID, 4200)
        else:
            run = engine.client.get_workflow(ORDER_ID, returns=list[str])
        result = run.get(timeout=CHILD_S_MAX / 2)
    assert result == EXPECTED, f"got {result}"


CHECKS: tuple[Callable[[], None], ...] = (
    check_core_is_compiled,
    check_version_is_the_metadata,
    check_files_are_there,
    check_command_line,
    check_memory_store,
    check_crash_and_replay,
    check_demo,
)


def refuse_a_checkout() -> None:
    """Exit if `import derecho` found sources: an editable install, or a checkout on the path."""
    signs = [path for path in (PACKAGE.parent / "setup.py", PACKAGE / "_core.pyx") if path.exists()]
    if signs:
        print(f"verify: {PACKAGE} is a source checkout (it has {signs[0].name}), not an installed wheel.")
        print("verify: install the wheel into an environment of its own: python wheels/prove.py dist")
        sys.exit(2)


def main() -> int:
    refuse_a_checkout()
    if len(sys.argv) == 3:
        child(sys.argv[1], sys.argv[2])
        return 0
    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DERECHO_VERIFY_WITNESS"] = str(Path(folder, "witness"))
        for check in CHECKS:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            try:
                check()
            except Exception as error:
                broken += 1
                print(f"verify: BROKEN {name}: {type(error).__name__}: {error}")
            else:
                print(f"verify: ok     {name}")
    print(f"verify: derecho {derecho.__version__}, Python {sys.version.split()[0]}, {sys.platform}: ", end="")
    print("all proved" if not broken else f"{broken} of {len(CHECKS)} BROKEN")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
