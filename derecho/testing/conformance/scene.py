"""What the cases say in one word each: start a run, take its task, commit it, attempt an activity, look.

Nothing here depends on a test framework. A task's commands are given as events without numbers; they are
numbered here as the scheduler would.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Final, TypeVar

from derecho.errors import JournalError
from derecho.journal.commit import Draft, TaskDraft, WorkflowStatus
from derecho.journal.events import (
    ActivityScheduled,
    CommandEvent,
    Event,
    Failure,
    SignalExternalScheduled,
    TimerCancelled,
    TimerScheduled,
    WorkflowCompleted,
)
from derecho.journal.lifecycle import check_journal
from derecho.policies import RetryPolicy, TimeoutPolicy
from derecho.stores.base import (
    ActivityResult,
    ActivityRow,
    ActivityToken,
    AttemptFailed,
    Claim,
    CommitOutcome,
    Committed,
    RunFilter,
    RunRow,
    StartRequest,
    Store,
    TaskCommit,
)
from derecho.testing.clock import FakeClock

E = TypeVar("E", bound=Event)
X = TypeVar("X", bound=BaseException)

S: Final = 1_000_000_000
ALL: Final = RunFilter()

_numbers = itertools.count(1)


# --- looking --------------------------------------------------------------------------------------


def expect(actual: object, wanted: object, what: str) -> None:
    """Fail unless both are equal; not an `assert`, which `python -O` would drop."""
    if actual != wanted:
        raise AssertionError(f"{what}: {actual!r}, expected {wanted!r}")


def expect_error(kind: type[X], call: Callable[[], object]) -> X:
    """Return the error that the call must raise."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"{answer!r} was returned, {kind.__name__} expected")


def row(store: Store, workflow_id: str = "w", run_id: str = "") -> RunRow:
    """Return a run that must exist."""
    found = store.find_run(workflow_id, run_id)
    if found is None:
        raise AssertionError(f"run {workflow_id!r} {run_id} is not there")
    return found


def journal(store: Store, workflow_id: str = "w") -> list[Event]:
    """Return the journal of the newest run of a workflow id."""
    return store.load_events(row(store, workflow_id).run_id)


def kinds(events: Collection[Event]) -> list[str]:
    return [event.type for event in events]


def events_of(store: Store, kind: type[E], workflow_id: str = "w") -> list[E]:
    return [event for event in journal(store, workflow_id) if isinstance(event, kind)]


def the(store: Store, kind: type[E], workflow_id: str = "w") -> E:
    """Return the one event of a kind that the journal must hold."""
    found = events_of(store, kind, workflow_id)
    expect(len(found), 1, f"number of {kind.type} events")
    return found[0]


def all_runs(store: Store, which: RunFilter = ALL, limit: int = 100) -> list[RunRow]:
    """Return all runs that match, page by page."""
    runs: list[RunRow] = []
    after = None
    for _ in range(10_000):
        page = store.list_runs(which, limit, after)
        runs += page.runs
        after = page.next_after
        if after is None:
            return runs
    raise AssertionError("the pages of a listing have no end")


def check_all_journals(store: Store) -> None:
    """Check what must hold for every run in the store at any moment."""
    for run in all_runs(store):
        what = f"run {run.workflow_id!r}"
        events = store.load_events(run.run_id)
        try:
            check_journal(events)
        except JournalError as error:
            raise AssertionError(f"{what}: {error}") from error
        expect(run.last_event_id, len(events), f"last_event_id of {what}")
        ends = any(event.type in _ENDS for event in events)
        expect(run.status.is_open, not ends, f"whether {what} is open")
        expect(run.closed_at_ns != 0, ends, f"whether {what} has a closing time")
    opened = [run.workflow_id for run in all_runs(store) if run.status.is_open]
    expect(len(opened), len(set(opened)), "open runs, by workflow id")


_ENDS: Final = ("workflow_completed", "workflow_failed", "workflow_cancelled", "workflow_continued_as_new")


# --- runs -----------------------------------------------------------------------------------------


def asked(
    store: Store, workflow_id: str, *, workflow_type: str = "order", request_id: str = ""
) -> StartRequest:
    return StartRequest(
        workflow_id=workflow_id,
        workflow_type=workflow_type,
        args=b"[1]",
        request_id=request_id or f"request-{next(_numbers)}",
        run_id=store.new_id(),
    )


def start(store: Store, workflow_id: str = "w", *, workflow_type: str = "order", request_id: str = "") -> str:
    """Start a run and return its id."""
    request = asked(store, workflow_id, workflow_type=workflow_type, request_id=request_id)
    [answer] = store.start_runs([request])
    if isinstance(answer, Exception):
        raise answer
    return answer


def signal(
    store: Store, workflow_id: str = "w", name: str = "go", payload: bytes = b"1", *, run_id: str = ""
) -> str:
    return store.signal(workflow_id, run_id, name, payload, f"request-{next(_numbers)}")


def cancel(store: Store, workflow_id: str = "w", *, timeout_s: float = 0, run_id: str = "") -> str:
    return store.cancel(workflow_id, run_id, "enough", round(timeout_s * S), f"request-{next(_numbers)}")


def terminate(store: Store, workflow_id: str = "w", *, run_id: str = "") -> str:
    return store.terminate(workflow_id, run_id, "enough", f"request-{next(_numbers)}")


# --- workflow tasks -------------------------------------------------------------------------------


def claims(
    store: Store,
    worker: str = "a",
    *,
    names: Collection[str] | None = None,
    limit: int = 100,
    lease_s: float = 10,
    passed_over: Collection[str] = (),
) -> list[Claim]:
    return store.claim_runs(worker, names, limit, round(lease_s * S), passed_over)


def claimed(store: Store, worker: str = "a", **options: Any) -> list[str]:
    """Claim, and return the workflow ids in the order of the claims."""
    return [claim.run.workflow_id for claim in claims(store, worker, **options)]


def claim(store: Store, worker: str = "a", *, lease_s: float = 10) -> Claim:
    """Claim the one run that is ready."""
    found = claims(store, worker, lease_s=lease_s)
    expect(len(found), 1, "number of runs claimed")
    return found[0]


def task(
    store: Store, of: Claim, *commands: CommandEvent | Draft, visible_through: int = 0, stuck_reason: str = ""
) -> TaskCommit:
    """Return the commit of a task that was shown everything there was at its claim."""
    run = of.run
    written = [event.command for event in store.load_events(run.run_id) if isinstance(event, CommandEvent)]
    first = max(written, default=0) + 1
    drafts = []
    for number, command in enumerate(commands, first):
        draft = command if isinstance(command, Draft) else Draft(event=command)
        answers = first + draft.answers - 1 if draft.answers else 0
        drafts.append(Draft(event=replace(draft.event, command=number), answers=answers))
    decided = TaskDraft(
        worker_id=run.lease_owner,
        started_at_ns=of.now_ns,
        visible_through=visible_through or run.last_event_id,
        drafts=drafts,
    )
    return TaskCommit(
        run_id=run.run_id, token=run.token, commit_no=run.commit_no, task=decided, stuck_reason=stuck_reason
    )


def commit(store: Store, of: Claim, *commands: CommandEvent | Draft, stuck_reason: str = "") -> Committed:
    """Commit a task and return what became of it."""
    [answer] = store.commit_tasks([task(store, of, *commands, stuck_reason=stuck_reason)])
    if isinstance(answer, Exception):
        raise answer
    return answer


def turn(store: Store, *commands: CommandEvent | Draft, worker: str = "a") -> list[int]:
    """Run the task of the one run that is ready; return the event ids of its commands."""
    answer = commit(store, claim(store, worker), *commands)
    expect(answer.outcome, CommitOutcome.DONE, "outcome of a commit")
    return list(answer.command_ids)


def close(store: Store, workflow_id: str = "w") -> str:
    """Start a run and complete it; return its id."""
    run_id = start(store, workflow_id)
    turn(store, completed())
    expect(row(store, workflow_id).status, WorkflowStatus.COMPLETED, "status of a completed run")
    return run_id


# --- commands -------------------------------------------------------------------------------------


def completed() -> WorkflowCompleted:
    return WorkflowCompleted(result=b'"done"')


def activity(
    name: str = "charge", *, retry: RetryPolicy | None = None, input: bytes = b"[1]", **timeouts: float
) -> ActivityScheduled:
    """Return the command for an activity; timeouts as the fields of `TimeoutPolicy`."""
    return ActivityScheduled(
        name=name,
        input=input,
        retry_policy=retry.to_payload() if retry is not None else None,
        timeout_policy=TimeoutPolicy(**timeouts).to_payload(),
        scheduled_at_ns=S,
    )


def timer(clock: FakeClock, duration_s: float) -> TimerScheduled:
    duration_ns = round(duration_s * S)
    return TimerScheduled(duration_ns=duration_ns, fire_at_ns=clock.now_ns() + duration_ns)


def timer_cancelled(scheduled_id: int) -> TimerCancelled:
    return TimerCancelled(scheduled_by_id=scheduled_id)


def sent(workflow_id: str, name: str = "go", payload: bytes = b"1") -> SignalExternalScheduled:
    return SignalExternalScheduled(target_workflow_id=workflow_id, signal_name=name, payload=payload)


# --- activities -----------------------------------------------------------------------------------


def attempts(
    store: Store,
    worker: str = "a",
    *,
    names: Collection[str] | None = None,
    limit: int = 100,
    lease_s: float = 15,
) -> list[ActivityRow]:
    return store.claim_activities(worker, names, limit, round(lease_s * S))


def attempt(store: Store, worker: str = "a", *, lease_s: float = 15) -> ActivityRow:
    """Begin an attempt of the one activity that waits for one."""
    found = attempts(store, worker, lease_s=lease_s)
    expect(len(found), 1, "number of activities claimed")
    return found[0]


def token(of: ActivityRow) -> ActivityToken:
    return ActivityToken(of.run_id, of.scheduled_id, of.token)


def finish(store: Store, of: ActivityRow, result: bytes = b"1") -> bool:
    return store.finish_activity(token(of), ActivityResult(result=result))


def fail(
    store: Store,
    of: ActivityRow,
    *,
    names: tuple[str, ...] = ("application", "ValueError"),
    details: bytes = b"",
    delay_s: float = 0,
    non_retryable: bool = False,
) -> bool:
    failure = Failure(
        kind="application",
        type="ValueError",
        message="no",
        non_retryable=non_retryable,
        next_retry_delay_ns=round(delay_s * S),
    )
    return store.finish_activity(token(of), AttemptFailed(failure=failure, names=names, details=details))
