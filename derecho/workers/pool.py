"""Threads for sync activities, and the one thread whose event loop runs the async ones.

Why not `concurrent.futures`
    Its threads are joined at the end of the interpreter, so one stuck activity would keep a dead process
    alive; it makes a future and a condition for each call; and it wakes a thread for each call, also when one
    that is awake would have been there first.
Here
    A waiting job wakes one thread, and that one, if more jobs wait, the next before it begins its own. So
    short jobs are done by few threads while the rest sleep on, and a job that blocks has woken its successor.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from derecho.workers.attempt import Attempt

if TYPE_CHECKING:
    import asyncio

Job = Callable[[], None]
Crash = Callable[[BaseException], None]

# At the end of the loop, for tasks that were cancelled and clean up.
_TASKS_END_S: Final = 0.5

log = logging.getLogger("derecho.worker.activity")


class ThreadPool:
    """Daemon threads that are made when a job finds none idle.

    Args:
        name: of the threads, before their number.
        size_max: of threads; more jobs than that wait.
        idle_max: idle threads beyond that end.
    """

    def __init__(self, name: str, size_max: int, *, idle_max: int) -> None:
        self._name = name
        self._size_max = size_max
        self._idle_max = idle_max
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Job, Crash]] = deque()
        self._idle: list[threading.Lock] = []  # A stack: the thread that rested least has the warmest cache.
        self._threads: dict[threading.Thread, None] = {}
        self._made = 0
        self._is_waking = False
        self._is_stopped = False

    @property
    def size(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    def run(self, job: Job, crash: Crash) -> None:
        """Have a job done. If it raises, or its thread is torn out of it, `crash` is told."""
        with self._lock:
            self._jobs.append((job, crash))
            wake = self._next_to_wake()
        if wake is not None:
            wake()

    def stop(self, timeout_s: float) -> None:
        """End idle threads now, and the others after their job; wait a while for those that can end."""
        with self._lock:
            self._is_stopped = True
            seats, self._idle = self._idle, []
            threads = [*self._threads]
        for seat in seats:
            seat.release()
        wait_s = timeout_s
        for thread in threads:
            if thread is threading.current_thread():
                continue  # An activity that stops its own engine.
            thread.join(wait_s)
            if thread.is_alive():
                wait_s = 0.0  # It sits in user code: no need to wait as long for each of the others.

    def _next_to_wake(self) -> Callable[[], None] | None:
        """Return how to wake or make a thread, if one is needed and none is on its way. Under the lock."""
        if self._is_waking or not self._jobs:
            return None
        if self._idle:
            self._is_waking = True
            return self._idle.pop().release
        if len(self._threads) < self._size_max:
            self._is_waking = True
            return self._add_thread
        return None

    def _add_thread(self) -> None:
        with self._lock:
            self._made += 1
            thread = threading.Thread(target=self._work, name=f"{self._name}-{self._made}", daemon=True)
            self._threads[thread] = None
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                del self._threads[thread]
                self._is_waking = False
                orphans = [] if self._threads else [*self._jobs]
                if orphans:
                    self._jobs.clear()
            log.exception("no thread can be started; %d are at work", len(self._threads))
            for _job, crash in orphans:
                crash(error)

    def _work(self) -> None:
        seat = threading.Lock()
        seat.acquire()
        is_woken = True
        while True:
            crash: Crash | None = None
            try:
                with self._lock:
                    if is_woken:
                        self._is_waking = is_woken = False
                    if self._jobs:
                        job, crash = self._jobs[
                            0
                        ]  # Known before it is taken, so that it cannot fall between.
                        self._jobs.popleft()
                        wake = self._next_to_wake()
                    elif self._is_stopped or len(self._idle) >= self._idle_max:
                        self._threads.pop(threading.current_thread(), None)
                        return
                    else:
                        self._idle.append(seat)
                        is_woken = True  # When it goes on, it was.
                if crash is None:
                    seat.acquire()
                    continue
                if wake is not None:
                    wake()
                job()
                del job, wake
            except BaseException as error:
                # An asynchronous exception, perhaps meant for the job before. It costs the pool no thread.
                self._survive(error, crash, seat)

    def _survive(self, error: BaseException, crash: Crash | None, seat: threading.Lock) -> None:
        try:
            if crash is not None:
                crash(error)
                return
            log.warning("%r struck a thread between two activities; it goes on", error)
            with self._lock:
                if seat in self._idle:
                    self._idle.remove(seat)
        except BaseException:
            log.exception("an attempt could not even be ended; its lease will")


class LoopThread:
    """One event loop in a thread of its own, which begins with the first async activity.

    Args:
        concluded: called on that thread when the code of an attempt has ended; must not block.
    """

    def __init__(self, name: str, concluded: Callable[[Attempt], None]) -> None:
        self._name = name
        self._concluded = concluded
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._is_stopped = False

    def is_current(self) -> bool:
        """Tell whether the calling thread is the loop's."""
        return threading.current_thread() is self._thread

    def begin(self, attempt: Attempt, context: contextvars.Context) -> None:
        """Run the code of an async activity in a task of its own."""
        self._started().call_soon_threadsafe(self._begin, attempt, context)

    def cancel(self, attempt: Attempt) -> None:
        """Cancel the task of an attempt that is void."""
        loop = self._loop
        if loop is not None and not self._is_stopped:
            loop.call_soon_threadsafe(self._cancel, attempt)

    def stop(self, timeout_s: float) -> None:
        """Cancel all tasks, end the loop and wait a while for its thread."""
        with self._lock:
            loop, thread, self._is_stopped = self._loop, self._thread, True
        if loop is None or thread is None:
            return
        try:
            loop.call_soon_threadsafe(loop.stop)
        except RuntimeError:  # It was stopped before.
            return
        thread.join(timeout_s + _TASKS_END_S)
        if thread.is_alive():
            log.warning("the event loop of the activities does not end: an async activity blocks it")

    def _started(self) -> asyncio.AbstractEventLoop:
        import asyncio  # At first use: programs without async activities do not pay for it.

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                loop.run_forever()
            except BaseException:
                # asyncio lets a SystemExit of any task out of the loop: those of activities' own tasks too.
                log.exception("a task of an async activity tore the event loop down; it goes on")
            if self._is_stopped:
                break
        self._wind_up(loop)

    def _wind_up(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_TASKS_END_S))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException:
            log.exception("the event loop of the activities did not end cleanly")
        finally:
            loop.close()

    # On the thread of the loop.

    def _begin(self, attempt: Attempt, context: contextvars.Context) -> None:
        assert self._loop is not None, "a task before its loop"
        task = self._loop.create_task(attempt.call_async(), context=context)
        self._tasks[attempt] = task
        task.add_done_callback(lambda _task: self._end(attempt))

    def _end(self, attempt: Attempt) -> None:
        del self._tasks[attempt]
        self._concluded(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        task = self._tasks.get(attempt)
        if task is not None:
            task.cancel()


def run_in_private_loop(attempt: Attempt, base: contextvars.Context) -> None:
    """Run the code of an async activity to its end, in a loop that ends with it, while the caller waits."""
    import asyncio

    async def called() -> None:
        await attempt.call_async()
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # Of which the runner makes KeyboardInterrupt, if it was Ctrl-C.

    def run() -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(called(), context=attempt.bind(base))
            except asyncio.CancelledError:
                pass  # By the activity itself: that is how it ended.

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run()
        return
    # The caller is itself a task, as in an async test: a thread has at most one running loop.
    thread = threading.Thread(target=run, name="derecho-asyncio")
    thread.start()
    thread.join()
