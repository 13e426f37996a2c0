"""The compiled core: fibers, futures, mailboxes, the command matcher and the scheduler of one run.

Pure: `Scheduler.advance(events, time) -> commands` does no I/O and knows no store, no clock, no thread. The same
call serves first execution, cold replay after a crash, and verification. It imports nothing of derecho: what it
needs to know of events are their attributes and `code` numbers, and what it asks of its surroundings is the `env`
object given to the scheduler (see `_core.pyi`).

A table of contents; the classes and their fields are in `_core.pxd`, the code is in the parts below.
"""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident

from derecho._greenlet cimport PyGreenlet_GetCurrent, PyGreenlet_Import, PyGreenlet_Switch, greenlet

import gc
import sys
from collections import deque
from contextvars import copy_context
from threading import local as _thread_local

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContext_Copy(object context)

PyGreenlet_Import()

include "_core/constants.pyx"
include "_core/future.pyx"
include "_core/mailbox.pyx"
include "_core/fiber.pyx"
include "_core/waits.pyx"
include "_core/matcher.pyx"
include "_core/scheduler.pyx"
