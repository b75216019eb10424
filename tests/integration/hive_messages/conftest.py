"""A message half for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.hive import Hive, open_hive


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    """Run a hive with `concierge` (default, manager) and `scribe`."""
    async with open_hive() as running:
        yield running


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a directory that outlives one hive, with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="skep-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
