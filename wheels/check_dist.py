"""Check built distributions without running them: python wheels/check_dist.py dist

A wheel: its tags belong to a compiled package, its content is what users need and nothing else, it is small.
An sdist: what the repository holds and nothing else. Every check takes plain values and returns problems, so
each is tested by planting one (tests/test_distribution.py).
"""

import email
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path

WHEEL_BYTES_MAX = 5_000_000
SOURCE_SUFFIXES = (".pyx", ".c", ".cpp", ".h", ".html")
BINARY_SUFFIXES = (".so", ".pyd", ".dylib", ".pyc")
NEEDED_IN_WHEEL = ("derecho/__init__.py", "derecho/py.typed", "derecho/_core.pyi")

# Of use to git alone.
NOT_SHIPPED = (".gitignore", ".gitattributes")
# Written into the sdist by the build.
MADE_BY_BUILD = ("PKG-INFO", "setup.cfg", "derecho.egg-info/")


def wheel_tag_problems(file_name: str) -> list[str]:
    """Say what is wrong with the tags in a wheel's file name."""
    python, abi, platform = file_name.removesuffix(".whl").split("-")[-3:]
    problems = []
    if platform == "any" or abi == "none":
        problems.append(f"{file_name}: tagged as pure Python, so the core was not compiled")
    if abi == "abi3":
        problems.append(f"{file_name}: tagged abi3, but _core is built for one version of Python")
    elif not abi.startswith(python):
        problems.append(f"{file_name}: Python tag {python} and ABI tag {abi} disagree")
    return problems


def wheel_content_problems(names: Collection[str], size_bytes: int) -> list[str]:
    """Say what a wheel lacks, and what it should not carry."""
    problems = [f"wheel lacks {name}" for name in NEEDED_IN_WHEEL if name not in names]
    if not any(name.startswith("derecho/_core.") and name.endswith((".so", ".pyd")) for name in names):
        problems.append("wheel lacks the compiled derecho/_core")
    if "derecho/stores/sqlite.py" in names and not any(n.startswith("derecho/stores/sql/") for n in names):
        problems.append("wheel lacks derecho/stores/sql/*.sql")
    problems += [f"wheel carries a source: {name}" for name in names if name.endswith(SOURCE_SUFFIXES)]
    tops = {name.split("/")[0] for name in names} - {"derecho", "derecho.libs"}
    problems += [f"wheel installs {top!r} beside derecho" for top in sorted(tops) if ".dist-info" not in top]
    if size_bytes > WHEEL_BYTES_MAX:
        problems.append(f"wheel is {size_bytes:,} bytes, at most {WHEEL_BYTES_MAX:,} were meant")
    return problems


def metadata_problems(text: str) -> list[str]:
    """Say which fields a reader of the package page would miss."""
    fields = email.message_from_string(text)
    needed = ("Name", "Version", "Summary", "License-Expression", "License-File", "Requires-Python")
    problems = [f"metadata lacks {field}" for field in needed if not fields.get(field)]
    if not fields.get_payload():
        problems.append("metadata lacks the README as description")
    return problems


def sdist_problems(names: Collection[str], repository: Collection[str]) -> list[str]:
    """Compare an sdist with the files of the repository, both given relative to their root."""
    shipped = {name for name in names if not name.startswith(MADE_BY_BUILD)}
    expected = {name for name in repository if not name.startswith(NOT_SHIPPED)}
    problems = [f"sdist lacks {name}" for name in sorted(expected - shipped)]
    problems += [f"sdist carries {name}, unknown to the repository" for name in sorted(shipped - expected)]
    problems += [f"sdist carries a binary: {name}" for name in names if name.endswith(BINARY_SUFFIXES)]
    return problems


def repository_files() -> set[str] | None:
    """List what the repository holds, uncommitted files included; None without git or its clone."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    # A deleted file stays listed until the deletion is staged.
    return {name for name in done.stdout.split("\0") if name and (root / name).exists()}


def check_wheel(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    size_bytes = path.stat().st_size
    return wheel_tag_problems(path.name) + wheel_content_problems(names, size_bytes) + metadata_problems(text)


def check_sdist(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        names = [member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()]
    repository = repository_files()
    if repository is None:
        print(f"check_dist: NOT CHECKED: {path.name} against the repository: git or its clone is missing")
        repository = {name for name in names if not name.startswith(MADE_BY_BUILD)}
    return sdist_problems(names, repository)


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dist")
    checks = [(path, check_wheel) for path in sorted(folder.glob("*.whl"))]
    checks += [(path, check_sdist) for path in sorted(folder.glob("*.tar.gz"))]
    if not checks:
        print(f"check_dist: nothing to check in {folder}")
        return 1
    failed = False
    for path, check in checks:
        problems = check(path)
        failed = failed or bool(problems)
        print(f"check_dist: {'BAD' if problems else 'ok '} {path.name}")
        for problem in problems:
            print(f"check_dist:     {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
