"""Connector, gateway and hive in one process, on real sockets, with a failing line between the first two."""

from __future__ import annotations

import asyncio
import random
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from faults.chaos_proxy import ChaosProxy
from skep.broker.types import BrokerSettings
from skep.connector import upgrade
from skep.connector.server import run_connector
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.errors import SkepError
from skep.foundation.paths import Home
from skep.foundation.rpc import connect
from skep.foundation.settings import ConnectorSettings, GatewaySettings, Settings
from skep.foundation.tasks import Backoff
from skep.gateway import dialer
from skep.gateway.gateway import Gateway
from skep.gateway.identity import RelayIdentity
from skep.wire.control import connector as control
from support.hive import Hive, Team, open_hive
from support.waiting import MS, eventually

__all__ = ["Site", "hurry", "running"]


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again, and miss a dead line, in milliseconds in place of seconds."""

    def soon(*, first_s: float, last_s: float) -> Backoff:
        return Backoff(first_s=first_s * 0.01, last_s=last_s * 0.002)

    monkeypatch.setattr(dialer, "Backoff", soon)
    monkeypatch.setattr(dialer, "HEARTBEAT_S", 300 * MS)
    monkeypatch.setattr(upgrade, "HEARTBEAT_S", 300 * MS)


@dataclass
class Site:
    """Both sides of the line, and what an agent was shown."""

    edge_home: Home
    port: int
    hive: Hive
    proxy: ChaosProxy
    group: asyncio.TaskGroup
    shown: Counter[str] = field(default_factory=Counter[str])
    repeats: list[str] = field(default_factory=list[str])
    _parts: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = field(
        default_factory=dict[str, tuple[asyncio.Task[None], asyncio.Event]]
    )

    async def start(self, part: str) -> None:
        """Start the connector or the gateway."""
        stop = asyncio.Event()
        if part == "connector":
            chosen = ConnectorSettings(listen=f"127.0.0.1:{self.port}", web_per_minute=1_000_000)
            work = run_connector(Settings(connector=chosen), self.edge_home, SYSTEM_CLOCK, stop)
        else:
            secret = await self.secret()
            env = {
                "GATEWAY_RELAY_URL": f"http://127.0.0.1:{self.proxy.port}",
                "GATEWAY_RELAY_ID": "gw-local",
                "GATEWAY_RELAY_SECRET": secret,
            }
            identity = RelayIdentity(GatewaySettings(), self.hive.home, env=env)
            work = Gateway(identity, self.hive.home, SYSTEM_CLOCK).run(stop)
        self._parts[part] = (self.group.create_task(work), stop)

    async def restart(self, part: str) -> None:
        """End it at once, and start it again."""
        task, stop = self._parts[part]
        if part == "connector":
            stop.set()
            await task
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.start(part)

    def end(self) -> None:
        """Stop everything."""
        for _, stop in self._parts.values():
            stop.set()

    async def secret(self) -> str:
        """Return the gateway's secret; it is made once."""
        kept = self.edge_home.root / "secret"
        if not kept.exists():
            kept.write_text(await eventually(self._new_secret, within=5_000 * MS))
        return kept.read_text()

    async def _new_secret(self) -> str:
        try:
            caller = await connect(self.edge_home.connector_socket, role="test")
        except SkepError as error:
            raise AssertionError(error.code) from error  # it is not up yet
        try:
            args = control.GatewayEnsureArgs(gateway_id="gw-local", tenant="local")
            secret = (await caller.call(control.GATEWAY_ENSURE, args)).secret
        finally:
            caller.close()
        assert secret is not None
        return secret

    async def code(self) -> str:
        """Return a one-time code for the web chat."""
        caller = await connect(self.edge_home.connector_socket, role="test")
        try:
            return (await caller.call(control.WEB_CODE, control.WebCodeArgs())).code
        finally:
            caller.close()

    async def read(self) -> None:
        """Be the agent: note what is shown, and answer it."""
        pump = await self.hive.pump("concierge")
        while True:
            for lease in await pump.take(wait_ms=10_000, lanes=4):
                await pump.start(lease)
                for envelope in lease.envelopes:
                    self.shown[envelope.body] += 1
                    if envelope.redelivered:
                        self.repeats.append(envelope.body)
                await pump.end(lease, reply="read")

    async def fail(self, way: str, chance: random.Random) -> None:
        """Let the line, or one end of it, fail."""
        match way:
            case "cut":
                self.proxy.cut()
            case "inside a frame":
                self.proxy.cut_after(chance.randrange(1, 2_000))
            case "stall":
                self.proxy.stall()
                await asyncio.sleep(chance.uniform(50, 400) * MS)
                self.proxy.flow()
            case "half-open":
                self.proxy.half_open()
            case _:
                await self.restart(way)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@asynccontextmanager
async def running(limits: BrokerSettings | None = None) -> AsyncIterator[Site]:
    """Run both sides; nobody reads for an agent yet."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="skep-r1-"))
        edge_home = Home(Path(folder))
        edge_home.prepare()
        port = _free_port()
        hive = await stack.enter_async_context(open_hive(team=Team(), settings=limits))
        proxy = ChaosProxy(port)
        await proxy.start()
        stack.push_async_callback(proxy.close)
        async with asyncio.TaskGroup() as group:
            site = Site(edge_home, port, hive, proxy, group)
            await site.start("connector")
            await site.start("gateway")
            try:
                yield site
            finally:
                site.end()
