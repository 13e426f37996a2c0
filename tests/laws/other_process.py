"""Law R3 as a program: live the corpus and replay its journals here, and write down every command, byte for byte.

Usage: other_process.py JOURNALS ANSWER [PLANT]. It is run in processes that differ in their hash seed.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from derecho.journal import Event, dump_events, load_events
from tests.laws.corpus import CORPUS
from tests.laws.laws import commands_of
from tests.laws.lives import Life, ending_of, live
from tests.laws.plants import PLANTS


def answer_to(journals: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """Return what this process makes of journals, and which journals it writes itself, by shape."""
    answer = {}
    for name, texts in journals.items():
        given = {workflow_id: load_events(text.encode()) for workflow_id, text in texts.items()}
        own = live(CORPUS[name])
        written = [dump_events(events).decode() for events in own.journals.values()]
        answer[name] = [*commands_of(life_of(name, given)), *written]
    return answer


def life_of(name: str, journals: dict[str, list[Event]]) -> Life:
    """Return a life of which only the journals are known."""
    return Life(
        shape=CORPUS[name],
        ending=ending_of(journals["main"]),
        journals=journals,
        ledger=[],
        computed_again=[],
        drawn={},
        calls=[],
        faulted=False,
    )


def main(inbox: str, outbox: str, plant: str = "") -> None:
    logging.disable(logging.CRITICAL)
    journals = json.loads(Path(inbox).read_text(encoding="utf-8"))
    if plant:
        PLANTS[plant].plant(setattr)
    Path(outbox).write_text(json.dumps(answer_to(journals)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
