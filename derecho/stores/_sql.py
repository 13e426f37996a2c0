"""Named queries: SQL that lives in .sql files, and how it becomes text that a driver takes.

A file holds queries one after another. Each begins with a header and may go on with comments:

    -- name: open_run -- the open run of a workflow id; uses runs_open
    SELECT {run} FROM runs WHERE workflow_id = :workflow_id AND status <= 1;

What is between braces stands for the columns of a kind of row: `{run}` lists them, `{:run}` lists the
parameters of the same names, `{run=}` lists assignments. A parameter is `:name` in the file; here it becomes
the mark of the driver, one for each appearance, and `Query.args` puts values in that order. So a second
database shares these texts and brings its own mark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

_HEADER: Final = re.compile(
    r"^-- name: (?P<name>\w+) -- (?P<what>.+?)(?:; uses (?P<indexes>[\w, ]+))?$", re.MULTILINE
)
_COLUMNS: Final = re.compile(r"\{(?P<before>:?)(?P<kind>\w+)(?P<after>=?)\}")
_PARAMETER: Final = re.compile(r"(?<!:):(\w+)")
_COMMENT: Final = re.compile(r"^\s*--.*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """One named query, ready for the driver.

    Attributes:
        what: what it does, in a few words.
        text: the SQL, with the driver's marks.
        names: the parameters in the order of their marks; one that appears twice is there twice.
        indexes: the indexes that it must use; a test asks the planner.
    """

    name: str
    what: str
    text: str
    names: tuple[str, ...]
    indexes: tuple[str, ...]

    def args(self, **values: Any) -> tuple[Any, ...]:
        """Put named values in the order of the marks."""
        return tuple([values[name] for name in self.names])


def load_queries(file: str, columns: Mapping[str, Sequence[str]], mark: str = "?") -> dict[str, Query]:
    """Read the queries of `sql/<file>` by name, in the order of the file.

    Args:
        columns: what may stand between braces.
        mark: how the driver writes a parameter.
    """
    text = resources.files("derecho.stores").joinpath("sql", file).read_text(encoding="utf-8")
    return parse_queries(text, columns, mark)


def parse_queries(text: str, columns: Mapping[str, Sequence[str]], mark: str = "?") -> dict[str, Query]:
    """Take a file of queries apart.

    Raises:
        ValueError: a name is there twice.
    """
    queries: dict[str, Query] = {}
    headers = list(_HEADER.finditer(text))
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=True):
        body = _COLUMNS.sub(
            lambda found: _listed(found, columns), _COMMENT.sub("", text[header.end() + 1 : end])
        )
        name = header["name"]
        if name in queries:
            raise ValueError(f"two queries are called {name}")
        queries[name] = Query(
            name=name,
            what=header["what"],
            text=_PARAMETER.sub(mark, body).strip().removesuffix(";"),
            names=tuple(_PARAMETER.findall(body)),
            indexes=tuple((header["indexes"] or "").replace(",", " ").split()),
        )
    return queries


def _listed(found: re.Match[str], columns: Mapping[str, Sequence[str]]) -> str:
    names = columns[found["kind"]]
    if found["before"]:
        return ", ".join(f":{name}" for name in names)
    if found["after"]:
        return ", ".join(f"{name} = :{name}" for name in names)
    return ", ".join(names)
