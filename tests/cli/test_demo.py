"""`derecho demo`: it survives its kills, tells the truth, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Final

import pytest

from derecho.cli import indexing, main
from derecho.cli.indexing import FILES_MAX, Job, batches_of, digest_of, listing_of, manifest_of
from derecho.cli.screen import Screen

DEMO: Final = [sys.executable, "-m", "derecho", "demo"]
RUN_S_MAX: Final = 90


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the demo put its folder where the test can see that it is gone."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    for number in range(60):
        (root / "deep" / f"file-{number:02}.txt").write_text(f"content {number}")
    (root / "deep" / "er" / "empty").touch()
    (root / "größe – 100%.txt").write_text("unicode")
    if sys.platform != "win32":
        (root / "two\nlines \\ and more").write_text("newline")
        (root / "link").symlink_to(root / "deep" / "er" / "empty")
        (root / "circle").symlink_to(root)
        (root / "dangling").symlink_to(root / "nowhere")
        os.mkfifo(root / "pipe")
    return root


def regular_files(root: Path) -> list[str]:
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and "circle" not in path.parts
    )


# ------------------------------------------------------------------------------------- the whole story


@pytest.mark.process
@pytest.mark.slow
def test_standard_library_is_indexed_through_two_kills(scratch: Path) -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=RUN_S_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^  kill -9 \d+:", done.stdout, re.MULTILINE)) == 2
    assert len(re.findall(r"^  worker \d+ started", done.stdout, re.MULTILINE)) == 3
    assert re.search(r"kills +2 survived$", done.stdout, re.MULTILINE)
    assert "each once; 0 computed again" in done.stdout
    assert "equals a direct hashlib pass, byte for byte" in done.stdout
    assert done.stderr == ""
    assert not list(scratch.iterdir())


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="file names of POSIX")
def test_odd_files_are_indexed_and_sha256sum_agrees(
    tree: Path, scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--path", str(tree), "--kills", "1", "--keep"]) == 0
    told = capfd.readouterr().out
    [kept] = scratch.iterdir()
    assert str(kept) in told
    assert {"journal.db", "manifest.sha256", "ledger"} <= {path.name for path in kept.iterdir()}
    assert f"files        {len(regular_files(tree))}\n" in told
    if shutil.which("sha256sum"):
        checked = subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", str(kept / "manifest.sha256")], cwd=tree
        )
        assert checked.returncode == 0


@pytest.mark.process
@pytest.mark.slow
def test_empty_folder_is_an_empty_manifest(
    tmp_path: Path, scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["demo", "--path", str(tmp_path / "empty")]) == 0
    told = capfd.readouterr().out
    assert "files        0\n" in told
    assert "0 survived of 2: there was too little to do" in told
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_wrong_path_is_a_usage_error(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", "--path", str(tmp_path / path)]) == 2
    shown = capsys.readouterr()
    assert f"--path {str(tmp_path / path)!r}" in shown.err
    assert "give a folder" in shown.err
    assert not shown.out


@pytest.mark.parametrize("kills", ["-1", "many", "21", "1.5"])
def test_wrong_number_of_kills_is_a_usage_error(kills: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", f"--kills={kills}"]) == 2
    assert "is no number from 0 to 20" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_demo_takes_worker_and_folder_with_it(
    number: signal.Signals, status: int, scratch: Path
) -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = next(
            int(found[1]) for line in process.stdout if (found := re.match(r"  worker (\d+)", line))
        )
        process.send_signal(number)
        assert process.wait(RUN_S_MAX) == status
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert not list(scratch.iterdir())


@pytest.mark.process
@pytest.mark.slow
def test_killed_demo_leaves_no_worker_behind(scratch: Path) -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = next(
            int(found[1]) for line in process.stdout if (found := re.match(r"  worker (\d+)", line))
        )
        process.kill()
        process.wait(RUN_S_MAX)
        gone = threading.Event()
        for _ in range(600):
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                break
            if _is_zombie(worker):
                break
            gone.wait(0.05)
        else:
            pytest.fail("the worker outlives the demo")


def _is_zombie(pid: int) -> bool:
    """Tell whether a dead process only waits for its parent, which in a container may never come."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


@pytest.mark.process
@pytest.mark.slow
def test_wrong_manifest_is_found(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Plant a difference: the direct pass sees other content than the worker, which is another process."""
    monkeypatch.setattr("derecho.cli.demo.digest_of", lambda _path: "0" * 64)
    assert main(["demo", "--path", str(tree), "--kills", "0"]) == 1
    assert "DIFFERS from a direct hashlib pass" in capfd.readouterr().out


# --------------------------------------------------------------------------------------------- its parts


def job(root: Path, folder: str = "/nowhere", pruned: list[str] | None = None) -> Job:
    return Job(str(root), pruned or [], folder)


@pytest.mark.skipif(sys.platform == "win32", reason="file names of POSIX")
def test_only_regular_files_are_listed(tree: Path) -> None:
    listing = listing_of(job(tree))
    assert listing.names == regular_files(tree)
    assert not listing.is_cut


def test_pruned_folders_and_the_own_one_are_left_out(tree: Path) -> None:
    assert not any(name.startswith("deep/er") for name in listing_of(job(tree, pruned=["er"])).names)
    assert not any("deep" in name for name in listing_of(job(tree, folder=str(tree / "deep"))).names)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_names_that_are_no_unicode_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "good").touch()
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    assert listing_of(job(tmp_path)).names == ["good"]


def test_listing_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert not listing_of(job(tmp_path)).is_cut
    monkeypatch.setattr(indexing, "FILES_MAX", 3)
    listing = listing_of(job(tmp_path))
    assert (listing.names, listing.is_cut) == (["0", "1", "2"], True)
    monkeypatch.setattr(indexing, "FILES_MAX", FILES_MAX)
    monkeypatch.setattr(indexing, "NAMES_BYTES_MAX", 9)
    listing = listing_of(job(tmp_path))
    assert (listing.names, listing.is_cut) == (["0", "1"], True)


def test_digests_are_sha256_and_none_without_access(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert digest_of(str(tmp_path / "file")) == hashlib.sha256(b"content").hexdigest()
    assert digest_of(str(tmp_path / "gone")) is None
    assert manifest_of(["a", "b"], ["12", None]) == b"12  a\n# unreadable: b\n"


@pytest.mark.parametrize("count", [0, 1, 2, 23, 24, 100, 5000])
def test_batches_hold_every_name_once(count: int) -> None:
    names = [str(number) for number in range(count)]
    batches = batches_of(names)
    assert [name for batch in batches for name in batch] == names
    assert all(0 < len(batch) <= 16 for batch in batches)


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str, *, is_watched: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self._is_watched = is_watched

    def isatty(self) -> bool:
        return self._is_watched

    def shown(self) -> str:
        self.flush()
        data = self.buffer
        assert isinstance(data, io.BytesIO)
        return data.getvalue().decode(self.encoding)


@pytest.mark.parametrize(("encoding", "full"), [("utf-8", "█"), ("ascii", "#")])
def test_bar_is_drawn_for_who_watches(encoding: str, full: str) -> None:
    terminal = Terminal(encoding, is_watched=True)
    screen = Screen(terminal)
    screen.bar(0, 0)
    screen.bar(1, 2)
    screen.bar(1, 2)
    screen.line("größe")
    shown = terminal.shown()
    assert full in shown
    assert shown.count("1 of 2 batches") == 1
    assert shown.endswith("größe\n" if encoding == "utf-8" else "gr\\xf6\\xdfe\n")


def test_nobody_watches_so_there_is_a_line_at_each_quarter() -> None:
    pipe = Terminal("utf-8", is_watched=False)
    screen = Screen(pipe)
    for done in range(101):
        screen.bar(done, 100)
    assert pipe.shown().splitlines() == [f"  {done} of 100 batches" for done in (25, 50, 75, 100)]
