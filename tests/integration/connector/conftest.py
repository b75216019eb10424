"""What several tests of the connector start from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skep.connector.deliveries import Bounds
from skep.connector.platforms.web.accounts import seed_owner
from skep.store.sqlite.connector import open_connector
from support.buffer import INSTANCE, Rig
from support.edge import Edge, running_edge


@pytest.fixture
def bounds() -> Bounds:
    """What a test does not set."""
    return Bounds()


@pytest.fixture
async def rig(tmp_path: Path, bounds: Bounds) -> AsyncIterator[Rig]:
    """Intake and deliveries, the owner bound."""
    store = await open_connector(tmp_path / "connector.db")
    await store.write(lambda tx: seed_owner(tx, instance=INSTANCE, now_ms=0))
    rig = Rig(store, bounds)
    yield rig
    await rig.deliveries.close()
    await store.close()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A connector that knows `gw-local`."""
    async with running_edge(tmp_path / "home") as edge:
        await edge.ensure()
        yield edge


@pytest.fixture
async def who(edge: Edge) -> dict[str, str]:
    """The owner, signed in as a terminal is."""
    return await edge.bearer()


@pytest.fixture
async def conversation(edge: Edge, who: dict[str, str]) -> str:
    """A conversation of the owner's."""
    return await edge.conversation(who)
