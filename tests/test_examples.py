"""Each program in examples/ does what it says, also the second time, with a journal that is there already."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "examples"
if not EXAMPLES.exists():
    pytest.skip("examples are in a checkout only; these tests run against a wheel", allow_module_level=True)

# What each prints, as a pattern.
PRINTED: Final = {
    "order.py": r"parcel of 8 g for order-7\n",
    "retries.py": r"attempt 2 began at page 3 and came to 10\n1 attempt: there is no dodo, and there will not be one\n",
    "fan_out.py": r"20 pictures, from 0-small\.png to 19-small\.png\nnever more than 3 at a time: True\n",
    "approval.py": r"4200 cents: granted by Ada\n900 cents: nobody decided in time\n",
    "stock.py": r"complete with 12 pieces\ngave up with 1 of 10 pieces\n",
    "values.py": r"(Ada|Grace|Edsger) wins with ticket [0-9a-f-]{36}\nthe same on replay: True\n",
    "reminders.py": r"1\. reminder to Ada\n2\. reminder to Ada\n3\. reminder to Ada\n",
    "async_activities.py": r"2300\n",
    "replay_in_ci.py": (
        r"the code of today fits\nthe changed code does not: activity 'refund' scheduled "
        r"instead of activity 'charge' scheduled\n"
    ),
    "graceful_shutdown.py": r"(page \d+ is printed\n)+stopped; the rest of the book is printed after the next start\n",
}
# What each logs; nothing, if it is not here.
LOGGED: Final = {"retries.py": r"(?s).*the line is dead.*there is no dodo.*"}
RUN_S_MAX: Final = 50


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_example_runs(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", str(EXAMPLES / name)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(PRINTED[name], done.stdout), done.stdout
        assert re.fullmatch(LOGGED.get(name, ""), done.stderr), done.stderr


def test_every_example_is_run_and_listed() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert programs == set(PRINTED)
    listed = set(re.findall(r"^\| `(\w+\.py)` \|", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE))
    assert programs == listed


@pytest.mark.parametrize("name", PRINTED)
def test_example_is_short_and_introduces_itself(name: str) -> None:
    lines = (EXAMPLES / name).read_text("utf-8").splitlines()
    assert lines[0].startswith('"""')
    assert len(lines) <= 70
