# The numbers and errors that all parts share.

# Codes of event kinds; tests/core/test_codes.py holds them against derecho.journal.events.
cdef enum:
    WORKFLOW_STARTED = 1
    WORKFLOW_COMPLETED = 2
    WORKFLOW_FAILED = 3
    CANCEL_REQUESTED = 4
    WORKFLOW_CANCELLED = 5
    CONTINUED_AS_NEW = 6
    ACTIVITY_SCHEDULED = 10
    ACTIVITY_STARTED = 11
    ACTIVITY_COMPLETED = 12
    ACTIVITY_FAILED = 13
    TIMER_SCHEDULED = 14
    TIMER_FIRED = 15
    TIMER_CANCELLED = 16
    SIDE_EFFECT_RECORDED = 17
    SIGNAL_RECEIVED = 18
    SIGNAL_EXTERNAL_SCHEDULED = 19
    CHILD_WORKFLOW_SCHEDULED = 20
    CHILD_WORKFLOW_STARTED = 21
    CHILD_WORKFLOW_COMPLETED = 22
    CHILD_WORKFLOW_FAILED = 23

# A future is...
cdef enum:
    PENDING = 0
    DONE = 1
    FAILED = 2

# A fiber is...
cdef enum:
    NEW = 0
    READY = 1
    RUNNING = 2
    PARKED = 3
    ENDED = 4

# ...and if it is parked, it waits for...
cdef enum:
    NOTHING = 0
    ANY = 1        # the first of its sources
    ALL = 2        # all of its sources, or the first failure
    PREDICATE = 3  # a predicate to be true
    EACH = 4       # the next of its Completions

# A run that resumes fibers so often within one task is in a livelock (semantics.md, fibers).
RESUMPTIONS_MAX = 100_000
# A fiber that catches its eviction so often is put into quarantine.
EVICTION_THROWS_MAX = 3
# So many idle greenlets are kept by a thread: each holds a stack chunk of 16 KiB.
IDLE_GREENLETS_MAX = 1_000

cdef int _resumptions_max = RESUMPTIONS_MAX
cdef int _eviction_throws_max = EVICTION_THROWS_MAX
cdef int _idle_greenlets_max = IDLE_GREENLETS_MAX

# The errors that user code sees belong to derecho.errors, which the core must not import; `bind_errors` brings them.
cdef object _misuse_error = RuntimeError
cdef object _cancelled_error = BaseException
cdef object _timer_cancelled_error = RuntimeError


def bind_errors(*, misuse, cancelled, timer_cancelled):
    global _misuse_error, _cancelled_error, _timer_cancelled_error
    _misuse_error = misuse
    _cancelled_error = cancelled
    _timer_cancelled_error = timer_cancelled


class Eviction(BaseException):
    """Thrown into fibers whose run leaves the memory; not for users, and nothing may be recorded while it flies."""


class Mismatch(Exception):
    """The code did not ask again for what is recorded: `event` or `command` may be None, `blocked_at` a site."""

    def __init__(self, event, command, blocked_at, detail=""):
        super().__init__(event, command, blocked_at, detail)
        self.event = event
        self.command = command
        self.blocked_at = blocked_at
        self.detail = detail


class Livelock(Exception):
    """The fibers of one run woke each other without end within one task."""


class Undecodable(Exception):
    """A recorded payload cannot be decoded; the reason is the `__cause__`."""
