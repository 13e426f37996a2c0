"""Stores in files, for the laws."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.laws.stores import MakeStores, in_folder


@pytest.fixture
def sqlite(tmp_path: Path) -> MakeStores:
    return in_folder(tmp_path)
