"""Build the compiled parts of derecho; everything static is in pyproject.toml.

Environment (set when building, never needed by users):

`DERECHO_TRACE=1`       compile with line tracing, for coverage and profilers; slow
`DERECHO_ANNOTATE=1`    also write `build/cython/**/*.html`, which shows where C calls Python
`DERECHO_CHECKED=0`     drop bounds and wraparound checks; for measuring what they cost, not for shipping
`DERECHO_FAST_THREAD_STATE=1`
                        let Cython touch the interpreter's exception state directly; see `MACROS`
"""

import os
import sys
from pathlib import Path

import greenlet
from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent


def switch(name: str, *, default: bool) -> bool:
    value = os.environ.get(name, "1" if default else "0")
    if value not in ("", "0", "1"):
        sys.exit(f"{name}={value!r}: say 0 or 1")
    return value == "1"


TRACE = switch("DERECHO_TRACE", default=False)
ANNOTATE = switch("DERECHO_ANNOTATE", default=False)
CHECKED = switch("DERECHO_CHECKED", default=True)
FAST_THREAD_STATE = switch("DERECHO_FAST_THREAD_STATE", default=False)

# The header lies in greenlet's package. Its second copy, under the environment's include directory, is out of
# reach in an isolated build.
GREENLET_INCLUDE = Path(greenlet.__file__).resolve().parent.parent

# Cython's short cuts around the exception state assume that a C function returns on the stack it was called
# on. A switch of greenlets breaks that assumption, so by default the core goes through the interpreter.
MACROS = [("CYTHON_FAST_THREAD_STATE", "1" if FAST_THREAD_STATE else "0")]
if TRACE:
    # CYTHON_USE_SYS_MONITORING=0: sys.settrace, the one interface that all supported versions share.
    MACROS += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "embedsignature": True,
    "embedsignature.format": "python",
    "auto_pickle": False,  # Also keeps __reduce_cython__ out of the typed face.
    "freethreading_compatible": False,  # Declared only once audited.
    "initializedcheck": False,
    "linetrace": TRACE,
    "profile": TRACE,
}
if not CHECKED:
    DIRECTIVES |= {"boundscheck": False, "wraparound": False}


def sources(*patterns: str) -> list[str]:
    return sorted(
        path.relative_to(HERE).as_posix() for pattern in patterns for path in HERE.glob(f"derecho/{pattern}")
    )


# One directory per way of compiling: Cython compares times, not directives.
FLAVOUR = "-".join(
    name
    for name, on in [
        ("cython", True),
        ("trace", TRACE),
        ("unchecked", not CHECKED),
    ]
    if on
)
GENERATED = HERE / "build" / FLAVOUR / "derecho" / "_core.c"


def is_stale(generated: Path) -> bool:
    """Say whether this file changed after the C was generated: it holds the directives."""
    return generated.exists() and generated.stat().st_mtime < Path(__file__).stat().st_mtime


CFLAGS = [] if sys.platform == "win32" else ["-O2", "-g0"]

core = Extension(
    "derecho._core",
    ["derecho/_core.pyx"],
    include_dirs=[str(GREENLET_INCLUDE)],
    # _core.pyx includes the parts: without this list an edited part would not rebuild the extension.
    depends=[*sources("_core/*.pyx", "_core/*.pxd", "*.pxd"), "setup.py"],
    define_macros=MACROS,
    extra_compile_args=CFLAGS,
)

setup(
    ext_modules=cythonize(
        [core],
        build_dir=f"build/{FLAVOUR}",  # No generated C beside hand-written sources.
        compiler_directives=DIRECTIVES,
        annotate=ANNOTATE,
        force=ANNOTATE or is_stale(GENERATED),
        quiet=True,
    ),
    cffi_modules=["derecho/_bell_build.py:ffi"] if sources("_bell_build.py") else [],
)
