"""A running gateway between a relay server and a daemon's door, all on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.paths import Home
from skep.foundation.settings import GatewaySettings
from skep.foundation.tasks import Backoff
from skep.gateway import dialer
from skep.gateway.gateway import Gateway
from skep.gateway.identity import RelayIdentity
from support.relay import GATEWAY_ID, SECRET, DoorStub, RelayStub
from support.waiting import eventually


@dataclass
class Site:
    """One gateway and its neighbours; `env` is read when the gateway starts."""

    home: Home
    relay: RelayStub
    door: DoorStub
    env: dict[str, str] = field(default_factory=dict[str, str])
    gateway: Gateway | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _running: asyncio.Task[None] | None = None

    async def start(self, *, connected: bool = True) -> Gateway:
        """Start the gateway, and wait until the daemon knows that it is connected."""
        self.env.setdefault("GATEWAY_RELAY_URL", self.relay.url)
        identity = RelayIdentity(GatewaySettings(), self.home, env=self.env)
        self.gateway = Gateway(identity, self.home, SYSTEM_CLOCK)
        self._running = self._group.create_task(self.gateway.run(self._stop))
        if connected:
            await self.state("connected")
        return self.gateway

    async def state(self, state: str) -> None:
        """Wait until the daemon was told this state last."""
        await eventually(lambda: bool(self.door.attached) and self.door.attached[-1].state == state)

    async def stop(self) -> None:
        """Stop the gateway as SIGTERM does, and wait for it."""
        self._stop.set()
        if self._running is not None:
            await self._running


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Return neighbours that are up and a gateway that is not started yet."""
    home = Home(tmp_path / "home")
    home.prepare()
    relay, door = RelayStub(), DoorStub(home.door_socket)
    await relay.start()
    await door.start()
    env = {"GATEWAY_RELAY_ID": GATEWAY_ID, "GATEWAY_RELAY_SECRET": SECRET}
    async with asyncio.TaskGroup() as group:
        site = Site(home=home, relay=relay, door=door, env=env, _group=group)
        yield site
        await site.stop()
    await door.stop()
    await relay.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again after some 20 ms in place of a second."""

    def soon(*, first_s: float, last_s: float) -> Backoff:
        return Backoff(first_s=first_s * 0.02, last_s=last_s * 0.002)

    monkeypatch.setattr(dialer, "Backoff", soon)
    monkeypatch.setattr(dialer, "LOOK_AGAIN_S", 0.02)
