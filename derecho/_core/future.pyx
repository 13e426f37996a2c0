# Commands and futures.

@cython.final
@cython.freelist(64)
cdef class Command:

    def __init__(self, int code, str name="", payload=None, *, str target="", options=None,
                 long long duration_ns=0, Command answers=None):
        self.code = code
        self.name = name
        self.target = target
        self.payload = payload
        self.options = options
        self.duration_ns = duration_ns
        self.answers = answers

    def __repr__(self):
        return f"<Command {self.number}: code {self.code} {self.name or self.target}>"


@cython.freelist(64)
cdef class Future:

    def __init__(self):
        raise TypeError("futures are made by derecho: by .execute(), timer(), spawn()...")

    def __class_getitem__(cls, item):
        return cls

    def get(self, timeout=None):
        """Wait for the answer and return it, or raise the error that it is.

        Args:
            timeout: seconds or timedelta; None waits for ever.

        Raises:
            TimeoutError: the time was up first. The work itself goes on.
        """
        cdef Fiber fiber = entered(True)
        if self.scheduler is not fiber.scheduler:
            raise _misuse_error("this future belongs to another run; a run can only wait for its own futures")
        if self.state == PENDING:
            fiber.wait_any([self], timeout)
            if fiber.winner is None:
                raise TimeoutError(f"no answer within {timeout}")
        return self.outcome()

    def done(self):
        """Tell whether the answer is there."""
        if self is self.scheduler.cancel_future:
            self.scheduler.is_cancelled()  # So that a predicate which asks is known to wait for a request.
        return self.state != PENDING

    def exception(self):
        """Return the error that the answer is, or None; also None while there is no answer."""
        if self.state != FAILED:
            return None
        self.take()
        return self.failure()

    cdef int take(self) except -1:
        """Note that somebody has seen how the future ended, or will not have to."""
        self.taken = True
        if self.state == FAILED:
            self.scheduler.lost_errors.pop(self, None)
        return 0

    cdef object outcome(self):
        """Return the value or raise the error of a future that is done."""
        self.take()
        if self.state == FAILED:
            raise self.failure().with_traceback(None)
        if self.decode is not None:
            try:
                self.value = self.decode(self.value)
            except Exception as error:
                # Not the user's to catch: the code or the type hint must be mended, and the run waits for that.
                self.scheduler.condemn(_undecodable(error))
            self.decode = None
        return self.value

    def failure(self):
        if self.decode_error is not None:
            self.error = self.decode_error(self.error, self.attempts)
            self.decode_error = None
        return self.error

    cdef long long ready_seq(self) except -2:
        """Return the number of the completion if the answer is there, or -1; decodes nothing."""
        return self.seq if self.state != PENDING else -1

    cdef bint settle(self) except -1:
        """Make the answer this future's own; only a Receive has something to do, and may fail."""
        return True

    cdef int finish(self, int state, object outcome) except -1:
        """Complete the future and tell those who wait for it."""
        cdef object waiters = self.waiters
        self.waiters = None
        self.state = state
        if state == FAILED:
            self.error = outcome
        else:
            self.value = outcome
        self.scheduler.seqs += 1
        self.seq = self.scheduler.seqs
        if waiters is None:
            return 0
        if type(waiters) is not dict:
            return _notify(waiters, self)
        # Woken by one and the same event: by creation.
        for waiter in sorted(waiters, key=_creation):
            _notify(waiter, self)
        return 0

    cdef int watch(self, object waiter) except -1:
        if self.waiters is None:
            self.waiters = waiter
        elif type(self.waiters) is dict:
            (<dict>self.waiters)[waiter] = None
        elif self.waiters is not waiter:
            self.waiters = {self.waiters: None, waiter: None}
        return 0

    cdef bint is_watched_by(self, object waiter) except -1:
        return waiter in self.waiters if type(self.waiters) is dict else self.waiters is waiter

    cdef int unwatch(self, object waiter) except -1:
        if self.waiters is waiter:
            self.waiters = None
        elif type(self.waiters) is dict:
            (<dict>self.waiters).pop(waiter, None)
            if not self.waiters:
                self.waiters = None
        return 0


cdef Future _earliest(list sources):
    """Return the source whose event came first, now its own; ties by order. None if nothing has come."""
    cdef long long seq, first
    cdef object source
    cdef Future winner
    while True:
        first = -1
        winner = None
        for source in sources:
            seq = (<Future>source).ready_seq()
            if seq >= 0 and (first < 0 or seq < first):
                first = seq
                winner = <Future>source
        if winner is None or winner.settle():
            return winner


cdef object _undecodable(object error):
    wrapped = Undecodable(str(error))
    wrapped.__cause__ = error
    return wrapped


cdef int _notify(object waiter, Future future) except -1:
    if type(waiter) is Fiber:
        return (<Fiber>waiter).notify(future)
    return (<Completions>waiter).notify(future)


def _creation(waiter):
    return (<Fiber>waiter).number if type(waiter) is Fiber else (<Completions>waiter).fiber.number


cdef Future _new_future(Scheduler scheduler, Command command, object decode, object decode_error):
    cdef Future future = Future.__new__(Future)
    future.scheduler = scheduler
    future.command = command
    future.decode = decode
    future.decode_error = decode_error
    return future


@cython.final
cdef class Timer(Future):

    def cancel(self):
        """Cancel the timer: `get()` then raises TimerCancelledError.

        Returns:
            Whether it was still to fire; False if it has fired or was cancelled before.
        """
        cdef Fiber fiber = entered(False)
        if self.scheduler is not fiber.scheduler:
            raise _misuse_error("this timer belongs to another run")
        if self.state != PENDING:
            return False
        self.drop()
        self.finish(FAILED, _timer_cancelled_error("the timer was cancelled"))
        return True

    cdef int drop(self) except -1:
        """Ask for the timer not to fire. A fire that is on its way already finds nobody (B19)."""
        cdef Scheduler scheduler = self.scheduler
        scheduler.issue(Command(TIMER_CANCELLED, answers=self.command))
        scheduler.pending.pop(self.command.event_id, None)
        scheduler.new_futures.pop(self, None)
        return 0


cdef Timer _start_timer(Scheduler scheduler, long long duration_ns, Fiber owner):
    cdef Command command = Command(TIMER_SCHEDULED, duration_ns=duration_ns)
    cdef Timer timer = Timer.__new__(Timer)
    timer.scheduler = scheduler
    timer.command = command
    timer.decode = scheduler.env.moment
    timer.owner = owner
    scheduler.issue(command)
    scheduler.new_futures[timer] = None
    return timer
