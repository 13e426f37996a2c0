-- Schema 1 of an SQLite file. Applied to files of schema 0 (new ones); later files continue from here.
--
-- Not STRICT: that word makes a file unreadable for SQLite before 3.37, and all values come from one module.
-- Numbered rows with keys beside them, not WITHOUT ROWID: new journal rows of a hundred runs then lie side by
-- side in a few pages instead of touching a hundred, and every page touched is a page written to the log. For the
-- same reason rows name their run by its number: keys of 10 bytes instead of 45 (a journal row in a group of 300:
-- 4 us, not 9).

-- name: meta -- facts about the file; the row 'derecho_schema' makes it ours
CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- name: runs -- one row for each run
CREATE TABLE runs (
    seq                INTEGER PRIMARY KEY,  -- order of creation
    run_id             TEXT NOT NULL,
    workflow_id        TEXT NOT NULL,
    workflow_type      TEXT NOT NULL,
    chain_id           TEXT NOT NULL,
    started_at_ns      INTEGER NOT NULL,
    status             INTEGER NOT NULL,  -- WorkflowStatus; open is status <= 1
    last_event_id      INTEGER NOT NULL,
    last_external_id   INTEGER NOT NULL,
    last_request_id    INTEGER NOT NULL,
    visible_through    INTEGER NOT NULL,
    task_scheduled_id  INTEGER NOT NULL,
    closed_at_ns       INTEGER NOT NULL,
    workflow_time_ns   INTEGER NOT NULL,
    token              INTEGER NOT NULL,
    commit_no          INTEGER NOT NULL,
    lease_owner        TEXT NOT NULL,
    lease_until_ns     INTEGER NOT NULL,
    sticky_until_ns    INTEGER NOT NULL,
    ready_at_ns        INTEGER NOT NULL,
    attempt            INTEGER NOT NULL,
    blocked_reason     TEXT NOT NULL,
    blocked_since_ns   INTEGER NOT NULL,
    refusals           INTEGER NOT NULL,
    refused_at_ns      INTEGER NOT NULL,
    cancel_deadline_ns INTEGER NOT NULL
);

-- name: runs_id -- a run by its id
CREATE UNIQUE INDEX runs_id ON runs (run_id);

-- name: runs_of_workflow -- all runs of a workflow id, in the order of their creation
CREATE INDEX runs_of_workflow ON runs (workflow_id);

-- name: runs_open -- a workflow id has at most one open run
CREATE UNIQUE INDEX runs_open ON runs (workflow_id) WHERE status <= 1;

-- name: runs_ready -- ready runs that nobody holds, by type, so that those nobody can run are not in the way
CREATE INDEX runs_ready ON runs (workflow_type, ready_at_ns)
    WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns = 0;

-- name: runs_leased -- ready runs that a worker holds: they come back when the lease runs out
CREATE INDEX runs_leased ON runs (lease_until_ns)
    WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns > 0;

-- name: runs_cancel -- cancel requests with a deadline
CREATE INDEX runs_cancel ON runs (cancel_deadline_ns) WHERE status <= 1 AND cancel_deadline_ns > 0;

-- name: runs_listed -- the listing, newest first
CREATE INDEX runs_listed ON runs (started_at_ns, run_id);

-- name: journal -- one row for each append, with all its events
CREATE TABLE journal (
    seq      INTEGER PRIMARY KEY,
    run      INTEGER NOT NULL,  -- runs.seq
    first_id INTEGER NOT NULL,
    last_id  INTEGER NOT NULL,
    is_task  INTEGER NOT NULL,  -- written by a workflow task
    body     BLOB NOT NULL      -- derecho.journal.codec.encode_row
);

-- name: journal_id -- a journal from any event on
CREATE UNIQUE INDEX journal_id ON journal (run, last_id);

-- name: activities -- one row for each activity without an outcome
CREATE TABLE activities (
    seq               INTEGER PRIMARY KEY,
    run               INTEGER NOT NULL,  -- runs.seq
    scheduled_id      INTEGER NOT NULL,
    run_id            TEXT NOT NULL,
    workflow_id       TEXT NOT NULL,
    name              TEXT NOT NULL,
    input             BLOB NOT NULL,
    scheduled_at_ns   INTEGER NOT NULL,
    retry_policy      TEXT NOT NULL,  -- JSON; empty = none
    start_deadline_ns INTEGER NOT NULL,
    close_deadline_ns INTEGER NOT NULL,
    start_to_close_ns INTEGER NOT NULL,
    heartbeat_ns      INTEGER NOT NULL,
    claimed           INTEGER NOT NULL,
    attempt           INTEGER NOT NULL,
    lost              INTEGER NOT NULL,
    token             INTEGER NOT NULL,
    lease_owner       TEXT NOT NULL,
    lease_until_ns    INTEGER NOT NULL,
    not_before_ns     INTEGER NOT NULL,
    started_at_ns     INTEGER NOT NULL,
    heartbeat_at_ns   INTEGER NOT NULL,
    heartbeat_details BLOB NOT NULL,
    cancel_requested  INTEGER NOT NULL,
    due_ns            INTEGER NOT NULL
);

-- name: activities_id -- an activity by its run and event
CREATE UNIQUE INDEX activities_id ON activities (run, scheduled_id);

-- name: activities_waiting -- activities to claim, by name
CREATE INDEX activities_waiting ON activities (name, not_before_ns) WHERE claimed = 0;

-- name: activities_due -- activities that the timeout worker has to look at
CREATE INDEX activities_due ON activities (due_ns) WHERE due_ns > 0;

-- name: timers -- one row for each started timer
CREATE TABLE timers (
    run          INTEGER NOT NULL,  -- runs.seq
    scheduled_id INTEGER NOT NULL,
    due_ns       INTEGER NOT NULL,
    PRIMARY KEY (run, scheduled_id)
) WITHOUT ROWID;

-- name: timers_due -- timers by their moment
CREATE INDEX timers_due ON timers (due_ns);

-- name: requests -- what a request was answered with
CREATE TABLE requests (
    workflow_id TEXT NOT NULL,
    operation   TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    run_id      TEXT NOT NULL,
    PRIMARY KEY (workflow_id, operation, request_id)
) WITHOUT ROWID;
