"""What a shape is: a workflow, what happens to it and when, and what must come of it.

Results show whatever depends on order: the workflow time of each step, winners, who came when. Steps lie at least
60 s apart unless they are meant to coincide, because a crash delays what it hits by up to 17 s (leases, back-off).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import derecho
from derecho import Workflow
from tests.laws.world import Act

Ending = tuple[str, Any]

_TIME: Final = re.compile(r"\+[\d.]+(e[+-]?\d+)?s")


def completed(value: Any) -> Ending:
    return ("completed", value)


def failed(type: str, message: str) -> Ending:
    return ("failed", f"{type}: {message}")


def ended(how: str) -> Ending:
    return (how, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One entry of the corpus.

    Attributes:
        companions: other runs, started first: (workflow id, workflow, arguments).
        script: (seconds after the start, act); acts of one moment happen before the run sees any of them.
        meanwhile: what happens while the n-th workflow task of the main run is being executed, by n.
        expect: how the main run ends.
        after_a_fault: other legal endings if a crash or an error moved a race.
    """

    name: str
    workflow: Workflow[..., Any]
    args: tuple[Any, ...] = ()
    companions: tuple[tuple[str, Workflow[..., Any], tuple[Any, ...]], ...] = ()
    script: tuple[tuple[float, Act], ...] = ()
    meanwhile: Mapping[int, Act]
    expect: Ending
    after_a_fault: tuple[Ending, ...] = ()

    @property
    def workflows(self) -> list[Workflow[..., Any]]:
        """Every workflow that takes part, once."""
        return list(dict.fromkeys([self.workflow, *(workflow for _, workflow, _ in self.companions)]))


CORPUS: Final[dict[str, Shape]] = {}


def shape(
    expect: Ending,
    *,
    args: tuple[Any, ...] = (),
    companions: tuple[tuple[str, Workflow[..., Any], tuple[Any, ...]], ...] = (),
    script: tuple[tuple[float, Act], ...] = (),
    meanwhile: Mapping[int, Act] | None = None,
    after_a_fault: tuple[Ending, ...] = (),
) -> Callable[[Workflow[..., Any]], Workflow[..., Any]]:
    """Enter the decorated workflow into the corpus, under its own name."""

    def enter(workflow: Workflow[..., Any]) -> Workflow[..., Any]:
        assert workflow.name not in CORPUS
        CORPUS[workflow.name] = Shape(
            name=workflow.name,
            workflow=workflow,
            args=args,
            companions=companions,
            script=script,
            meanwhile=meanwhile or {},
            expect=expect,
            after_a_fault=after_a_fault,
        )
        return workflow

    return enter


def at() -> str:
    """Return the workflow time since the start, as results show it."""
    return f"+{(derecho.now() - derecho.info().start_time).total_seconds():g}s"


def timeless(value: Any) -> Any:
    """Return a result without its times: a crash may only move those."""
    if isinstance(value, str):
        return _TIME.sub("+", value)
    if isinstance(value, list | tuple):
        return [timeless(item) for item in value]
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items()}
    return value
