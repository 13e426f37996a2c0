"""The public names: all of them, nothing else, each documented. A change here is a change for users."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Final

import pytest

import derecho

# From `derecho`, by what they are for.
AUTHORING: Final = """
    activity activity_ref workflow Activity Workflow Future Timer SignalChannel WorkflowInfo CancelInfo
    sleep timer wait_for spawn gather select as_completed signal_channel signal_external
    side_effect random uuid4 now info logger cancelled is_cancelled
"""
ACTIVITIES: Final = "activity_info ActivityInfo heartbeat"
RUNNING: Final = """
    Engine Client Run WorkflowExecution WorkflowPage WorkflowStatus Registry Worker run_worker
    Store MemoryStore SQLiteStore Clock SystemClock Codec JSONCodec RetryPolicy TimeoutPolicy
    replay replay_from_store ReplayResult
"""
ERRORS: Final = """
    DerechoError NotInWorkflowError RegistrationError CodecError JournalError CancelledError ActivityError
    ActivityTimeoutError ChildWorkflowError SideEffectError TimerCancelledError ChannelClosedError
    NonRetryableError RetryAfter ActivityCancelledError NondeterminismError DeadlockError WorkflowFailedError
    WorkflowCancelledError WorkflowTerminatedError ContinuedAsNewError NotCompletedError WorkflowNotFoundError
    WorkflowAlreadyRunningError RunClosingError LeaseLostError StoreError
"""
PUBLIC: Final = sorted(f"{AUTHORING} {ACTIVITIES} {RUNNING} {ERRORS}".split())
# What the import system hangs on the package besides.
SUBMODULES: Final = {
    name
    for name, value in vars(derecho).items()
    if inspect.ismodule(value) and value.__name__.startswith("derecho.")
}


def test_the_package_exports_just_these_names() -> None:
    exported = {name for name in vars(derecho) if not name.startswith("_")} - SUBMODULES
    assert sorted(exported) == PUBLIC


def test_no_submodule_hides_a_public_name() -> None:
    assert not SUBMODULES & set(PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "logger"])
def test_each_public_name_is_documented(name: str) -> None:
    doc = inspect.getdoc(getattr(derecho, name))
    assert doc
    assert doc.splitlines()[0].strip().endswith((".", ":", ";")) or "." in doc


def test_public_errors_can_be_caught_as_one() -> None:
    for name in ERRORS.split():
        error = getattr(derecho, name)
        assert issubclass(error, derecho.DerechoError) or error is derecho.CancelledError
    assert not issubclass(derecho.CancelledError, Exception), (
        "`except Exception` must not swallow a cancellation"
    )


def test_importing_loads_no_codec_library_and_starts_no_thread() -> None:
    code = (
        "import sys, threading, derecho; "
        "print(sorted({'orjson', 'msgspec', 'asyncio', 'psycopg'} & set(sys.modules)), threading.active_count())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert out.split() == ["[]", "1"]
