"""What tests of the chat in a browser start from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from support.browser import built, chromium
from support.edge import Edge, running_edge
from support.room import Room, visiting_room


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests of a file; each has a profile of its own."""
    built("chat")
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A connector."""
    async with running_edge(tmp_path / "home", web_per_minute=6_000) as edge:
        yield edge


@pytest.fixture
async def room(edge: Edge, browser: Browser) -> AsyncIterator[Room]:
    """Somebody who is signed in, and a gateway."""
    async with visiting_room(edge, browser) as room:
        yield room
