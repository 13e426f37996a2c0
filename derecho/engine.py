"""The engine: one store, one registry, and the workers that serve them.

Threads of a started engine: one runs workflow code, one claims activities (which run in a pool, and on one asyncio
loop), one fires timers, one watches timeouts, one renews leases, one watches the workflow thread. More cores are
used by more processes.

An engine that is not started can be driven by hand instead: each worker's `process()` does one batch on the calling
thread and never waits.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, Final, Self

import derecho._core as _core
from derecho.client import Client
from derecho.names import check_name
from derecho.payloads import Codec
from derecho.policies import Duration, RetryPolicy, duration_ns
from derecho.registry import Registry
from derecho.replayer import RunSettings
from derecho.stores.base import Store
from derecho.stores.bell import ACTIVITIES, RUNS, TIMEOUTS, TIMERS
from derecho.workers.activity import ActivityWorker
from derecho.workers.leases import LeaseKeeper
from derecho.workers.loop import run_every, run_worker
from derecho.workers.runner import InlineRunner, ThreadRunner
from derecho.workers.timeout import TimeoutWorker
from derecho.workers.timer import TimerWorker
from derecho.workers.watchdog import ABANDONED_MAX, LOOKS, Abandoned, Watchdog
from derecho.workers.workflow import WorkflowWorker

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger("derecho.engine")


class Engine:
    """Runs workflows and activities of one store in this process.

    Args:
        store: where everything is kept; it stays open when the engine stops.
        workflows, activities: the definitions to register.
        worker_id: names this engine in journals; unique for each start of a process unless given.
        concurrency: activities at a time.
        cache_size: live runs kept in memory; 0 replays every task from the journal.
        codec: for user values; JSON unless given.
        default_retry_policy: for activities that set none; None = no retry.
        workflow_task_timeout, activity_lease: seconds or timedelta; how long a claim holds without being renewed.
        deadlock_timeout: seconds or timedelta that workflow code may run without yielding.
        workflow_resolver, activity_resolver: find definitions by name instead of the engine's registry.
        logger: for the logs of workflow code.

    Raises:
        RegistrationError: a definition cannot be registered.
    """

    def __init__(
        self,
        store: Store,
        *,
        workflows: Iterable[Any] = (),
        activities: Iterable[Any] = (),
        worker_id: str | None = None,
        concurrency: int = 32,
        cache_size: int = 1000,
        codec: Codec | None = None,
        default_retry_policy: RetryPolicy | None = None,
        workflow_task_timeout: Duration = 10.0,
        activity_lease: Duration = 15.0,
        deadlock_timeout: Duration = 2.0,
        workflow_resolver: Any | None = None,
        activity_resolver: Any | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}")
        if cache_size < 0:
            raise ValueError(f"cache_size must not be negative, got {cache_size}")
        self.store = store
        self.worker_id = check_name(worker_id, "worker_id") if worker_id is not None else _fresh_worker_id()
        self.client = Client(store, codec=codec)
        self._codec: Codec = self.client.codec
        self._registry = Registry()
        self._workflow_resolver = workflow_resolver or self._registry
        self._activity_resolver = activity_resolver or self._registry
        self._concurrency = concurrency
        self._cache_size = cache_size
        self._run_lease_ns = _positive_ns(workflow_task_timeout, "workflow_task_timeout")
        self._activity_lease_ns = _positive_ns(activity_lease, "activity_lease")
        self._deadlock_s = _positive_ns(deadlock_timeout, "deadlock_timeout") / 1e9
        self._settings = RunSettings(codec=self._codec, default_retry=default_retry_policy, logger=logger)
        self._live: _Live | None = None
        self._stop_lock = threading.Lock()
        self.leases = LeaseKeeper(
            store, run_lease_ns=self._run_lease_ns, activity_lease_ns=self._activity_lease_ns
        )
        self.workflow_worker = self._new_workflow_worker()
        self.activity_worker = self._new_activity_worker(InlineRunner())
        self.timer_worker = TimerWorker(store, worker_id=self.worker_id)
        self.timeout_worker = TimeoutWorker(store, worker_id=self.worker_id)
        self.register(*workflows, *activities)

    def register(self, *definitions: Any) -> None:
        """Add workflows and activities; workers claim what is registered.

        Raises:
            RegistrationError: a definition cannot be registered.
        """
        for definition in definitions:
            self._registry.register(definition, self._codec)
        self.store.bell.ring([RUNS, ACTIVITIES])

    # --- running

    def start(self) -> None:
        """Start the workers in threads of their own, and return."""
        self._start(_Ask())

    def stop(self, grace: Duration = 30.0) -> None:
        """Stop: claim nothing more, let activities finish, give the rest back without consuming an attempt.

        Args:
            grace: seconds or timedelta that running activities are given.
        """
        grace_s = duration_ns(grace, "grace") / 1e9
        with self._stop_lock:
            live = self._live
            if live is None:
                return
            # After a fork the threads are the parent's, and so is what they hold.
            if live.pid == os.getpid():
                live.stop(grace_s)
            atexit.unregister(self._stop_at_exit)
            self.workflow_worker = self._new_workflow_worker()
            self.activity_worker = self._new_activity_worker(InlineRunner())
            self._live = None

    def run(self) -> None:
        """Start, and block until the engine is stopped; in the main thread also by SIGTERM or SIGINT.

        The first signal drains (see `stop`), a second one stops at once; both are safe.
        """
        self._run(_Ask())

    def actor(self) -> tuple[Callable[[], None], Callable[[BaseException | None], None]]:
        """Return (execute, interrupt) for a group of actors: one blocks, the other makes it return.

        An interrupt that comes before `execute` makes that return as soon as it has begun.
        """
        stopping = _Ask()

        def execute() -> None:
            self._run(stopping)

        def interrupt(_error: BaseException | None = None) -> None:
            stopping.set()

        return execute, interrupt

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ctrl-C in the block must not wait for activities: they are retried elsewhere, or after the restart.
        self.stop(grace=0.0 if isinstance(error, KeyboardInterrupt) else 30.0)

    @property
    def health(self) -> list[str]:
        """What is wrong with this engine, in words; empty if it is well."""
        live = self._live
        return [] if live is None else live.troubles()

    # --- parts

    def _start(self, stopping: _Ask) -> None:
        if self._live is not None:
            raise RuntimeError("the engine is started already")
        self.workflow_worker.close()
        self._live = _Live(self, stopping)
        # Before the store's own hook, which closes the file under the threads if nobody has stopped them.
        atexit.register(self._stop_at_exit)
        self._live.start()

    def _stop_at_exit(self) -> None:
        self.stop(grace=0)

    def _run(self, stopping: _Ask) -> None:
        in_main = threading.current_thread() is threading.main_thread()
        # First: a signal that comes while the threads start must drain them too.
        former = {number: signal.signal(number, stopping.on_signal) for number in _STOP_SIGNALS if in_main}
        try:
            self._start(stopping)
            stopping.wait()
            self.stop()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _new_workflow_worker(self) -> WorkflowWorker:
        return WorkflowWorker(
            self.store,
            self._workflow_resolver,
            worker_id=self.worker_id,
            settings=self._settings,
            cache_size=self._cache_size,
            lease_ns=self._run_lease_ns,
            leases=self.leases,
        )

    def _new_activity_worker(self, runner: Any) -> ActivityWorker:
        return ActivityWorker(
            self.store,
            self._activity_resolver,
            worker_id=self.worker_id,
            codec=self._codec,
            runner=runner,
            lease_ns=self._activity_lease_ns,
            leases=self.leases,
        )


class _Ask:
    """The wish that an engine stops; for one waiter.

    Not an Event: its lock is not reentrant, and a signal handler runs in the thread that may just hold it.
    """

    def __init__(self) -> None:
        self._wishes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._wishes.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self) -> None:
        self._wishes.get()

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Only set a flag: no fiber may be switched in a signal handler."""
        if self._is_set:
            log.warning("second signal: stopping at once; what was running is done again after the restart")
            os._exit(128 + number)
        self.set()


class _Live:
    """The threads of a started engine."""

    def __init__(self, engine: Engine, stopping: _Ask) -> None:
        self._engine = engine
        self.pid = os.getpid()
        self.stopping = stopping
        self._stop = threading.Event()
        self._stop_watching = threading.Event()
        self._threads: list[threading.Thread] = []
        self._keepers: list[threading.Thread] = []
        self._workflow_thread: threading.Thread | None = None
        self._runner = ThreadRunner(engine._concurrency)
        engine.activity_worker = engine._new_activity_worker(self._runner)
        self._watchdog = Watchdog(engine.store, engine._deadlock_s, self._replace_workflow_thread)

    def start(self) -> None:
        engine = self._engine
        for worker, name in (
            (engine.activity_worker, "activities"),
            (engine.timer_worker, "timers"),
            (engine.timeout_worker, "timeouts"),
        ):
            self._threads.append(self._thread(name, run_worker, worker, self._stop))
        self._keepers = [
            self._thread("leases", run_worker, engine.leases, self._stop_watching),
            self._thread(
                "watchdog", run_every, self._watchdog.check, engine._deadlock_s / LOOKS, self._stop_watching
            ),
        ]
        self._start_workflow_thread(engine.workflow_worker)

    def stop(self, grace_s: float) -> None:
        self.stopping.set()
        self._stop.set()
        self._engine.store.bell.ring([RUNS, ACTIVITIES, TIMERS, TIMEOUTS])
        for thread in self._threads:
            thread.join()
        # A watchdog that still looks may replace it meanwhile, or give it up: join whatever is the last one.
        while (last := self._workflow_thread) is not None and last.is_alive():
            last.join(0.1)
        self._engine.activity_worker.stop(grace_s)
        self._stop_watching.set()
        self._engine.store.bell.ring([self._engine.leases.topic])
        for keeper in self._keepers:
            keeper.join()

    def troubles(self) -> list[str]:
        found = list(self._engine.activity_worker.troubles())
        stuck = sum(thread.is_alive() for thread in self._watchdog.abandoned)
        if stuck:
            found.append(f"{stuck} workflow threads did not yield and were abandoned")
        if self.stopping.is_set():
            found.append("stopping")
        return found

    def _start_workflow_thread(self, worker: WorkflowWorker) -> None:
        thread = self._thread("workflows", _serve_workflows, worker, self._stop, start=False)
        self._workflow_thread = thread
        self._watchdog.watch(worker, thread)
        thread.start()

    def _replace_workflow_thread(self) -> None:
        alive = sum(thread.is_alive() for thread in self._watchdog.abandoned)
        if alive > ABANDONED_MAX:
            log.critical("%d workflow threads are abandoned; this engine drains. Restart the process", alive)
            self._workflow_thread = None  # It may never end, and nobody may wait for it.
            self._stop.set()
            self.stopping.set()
            return
        engine = self._engine
        former, engine.workflow_worker = engine.workflow_worker, engine._new_workflow_worker()
        worker = engine.workflow_worker
        worker.backoff = former.backoff  # Else it would take up the same run first of all.
        self._start_workflow_thread(worker)

    def _thread(
        self, name: str, target: Callable[..., None], *args: Any, start: bool = True
    ) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name=f"derecho-{name}", daemon=True)
        if start:
            thread.start()
        return thread


def _serve_workflows(worker: WorkflowWorker, stop: threading.Event) -> None:
    """The life of a workflow thread: serve, then evict what it holds, on this very thread."""
    try:
        run_worker(_UntilAbandoned(worker), stop)
    except Abandoned:
        pass
    finally:
        worker.close()
        _core.thread_pool().close()


class _UntilAbandoned:
    """The workflow worker as its loop sees it: it ends when the watchdog has abandoned its thread."""

    def __init__(self, worker: WorkflowWorker) -> None:
        self._worker = worker
        self.topic = worker.topic
        self.bell = worker.bell
        self.idle_s = worker.idle_s

    def process(self) -> int:
        try:
            return self._worker.process()
        finally:
            if self._worker.abandoned:
                raise Abandoned  # Also on the way of an error: it must claim nothing more.


def _fresh_worker_id() -> str:
    # Never only host or process: a restarted process must not be taken for the dead one.
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _positive_ns(duration: Duration, what: str) -> int:
    value_ns = duration_ns(duration, what)
    if not value_ns:
        raise ValueError(f"{what} must be above zero")
    return value_ns
