"""skep.gateway: which agents are here, against relay contract, section 16, and control protocol, section 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from skep.wire.relay.frames import Agents
from skep.wire.relay.team import AgentHere
from support.relay import web_descriptor
from support.waiting import MS, eventually

if TYPE_CHECKING:
    from integration.gateway.conftest import Site

pytestmark = pytest.mark.anyio

CONCIERGE = AgentHere(name="concierge", role="manager", state="idle")
SCRIBE = AgentHere(name="scribe", role="agent", state="busy", waiting=2)


async def test_connector_of_ours_is_told_and_told_again_when_it_is_back(site: Site) -> None:
    """At each change, and after each handshake."""
    await site.start()
    site.door.tell_agents(CONCIERGE, SCRIBE)
    await eventually(lambda: site.relay.teams() == [(CONCIERGE, SCRIBE)])
    site.door.tell_agents(CONCIERGE, SCRIBE)
    idle = replace(SCRIBE, state="idle", waiting=0)
    site.door.tell_agents(CONCIERGE, idle)
    await eventually(lambda: site.relay.teams()[1:] == [(CONCIERGE, idle)])
    await site.relay.drop()
    await eventually(lambda: site.relay.teams()[2:] == [(CONCIERGE, idle)], within=4_000 * MS)


async def test_agents_of_a_daemon_that_is_gone_are_away(site: Site) -> None:
    """They are still there to be written to: what is written waits."""
    await site.start()
    site.door.tell_agents(CONCIERGE, SCRIBE)
    await eventually(lambda: len(site.relay.teams()) == 1)
    await site.door.stop()
    away = (replace(CONCIERGE, state="away"), replace(SCRIBE, state="away"))
    await eventually(lambda: site.relay.teams()[1:] == [away], within=4_000 * MS)


async def test_another_connector_is_told_nothing(site: Site) -> None:
    """It knows no such frame."""
    site.relay.descriptors = (web_descriptor(skep=0),)
    await site.start()
    site.door.tell_agents(CONCIERGE)
    site.door.tell_agents(SCRIBE)
    await site.stop()
    assert not any(isinstance(frame, Agents) for frame in site.relay.frames)
