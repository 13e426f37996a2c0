# What workflow code calls: the functions that schedule, and those that wait.

def current():
    """Return the scheduler whose workflow code is running on this thread's current stack, or None."""
    cdef greenlet carrier = PyGreenlet_GetCurrent()
    if type(carrier) is not FiberGreenlet or (<FiberGreenlet>carrier).fiber is None:
        return None
    return (<FiberGreenlet>carrier).fiber.scheduler


def enter():
    """Return the current scheduler for a call that may not be made everywhere, or raise what forbids it."""
    return entered(False).scheduler


cdef list _own(Fiber fiber, object futures):
    """Check that these are futures of the fiber's own run; each once, in order."""
    cdef dict own = {}
    for future in futures:
        if not isinstance(future, Future):
            raise TypeError(
                f"expected a future, got {type(future).__name__}; call .execute(), spawn() or timer() to get one"
            )
        own[future] = None
        if (<Future>future).scheduler is not fiber.scheduler:
            raise _misuse_error("this future belongs to another run; a run can only wait for its own futures")
    return list(own)


def schedule(int code, str name, payload, *, str target="", options=None, decode=None, decode_error=None):
    """Ask for an activity or a child and return the future of its outcome."""
    cdef Scheduler scheduler = entered(False).scheduler
    cdef Command command = Command(code, name, payload, target=target, options=options)
    cdef Future future = _new_future(scheduler, command, decode, decode_error)
    scheduler.issue(command)
    scheduler.new_futures[future] = None
    return future


def send(str target, str name, payload):
    """Send a signal to another workflow."""
    entered(False).scheduler.issue(Command(SIGNAL_EXTERNAL_SCHEDULED, name, payload, target=target))


def side_effect(fn, tuple args, dict kwargs):
    """Run `fn` once, record its value, and give the recorded value: now and on every replay."""
    cdef Scheduler scheduler = entered(False).scheduler
    if scheduler.replaying:
        event = scheduler.issue(Command(SIDE_EFFECT_RECORDED))
        return _recorded_value(scheduler, event.result, event.error)
    scheduler.forbidden = "a side effect"
    try:
        result, failure = scheduler.env.run_side_effect(fn, args, kwargs)
    except BaseException as error:
        # Nothing is recorded that a replay could raise again, so the code must not go on with it.
        scheduler.condemn(error)
    finally:
        scheduler.forbidden = None
    scheduler.issue(Command(SIDE_EFFECT_RECORDED, payload=result, options=failure))
    # Decoded again, so that the first execution sees what a replay will see.
    return _recorded_value(scheduler, result, failure)


cdef object _recorded_value(Scheduler scheduler, object result, object failure):
    if failure is not None:
        raise scheduler.env.side_effect_error(failure)
    try:
        return scheduler.env.side_effect_value(result)
    except Exception as error:
        scheduler.condemn(_undecodable(error))


def spawn(fn, *args, **kwargs):
    """Start a fiber: it is queued, and the caller goes on."""
    return _new_fiber(entered(False).scheduler, fn, args, kwargs)


def timer(long long duration_ns):
    """Start a timer."""
    return _start_timer(entered(False).scheduler, duration_ns, None)


def sleep(long long duration_ns):
    """Park the fiber for a time; its timer is private, so a cancellation cancels it too."""
    cdef Fiber fiber = entered(True)
    cdef Timer alarm = _start_timer(fiber.scheduler, duration_ns, None)
    try:
        fiber.wait_any([alarm], None)
    except BaseException:
        if alarm.state == PENDING and not fiber.scheduler.dying:
            alarm.drop()
        raise


def wait_for(predicate, timeout=None):
    """Wait until `predicate()` is true; return False if the time was up first."""
    cdef Fiber fiber = entered(True)
    cdef Scheduler scheduler = fiber.scheduler
    cdef long long timeout_ns = -1 if timeout is None else scheduler.env.duration_ns(timeout, "timeout")
    fiber.predicate = predicate
    try:
        if fiber.holds():
            return True
        if timeout_ns == 0:
            return False
        fiber.begin(PREDICATE, None, timeout_ns)
        scheduler.predicates[fiber] = None
        while True:
            # The hub resumes this fiber only for it to look again (or to be cancelled).
            fiber.park()
            if fiber.holds():
                return True
            if fiber.timed_out:
                return False
    finally:
        scheduler.predicates.pop(fiber, None)
        fiber.end()


def select(*futures):
    """Wait for the first of the futures and return it; the others are released."""
    cdef Fiber fiber = entered(True)
    cdef list sources = _own(fiber, futures)
    if not sources:
        raise _misuse_error("select() needs at least one future: waiting for none of none would never end")
    fiber.wait_any(sources, None)
    return fiber.winner


def gather(*futures):
    """Wait for all futures and return their values in order, or raise the first failure by completion."""
    cdef Fiber fiber = entered(True)
    cdef list sources = _own(fiber, futures)
    cdef list missing = []
    cdef Future future
    cdef Future failed = _first_failed(sources)
    if failed is None:
        for future in sources:
            if future.ready_seq() >= 0:
                future.settle()
            if future.state == PENDING:
                missing.append(future)
    if missing:
        fiber.begin(ALL, missing, -1)
        fiber.missing = len(missing)
        for future in missing:
            future.watch(fiber)
        try:
            fiber.park()
        finally:
            fiber.end()
        failed = _first_failed(sources)
    for future in sources:
        future.take()
    if failed is not None:
        failed.outcome()
    return [(<Future>future).outcome() for future in futures]


cdef Future _first_failed(list futures):
    cdef Future future, first = None
    for future in futures:
        if future.state == FAILED and (first is None or future.seq < first.seq):
            first = future
    return first


@cython.final
cdef class Completions:

    def __init__(self, futures):
        cdef Fiber fiber = entered(False)
        cdef Future future
        cdef list done = []
        self.receives = []
        for future in _own(fiber, futures):
            if future.state != PENDING:
                done.append(future)
            elif type(future) is Receive:
                self.receives.append(future)
            else:
                self.missing += 1
                future.watch(self)
        self.fiber = fiber
        # A stable sort: ties keep the order of the arguments.
        self.done = deque(sorted(done, key=_seq_of))

    def __iter__(self):
        return self

    def __next__(self):
        cdef Fiber fiber = entered(True)
        cdef Future future
        if fiber.scheduler is not self.fiber.scheduler:
            raise _misuse_error("this as_completed() belongs to another run")
        if self.parked:
            raise _misuse_error("another fiber waits for the next future of this as_completed()")
        if self.receives:
            future = _earliest([self.done[0], *self.receives] if self.done else self.receives)
            if future is not None and not (self.done and future is self.done[0]):
                self.receives.remove(future)
                return future
        if not self.done:
            if not self.missing and not self.receives:
                raise StopIteration
            self.fiber = fiber
            self.parked = True
            fiber.begin(EACH, [self], -1)
            for future in self.receives:
                future.watch(self)
            try:
                fiber.park()
            finally:
                self.parked = False
                fiber.end()
        return self.done.popleft()

    cdef int notify(self, Future future) except -1:
        self.done.append(future)
        if type(future) is Receive:
            self.receives.remove(future)
        else:
            self.missing -= 1
        if self.parked:
            self.fiber.withdraw()
            self.fiber.ready()
        return 0

    cdef int unpark(self) except -1:
        cdef Future future
        self.parked = False
        for future in self.receives:
            future.unwatch(self)
        return 0


def _seq_of(future):
    return (<Future>future).seq
