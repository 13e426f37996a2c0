"""Durable workflow execution: plain Python functions that survive their process.

Every public name is importable from here; `derecho.journal`, `derecho.stores` and `derecho.testing` hold the rest.
"""

from derecho._core import Future as Future
from derecho._core import Timer as Timer
from derecho.authoring.context import cancelled as cancelled
from derecho.authoring.context import info as info
from derecho.authoring.context import is_cancelled as is_cancelled
from derecho.authoring.context import logger as logger
from derecho.authoring.definitions import Activity as Activity
from derecho.authoring.definitions import Workflow as Workflow
from derecho.authoring.definitions import activity as activity
from derecho.authoring.definitions import activity_ref as activity_ref
from derecho.authoring.definitions import workflow as workflow
from derecho.authoring.environment import CancelInfo as CancelInfo
from derecho.authoring.environment import WorkflowInfo as WorkflowInfo
from derecho.authoring.fibers import as_completed as as_completed
from derecho.authoring.fibers import gather as gather
from derecho.authoring.fibers import select as select
from derecho.authoring.fibers import spawn as spawn
from derecho.authoring.side_effects import random as random
from derecho.authoring.side_effects import side_effect as side_effect
from derecho.authoring.side_effects import uuid4 as uuid4
from derecho.authoring.signals import SignalChannel as SignalChannel
from derecho.authoring.signals import signal_channel as signal_channel
from derecho.authoring.signals import signal_external as signal_external
from derecho.authoring.timers import now as now
from derecho.authoring.timers import sleep as sleep
from derecho.authoring.timers import timer as timer
from derecho.authoring.timers import wait_for as wait_for
from derecho.replayer import LiveRun
from derecho.replayer import open_run

__version__ = "0.1.0"
