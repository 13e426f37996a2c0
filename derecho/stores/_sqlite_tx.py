"""The transaction of the SQLite store: a unit of work over one connection.

Rows are read through images of what this process knows, and written to them; what changed goes to the
database at the end of the group, each table with one `executemany`. A scan (what is ready, what is due) is
asked of the database, so it first writes out what is pending in the tables that it reads.

Images outlive the group. This process has one writer for the file, so a row it knows can only be changed by
another connection, and `PRAGMA data_version` tells of that under the lock: then everything known is
forgotten. That saves the reads of a step (a claim, a commit and an outcome read five rows, 6 us each).

Images hold tuples, not rows: a verb gets a row of its own, and what it does to it counts when it is saved.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from derecho.journal.codec import encode_row
from derecho.journal.commit import WorkflowStatus
from derecho.journal.events import Event
from derecho.stores._rows import (
    ACTIVITY_FIXED_COUNT,
    COLUMNS,
    RUN_FIXED_COUNT,
    Columns,
    activity_columns,
    activity_from,
    activity_state,
    run_columns,
    run_from,
)
from derecho.stores._sql import load_queries
from derecho.stores.base import ActivityRow, RunRow, TimerRow

QUERIES: Final = load_queries("queries.sql", COLUMNS)
IMAGES_MAX: Final = 8192
_POLICIES_MAX: Final = 256

_TEXT: Final = {name: query.text for name, query in QUERIES.items()}
# What comes first: by moment, and then by age.
_READY_AT: Final = itemgetter(COLUMNS["run"].index("ready_at_ns"), 0)
_NOT_BEFORE: Final = itemgetter(COLUMNS["activity"].index("not_before_ns"), 0)
_POLICY: Final = COLUMNS["activity"].index("retry_policy")
_STATUS: Final = COLUMNS["run"].index("status")
_CANCEL: Final = COLUMNS["run"].index("cancel_deadline_ns")
_PROGRESS: Final = RUN_FIXED_COUNT + 2
_OPEN_MAX: Final = int(WorkflowStatus.CANCELLING)


class Image:
    """What is known of one run.

    Attributes:
        row: its columns; empty = not known.
        moved: whether a change is pending that is more than `advance_run` writes.
        activities: the columns of its activities that are known, by scheduled id.
        whole: whether it was created here, so that these are all it has.
        timers: whether a whole run may have timers.
    """

    __slots__ = ("activities", "moved", "row", "timers", "whole")

    def __init__(self, row: Columns = (), *, whole: bool = False) -> None:
        self.row = row
        self.moved = False
        self.activities: dict[int, Columns] = {}
        self.whole = whole
        self.timers = False


class SQLiteTx:
    """`derecho.stores.base.Tx` over the one writing connection of a file.

    Attributes:
        now_ns: the clock of the store whose verb runs.
        writes: grows with every write, also one that is only pending.
        rings: topics to ring after the commit.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.now_ns = 0
        self.writes = 0
        self.rings: dict[str, None] = {}
        self._connection = connection
        self._execute = connection.cursor().execute
        self._execute_many = connection.cursor().executemany
        self._policies: dict[str, Mapping[str, Any]] = {}
        self._forget()

    def _forget(self) -> None:
        self._images: dict[str, Image] = {}
        self._open_id: dict[str, str | None] = {}  # The open run of a workflow id, as far as known.
        self._last_seq = 0
        self._new_runs: dict[str, Image] = {}
        self._changed_runs: dict[str, Image] = {}
        self._journal: list[Columns] = []
        self._requests: dict[tuple[str, str, str], str] = {}
        self._last_activity_seq = 0
        self._new_activities: dict[int, Columns] = {}
        self._changed_activities: dict[int, Columns] = {}
        self._gone_activities: dict[tuple[int, int], int] = {}
        self._new_timers: dict[tuple[int, int], int] = {}

    # The group.

    def forget(self) -> None:
        """Drop all that is known and pending: a rollback, or another connection has written."""
        self._forget()

    def flush(self) -> None:
        """Write out all that is pending; the last thing before the commit."""
        self._flush_runs()
        if self._journal:
            self._execute_many(_TEXT["insert_journal"], self._journal)
            self._journal = []
        if self._requests:
            pending = [(*request, run_id) for request, run_id in self._requests.items()]
            self._execute_many(_TEXT["insert_request"], pending)
            self._requests = {}
        self._flush_activities()
        self._flush_timers()

    def trim(self) -> None:
        """Keep what is known small; only between groups, when nothing is pending."""
        surplus = len(self._images) - IMAGES_MAX
        if surplus > 0:
            for run_id in list(islice(self._images, surplus)):
                del self._images[run_id]
        if len(self._open_id) > 2 * IMAGES_MAX:
            self._open_id = {}

    def _flush_runs(self) -> None:
        # Changes first: a closed run makes room for the next one of its workflow id.
        if self._changed_runs:
            moved = []
            advanced = []
            for image in self._changed_runs.values():
                columns = image.row
                if image.moved:
                    moved.append(columns[RUN_FIXED_COUNT:] + columns[:1])
                    image.moved = False
                else:
                    advanced.append(columns[_PROGRESS:] + columns[:1])
            self._execute_many(_TEXT["update_run"], moved)
            self._execute_many(_TEXT["advance_run"], advanced)
            self._changed_runs = {}
        if self._new_runs:
            self._execute_many(_TEXT["insert_run"], [image.row for image in self._new_runs.values()])
            self._new_runs = {}

    def _flush_activities(self) -> None:
        if self._gone_activities:
            self._execute_many(_TEXT["delete_activity"], [(seq,) for seq in self._gone_activities.values()])
            self._gone_activities = {}
        if self._changed_activities:
            fixed = ACTIVITY_FIXED_COUNT
            changed = [columns[fixed:] + columns[:1] for columns in self._changed_activities.values()]
            self._execute_many(_TEXT["update_activity"], changed)
            self._changed_activities = {}
        if self._new_activities:
            self._execute_many(_TEXT["insert_activity"], list(self._new_activities.values()))
            self._new_activities = {}

    def _flush_timers(self) -> None:
        if self._new_timers:
            pending = [(*key, due_ns) for key, due_ns in self._new_timers.items()]
            self._execute_many(_TEXT["insert_timer"], pending)
            self._new_timers = {}

    # Runs.

    def run(self, run_id: str) -> RunRow | None:
        image = self._images.get(run_id)
        if image is not None and image.row:
            return run_from(image.row)
        return self._one_run("run", (run_id,))

    def open_run(self, workflow_id: str) -> RunRow | None:
        if workflow_id in self._open_id:
            run_id = self._open_id[workflow_id]
            return None if run_id is None else self.run(run_id)
        # Nothing pending can matter: a run that was created or closed here has its workflow id in `_open_id`.
        row = self._one_run("open_run", (workflow_id,))
        self._open_id[workflow_id] = None if row is None else row.run_id
        return row

    def newest_run(self, workflow_id: str) -> RunRow | None:
        self._flush_runs()
        return self._one_run("newest_run", (workflow_id,))

    def insert_run(self, row: RunRow) -> None:
        self.writes += 1
        if not self._last_seq:
            [self._last_seq] = self._execute(_TEXT["last_seq"]).fetchone()
        self._last_seq += 1
        image = Image(run_columns(row, self._last_seq), whole=True)
        self._images[row.run_id] = self._new_runs[row.run_id] = image
        if row.status <= _OPEN_MAX:
            self._open_id[row.workflow_id] = row.run_id

    def save_run(self, row: RunRow) -> None:
        self.writes += 1
        run_id = row.run_id
        image = self._images[run_id]
        was = image.row
        image.row = now = run_columns(row, was[0])
        if run_id not in self._new_runs:
            self._changed_runs[run_id] = image
            if now[_STATUS] != was[_STATUS] or now[_CANCEL] != was[_CANCEL]:
                image.moved = True
        if row.status > _OPEN_MAX and self._open_id.get(row.workflow_id, run_id) == run_id:
            self._open_id[row.workflow_id] = None

    def ready_runs(
        self, worker_id: str, names: Collection[str] | None, limit: int, passed_over: Collection[str]
    ) -> list[RunRow]:
        self._flush_runs()
        wanted = [
            workflow_type
            for [workflow_type] in self._execute(_TEXT["ready_types"]).fetchall()
            if names is None or workflow_type in names
        ]
        found = [self._abandoned_runs(worker_id, names, limit, passed_over)]
        for workflow_type in wanted:
            rows = self._connection.execute(_TEXT["ready_runs"], (workflow_type, self.now_ns, worker_id))
            found.append(list(islice((row for row in rows if row[1] not in passed_over), limit)))
        longest_first = islice(merge(*found, key=_READY_AT), limit)
        return [self._known_run(columns) for columns in longest_first]

    def _abandoned_runs(
        self, worker_id: str, names: Collection[str] | None, limit: int, passed_over: Collection[str]
    ) -> list[Columns]:
        rows = self._connection.execute(_TEXT["abandoned_runs"], (self.now_ns, self.now_ns, worker_id))
        fitting = (row for row in rows if (names is None or row[3] in names) and row[1] not in passed_over)
        return sorted(islice(fitting, limit), key=_READY_AT)

    def cancels_due(self, limit: int) -> list[RunRow]:
        self._flush_runs()
        rows = self._execute(_TEXT["cancels_due"], (self.now_ns, limit)).fetchall()
        return [self._known_run(columns) for columns in rows]

    def _one_run(self, query: str, args: Columns) -> RunRow | None:
        columns = self._execute(_TEXT[query], args).fetchone()
        return None if columns is None else self._known_run(columns)

    def _known_run(self, columns: Columns) -> RunRow:
        """Keep a row that was read. What is known already is the same or newer: it may be pending."""
        image = self._image(columns[1])
        if not image.row:
            image.row = columns
        return run_from(image.row)

    def _image(self, run_id: str) -> Image:
        image = self._images.get(run_id)
        if image is None:
            image = self._images[run_id] = Image()
        return image

    # Journals and requests.

    def append(self, run_id: str, events: Sequence[Event], *, is_task: bool) -> None:
        body = encode_row(events)
        self.writes += 1
        self._journal.append(
            (self._images[run_id].row[0], events[0].id, events[-1].id, 1 if is_task else 0, body)
        )

    def request(self, workflow_id: str, operation: str, request_id: str) -> str | None:
        request = (workflow_id, operation, request_id)
        pending = self._requests.get(request)
        if pending is not None:
            return pending
        found = self._execute(_TEXT["request"], request).fetchone()
        return None if found is None else found[0]

    def insert_request(self, workflow_id: str, operation: str, request_id: str, run_id: str) -> None:
        self.writes += 1
        self._requests[workflow_id, operation, request_id] = run_id

    # Activities.

    def insert_activities(self, rows: Sequence[ActivityRow]) -> None:
        self.writes += 1
        if not self._last_activity_seq:
            [self._last_activity_seq] = self._execute(_TEXT["last_activity_seq"]).fetchone()
        for row in rows:
            self._last_activity_seq = seq = self._last_activity_seq + 1
            image = self._images[row.run_id]
            policy = "" if row.retry_policy is None else json.dumps(row.retry_policy, separators=(",", ":"))
            columns = activity_columns(row, seq, image.row[0], policy)
            self._new_activities[seq] = image.activities[row.scheduled_id] = columns

    def activity(self, run_id: str, scheduled_id: int) -> ActivityRow | None:
        image = self._images.get(run_id)
        if image is None or not image.row:
            if self.run(run_id) is None:
                return None
            image = self._images[run_id]
        columns = image.activities.get(scheduled_id)
        if columns is None:
            key = (image.row[0], scheduled_id)
            if image.whole or key in self._gone_activities:
                return None
            columns = self._execute(_TEXT["activity"], key).fetchone()
            if columns is None:
                return None
            image.activities[scheduled_id] = columns
        return activity_from(columns, self._policy(columns[_POLICY]))

    def save_activity(self, row: ActivityRow) -> None:
        self.writes += 1
        activities = self._images[row.run_id].activities
        columns = activities[row.scheduled_id][:ACTIVITY_FIXED_COUNT] + activity_state(row)
        activities[row.scheduled_id] = columns
        seq = columns[0]
        if seq in self._new_activities:
            self._new_activities[seq] = columns
        else:
            self._changed_activities[seq] = columns

    def delete_activity(self, row: ActivityRow) -> None:
        self.writes += 1
        self._drop_activity(self._images[row.run_id], row.scheduled_id)

    def _drop_activity(self, image: Image, scheduled_id: int) -> None:
        seq, run = image.activities.pop(scheduled_id)[:2]
        self._changed_activities.pop(seq, None)
        if self._new_activities.pop(seq, None) is None:
            self._gone_activities[run, scheduled_id] = seq

    def ready_activities(self, names: Collection[str] | None, limit: int) -> list[ActivityRow]:
        self._flush_activities()
        found = []
        for name, first_ns in self._execute(_TEXT["waiting_names"]).fetchall():
            if first_ns <= self.now_ns and (names is None or name in names):
                found.append(self._execute(_TEXT["ready_activities"], (name, self.now_ns, limit)).fetchall())
        return [self._known_activity(columns) for columns in islice(merge(*found, key=_NOT_BEFORE), limit)]

    def due_activities(self, limit: int) -> list[ActivityRow]:
        self._flush_activities()
        rows = self._execute(_TEXT["due_activities"], (self.now_ns, limit)).fetchall()
        return [self._known_activity(columns) for columns in rows]

    def _known_activity(self, columns: Columns) -> ActivityRow:
        self._image(columns[3]).activities[columns[2]] = columns
        return activity_from(columns, self._policy(columns[_POLICY]))

    def _policy(self, text: str) -> Mapping[str, Any] | None:
        """Decode a retry policy; there are few, and nobody changes one."""
        policy = self._policies.get(text)
        if policy is None and text:
            if len(self._policies) >= _POLICIES_MAX:
                self._policies = {}
            policy = self._policies[text] = json.loads(text)
        return policy

    # Timers.

    def insert_timers(self, rows: Sequence[TimerRow]) -> None:
        self.writes += 1
        for row in rows:
            image = self._images[row.run_id]
            image.timers = True
            self._new_timers[image.row[0], row.scheduled_id] = row.due_ns

    def due_timers(self, limit: int) -> list[TimerRow]:
        self._flush_runs()
        self._flush_timers()
        rows = self._execute(_TEXT["due_timers"], (self.now_ns, limit)).fetchall()
        return [
            TimerRow(run_id=run_id, scheduled_id=number, due_ns=due_ns) for run_id, number, due_ns in rows
        ]

    def delete_timer(self, run_id: str, scheduled_id: int) -> bool:
        self.writes += 1
        key = (self._images[run_id].row[0], scheduled_id)
        if self._new_timers.pop(key, None) is not None:
            return True
        return self._execute(_TEXT["delete_timer"], key).rowcount == 1

    def delete_work(self, run_id: str) -> None:
        self.writes += 1
        image = self._images[run_id]
        run = image.row[:1]
        if image.whole:
            for scheduled_id in list(image.activities):
                self._drop_activity(image, scheduled_id)
        else:
            self._flush_activities()
            self._execute(_TEXT["delete_activities"], run)
            image.activities = {}
        if image.timers or not image.whole:
            self._flush_timers()
            self._execute(_TEXT["delete_timers"], run)

    # The bell.

    def ring(self, topic: str) -> None:
        self.rings[topic] = None
