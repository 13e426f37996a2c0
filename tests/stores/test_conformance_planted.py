"""The suite can fail: each bug planted here turns the case red that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from derecho.journal import commit
from derecho.journal.commit import WorkflowStatus
from derecho.journal.events import TimerScheduled
from derecho.stores import attempts, memory, transactions, work
from derecho.stores._memory_tx import Tables
from derecho.stores.base import CommitOutcome, LeaseState, RunFilter, TimerRow
from derecho.stores.memory import MemoryStore
from derecho.testing import ConformanceError, check_store

Patch = pytest.MonkeyPatch
PLANTED: dict[str, tuple[Callable[[Patch], None], str]] = {}


def caught_by(case: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a bug under the name of the function that plants it, with the case that must see it."""

    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        PLANTED[plant.__name__] = (plant, case)
        return plant

    return register


def wrap(patch: Patch, owner: object, name: str, wrapper: Callable[..., object]) -> None:
    """Replace a function by `wrapper(original, *args)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: wrapper(original, *args, **kwargs))


# --- fences ---------------------------------------------------------------------------------------


@caught_by("commits.a_worker_that_lost_its_lease_is_fenced")
def commit_ignores_the_token(patch: Patch) -> None:
    def commit_task(real, tx, commit):
        row = tx.run(commit.run_id)
        return real(tx, replace(commit, token=row.token) if row else commit)

    wrap(patch, transactions, "commit_task", commit_task)


@caught_by("commits.a_task_is_committed_once")
def commit_ignores_the_commit_no(patch: Patch) -> None:
    def commit_task(real, tx, commit):
        row = tx.run(commit.run_id)
        return real(tx, replace(commit, commit_no=row.commit_no) if row else commit)

    wrap(patch, transactions, "commit_task", commit_task)


@caught_by("commits.a_worker_that_lost_its_lease_is_fenced")
def claim_does_not_grow_the_token(patch: Patch) -> None:
    def claim_runs(real, tx, *args):
        claims = real(tx, *args)
        for claim in claims:
            claim.run.token = 1
            tx.save_run(claim.run)
        return claims

    wrap(patch, transactions, "claim_runs", claim_runs)


@caught_by("runs.nothing_reaches_a_closed_run")
def closed_runs_take_events(patch: Patch) -> None:
    def open_run(tx, workflow_id):
        row = tx.newest_run(workflow_id)
        if row is not None:
            row.status = WorkflowStatus.RUNNING
        return row

    patch.setattr(Tables, "open_run", open_run)


@caught_by("commits.a_closed_run_takes_no_commit")
def closed_runs_take_commits(patch: Patch) -> None:
    def run(real, tx, run_id):
        row = real(tx, run_id)
        if row is not None and row.status is WorkflowStatus.TERMINATED:
            row.status, row.token, row.task_scheduled_id = WorkflowStatus.RUNNING, row.token - 1, 2
        return row

    wrap(patch, Tables, "run", run)


@caught_by("attempting.a_late_result_of_an_old_attempt_changes_nothing")
def activities_ignore_the_token(patch: Patch) -> None:
    def held(tx, attempt):
        row = tx.activity(attempt.run_id, attempt.scheduled_id)
        return row if row is not None and row.claimed else None

    patch.setattr(work, "_held", held)


@caught_by("attempting.a_late_result_of_an_old_attempt_changes_nothing")
def waiting_activities_take_results(patch: Patch) -> None:
    patch.setattr(work, "_held", lambda tx, attempt: tx.activity(attempt.run_id, attempt.scheduled_id))


@caught_by("claiming.a_lost_lease_cannot_be_renewed")
def renewal_ignores_the_token(patch: Patch) -> None:
    def renew_runs(real, tx, held, lease_ns):
        current = [(run_id, row.token if (row := tx.run(run_id)) else token) for run_id, token in held]
        return real(tx, current, lease_ns)

    wrap(patch, transactions, "renew_runs", renew_runs)


@caught_by("claiming.only_the_current_claim_can_be_released")
def release_ignores_the_token(patch: Patch) -> None:
    def release_runs(real, tx, held):
        real(tx, [(run_id, row.token if (row := tx.run(run_id)) else token) for run_id, token in held])

    wrap(patch, transactions, "release_runs", release_runs)


@caught_by("claiming.only_the_current_claim_can_fail")
def task_failure_ignores_the_token(patch: Patch) -> None:
    def fail_task(real, tx, run_id, token, reason):
        row = tx.run(run_id)
        return real(tx, run_id, row.token if row else token, reason)

    wrap(patch, transactions, "fail_task", fail_task)


@caught_by("claiming.a_committed_task_holds_no_lease")
def renewal_takes_back_what_was_let_go_of(patch: Patch) -> None:
    def renew_runs(real, tx, held, lease_ns):
        for run_id, token in held:
            row = tx.run(run_id)
            if row is not None and row.token == token and row.status.is_open:
                row.lease_until_ns = row.lease_until_ns or 1
                tx.save_run(row)
        return real(tx, held, lease_ns)

    wrap(patch, transactions, "renew_runs", renew_runs)


@caught_by("commits.a_fenced_member_does_not_fail_the_others")
def a_fenced_member_fails_its_group(patch: Patch) -> None:
    def commit_tasks(real, store, commits):
        fenced = [c for c in commits if (row := store._tables.run(c.run_id)) is None or row.token != c.token]
        if fenced:
            return [transactions.Committed(outcome=CommitOutcome.FENCED) for _ in commits]
        return real(store, commits)

    wrap(patch, MemoryStore, "commit_tasks", commit_tasks)


# --- claims ---------------------------------------------------------------------------------------


@caught_by("claiming.a_claimed_run_is_not_claimed_again")
def claims_take_no_lease(patch: Patch) -> None:
    wrap(patch, transactions, "claim_runs", lambda real, tx, w, n, k, lease_ns, p: real(tx, w, n, k, 0, p))


@caught_by("claiming.a_lease_that_runs_out_is_anyones")
def leases_never_run_out(patch: Patch) -> None:
    patch.setattr(Tables, "_let_go", lambda tables, release: None)


@caught_by("claiming.a_worker_is_given_only_what_it_knows")
def claims_take_any_type(patch: Patch) -> None:
    wrap(patch, Tables, "ready_runs", lambda real, tx, w, names, limit, p: real(tx, w, None, limit, p))


@caught_by("claiming.a_worker_may_pass_over_runs")
def claims_pass_over_nothing(patch: Patch) -> None:
    wrap(patch, Tables, "ready_runs", lambda real, tx, w, names, limit, p: real(tx, w, names, limit, ()))


@caught_by("claiming.a_claim_takes_no_more_than_its_limit")
def claims_know_no_limit(patch: Patch) -> None:
    wrap(patch, Tables, "ready_runs", lambda real, tx, w, names, limit, p: real(tx, w, names, 1000, p))


@caught_by("claiming.a_run_prefers_the_worker_that_holds_it_live")
def no_worker_is_preferred(patch: Patch) -> None:
    patch.setattr(transactions, "STICKY_NS", 0)


@caught_by("claiming.nobody_waits_long_for_a_preferred_worker")
def a_worker_is_preferred_for_ever(patch: Patch) -> None:
    patch.setattr(transactions, "STICKY_NS", 10**15)


@caught_by("claiming.runs_are_claimed_longest_ready_first")
def what_arrives_sends_a_run_to_the_end(patch: Patch) -> None:
    def arrive(real, tx, row, arrived):
        row.ready_at_ns = tx.now_ns
        real(tx, row, arrived)

    wrap(patch, transactions, "arrive", arrive)


@caught_by("claiming.a_released_run_is_anyones_at_once")
def a_released_run_stays_leased(patch: Patch) -> None:
    patch.setattr(transactions, "_let_go", lambda row: None)


# --- signals and commits --------------------------------------------------------------------------


@caught_by("signals.a_signal_that_arrives_during_the_closing_task_is_not_lost")
def a_task_closes_whatever_is_unseen(patch: Patch) -> None:
    patch.setattr(transactions, "refuses_close", lambda head, task: False)


@caught_by("signals.a_storm_of_signals_cannot_keep_a_run_open")
def a_closing_run_takes_all_signals(patch: Patch) -> None:
    patch.setattr(transactions, "CLOSE_REFUSALS_MAX", 10**9)


@caught_by("signals.a_signal_during_a_task_is_left_to_the_next")
def a_task_is_taken_to_have_seen_everything(patch: Patch) -> None:
    def append_task(real, head, task, delivered):
        return real(head, replace(task, visible_through=head.last_event_id), delivered)

    wrap(patch, transactions, "append_task", append_task)


@caught_by("signals.a_second_signal_schedules_no_second_task")
def every_arrival_schedules_a_task(patch: Patch) -> None:
    def append_external(real, head, arrived):
        head.task_scheduled_id = 0
        return real(head, arrived)

    wrap(patch, transactions, "append_external", append_external)


@caught_by("signals.a_run_sends_a_signal_in_its_commit")
def messages_are_not_delivered(patch: Patch) -> None:
    patch.setattr(transactions, "_deliver", lambda tx, sent, targets: None)


@caught_by("signals.a_signal_to_oneself_at_the_end_is_undelivered")
def a_closing_run_delivers_to_itself(patch: Patch) -> None:
    def targets(real, tx, row, commit):
        return {number: target or row for number, target in real(tx, row, commit).items()}

    wrap(patch, transactions, "_targets", targets)


@caught_by("commits.a_timer_that_ends_in_its_own_task_is_never_there")
def timers_of_one_task_are_all_started(patch: Patch) -> None:
    def append_task(real, *args):
        changes = real(*args)
        changes.timers = [event for event in changes.events if isinstance(event, TimerScheduled)]
        return changes

    wrap(patch, transactions, "append_task", append_task)


@caught_by("runs.a_status_is_stored_and_not_guessed")
def a_status_is_guessed_from_the_error(patch: Patch) -> None:
    def status_after(real, terminal):
        error = getattr(terminal, "error", None)
        return WorkflowStatus.TERMINATED if error and error.kind == "cancelled" else real(terminal)

    wrap(patch, commit, "status_after", status_after)


@caught_by("runs.a_closed_run_leaves_no_work")
def a_closed_run_keeps_its_work(patch: Patch) -> None:
    patch.setattr(Tables, "delete_work", lambda tables, run_id: None)


@caught_by("requests.a_start_sent_again_starts_nothing")
def requests_are_forgotten(patch: Patch) -> None:
    patch.setattr(Tables, "request", lambda tables, *request: None)


@caught_by("requests.a_request_belongs_to_its_workflow_id_and_operation")
def requests_are_the_same_for_all_operations(patch: Patch) -> None:
    wrap(patch, Tables, "request", lambda real, tx, workflow_id, _, key: real(tx, workflow_id, "", key))
    wrap(patch, Tables, "insert_request", lambda real, tx, w, _, key, run_id: real(tx, w, "", key, run_id))


@caught_by("ending.a_cancel_deadline_is_only_brought_forward")
def the_last_deadline_counts(patch: Patch) -> None:
    def cancel(real, tx, workflow_id, *args):
        if row := tx.open_run(workflow_id):
            row.cancel_deadline_ns = 0
            tx.save_run(row)
        return real(tx, workflow_id, *args)

    wrap(patch, transactions, "cancel", cancel)


# --- activities and timers ------------------------------------------------------------------------


@caught_by("attempting.a_worker_attempts_only_what_it_knows")
def attempts_take_any_name(patch: Patch) -> None:
    wrap(patch, Tables, "ready_activities", lambda real, tx, names, limit: real(tx, None, limit))


@caught_by("attempting.a_failed_attempt_is_tried_again_after_a_delay")
def attempts_do_not_wait(patch: Patch) -> None:
    def save_activity(real, tx, row):
        real(tx, replace(row, not_before_ns=min(row.not_before_ns, tx.now_ns)))

    wrap(patch, Tables, "save_activity", save_activity)


@caught_by("attempting.a_dead_workers_activity_is_attempted_elsewhere")
def leases_of_activities_are_not_watched(patch: Patch) -> None:
    def refresh_due(real, row):
        real(row)
        row.due_ns = 0 if row.claimed and row.due_ns == row.lease_until_ns else row.due_ns

    wrap(patch, work, "refresh_due", refresh_due)


@caught_by("attempting.a_lost_attempt_does_not_count")
def a_lost_attempt_counts(patch: Patch) -> None:
    def follow(real, tx, row, decision):
        lost = isinstance(decision, attempts.Lost)
        real(tx, row, attempts.Retry(decision.not_before_ns) if lost else decision)

    wrap(patch, work, "_follow", follow)


@caught_by("attempting.an_activity_that_kills_its_worker_ends")
def an_activity_may_kill_workers_for_ever(patch: Patch) -> None:
    patch.setattr(attempts, "LOST_ATTEMPTS_MAX", 10**9)


@caught_by("attempting.details_reach_the_next_attempt")
def heartbeat_details_are_dropped(patch: Patch) -> None:
    wrap(patch, work, "heartbeat", lambda real, tx, attempt, details: real(tx, attempt, b""))


@caught_by("attempting.a_released_attempt_is_not_consumed")
def a_release_consumes_the_attempt(patch: Patch) -> None:
    def release_activities(real, tx, released):
        for attempt in released:
            if row := work._held(tx, attempt):
                row.attempt += 1
                tx.save_activity(row)
        real(tx, released)

    wrap(patch, work, "release_activities", release_activities)


@caught_by("timeouts.timeouts_beyond_the_limit_are_left")
def timeouts_are_consumed_by_looking(patch: Patch) -> None:
    def due_activities(real, tx, limit):
        rows = real(tx, 1000)
        for row in rows[limit:]:
            tx.limits.drop(tx.lives[row.run_id].activities[row.scheduled_id].seq)
        return rows[:limit]

    wrap(patch, Tables, "due_activities", due_activities)


@caught_by("timers.a_timer_fires_when_its_time_has_come_and_once")
def timers_fire_a_second_early(patch: Patch) -> None:
    wrap(patch, Tables, "insert_timers", lambda real, tx, rows: real(tx, [early(row) for row in rows]))


def early(row: TimerRow) -> TimerRow:
    return replace(row, due_ns=row.due_ns - 1_000_000_000)


@caught_by("timers.the_earliest_timers_of_all_runs_fire_first")
def timers_are_deleted_by_looking(patch: Patch) -> None:
    def due_timers(real, tx, limit):
        rows = real(tx, 1000)
        for row in rows[limit:]:
            tx.delete_timer(row.run_id, row.scheduled_id)
        return rows[:limit]

    wrap(patch, Tables, "due_timers", due_timers)


@caught_by("timers.a_late_commit_does_not_make_a_timer_fire_early")
def timers_count_from_the_workflow_time(patch: Patch) -> None:
    patch.setattr(transactions, "max", lambda fire_at_ns, from_now_ns: fire_at_ns, raising=False)


@caught_by("timers.a_workflow_time_ahead_counts_for_timers")
def timers_count_from_the_commit(patch: Patch) -> None:
    patch.setattr(transactions, "max", lambda fire_at_ns, from_now_ns: from_now_ns, raising=False)


# --- reading and waking ---------------------------------------------------------------------------


@caught_by("reading.a_journal_is_read_from_any_event_on")
def a_journal_is_read_from_one_too_early(patch: Patch) -> None:
    def load_events(real, store, run_id, after_id=0, **options):
        return real(store, run_id, max(after_id - 1, 0), **options)

    wrap(patch, MemoryStore, "load_events", load_events)


@caught_by("reading.external_events_can_be_read_alone")
def external_events_come_with_all_others(patch: Patch) -> None:
    wrap(
        patch,
        MemoryStore,
        "load_events",
        lambda real, store, run_id, after_id=0, **_: real(store, run_id, after_id),
    )


@caught_by("reading.pages_neither_miss_nor_repeat_a_run")
def a_cursor_forgets_the_run_id(patch: Patch) -> None:
    def list_runs(real, store, which, limit, after):
        return real(store, which, limit, after and (after[0], ""))

    wrap(patch, MemoryStore, "list_runs", list_runs)


@caught_by("reading.runs_are_listed_and_counted_by_what_they_are")
def a_count_ignores_the_status(patch: Patch) -> None:
    def count_runs(real, store, which):
        return real(store, RunFilter(workflow_type=which.workflow_type, workflow_id=which.workflow_id))

    wrap(patch, MemoryStore, "count_runs", count_runs)


@caught_by("runs.what_is_handed_out_is_a_copy")
def rows_are_handed_out_themselves(patch: Patch) -> None:
    patch.setattr(memory, "copy_of_run", lambda row: row)


@caught_by("waking.new_work_rings_for_its_workers")
def nothing_rings(patch: Patch) -> None:
    patch.setattr(Tables, "ring", lambda tables, topic: None)


@caught_by("runs.a_closed_store_refuses_every_call")
def a_closed_store_goes_on(patch: Patch) -> None:
    patch.setattr(MemoryStore, "_opened", lambda store: store._tables)


@caught_by("attempting.an_activity_of_a_closed_run_is_over")
def everything_is_always_held(patch: Patch) -> None:
    wrap(patch, work, "heartbeat", lambda real, *args: real(*args) and LeaseState.HELD)


# --------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    plant, case = PLANTED[request.param]
    plant(monkeypatch)
    return case


@pytest.mark.parametrize("planted", list(PLANTED), indirect=True)
def test_a_planted_bug_is_found(planted: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_store(MemoryStore)
    assert planted in caught.value.failures, sorted(caught.value.failures)
