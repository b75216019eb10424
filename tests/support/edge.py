"""A connector that runs inside a test, and plain clients for both of its sides.

The clients are written from the specification: they share no code with what they test but the token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from skep.connector.server import OpenPlatform, run_connector
from skep.foundation.clock import SYSTEM_CLOCK, Clock
from skep.foundation.paths import Home
from skep.foundation.rpc import Method, connect
from skep.foundation.settings import ConnectorSettings, Settings
from skep.wire.control import connector as control
from skep.wire.relay.token import mint_token
from support.waiting import MS, eventually

__all__ = ["CONTROL", "Edge", "FakeGateway", "Tab", "running_edge"]

A = TypeVar("A")
R = TypeVar("R")

CONTROL: Final = control
NOTHING_WITHIN: Final = 150 * MS
"""How long a test waits to believe that nothing comes, in seconds."""


class Tab:
    """One socket of the web chat.

    Attributes:
        seen: Everything that was told and not taken yet, oldest first.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket: Final = socket
        self.n = 0

    async def say(self, **fields: object) -> None:
        """Send one message."""
        await self.socket.send_str(json.dumps(fields))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """Return the next message, of one of `kinds` when they are given; others are passed over."""
        while True:
            told: dict[str, Any] = json.loads(await self.socket.receive_str(timeout=5_000 * MS))
            self.n = max(self.n, told.get("n", 0))
            if not kinds or told["t"] in kinds:
                return told

    async def hears_nothing(self) -> bool:
        """Return whether nothing comes for a while."""
        try:
            await self.socket.receive_str(timeout=NOTHING_WITHIN)
        except TimeoutError:
            return True
        return False

    async def send(
        self, conversation: str, text: str, *, client_id: str = "w-1", **more: object
    ) -> dict[str, Any]:
        """Send words and return what `stored` says."""
        await self.say(t="send", id=client_id, conversation=conversation, text=text, reply_to=None, **more)
        return await self.hear("stored", "error")


class FakeGateway:
    """The gateway's end of a relay connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket: Final = socket
        self._lines: Final[list[str]] = []
        self._rest = ""
        self._requests = 0

    async def say(self, *frames: dict[str, Any]) -> None:
        """Send frames in one message."""
        await self.socket.send_str("".join(json.dumps(frame) + "\n" for frame in frames))

    async def hello(
        self, platform: str = "relay", bot_id: str = "", *, is_skep: bool = True
    ) -> dict[str, Any]:
        """Say hello and return the descriptor."""
        skep = {"skep": 1} if is_skep else {}
        await self.say({"type": "hello", "platform": platform, "botId": bot_id, **skep})
        return (await self.hear("descriptor"))["descriptor"]

    async def hear(self, *kinds: str, within: float = 5_000 * MS) -> dict[str, Any]:
        """Return the next frame, of one of `kinds` when they are given; others are passed over."""
        while True:
            while not self._lines:
                message = await self.socket.receive(timeout=within)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise ConnectionError(f"{message.type.name} {self.socket.close_code}")
                *lines, self._rest = (self._rest + message.data).split("\n")
                self._lines.extend(lines)
            frame: dict[str, Any] = json.loads(self._lines.pop(0))
            if not kinds or frame["type"] in kinds:
                return frame

    async def hears_nothing(self) -> bool:
        """Return whether nothing comes for a while."""
        try:
            await self.hear(within=NOTHING_WITHIN)
        except TimeoutError:
            return True
        return False

    async def ack(self, *inbound: dict[str, Any]) -> None:
        """Acknowledge buffered events."""
        await self.say(*({"type": "inbound_ack", "bufferId": frame["bufferId"]} for frame in inbound))

    async def do(self, action: dict[str, Any], **tag: str) -> dict[str, Any]:
        """Ask for an action and return its result."""
        self._requests += 1
        request_id = f"{self._requests:032x}"
        await self.say({"type": "outbound", "requestId": request_id, "action": action, **tag})
        while True:
            frame = await self.hear("outbound_result")
            if frame["requestId"] == request_id:
                return frame["result"]

    async def close_code(self) -> int | None:
        """Return with which code the connector closes; whatever comes before is passed over."""
        async for _ in self.socket:
            pass
        return self.socket.close_code


@dataclass
class Edge:
    """A running connector."""

    home: Home
    clock: Clock
    port: int
    http: aiohttp.ClientSession
    secrets: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    async def call(self, method: Method[A, R], args: A) -> R:
        """Call a method of `connector.sock`."""
        caller = await connect(self.home.connector_socket, role="test")
        try:
            return await caller.call(method, args)
        finally:
            caller.close()

    async def ensure(self, gateway_id: str = "gw-local", *, tenant: str = "local") -> str:
        """Return the secret of a gateway, made if need be."""
        args = control.GatewayEnsureArgs(gateway_id=gateway_id, tenant=tenant)
        made = await self.call(control.GATEWAY_ENSURE, args)
        assert made.secret is not None
        self.secrets[gateway_id] = made.secret
        return made.secret

    def token(self, gateway_id: str = "gw-local", *, secret: str | None = None, ttl_s: int = 300) -> str:
        """Return a relay token."""
        return mint_token(
            gateway_id,
            secret=secret or self.secrets[gateway_id],
            now_s=self.clock.now_ms() // 1000,
            ttl_s=ttl_s,
        )

    async def dial(self, token: str | None) -> FakeGateway:
        """Open `/relay` with a token."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return FakeGateway(await self.http.ws_connect(f"{self.url}/relay", headers=headers))

    async def gateway(self, gateway_id: str = "gw-local", *, is_skep: bool = True) -> FakeGateway:
        """Return a gateway that said hello."""
        if gateway_id not in self.secrets:
            await self.ensure(gateway_id)
        gateway = await self.dial(self.token(gateway_id))
        await gateway.hello(is_skep=is_skep)
        return gateway

    async def code(self, account: str = "owner", *, ttl_s: int = 900) -> str:
        """Return a one-time code."""
        args = control.WebCodeArgs(account=account, ttl_s=ttl_s)
        return (await self.call(control.WEB_CODE, args)).code

    async def bearer(self, account: str = "owner") -> dict[str, str]:
        """Sign in as a terminal does; return the header of every further request."""
        body = {"once": await self.code(account), "bearer": True}
        async with self.http.post(f"{self.url}/api/session", json=body) as answer:
            return {"Authorization": f"Bearer {(await answer.json())['token']}"}

    async def conversation(self, who: dict[str, str]) -> str:
        """Return a new conversation."""
        async with self.http.post(f"{self.url}/api/conversations", json={}, headers=who) as answer:
            return (await answer.json())["id"]

    async def tab(self, who: dict[str, str], *, n: int = 0) -> Tab:
        """Return a tab that has resumed; what it missed comes before `ready`."""
        tab = Tab(await self.http.ws_connect(f"{self.url}/api/socket", headers=who, compress=0))
        await tab.say(t="resume", n=n)
        return tab

    async def ready_tab(self, who: dict[str, str], *, n: int = 0) -> Tab:
        """Return a tab that has resumed and missed nothing."""
        tab = await self.tab(who, n=n)
        await tab.hear("ready")
        return tab

    async def messages(self, who: dict[str, str], conversation: str) -> list[dict[str, Any]]:
        """Return what a conversation holds."""
        path = f"{self.url}/api/conversations/{conversation}/messages"
        async with self.http.get(path, headers=who) as answer:
            return await answer.json()


@asynccontextmanager
async def running_edge(
    root: Path, *, clock: Clock = SYSTEM_CLOCK, others: Sequence[OpenPlatform] = (), **settings: Any
) -> AsyncIterator[Edge]:
    """Run a connector on `root`, with `others` as its further platforms, while the body runs, and stop it well."""
    home = Home(root)
    chosen = ConnectorSettings(listen="127.0.0.1:0", **settings)
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = run_connector(Settings(connector=chosen), home, clock, stop, others=others)
        task = group.create_task(running)
        stack.callback(stop.set)

        def port() -> int:
            if task.done():
                task.result()
            ports = json.loads(home.ports.read_bytes())
            assert "chat" in ports
            return ports["chat"]

        yield Edge(home=home, clock=clock, port=await eventually(port), http=http)
