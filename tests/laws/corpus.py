"""The corpus: every shape, by name."""

from __future__ import annotations

# Importing them fills the table.
from tests.laws import corpus_signals as corpus_signals
from tests.laws import corpus_time as corpus_time
from tests.laws.corpus_work import ACTIVITIES as ACTIVITIES
from tests.laws.shapes import CORPUS as CORPUS
