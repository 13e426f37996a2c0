"""The numbers that the core and the journal share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from derecho.journal.events import EVENT_TYPES

CONSTANTS = Path(__file__).resolve().parents[2] / "derecho" / "_core" / "constants.pyx"
# The core's words for the kinds, where they are shorter than the journal's.
SHORTER = {"CANCEL_REQUESTED": "workflow_cancel_requested", "CONTINUED_AS_NEW": "workflow_continued_as_new"}


@pytest.mark.skipif(not CONSTANTS.exists(), reason="the sources of the core are not in a wheel")
def test_the_core_knows_the_kinds_of_events_by_the_codes_of_the_journal() -> None:
    text = CONSTANTS.read_text(encoding="utf-8")
    first_enum = text[text.index("cdef enum:") : text.index("# A future is...")]
    codes = {
        name: int(code) for name, code in re.findall(r"^    ([A-Z_]+) = (\d+)$", first_enum, re.MULTILINE)
    }
    assert len(codes) == 20, "all but the three kinds about workflow tasks"
    for name, code in codes.items():
        assert EVENT_TYPES[SHORTER.get(name, name.lower())].code == code


def test_the_codes_of_the_journal_are_all_different() -> None:
    codes = [cls.code for cls in EVENT_TYPES.values()]
    assert sorted(codes) == list(range(1, len(codes) + 1))
