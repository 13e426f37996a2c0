# Mailboxes: values in order of arrival, for signals and channels.

@cython.final
cdef class Mailbox:

    def __init__(self, Scheduler scheduler, str name, bint from_outside):
        self.scheduler = scheduler
        self.name = name
        self.values = deque()
        self.takers = {}
        self.from_outside = from_outside

    def __len__(self):
        return len(self.values)

    def receive(self, timeout=None, decode=None):
        """Wait for the next value. Raises TimeoutError when `timeout` (seconds or timedelta) is up first."""
        cdef Fiber fiber = entered(True)
        cdef Receive future
        if fiber.scheduler is not self.scheduler:
            raise _misuse_error(f"the channel {self.name!r} belongs to another run")
        if self.head(decode) >= 0:
            return self.pop()
        future = self.receive_future(decode)
        fiber.wait_any([future], timeout)
        if fiber.winner is None:
            raise TimeoutError(f"nothing came on {self.name!r} within {timeout}")
        return future.outcome()

    def try_receive(self, default=None, decode=None):
        """Return the next value if there is one, else `default`."""
        cdef Fiber fiber = entered(False)
        if fiber.scheduler is not self.scheduler:
            raise _misuse_error(f"the channel {self.name!r} belongs to another run")
        return self.pop() if self.head(decode) >= 0 else default

    def receive_future(self, decode=None):
        """Return a future of one value, which it takes only while somebody waits for it."""
        cdef Receive future = Receive.__new__(Receive)
        future.scheduler = self.scheduler
        future.mailbox = self
        future.decode = decode
        return future

    cdef long long head(self, object decode) except -2:
        """Return the seq of the first value that can be decoded, or -1; those that cannot are skipped.

        The decoded value is then in `head_value`, for a `pop` that follows at once.
        """
        while self.values:
            seq, raw, event_id = self.values[0]
            if _decoded(self, raw, event_id, decode):
                return seq
            self.values.popleft()
        return -1

    cdef object pop(self):
        value = self.head_value
        self.head_value = None
        self.values.popleft()
        return value

    cdef int put(self, object raw, long long event_id) except -1:
        """Give an arriving value to the first who waits, or keep it."""
        cdef Receive taker
        self.scheduler.seqs += 1
        while self.takers:
            taker = next(iter(self.takers))
            if not _decoded(self, raw, event_id, taker.decode):
                return 0
            del self.takers[taker]
            taker.decode = None
            taker.finish(DONE, self.head_value)
            self.head_value = None
            return 0
        self.values.append((self.scheduler.seqs, raw, event_id))
        return 0


cdef bint _decoded(Mailbox mailbox, object raw, long long event_id, object decode) except -1:
    """Decode a value into `head_value`; False if it is skipped.

    A recorded task obeys what it recorded instead of trying again (semantics.md, signals).
    """
    cdef Scheduler scheduler = mailbox.scheduler
    if decode is None:
        mailbox.head_value = raw
        return True
    if scheduler.replaying and event_id in scheduler.recorded_skipped:
        scheduler.skipped.append(event_id)
        return False
    # Decoding runs in the hub or in a fiber, as events come: what it may do must not depend on that.
    scheduler.forbidden = "the decoding of a signal"
    try:
        mailbox.head_value = decode(raw)
        return True
    except Exception as error:
        trouble = error
    finally:
        scheduler.forbidden = None
    if scheduler.replaying:
        if scheduler.running is None:
            scheduler.doom = _undecodable(trouble)
            return False
        scheduler.condemn(_undecodable(trouble))
    scheduler.skipped.append(event_id)
    scheduler.env.signal_skipped(mailbox.name, event_id, trouble)
    return False


@cython.final
cdef class Receive(Future):

    cdef long long ready_seq(self) except -2:
        return self.seq if self.state != PENDING else self.mailbox.head(self.decode)

    cdef bint settle(self) except -1:
        """Take the first value; False if another receiver's decoder has thrown it out meanwhile."""
        if self.state == PENDING:
            if self.mailbox.head(self.decode) < 0:
                return False
            self.seq = self.mailbox.values[0][0]
            self.value = self.mailbox.pop()
            self.decode = None
            self.state = DONE
        return True

    cdef int watch(self, object waiter) except -1:
        Future.watch(self, waiter)
        self.mailbox.takers[self] = None
        return 0

    cdef int unwatch(self, object waiter) except -1:
        Future.unwatch(self, waiter)
        if self.waiters is None:
            # The loser of a select must never swallow the next value (B40).
            self.mailbox.takers.pop(self, None)
        return 0
