"""A message half for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.hive import Hive, open_hive


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    """Run a hive with `concierge` (default, manager) and `scribe`."""
    async with open_hive() as running:
        yield running
