"""Every named query of the SQLite store uses the indexes that it names; none walks a table or sorts."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from derecho.stores._rows import COLUMNS
from derecho.stores._sql import Query, load_queries, parse_queries
from derecho.stores._sqlite_file import TABLES
from derecho.stores._sqlite_tx import QUERIES
from derecho.stores.sqlite import SQLiteStore

# A table whose key is its only index appears in plans under this name.
KEY = "PRIMARY KEY"
# Found by the number of the row itself, or not looked up at all.
BY_NUMBER = {
    "update_run",
    "advance_run",
    "update_activity",
    "delete_activity",
    "last_seq",
    "last_activity_seq",
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("plans") / "runs.db"
    SQLiteStore(path).close()
    made = sqlite3.connect(path)
    yield made
    made.close()


def plan(connection: sqlite3.Connection, query: Query) -> list[str]:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {query.text}", (1,) * len(query.names))
    return [row[3] for row in rows]


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_query_uses_its_indexes(connection: sqlite3.Connection, query: Query) -> None:
    steps = plan(connection, query)
    for index in query.indexes:
        wanted = rf"{index}\b.* USING {KEY}" if index in TABLES else rf"USING (COVERING )?INDEX {index}\b"
        assert any(re.search(wanted, step) for step in steps), steps
    used = {found for step in steps for found in re.findall(r"USING (?:COVERING )?INDEX (\w+)", step)}
    assert used <= set(query.indexes), steps


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_query_walks_no_table_and_sorts_nothing(connection: sqlite3.Connection, query: Query) -> None:
    for step in plan(connection, query):
        assert "TEMP B-TREE" not in step, step
        assert not re.match(r"SCAN (runs|journal|activities|timers|requests)$", step), step


def test_every_query_that_looks_something_up_names_an_index() -> None:
    for query in QUERIES.values():
        assert query.indexes or query.name in BY_NUMBER or query.text.startswith("INSERT"), query.name


def test_every_index_is_used_and_every_table_is_known(connection: sqlite3.Connection) -> None:
    rows = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    ).fetchall()
    tables = {name for kind, name in rows if kind == "table"}
    indexes = {name for kind, name in rows if kind == "index"}
    assert tables == set(TABLES)
    assert indexes <= {index for query in QUERIES.values() for index in query.indexes}


def test_schema_has_the_columns_of_the_rows(connection: sqlite3.Connection) -> None:
    for table, kind in (("runs", "run"), ("activities", "activity")):
        found = {column[1] for column in connection.execute(f"PRAGMA table_info({table})")}
        assert found == set(COLUMNS[kind])


def test_planner_finds_a_missing_index(tmp_path: Path) -> None:
    """The tests above can fail."""
    path = tmp_path / "runs.db"
    SQLiteStore(path).close()
    planted = sqlite3.connect(path)
    planted.execute("DROP INDEX runs_ready")
    steps = plan(planted, QUERIES["ready_runs"])
    planted.close()
    assert not any("runs_ready" in step for step in steps)


def test_file_of_queries_is_taken_apart() -> None:
    text = """-- A file.

-- name: one -- the first; uses a_id, b_id
-- A remark with a :colon.
SELECT {thing} FROM t WHERE a = :a AND b = :b AND c > :a;

-- name: two -- the second
UPDATE t SET {thing=} WHERE x = :x;

-- name: three -- the third
INSERT INTO t ({thing}) VALUES ({:thing});
"""
    one, two, three = parse_queries(text, {"thing": ("p", "q")}).values()
    assert one.text == "SELECT p, q FROM t WHERE a = ? AND b = ? AND c > ?"
    assert (one.names, one.indexes, one.what) == (("a", "b", "a"), ("a_id", "b_id"), "the first")
    assert one.args(b=2, a=1) == (1, 2, 1)
    assert (two.text, two.names, two.indexes) == (
        "UPDATE t SET p = ?, q = ? WHERE x = ?",
        ("p", "q", "x"),
        (),
    )
    assert three.text == "INSERT INTO t (p, q) VALUES (?, ?)"
    [again, *_] = parse_queries(text, {"thing": ("p",)}, mark="%s").values()
    assert again.text == "SELECT p FROM t WHERE a = %s AND b = %s AND c > %s"


def test_two_queries_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two queries are called one"):
        parse_queries("-- name: one -- x\nSELECT 1;\n-- name: one -- y\nSELECT 2;\n", {})


def test_schema_is_loaded_from_the_package() -> None:
    queries = load_queries("sqlite_001.sql", COLUMNS).values()
    assert {query.text.split()[0] for query in queries} == {"CREATE"}
