# Fibers, the greenlets that carry them, and the one place where a fiber gives up control: `Fiber.park`.

cdef long long _live_fibers = 0
# The stacks of fibers that refused to die, for ever: a greenlet that is dropped gets GreenletExit thrown into it, and
# these catch all that is thrown. A C variable, so that the end of the interpreter does not drop them either.
cdef list _quarantine = []
cdef dict _modules = sys.modules


def live_fibers():
    """Return how many fibers of this process have begun and not ended; those in quarantine count no more."""
    return _live_fibers


cdef Fiber entered(bint blocking):
    """Return the fiber that makes this API call, or raise: the gate of every call that workflow code makes."""
    cdef greenlet current = PyGreenlet_GetCurrent()
    cdef Fiber fiber
    if type(current) is not FiberGreenlet:
        raise _misuse_error(
            "this can only be called in workflow code: in a function under @workflow, on its own thread, "
            "and not in an activity"
        )
    fiber = (<FiberGreenlet>current).fiber
    if fiber is None or fiber.state != RUNNING or fiber.collecting:
        raise _misuse_error(
            "this was called by a finalizer, at no certain moment and maybe of another run: close generators and "
            "context managers in workflow code"
        )
    fiber.scheduler.progress += 1
    if fiber.scheduler.dying:
        _refuse(fiber)
    if fiber.scheduler.forbidden is not None:
        raise _misuse_error(f"this call is not allowed inside {fiber.scheduler.forbidden}, which must be a pure read")
    if blocking:
        if _event_loop() is not fiber.scheduler.event_loop:
            raise _misuse_error("a workflow cannot wait inside asyncio: the event loop would stand still with it")
        if fiber.cancel_next:
            fiber.cancel_next = False
            raise _cancelled_error(fiber.scheduler.env.cancel_reason())
    return fiber


cdef object _event_loop():
    """Return the asyncio loop that runs on this thread, or None; costs nothing where nobody has imported asyncio."""
    events = _modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()


def _watch_collections(phase, details):
    """See to it that nothing which the garbage collector finalizes reaches into the fiber that it interrupted.

    Such as the finally block of a generator, left in a cycle by a run that is no longer in memory.
    """
    cdef greenlet current
    cdef Fiber fiber
    try:
        current = PyGreenlet_GetCurrent()
    except RuntimeError:
        return  # The interpreter ends, and greenlet with it.
    if type(current) is FiberGreenlet:
        fiber = (<FiberGreenlet>current).fiber
        if fiber is not None:
            fiber.collecting = phase == "start"


gc.callbacks.append(_watch_collections)


cdef int _refuse(Fiber fiber) except -1:
    """An API call in a fiber that is being evicted: raise again; one that never stops is parked for good."""
    fiber.refusals += 1
    if fiber.refusals % 100 == 0:
        PyGreenlet_Switch(fiber.scheduler.hub, NULL, NULL)
    raise Eviction()


@cython.final
@cython.freelist(64)
cdef class Fiber:

    def __init__(self):
        raise TypeError("fibers are made by spawn()")

    cdef int park(self) except -1:
        """Give up control until the scheduler resumes this fiber. The only switch out of workflow code."""
        self.state = PARKED
        PyGreenlet_Switch(self.scheduler.hub, NULL, NULL)
        if self.scheduler.dying:
            raise Eviction()
        if self.cancel_now:
            self.cancel_now = False
            raise _cancelled_error(self.scheduler.env.cancel_reason())
        return 0

    cdef int ready(self) except -1:
        """Put the fiber at the end of the ready queue."""
        cdef Scheduler scheduler = self.scheduler
        self.state = READY
        if scheduler.last_ready is None:
            scheduler.first_ready = self
        else:
            scheduler.last_ready.next_ready = self
        scheduler.last_ready = self
        return 0

    cdef int notify(self, Future future) except -1:
        """A source of the wait is done."""
        if self.wait == ANY:
            self.winner = future
        elif self.wait == ALL:
            self.missing -= 1
            if self.missing and future.state != FAILED:
                return 0
        self.withdraw()
        return self.ready()

    cdef int withdraw(self) except -1:
        """Stop waiting for whatever the fiber is parked in, so that a lost branch takes nothing any more."""
        cdef object source
        if self.wait == PREDICATE:
            self.scheduler.predicates.pop(self, None)
        elif self.wait == EACH:
            (<Completions>self.sources[0]).unpark()
        elif self.sources is not None:
            for source in self.sources:
                (<Future>source).unwatch(self)
        self.sources = None
        return 0

    cdef int begin(self, int wait, list sources, long long timeout_ns) except -1:
        """Set up a wait; `timeout_ns` below zero = no limit."""
        cdef Scheduler scheduler = self.scheduler
        self.wait = wait
        self.sources = sources
        self.winner = None
        self.timed_out = False
        scheduler.seqs += 1
        self.wait_no = scheduler.seqs
        if timeout_ns >= 0:
            self.limit = _start_timer(scheduler, timeout_ns, self)
        return 0

    cdef int end(self) except -1:
        """Clean up after a wait, however it ended: a timer whose fire is not visible yet is cancelled."""
        cdef Timer limit = self.limit
        self.wait = NOTHING
        self.sources = None
        self.limit = None
        self.predicate = None
        if limit is not None:
            limit.owner = None
            if limit.state == PENDING and not self.scheduler.dying:
                limit.drop()
        return 0

    cdef int wait_any(self, list sources, object timeout) except -1:
        """Wait for the first of `sources`, which is then `winner`; None if the time was up first."""
        cdef object source
        cdef long long timeout_ns = -1 if timeout is None else self.scheduler.env.duration_ns(timeout, "timeout")
        self.winner = _earliest(sources)
        if self.winner is not None or timeout_ns == 0:
            return 0
        self.begin(ANY, sources, timeout_ns)
        for source in sources:
            (<Future>source).watch(self)
        try:
            self.park()
        finally:
            self.end()
        return 0

    cdef bint holds(self) except -1:
        """Evaluate the predicate of wait_for: a pure read, in the fiber's own context."""
        cdef Scheduler scheduler = self.scheduler
        scheduler.forbidden = "a wait_for predicate"
        self.asked_cancelled = False
        try:
            return bool(self.predicate())
        finally:
            scheduler.forbidden = None

    cdef int resume(self) except -1:
        """Run the fiber until it parks or ends. Called by the hub."""
        global _live_fibers
        cdef Scheduler scheduler = self.scheduler
        cdef FiberGreenlet carrier = self.greenlet
        self.state = RUNNING
        scheduler.running = self
        scheduler.progress += 1
        if carrier is None:
            carrier = scheduler.pool.take()
            carrier.fiber = self
            self.greenlet = carrier
            _live_fibers += 1
        try:
            PyGreenlet_Switch(carrier, NULL, NULL)
        finally:
            scheduler.running = None
        return 0

    cdef int execute(self) except -1:
        """Run the function from its beginning to its end. Called on the fiber's own stack; raises nothing."""
        global _live_fibers
        cdef Scheduler scheduler = self.scheduler
        PyContext_Enter(self.context)
        try:
            value = self.fn(*self.args, **self.kwargs)
            if not scheduler.dying:
                self.future.finish(DONE, value)
        except Eviction:
            if not scheduler.dying:
                self.fail(_misuse_error("workflow code raised derecho's own Eviction"))
        except KeyboardInterrupt as error:
            scheduler.doom = error
        except BaseException as error:
            if not scheduler.dying:
                try:
                    self.fail(error)
                except BaseException as trouble:
                    scheduler.doom = trouble
        PyContext_Exit(self.context)
        self.state = ENDED
        self.fn = self.args = self.kwargs = self.context = None
        scheduler.fibers.pop(self, None)
        _live_fibers -= 1
        return 0

    cdef int fail(self, object error) except -1:
        """Keep the error in the future and say so at once; CancelledError ends a fiber quietly."""
        cdef Scheduler scheduler = self.scheduler
        cdef Future future = self.future
        if self is not scheduler.main:
            if isinstance(error, _cancelled_error):
                future.taken = True
            else:
                if not future.taken:
                    scheduler.lost_errors[future] = None
                scheduler.env.fiber_failed(self.number, error)
        return future.finish(FAILED, error)


@cython.final
cdef class FiberGreenlet(greenlet):

    def run(self):
        cdef greenlet hub
        while self.fiber is not None:
            self.fiber.execute()
            hub = self.fiber.scheduler.hub
            self.fiber.greenlet = None
            self.fiber = None
            if len(self.pool.idle) >= _idle_greenlets_max:
                self.parent = hub  # Where control goes when a greenlet ends.
                return
            self.pool.idle.append(self)
            PyGreenlet_Switch(hub, NULL, NULL)
            hub = None


@cython.final
cdef class Pool:
    # A greenlet made, run and finished costs about 14 us (a stack chunk is mapped and unmapped); reused, under 1.

    def __cinit__(self):
        self.idle = []

    def __len__(self):
        return len(self.idle)

    cdef int check_thread(self) except -1:
        """See to it that all greenlets here are of one thread, the first that asks: no other can switch to them."""
        cdef unsigned long thread_id = PyThread_get_thread_ident()
        if self.thread_id == 0:
            self.thread_id = thread_id
        elif self.thread_id != thread_id:
            raise RuntimeError("a run belongs to the thread that ran it first; it was touched on another one")
        return 0

    cdef FiberGreenlet take(self):
        cdef FiberGreenlet carrier
        if self.idle:
            return <FiberGreenlet>self.idle.pop()
        carrier = FiberGreenlet()
        carrier.pool = self
        return carrier

    def close(self):
        """End the idle greenlets; call it on the thread that owns the pool, before the thread ends."""
        cdef FiberGreenlet carrier
        if self.idle:
            self.check_thread()
        while self.idle:
            carrier = <FiberGreenlet>self.idle.pop()
            carrier.parent = PyGreenlet_GetCurrent()  # Where control goes when it ends.
            PyGreenlet_Switch(carrier, NULL, NULL)


_of_thread = _thread_local()


def thread_pool():
    """Return the pool of the calling thread."""
    try:
        return _of_thread.pool
    except AttributeError:
        _of_thread.pool = Pool()
        return _of_thread.pool


cdef Future _new_fiber(Scheduler scheduler, object fn, tuple args, dict kwargs):
    cdef Fiber fiber = Fiber.__new__(Fiber)
    scheduler.fibers_made += 1
    fiber.number = scheduler.fibers_made
    fiber.scheduler = scheduler
    fiber.fn = fn
    fiber.args = args
    fiber.kwargs = kwargs
    # A new greenlet would begin with an empty context.
    fiber.context = PyContext_Copy(scheduler.base_context)
    fiber.future = _new_future(scheduler, None, None, None)
    scheduler.fibers[fiber] = None
    if scheduler.main is None:
        scheduler.main = fiber
    else:
        fiber.ready()
    return fiber.future
