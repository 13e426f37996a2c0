"""The client: starts, signals, cancels, terminates and asks after workflows, from anywhere that reaches the store."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any, Final, Generic, TypeVar, overload

from derecho.authoring.definitions import Workflow
from derecho.clock import to_datetime
from derecho.errors import (
    ContinuedAsNewError,
    NotCompletedError,
    StoreError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
)
from derecho.journal.commit import WorkflowStatus
from derecho.journal.events import (
    TERMINAL_EVENTS,
    Event,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowFailed,
)
from derecho.names import check_name
from derecho.payloads import Codec, JSONCodec, encode_value
from derecho.policies import Duration, duration_ns
from derecho.signatures import Signature
from derecho.stores.base import LIST_LIMIT_MAX, RunFilter, RunRow, StartRequest, Store
from derecho.stores.bell import LOOK_NS

R = TypeVar("R")

# A missed ring costs latency, never correctness: nobody waits longer without a look.
_LOOK_EVERY_S: Final = LOOK_NS / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowExecution:
    """One run in a listing.

    Attributes:
        closed_at: None while it is open.
        blocked_reason, blocked_since: why it cannot go on and since when; empty and None if it can.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    status: WorkflowStatus
    started_at: datetime
    closed_at: datetime | None
    blocked_reason: str
    blocked_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowPage:
    """Some runs, newest first; `next_cursor` goes on after them and is None at the end."""

    executions: list[WorkflowExecution]
    next_cursor: str | None


class Run(Generic[R]):
    """One run of a workflow; made by a client."""

    def __init__(self, client: Client, workflow_id: str, run_id: str, signature: Signature) -> None:
        self._client = client
        self._signature = signature
        self.id = workflow_id
        self.run_id = run_id

    def get(self, timeout: Duration | None = None, *, block: bool = True, follow: bool = True) -> R:
        """Wait until the run is closed and return its result.

        Args:
            timeout: seconds or timedelta; None waits for ever.
            block: False does not wait at all.
            follow: whether a run that continued as new is followed to the end of its chain.

        Raises:
            NotCompletedError: it is still open (and the time is up, or `block` is False).
            WorkflowFailedError, WorkflowCancelledError, WorkflowTerminatedError: how it ended otherwise.
            ContinuedAsNewError: it continued as new, and `follow` is False.
            CodecError: the result is not of the type that was asked for.
        """
        timeout_s = 0.0 if not block else None if timeout is None else duration_ns(timeout, "timeout") / 1e9
        row = self._client._wait_closed(self.id, self.run_id, timeout_s)
        if row is None:
            raise NotCompletedError(f"workflow {self.id!r} (run {self.run_id}) is not completed yet")
        terminal = self._client._terminal(row)
        if isinstance(terminal, WorkflowCompleted):
            result: R = self._signature.decode_result(self._client.codec, terminal.result)
            return result
        if isinstance(terminal, WorkflowContinuedAsNew):
            if not follow:
                raise ContinuedAsNewError(terminal.new_run_id)
            following: Run[R] = Run(self._client, self.id, terminal.new_run_id, self._signature)
            return following.get(timeout, block=block)
        if isinstance(terminal, WorkflowCancelled):
            raise WorkflowCancelledError(self._client._cancel_reason(row))
        assert isinstance(terminal, WorkflowFailed)
        if terminal.terminated:
            raise WorkflowTerminatedError(terminal.error.message if terminal.error else "")
        raise WorkflowFailedError(terminal.error)

    def status(self) -> WorkflowStatus:
        """Return where the run stands."""
        return self._client._row(self.id, self.run_id).status

    def describe(self) -> WorkflowExecution:
        """Return the run as a listing shows it, with the reason if it is blocked."""
        return execution_of(self._client._row(self.id, self.run_id))

    def events(self) -> list[Event]:
        """Return the run's journal."""
        self._client._row(self.id, self.run_id)
        return self._client.store.load_events(self.run_id)

    def signal(self, name: str, payload: Any = None) -> None:
        """Send a signal to this run; see `Client.signal_workflow`."""
        self._client._signal(self.id, self.run_id, name, payload)

    def cancel(self, reason: str = "", *, timeout: Duration | None = None) -> None:
        """Ask this run to cancel; see `Client.cancel_workflow`."""
        self._client._cancel(self.id, self.run_id, reason, timeout)

    def terminate(self, reason: str = "") -> None:
        """End this run at once; see `Client.terminate_workflow`."""
        self._client._terminate(self.id, self.run_id, reason)

    def __repr__(self) -> str:
        return f"<Run {self.id!r} {self.run_id}>"


class Client:
    """Talks to a store; needs no engine. Safe to use from any thread."""

    def __init__(self, store: Store, *, codec: Codec | None = None, request_id: str | None = None) -> None:
        self.store = store
        self.codec: Codec = codec or JSONCodec()
        self._request_id = request_id

    def options(self, *, request_id: str) -> Client:
        """Return a view of this client whose next start, signal, cancel or terminate carries this request id.

        A call that is repeated with the same request id is recorded once, also after the run is closed.
        """
        return Client(self.store, codec=self.codec, request_id=check_name(request_id, "request_id"))

    def start_workflow(
        self, workflow: Workflow[..., R] | str, workflow_id: str, /, *args: Any, **kwargs: Any
    ) -> Run[R]:
        """Start a workflow and return its run; once this returns, the start survives any crash (G1).

        Args:
            workflow: the workflow, or its name.
            workflow_id: the caller's own id; at most one run of it is open.

        Raises:
            WorkflowAlreadyRunningError: the id has an open run.
            TypeError, CodecError: the workflow takes no such arguments, or they cannot be encoded.
        """
        [answer] = self._start(workflow, [(workflow_id, args, kwargs)], self._request_id)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start_workflows(
        self, workflow: Workflow[..., R] | str, starts: Iterable[tuple[str, Sequence[Any]]]
    ) -> list[Run[R]]:
        """Start many runs of a workflow in one commit.

        Args:
            starts: pairs of workflow id and positional arguments.

        Raises:
            ExceptionGroup: some were refused (`WorkflowAlreadyRunningError`); the others are started.
        """
        answers = self._start(
            workflow, [(workflow_id, tuple(args), {}) for workflow_id, args in starts], None
        )
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        if refused:
            raise ExceptionGroup(f"{len(refused)} of {len(answers)} workflows were not started", refused)
        return [answer for answer in answers if not isinstance(answer, Exception)]

    @overload
    def get_workflow(self, workflow_id: str, run_id: str | None = None, *, returns: type[R]) -> Run[R]: ...
    @overload
    def get_workflow(self, workflow_id: str, run_id: str | None = None, returns: Any = Any) -> Run[Any]: ...
    def get_workflow(self, workflow_id: str, run_id: str | None = None, returns: Any = Any) -> Run[Any]:
        """Return a run that exists.

        Args:
            run_id: None = the newest run of the id.
            returns: the type that `get()` decodes the result into.

        Raises:
            WorkflowNotFoundError: there is none.
        """
        row = self._row(workflow_id, run_id or "")
        return Run(
            self, row.workflow_id, row.run_id, Signature.of_result(returns, f"workflow {row.workflow_type!r}")
        )

    def signal_workflow(self, workflow_id: str, name: str, payload: Any = None) -> None:
        """Send a signal to the open run of a workflow id; once this returns, it survives any crash (G1).

        Raises:
            WorkflowNotFoundError: there is no open run.
            RunClosingError: the run is closing under a storm of signals; send it again later.
            CodecError: the payload cannot be encoded.
        """
        self._signal(workflow_id, "", name, payload)

    def cancel_workflow(self, workflow_id: str, reason: str = "", *, timeout: Duration | None = None) -> None:
        """Ask the open run of a workflow id to cancel.

        Args:
            timeout: seconds or timedelta after which it is ended by force; None = never.

        Raises:
            WorkflowNotFoundError: there is no open run.
        """
        self._cancel(workflow_id, "", reason, timeout)

    def terminate_workflow(self, workflow_id: str, reason: str = "") -> None:
        """End the open run of a workflow id at once; its code has no say, and no worker is needed.

        Raises:
            WorkflowNotFoundError: there is no open run.
        """
        self._terminate(workflow_id, "", reason)

    def list_workflows(
        self,
        *,
        workflow_type: str | None = None,
        status: WorkflowStatus | None = None,
        workflow_id: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> WorkflowPage:
        """Return runs, newest first.

        Args:
            limit: 1 to 1000.
            cursor: `next_cursor` of the page before.
        """
        if not 1 <= limit <= LIST_LIMIT_MAX:
            raise ValueError(f"limit must be 1 to {LIST_LIMIT_MAX}, got {limit}")
        which = RunFilter(workflow_type=workflow_type, status=status, workflow_id=workflow_id)
        page = self.store.list_runs(which, limit, _read_cursor(cursor))
        after = page.next_after
        return WorkflowPage(
            executions=[execution_of(row) for row in page.runs],
            next_cursor=None if after is None else _write_cursor(after),
        )

    def count_workflows(
        self,
        *,
        workflow_type: str | None = None,
        status: WorkflowStatus | None = None,
        workflow_id: str | None = None,
    ) -> int:
        """Return how many runs there are."""
        return self.store.count_runs(
            RunFilter(workflow_type=workflow_type, status=status, workflow_id=workflow_id)
        )

    # --- inside

    def _start(
        self,
        workflow: Workflow[..., R] | str,
        starts: Sequence[tuple[str, tuple[Any, ...], dict[str, Any]]],
        request_id: str | None,
    ) -> list[Run[R] | Exception]:
        if isinstance(workflow, Workflow):
            name, signature = workflow.name, workflow.signature
        elif isinstance(workflow, str):
            name = check_name(workflow, "workflow")
            signature = Signature.of_result(Any, f"workflow {name!r}")
        else:
            raise TypeError(f"workflow must be a @workflow or its name, not {workflow!r}")
        requests = [
            StartRequest(
                workflow_id=check_name(workflow_id, "workflow_id"),
                workflow_type=name,
                args=signature.encode_args(self.codec, args, kwargs),
                request_id=request_id or _new_request_id(),
                run_id=self.store.new_id(),
            )
            for workflow_id, args, kwargs in starts
        ]
        answers = self.store.start_runs(requests)
        return [
            answer if isinstance(answer, Exception) else Run(self, request.workflow_id, answer, signature)
            for request, answer in zip(requests, answers, strict=True)
        ]

    def _signal(self, workflow_id: str, run_id: str, name: str, payload: Any) -> None:
        data = encode_value(self.codec, payload, f"payload of signal {check_name(name, 'name')!r}")
        self.store.signal(check_name(workflow_id, "workflow_id"), run_id, name, data, self._request())

    def _cancel(self, workflow_id: str, run_id: str, reason: str, timeout: Duration | None) -> None:
        timeout_ns = 0 if timeout is None else duration_ns(timeout, "timeout")
        self.store.cancel(check_name(workflow_id, "workflow_id"), run_id, reason, timeout_ns, self._request())

    def _terminate(self, workflow_id: str, run_id: str, reason: str) -> None:
        self.store.terminate(check_name(workflow_id, "workflow_id"), run_id, reason, self._request())

    def _request(self) -> str:
        return self._request_id or _new_request_id()

    def _row(self, workflow_id: str, run_id: str) -> RunRow:
        row = self.store.find_run(check_name(workflow_id, "workflow_id"), run_id)
        if row is None:
            raise WorkflowNotFoundError(workflow_id, run_id)
        return row

    def _wait_closed(self, workflow_id: str, run_id: str, timeout_s: float | None) -> RunRow | None:
        row = self._row(workflow_id, run_id)
        if not row.status.is_open or timeout_s == 0.0:
            return None if row.status.is_open else row
        bell = self.store.bell
        waits = _Waits(timeout_s)
        bell.watch(run_id)
        try:
            while True:
                seen = bell.seq(run_id)
                row = self._row(workflow_id, run_id)
                if not row.status.is_open:
                    return row
                if not waits.wait(bell, run_id, seen):
                    return None
        finally:
            bell.unwatch(run_id)

    def _terminal(self, row: RunRow) -> Event:
        # The terminal event is the last, or the last but the completion of its own task.
        for event in reversed(self.store.load_events(row.run_id, max(row.last_event_id - 2, 0))):
            if isinstance(event, TERMINAL_EVENTS):
                return event
        raise StoreError(
            f"run {row.run_id} is closed but its journal has no terminal event; the database is damaged"
        )

    def _cancel_reason(self, row: RunRow) -> str:
        asked = (
            event.reason
            for event in self.store.load_events(row.run_id)
            if isinstance(event, WorkflowCancelRequested)
        )
        return next(asked, "")


class _Waits:
    """Splits a wait with a limit into looks of at most a second."""

    def __init__(self, timeout_s: float | None) -> None:
        self._deadline_s = None if timeout_s is None else monotonic() + timeout_s

    def wait(self, bell: Any, topic: str, seen: int) -> bool:
        """Wait for a ring or the next look; False once the time is up."""
        left_s = _LOOK_EVERY_S if self._deadline_s is None else self._deadline_s - monotonic()
        if left_s <= 0:
            return False
        bell.wait(topic, seen, min(left_s, _LOOK_EVERY_S))
        return True


def execution_of(row: RunRow) -> WorkflowExecution:
    """Return a run row as users see it."""
    return WorkflowExecution(
        workflow_id=row.workflow_id,
        run_id=row.run_id,
        workflow_type=row.workflow_type,
        status=row.status,
        started_at=to_datetime(row.started_at_ns),
        closed_at=to_datetime(row.closed_at_ns) if row.closed_at_ns else None,
        blocked_reason=row.blocked_reason,
        blocked_since=to_datetime(row.blocked_since_ns) if row.blocked_since_ns else None,
    )


def _new_request_id() -> str:
    return uuid.uuid4().hex


def _write_cursor(after: tuple[int, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(after).encode()).decode()


def _read_cursor(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    try:
        started_at_ns, run_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return int(started_at_ns), str(run_id)
    except (ValueError, TypeError):
        raise ValueError("cursor is not one that list_workflows() returned") from None
