"""The program that `derecho demo` kills: a workflow that indexes a folder into a manifest of SHA-256 digests.

It is written as any user would write it, in a process of its own (`serve`), and knows nothing of being killed. Each
attempt of an activity leaves a line in the ledger, a file beside the database: so the demo can tell what was really
done from what the journal says.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from derecho.activities import activity_info
from derecho.authoring.definitions import activity, workflow
from derecho.authoring.fibers import gather, spawn
from derecho.engine import Engine
from derecho.stores.sqlite import SQLiteStore

# A payload holds 2 MiB, and the last activity is given all names and digests: 10,000 digests are 0.7 MB.
FILES_MAX: Final = 10_000
NAMES_BYTES_MAX: Final = 1 << 20
LANES: Final = 4
# How soon a new worker may take over from one that was killed.
LEASE_S: Final = 1.0

DATABASE: Final = "journal.db"
LEDGER: Final = "ledger"
MANIFEST: Final = "manifest.sha256"


@dataclass(frozen=True)
class Job:
    """What to index, without folders of these names, and the folder of the results."""

    root: str
    pruned: list[str]
    folder: str


@dataclass(frozen=True)
class Listing:
    """Regular files by their paths below the root, sorted; `is_cut` if there are more."""

    names: list[str]
    is_cut: bool


@workflow
def index(job: Job) -> str:
    """List, hash in batches, a few at a time, and write the manifest; return its digest."""
    listing = list_files(job)
    batches = batches_of(listing.names)
    digests: list[list[str | None]] = [[] for _ in batches]
    waiting = iter(range(len(batches)))

    def lane() -> None:
        for number in waiting:
            digests[number] = hash_files(job, batches[number])

    gather(*(spawn(lane) for _ in range(LANES)))
    return write_manifest(job, listing.names, [digest for batch in digests for digest in batch])


@activity
def list_files(job: Job) -> Listing:
    _note(job)
    return listing_of(job)


@activity
def hash_files(job: Job, names: list[str]) -> list[str | None]:
    _note(job)
    return [digest_of(os.path.join(job.root, name)) for name in names]


@activity
def write_manifest(job: Job, names: list[str], digests: list[str | None]) -> str:
    _note(job)
    text = manifest_of(names, digests)
    # Whole or not at all: a crash in the middle must leave no half of it.
    unfinished = Path(job.folder, f"{MANIFEST}.new")
    unfinished.write_bytes(text)
    unfinished.replace(Path(job.folder, MANIFEST))
    return hashlib.sha256(text).hexdigest()


def batches_of(names: list[str]) -> list[list[str]]:
    """Split names into batches: of 16, or fewer if there are few."""
    size = min(max(len(names) // 24, 1), 16)
    return [names[first : first + size] for first in range(0, len(names), size)]


def listing_of(job: Job) -> Listing:
    """List regular files. Links are not followed: they could lead out of the root, or in circles."""
    names = sorted(_walk(job))
    kept, size = 0, 0
    for name in names[:FILES_MAX]:
        size += len(json.dumps(name)) + 1
        if size > NAMES_BYTES_MAX:
            break
        kept += 1
    return Listing(names[:kept], kept < len(names))


def digest_of(path: str) -> str | None:
    """Return the SHA-256 of a file in hex; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def manifest_of(names: list[str], digests: list[str | None]) -> bytes:
    """Return what `sha256sum --check` reads; files that cannot be read are comments in it."""
    lines = []
    for name, digest in zip(names, digests, strict=True):
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "\\" if escaped != name else ""
        lines.append(f"{mark}{digest}  {escaped}\n" if digest else f"# unreadable: {escaped}\n")
    return "".join(lines).encode()


def serve(folder: str) -> None:
    """Work on the database in `folder` until stdin is closed: this process never outlives the demo's."""
    store = SQLiteStore(os.path.join(folder, DATABASE))
    with Engine(
        store,
        workflows=[index],
        activities=[list_files, hash_files, write_manifest],
        concurrency=LANES,
        workflow_task_timeout=LEASE_S,
        activity_lease=LEASE_S,
    ):
        sys.stdin.buffer.read()
    store.close()


def _note(job: Job) -> None:
    """Leave a line in the ledger: which activity of the journal, which attempt of it."""
    info = activity_info()
    ledger = os.open(os.path.join(job.folder, LEDGER), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(ledger, f"{info.scheduled_at} {info.attempt} {info.activity_name}\n".encode())
    finally:
        os.close(ledger)


def _walk(job: Job) -> Iterator[str]:
    for folder, below, _ in os.walk(job.root):
        # The demo's own files change under it, also if all of /tmp is indexed.
        below[:] = [
            name for name in below if name not in job.pruned and os.path.join(folder, name) != job.folder
        ]
        try:
            with os.scandir(folder) as entries:
                files = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
        except OSError:
            continue
        for path in files:
            if _is_unicode(name := os.path.relpath(path, job.root)):
                yield name


def _is_unicode(name: str) -> bool:
    """Tell whether JSON can hold the name: on Linux any bytes are a file name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
