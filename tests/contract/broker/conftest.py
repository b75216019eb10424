"""One broker for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.broker import Desk, open_desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A broker with a manager, `concierge`, and two workers, `scribe` and `tester`."""
    async with open_desk(tmp_path) as opened:
        yield opened
