"""One broker for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from skep.store.errors import StoreClosedError
from support.broker import Desk, open_desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A broker with a manager, `concierge`, and two workers, `scribe` and `tester`.

    Whatever a test did, what the writer remembers afterwards is what the store holds.
    """
    async with open_desk(tmp_path) as opened:
        yield opened
        with suppress(StoreClosedError):
            assert await opened.mistaken() == []
