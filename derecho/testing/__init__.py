"""The test kit: a clock that the test owns, and the suite that every store must pass."""

from derecho.testing.clock import FakeClock as FakeClock
from derecho.testing.conformance import ConformanceError as ConformanceError
from derecho.testing.conformance import cases as cases
from derecho.testing.conformance import check_store as check_store
from derecho.testing.conformance import run_case as run_case
