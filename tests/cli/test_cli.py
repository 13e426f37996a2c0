"""The command line itself: what it answers, and with which status."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import derecho
from derecho.cli import VERBS, main


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"derecho {derecho.__version__}\n"


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {verb} " in told and summary in told for verb, (_, summary) in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"usage: derecho {verb}" in capsys.readouterr().out


def test_no_verb_shows_the_help_and_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "demo" in shown.err
    assert not shown.out


@pytest.mark.parametrize(
    ("typed", "hint"), [("dmeo", "did you mean 'demo'?"), ("frobnicate", "commands: demo.")]
)
def test_unknown_verb_is_answered_with_what_there_is(
    typed: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed, "--x"]) == 2
    shown = capsys.readouterr()
    assert f"there is no command {typed!r}" in shown.err
    assert hint in shown.err
    assert not shown.out


def test_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--kill", "2", "--pathh", "x"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_script_and_module_are_the_same_function() -> None:
    [script] = entry_points(group="console_scripts", name="derecho")
    assert script.load() is main


@pytest.mark.process
def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "derecho", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"derecho {derecho.__version__}\n")


@pytest.mark.process
def test_verbs_are_imported_only_when_they_are_asked_for() -> None:
    program = "import sys; from derecho.cli import main; main(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not [name for name in done.stdout.split() if name.startswith("derecho.cli.")]


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_reader_who_leaves_early_makes_no_traceback() -> None:
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "derecho",
            "demo",
            "--path",
            str(Path(derecho.__file__).parent),
            "--kills",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


def test_metadata_and_package_agree_on_the_entry_point() -> None:
    project = Path(__file__).resolve().parent.parent.parent / "pyproject.toml"
    if not project.exists():
        pytest.skip("only a checkout has pyproject.toml")
    assert tomllib.loads(project.read_text("utf-8"))["project"]["scripts"] == {"derecho": "derecho.cli:main"}
