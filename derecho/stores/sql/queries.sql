-- Every query of a store that speaks SQL. See derecho/stores/_sql.py for how this file is written.
-- Written for SQLite 3.35; what another database says differently goes into a file of its own.

-- name: run -- a run by its id; uses runs_id
SELECT {run} FROM runs WHERE run_id = :run_id;

-- name: open_run -- the open run of a workflow id; uses runs_open
SELECT {run} FROM runs WHERE workflow_id = :workflow_id AND status <= 1;

-- name: newest_run -- the newest run of a workflow id, open or closed; uses runs_of_workflow
SELECT {run} FROM runs WHERE workflow_id = :workflow_id ORDER BY seq DESC LIMIT 1;

-- name: insert_run -- a new run
INSERT INTO runs ({run}) VALUES ({:run});

-- name: last_seq -- the number of the newest run
SELECT coalesce(max(seq), 0) FROM runs;

-- name: update_run -- all of a run that may change
UPDATE runs SET {run_state=} WHERE seq = :seq;

-- name: advance_run -- what changes at each step of an open run
UPDATE runs SET {run_progress=} WHERE seq = :seq;

-- name: ready_types -- the types of ready runs that nobody holds; uses runs_ready
-- One step of the index for each type.
WITH RECURSIVE ready (type) AS (
    SELECT min(workflow_type) FROM runs
    WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns = 0
    UNION ALL
    SELECT (
        SELECT min(workflow_type) FROM runs
        WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns = 0
            AND workflow_type > type
    ) FROM ready WHERE type IS NOT NULL
)
SELECT type FROM ready WHERE type IS NOT NULL;

-- name: ready_runs -- ready runs of a type that nobody holds, longest ready first; uses runs_ready
SELECT {run} FROM runs
WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns = 0
    AND workflow_type = :workflow_type
    AND (sticky_until_ns <= :now_ns OR lease_owner = :worker_id)
ORDER BY ready_at_ns, seq;

-- name: abandoned_runs -- ready runs whose lease ran out; uses runs_leased
SELECT {run} FROM runs
WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns > 0 AND lease_until_ns <= :now_ns
    AND (sticky_until_ns <= :now_ns OR lease_owner = :worker_id)
ORDER BY lease_until_ns, seq;

-- name: cancels_due -- open runs whose cancel request ran out of time; uses runs_cancel
SELECT {run} FROM runs
WHERE status <= 1 AND cancel_deadline_ns > 0 AND cancel_deadline_ns <= :now_ns
ORDER BY cancel_deadline_ns, seq LIMIT :limit;

-- name: insert_journal -- one append
INSERT INTO journal (run, first_id, last_id, is_task, body)
VALUES (:run, :first_id, :last_id, :is_task, :body);

-- name: journal -- a journal from an event on; uses journal_id, runs_id
SELECT first_id, last_id, body FROM journal
WHERE run = (SELECT seq FROM runs WHERE run_id = :run_id) AND last_id > :after_id
ORDER BY last_id LIMIT :limit;

-- name: journal_external -- what no workflow task wrote, from an event on; uses journal_id, runs_id
SELECT first_id, last_id, body FROM journal
WHERE run = (SELECT seq FROM runs WHERE run_id = :run_id) AND last_id > :after_id AND is_task = 0
ORDER BY last_id LIMIT :limit;

-- name: request -- what a request was answered with; uses requests
SELECT run_id FROM requests
WHERE workflow_id = :workflow_id AND operation = :operation AND request_id = :request_id;

-- name: insert_request -- the answer to a request
INSERT INTO requests (workflow_id, operation, request_id, run_id)
VALUES (:workflow_id, :operation, :request_id, :run_id);

-- name: activity -- an activity by its run and event; uses activities_id
SELECT {activity} FROM activities WHERE run = :run AND scheduled_id = :scheduled_id;

-- name: insert_activity -- a new activity
INSERT INTO activities ({activity}) VALUES ({:activity});

-- name: last_activity_seq -- the number of the newest activity
SELECT coalesce(max(seq), 0) FROM activities;

-- name: update_activity -- all of an activity that may change
UPDATE activities SET {activity_state=} WHERE seq = :seq;

-- name: delete_activity -- an activity whose outcome is recorded
DELETE FROM activities WHERE seq = :seq;

-- name: delete_activities -- all activities of a run that closes; uses activities_id
DELETE FROM activities WHERE run = :run;

-- name: waiting_names -- the names of activities to claim, with their first moments; uses activities_waiting
WITH RECURSIVE waiting (name) AS (
    SELECT min(name) FROM activities WHERE claimed = 0
    UNION ALL
    SELECT (SELECT min(a.name) FROM activities AS a WHERE a.claimed = 0 AND a.name > waiting.name)
    FROM waiting WHERE name IS NOT NULL
)
SELECT name, (SELECT min(not_before_ns) FROM activities AS a WHERE a.claimed = 0 AND a.name = waiting.name)
FROM waiting WHERE name IS NOT NULL;

-- name: ready_activities -- activities of a name to claim, longest due first; uses activities_waiting
SELECT {activity} FROM activities
WHERE claimed = 0 AND name = :name AND not_before_ns <= :now_ns
ORDER BY not_before_ns, seq LIMIT :limit;

-- name: due_activities -- activities whose due moment has come, longest due first; uses activities_due
SELECT {activity} FROM activities WHERE due_ns > 0 AND due_ns <= :now_ns ORDER BY due_ns, seq LIMIT :limit;

-- name: insert_timer -- a new timer
INSERT INTO timers (run, scheduled_id, due_ns) VALUES (:run, :scheduled_id, :due_ns);

-- name: due_timers -- timers whose moment has come, by that moment; uses timers_due
SELECT r.run_id, t.scheduled_id, t.due_ns FROM timers AS t JOIN runs AS r ON r.seq = t.run
WHERE t.due_ns <= :now_ns
ORDER BY t.due_ns, t.run, t.scheduled_id LIMIT :limit;

-- name: delete_timer -- a timer that fired or was cancelled; uses timers
DELETE FROM timers WHERE run = :run AND scheduled_id = :scheduled_id;

-- name: delete_timers -- all timers of a run that closes; uses timers
DELETE FROM timers WHERE run = :run;

-- name: next_due -- the next moments of work; uses runs_ready, runs_leased, activities_due, timers_due, runs_cancel
SELECT
    (SELECT ready_at_ns FROM runs
     WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns = 0
         AND (sticky_until_ns <= :now_ns OR lease_owner = :worker_id) LIMIT 1),
    (SELECT min(sticky_until_ns) FROM runs
     WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns = 0
         AND sticky_until_ns > :now_ns AND lease_owner <> :worker_id),
    (SELECT min(lease_until_ns) FROM runs
     WHERE status <= 1 AND last_external_id > visible_through AND lease_until_ns > 0),
    (SELECT min(due_ns) FROM timers),
    (SELECT min(due_ns) FROM activities WHERE due_ns > 0),
    (SELECT min(cancel_deadline_ns) FROM runs WHERE status <= 1 AND cancel_deadline_ns > 0);

-- name: list_runs -- a page of all runs, newest first; uses runs_listed
SELECT {run} FROM runs WHERE (started_at_ns, run_id) < (:started_at_ns, :run_id)
ORDER BY started_at_ns DESC, run_id DESC LIMIT :limit;

-- name: runs_of_workflow -- the runs of a workflow id; uses runs_of_workflow
SELECT {run} FROM runs WHERE workflow_id = :workflow_id ORDER BY seq;

-- name: window -- the last of the next so many runs of the listing; uses runs_listed
SELECT started_at_ns, run_id FROM runs WHERE (started_at_ns, run_id) < (:started_at_ns, :run_id)
ORDER BY started_at_ns DESC, run_id DESC LIMIT 1 OFFSET :offset;

-- name: list_matching -- those runs of a window that match, newest first; uses runs_listed
SELECT {run} FROM runs
WHERE (started_at_ns, run_id) < (:started_at_ns, :run_id)
    AND (started_at_ns, run_id) >= (:until_ns, :until_id)
    AND (:any_type OR workflow_type = :workflow_type) AND (:any_status OR status = :status)
ORDER BY started_at_ns DESC, run_id DESC LIMIT :limit;

-- name: count_matching -- how many runs of a window match; uses runs_listed
SELECT count(*) FROM runs
WHERE (started_at_ns, run_id) < (:started_at_ns, :run_id)
    AND (started_at_ns, run_id) >= (:until_ns, :until_id)
    AND (:any_type OR workflow_type = :workflow_type) AND (:any_status OR status = :status);

-- name: count_all -- how many runs there are; uses runs_of_workflow
SELECT count(*) FROM runs;
