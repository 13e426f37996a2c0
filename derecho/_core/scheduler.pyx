# The scheduler of one run: events in, commands out.

@cython.final
cdef class Scheduler:

    def __init__(self, main, env, *, Pool pool=None, bint raises_cancel=True, bint strict=False):
        """Make the run's main fiber; it begins when the WorkflowStarted event is applied.

        Args:
            main: a function without arguments.
            env: the core's surroundings; see `Environment` in `_core.pyi`.
            pool: the calling thread's, unless given.
            raises_cancel: whether a cancel request raises CancelledError in the fibers.
            strict: whether a different input is a mismatch on replay.
        """
        self.env = env
        self.pool = pool if pool is not None else thread_pool()
        self.raises_cancel = raises_cancel
        self.strict = strict
        self.base_context = copy_context()
        self.fibers = {}
        self.pending = {}
        self.mailboxes = {}
        self.lost_errors = {}
        self.predicates = {}
        self.new_futures = {}
        self.issued = []
        self.recorded = []
        self.recorded_skipped = frozenset()
        self.skipped = []
        self.differences = []
        self.expired = []
        self.stuck = ""
        self.cancel_future = _new_future(self, None, None, None)
        _new_fiber(self, main, (), {})

    # --- one workflow task

    def advance(self, events, long long time_ns, *, recorded=None, skipped=frozenset(), bint by_creation=False):
        """Run one workflow task: apply the events that became visible, run fibers until all are parked.

        Args:
            events: what became visible, in the order of the journal.
            time_ns: the workflow time of the task.
            recorded: the command events of a recorded task, to be matched; None for a new task.
            skipped: ids of the signals that the recorded task skipped.
            by_creation: run fibers that these events woke by creation, as the original does.

        Returns:
            The commands of a new task, in order; after its commit call `committed`. Empty for a recorded one.

        Raises:
            Mismatch, Undecodable, Livelock: the task cannot be committed. Close the scheduler.
        """
        if self.hub is not None or self.dying or self.closed or self.doom is not None:
            raise RuntimeError("advance() on a scheduler that is running, failed or closed")
        self.pool.check_thread()
        self.hub = PyGreenlet_GetCurrent()
        self.event_loop = _event_loop()
        try:
            self.time_ns = time_ns
            self.replaying = recorded is not None
            self.recorded = list(recorded) if recorded is not None else []
            self.recorded_skipped = skipped
            self.cursor = 0
            self.resumptions = 0
            self.stuck = ""
            self.issued = []
            self.skipped = []
            self.differences = []
            for event in events:
                self.apply(event)
            self.judge_timeouts()
            if by_creation:
                self._queue_by_creation(None)
            if self.doom is None:
                self.run_fibers()
            self.check_task()
        except BaseException as error:
            self.doom = error
            raise
        finally:
            self.hub = self.event_loop = None
        return self.issued

    def committed(self, ids):
        """Tell the event ids that the commands of the last new task were given."""
        cdef Command command
        cdef Future future
        for command, event_id in zip(self.issued, ids, strict=True):
            command.event_id = event_id
        for future in self.new_futures:
            self.pending[future.command.event_id] = future
        self.new_futures = {}

    def close(self):
        """Evict the run: unwind its fibers in reverse order, with nothing recorded. Call it on the run's thread."""
        cdef Fiber fiber
        if self.hub is not None:
            raise RuntimeError("close() on a scheduler that is running")
        self.hub = PyGreenlet_GetCurrent()
        self.dying = True
        self.doom = None
        try:
            for fiber in reversed(list(self.fibers)):
                self._evict(fiber)
        finally:
            self.hub = None
        self.fibers = {}
        self.pending = {}
        self.new_futures = {}
        self.lost_errors = {}
        interruption, self.doom = self.doom, None
        if interruption is not None:
            raise interruption  # Ctrl-C in a finally block: all the others have run.

    def _evict(self, Fiber fiber):
        global _live_fibers
        cdef int _throw
        if fiber.greenlet is None:
            return
        self.pool.check_thread()
        for _throw in range(_eviction_throws_max):
            fiber.resume()
            if fiber.state == ENDED:
                return
        # It catches everything and goes on: its stack is kept, so that nothing is thrown into it ever again.
        _quarantine.append(fiber.greenlet)
        self.pool.quarantined += 1
        _live_fibers -= 1

    # --- what the surroundings ask

    def mailbox(self, str name):
        """Return the mailbox of signals of this name."""
        box = self.mailboxes.get(name)
        if box is None:
            box = self.mailboxes[name] = Mailbox(self, name, True)
        return box

    def is_cancelled(self):
        """Tell whether a cancel request is visible; a predicate that asks is woken by one."""
        if self.running is not None:
            self.running.asked_cancelled = True
        return self.cancel_future.state != PENDING

    def frames(self):
        """Return (fiber number, innermost Python frame or None) of each live fiber, by creation."""
        return [
            ((<Fiber>fiber).number, None if (<Fiber>fiber).greenlet is None else (<Fiber>fiber).greenlet.gr_frame)
            for fiber in list(self.fibers)
        ]

    def unread(self):
        """Return how many visible signals nobody has received."""
        return sum(len(box) for box in self.mailboxes.values())

    @property
    def fibers_alive(self):
        """How many fibers have not ended."""
        return len(self.fibers)

    @property
    def running_fiber(self):
        """The number of the fiber that runs now, or 0."""
        return self.running.number if self.running is not None else 0

    # --- events

    cdef int apply(self, object event) except -1:
        cdef int code = event.code
        cdef long long event_id = event.id
        cdef Mailbox box
        if event_id:
            self.last_event_id = event_id
        if code == WORKFLOW_STARTED:
            self.main.ready()
        elif code == SIGNAL_RECEIVED:
            box = self.mailbox(event.signal_name)
            box.put(event.payload, event_id)
        elif code == CANCEL_REQUESTED:
            self.apply_cancel(event)
        elif ACTIVITY_STARTED < code <= TIMER_FIRED or CHILD_WORKFLOW_STARTED < code <= CHILD_WORKFLOW_FAILED:
            self.apply_outcome(event, code, event.scheduled_by_id)
        elif code == ACTIVITY_STARTED:
            future = self.pending.get(event.scheduled_by_id)
            if future is not None:
                (<Future>future).attempts = event.attempt
        return 0

    cdef int apply_outcome(self, object event, int code, long long answered) except -1:
        cdef Future future = self.pending.pop(answered, None)
        cdef Fiber owner
        if code == TIMER_SCHEDULED:
            return 0
        if future is None:
            if code == TIMER_FIRED:
                return 0  # It was cancelled by a task that could not see the fire (B19).
            raise ValueError(f"event {event.id} answers event {answered}, which is no command without an outcome")
        if code == TIMER_FIRED:
            owner = (<Timer>future).owner
            if owner is not None:
                owner.timed_out = True
                self.expired.append(owner)
            return future.finish(DONE, event.fired_at_ns)
        if code == ACTIVITY_COMPLETED or code == CHILD_WORKFLOW_COMPLETED:
            return future.finish(DONE, event.result)
        return future.finish(FAILED, event.error if code == ACTIVITY_FAILED else event)

    cdef int apply_cancel(self, object event) except -1:
        """Break the wait of every fiber, or mark it for its next blocking call; once for all requests."""
        cdef Fiber fiber
        cdef Fiber last_ready = self.last_ready
        if self.cancel_future.state != PENDING:
            return 0
        alive = list(self.fibers)
        parked = [(<Fiber>fiber).state == PARKED and not (<Fiber>fiber).timed_out for fiber in alive]
        self.cancel_future.finish(DONE, self.env.cancel_info(event))
        if not self.raises_cancel:
            return 0
        for fiber, waits in zip(alive, parked):
            if waits and fiber.state == PARKED:
                fiber.withdraw()
                fiber.cancel_now = True
                fiber.ready()
            else:
                fiber.cancel_next = True
        # Those that waited for cancelled() came first.
        self._queue_by_creation(last_ready)
        return 0

    cdef int judge_timeouts(self) except -1:
        """Wake the fibers whose time is up, now that what they wait for has had its chance.

        A wait_for is judged later: when its predicate is found false with the ready queue empty.
        """
        cdef Fiber fiber
        expired = self.expired
        self.expired = []
        for fiber in expired:
            if fiber.state == PARKED and fiber.wait != PREDICATE:
                fiber.withdraw()
                fiber.ready()
        return 0

    def _queue_by_creation(self, Fiber after):
        """Sort by creation what became ready after this fiber; None = all."""
        cdef Fiber fiber = self.first_ready if after is None else after.next_ready
        queued = []
        while fiber is not None:
            queued.append(fiber)
            fiber = fiber.next_ready
        if after is None:
            self.first_ready = None
        else:
            after.next_ready = None
        self.last_ready = after
        for fiber in sorted(queued, key=_creation):
            fiber.next_ready = None
            fiber.ready()

    # --- fibers

    cdef int run_fibers(self) except -1:
        cdef Fiber fiber
        while True:
            while self.first_ready is not None:
                fiber = self.first_ready
                self.first_ready = fiber.next_ready
                fiber.next_ready = None
                if self.first_ready is None:
                    self.last_ready = None
                self.resumptions += 1
                if self.resumptions > _resumptions_max:
                    raise Livelock(f"more than {_resumptions_max} resumptions of fibers in one workflow task")
                fiber.resume()
                if self.doom is not None:
                    return 0
                if self.main.state == ENDED:
                    return self.close_run()
            if not self.predicates or not self.evaluate_predicates():
                break
            if self.doom is not None:
                return 0
            if self.main.state == ENDED:
                return self.close_run()
        return self.find_stuck()

    cdef bint evaluate_predicates(self) except -1:
        """Let each waiting fiber look at its predicate; True as soon as one has gone on."""
        cdef Fiber fiber
        cdef long long wait_no
        for fiber in list(self.predicates):
            wait_no = fiber.wait_no
            fiber.resume()
            if self.doom is not None or fiber.state != PARKED or fiber.wait != PREDICATE or fiber.wait_no != wait_no:
                self.resumptions += 1
                if self.resumptions > _resumptions_max:
                    raise Livelock(f"more than {_resumptions_max} resumptions of fibers in one workflow task")
                return True
        return False

    cdef list untaken(self):
        """Return the errors of fibers that nobody has looked at, by completion."""
        return [(<Future>future).failure() for future in self.lost_errors]

    cdef int close_run(self) except -1:
        """The main fiber has ended, and so has the run."""
        cdef Future ended = self.main.future
        code, payload = self.env.close(
            ended.value if ended.state == DONE else None,
            ended.error if ended.state == FAILED else None,
            self.untaken(),
        )
        self.issue(Command(code, payload=payload))
        self.closed = True
        return 0

    cdef int find_stuck(self) except -1:
        """See whether anything can ever move the run again, so that nothing hangs for a dead fiber in silence."""
        if self.pending or self.new_futures or self.can_go_on():
            return 0
        lost = self.untaken()
        if lost:
            code, payload = self.env.close(None, lost[0], lost[1:])
            self.issue(Command(code, payload=payload))
            self.closed = True
        else:
            self.stuck = "no fiber can ever go on: none waits for anything that can still happen"
        return 0

    cdef bint can_go_on(self) except -1:
        cdef Fiber fiber
        for fiber in self.fibers:
            if fiber.wait == PREDICATE and fiber.asked_cancelled and self.cancel_future.state == PENDING:
                return True
            sources = fiber.sources
            waiter = fiber
            if fiber.wait == EACH:
                waiter = sources[0]
                sources = (<Completions>waiter).receives
            if self.cancel_future.is_watched_by(waiter):
                return True
            for source in sources or ():
                if type(source) is Receive and (<Receive>source).mailbox.from_outside:
                    return True
        return False

    # --- commands

    cdef object issue(self, Command command):
        """Take a command from the running fiber: match it on replay (and return its event), else collect it."""
        if self.dying:
            raise Eviction()
        self.commands_made += 1
        command.number = self.commands_made
        if self.replaying:
            return self.match(command)
        command.site = self.env.site()
        self.issued.append(command)
        return None

    cdef object match(self, Command command):
        if self.cursor >= len(self.recorded):
            command.site = self.env.site()
            self.condemn(Mismatch(None, command, command.site))
        event = self.recorded[self.cursor]
        if event.code != command.code or _identity_differs(command, event) is not None:
            command.site = self.env.site()
            self.condemn(Mismatch(event, command, command.site))
        content = _content_differs(command, event)
        if content is not None:
            if self.strict:
                command.site = self.env.site()
                self.condemn(Mismatch(event, command, command.site, f"another {content}"))
            self.differences.append((event.id, content))
        self.cursor += 1
        command.event_id = event.id
        return event

    cdef int condemn(self, object error) except -1:
        """Make this task impossible to commit. The running fiber never goes on, so user code cannot catch it."""
        if self.doom is None:
            self.doom = error
        if self.running is None:
            raise error
        self.running.state = PARKED
        while True:
            PyGreenlet_Switch(self.hub, NULL, NULL)
            if self.dying:
                raise Eviction()

    cdef int check_task(self) except -1:
        cdef Future future
        if self.doom is not None:
            raise self.doom
        if not self.replaying:
            return 0
        if self.cursor < len(self.recorded):
            raise Mismatch(self.recorded[self.cursor], None, self.env.blocked_at())
        for future in self.new_futures:
            self.pending[future.command.event_id] = future
        self.new_futures = {}
        return 0
