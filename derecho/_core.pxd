# The index of the compiled core: every class with its fields, grouped by what they are for. Read this first.
#
# A run is one Scheduler. Its fibers are greenlets; a fiber is ready, running or parked. Parked fibers wait for
# futures, for mailboxes (through a Receive future), or for a predicate. `Scheduler.advance` applies events, runs
# ready fibers until all are parked, and gives the commands that came out.

from derecho._greenlet cimport greenlet


cdef class Command:
    """What a fiber asks for; becomes an event when it is committed."""
    cdef readonly int code                # the code of the event that it becomes
    cdef readonly int number              # 1.. in the run
    cdef readonly long long event_id      # its event, once known; 0 before
    cdef readonly str name                # activity, signal, or workflow type
    cdef readonly str target              # workflow id of the receiver or the child
    cdef readonly object payload          # encoded input, result or signal; a failure for WorkflowFailed
    cdef readonly object options          # policies; opaque here
    cdef readonly long long duration_ns   # of a timer
    cdef readonly Command answers         # the timer that a TimerCancelled cancels
    cdef readonly object site             # "file:line", taken on first execution only


cdef class Future:
    """The place where an answer appears."""
    cdef Scheduler scheduler
    cdef int state                        # PENDING, DONE, FAILED
    cdef readonly long long seq           # number of its completion in the run; 0 while pending
    cdef object value                     # raw until first asked for, then decoded
    cdef object error                     # exception, or a raw failure until first asked for
    cdef object decode                    # raw value -> value; None = as it is
    cdef object decode_error              # (raw failure, attempts) -> exception; None = it is one
    cdef int attempts                     # of the activity
    cdef bint taken                       # somebody has seen how it ended
    cdef object waiters                   # None, one waiter, or a dict of them in order of arrival
    cdef readonly Command command         # that it answers, if any

    cdef int watch(self, object waiter) except -1
    cdef bint is_watched_by(self, object waiter) except -1
    cdef int unwatch(self, object waiter) except -1
    cdef long long ready_seq(self) except -2
    cdef bint settle(self) except -1
    cdef int finish(self, int state, object outcome) except -1
    cdef int take(self) except -1
    cdef object outcome(self)


cdef class Timer(Future):
    """A started timer. `owner`: the fiber whose wait it limits, if it is the private timer of a timeout."""
    cdef Fiber owner

    cdef int drop(self) except -1


cdef class Receive(Future):
    """A future that takes a value from a mailbox, only while somebody waits for it."""
    cdef Mailbox mailbox


cdef class Mailbox:
    """Values in order of arrival, and those who wait for one."""
    cdef Scheduler scheduler
    cdef readonly str name
    cdef object values                    # deque of (seq, raw value, event id)
    cdef dict takers                      # Receive futures somebody waits for, first come first served
    cdef object head_value                # decoded first value, just after `head`
    cdef bint from_outside                # a signal's: outside events can fill it

    cdef long long head(self, object decode) except -2
    cdef object pop(self)
    cdef int put(self, object raw, long long event_id) except -1


cdef class Completions:
    """Futures in the order of their completion, for as_completed."""
    cdef Fiber fiber                      # who iterates
    cdef object done                      # deque of futures
    cdef int missing                      # futures that are not done yet
    cdef list receives                    # Receive futures: watched only while the fiber is parked
    cdef bint parked

    cdef int notify(self, Future future) except -1
    cdef int unpark(self) except -1


cdef class Fiber:
    """One line of execution inside a run."""
    cdef readonly Scheduler scheduler
    cdef readonly int number              # 1.. by creation
    cdef FiberGreenlet greenlet           # None before it starts and after it ends
    cdef object fn
    cdef tuple args
    cdef dict kwargs
    cdef object context                   # its contextvars
    cdef readonly Future future           # its result
    cdef Fiber next_ready
    cdef int state                        # NEW, READY, RUNNING, PARKED, ENDED
    # What it is parked in.
    cdef int wait                         # NOTHING, ANY, ALL, PREDICATE, EACH
    cdef list sources                     # the futures of ANY and ALL
    cdef int missing                      # how many of ALL are pending
    cdef Future winner                    # of ANY; None after a timeout
    cdef object predicate                 # of wait_for
    cdef long long wait_no                # tells one wait from the next
    cdef Timer limit                      # the private timer of its timeout
    cdef bint timed_out                   # that timer has fired
    cdef bint asked_cancelled             # its predicate looked at is_cancelled()
    cdef bint cancel_now                  # resume with CancelledError
    cdef bint cancel_next                 # CancelledError at its next blocking call
    cdef bint collecting                  # the garbage collector runs on its stack
    cdef int refusals                     # API calls made while it is being evicted

    cdef int park(self) except -1
    cdef int ready(self) except -1
    cdef int notify(self, Future future) except -1
    cdef int withdraw(self) except -1
    cdef int begin(self, int wait, list sources, long long timeout_ns) except -1
    cdef int end(self) except -1
    cdef int wait_any(self, list sources, object timeout) except -1
    cdef bint holds(self) except -1
    cdef int resume(self) except -1
    cdef int execute(self) except -1
    cdef int fail(self, object error) except -1


cdef class FiberGreenlet(greenlet):
    """A reusable stack: runs one fiber after another."""
    cdef Fiber fiber
    cdef Pool pool


cdef class Pool:
    """Idle greenlets of one thread."""
    cdef list idle
    cdef unsigned long thread_id          # of the thread that used it first; 0 before
    cdef readonly int quarantined         # fibers that refused to die; their stacks are never used again

    cdef int check_thread(self) except -1
    cdef FiberGreenlet take(self)


cdef class Scheduler:
    """The fibers of one run, and the command matcher."""
    cdef readonly object env              # what the core asks of its surroundings; see _core.pyi
    cdef readonly Pool pool
    cdef greenlet hub                     # who called advance()
    cdef object event_loop                # of asyncio, if whoever called advance() runs in one
    cdef object base_context
    # The run.
    cdef readonly long long time_ns       # workflow time; fixed during a task
    cdef readonly long long last_event_id  # newest event that was applied
    cdef long long seqs
    cdef int commands_made
    cdef int fibers_made
    cdef dict fibers                      # alive, by creation
    cdef Fiber main
    cdef dict pending                     # event id -> future of a committed command without outcome
    cdef dict mailboxes                   # signal name -> Mailbox
    cdef dict lost_errors                 # failed fiber futures that nobody has taken yet, by completion
    cdef readonly Future cancel_future    # done when a cancel request was applied
    cdef readonly bint closed             # its terminal command is out
    cdef bint raises_cancel               # a request raises CancelledError (not in cooperative mode)
    # The current task.
    cdef readonly bint replaying
    cdef readonly bint strict
    cdef list recorded                    # command events of the recorded task
    cdef int cursor                       # next of them
    cdef object recorded_skipped
    cdef list issued                      # commands of this task
    cdef dict new_futures                 # futures of this task's commands, to be found by event id later
    cdef readonly list skipped            # ids of signals that could not be decoded in this task
    cdef readonly list differences        # (event id, text): inputs that differ from the recorded ones
    cdef readonly str stuck               # why the run can never move by itself, or ""
    cdef Fiber first_ready
    cdef Fiber last_ready
    cdef list expired                     # fibers whose private timer fired in this task
    cdef dict predicates                  # fibers parked in wait_for, by the order of their calls
    cdef int resumptions
    cdef readonly Fiber running
    cdef object forbidden                 # what code is running in which no API call may be made, or None
    cdef object doom                      # exception: this task cannot be committed
    cdef readonly bint dying              # evicting: every API call raises
    cdef readonly unsigned long progress  # grows with every switch and API call; the watchdog reads it

    cdef int apply(self, object event) except -1
    cdef int apply_outcome(self, object event, int code, long long answered) except -1
    cdef int apply_cancel(self, object event) except -1
    cdef int judge_timeouts(self) except -1
    cdef int run_fibers(self) except -1
    cdef bint evaluate_predicates(self) except -1
    cdef int close_run(self) except -1
    cdef int find_stuck(self) except -1
    cdef int check_task(self) except -1
    cdef object issue(self, Command command)
    cdef object match(self, Command command)
    cdef int condemn(self, object error) except -1
    cdef bint can_go_on(self) except -1
    cdef list untaken(self)
