"""Both neighbours of a gateway, made for tests: a relay server and a daemon's door, on real sockets.

The relay enforces path, scheme and token, so that a gateway which forgets one is found out. Neither
decides anything: a test says what they answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from skep.foundation.rpc import Call, Connection, Listener, RpcError
from skep.wire.control.base import Empty
from skep.wire.control.door import (
    AGENTS,
    DOOR,
    TURN,
    AcceptArgs,
    AcceptResult,
    AgentsHere,
    AttachArgs,
    InterruptArgs,
    InterruptResult,
    Turn,
)
from skep.wire.control.envelope import Envelope, Lease, Route
from skep.wire.control.pump import (
    EndedArgs,
    EndedResult,
    NackArgs,
    NextArgs,
    NextResult,
    RenewArgs,
    RenewResult,
    StartedArgs,
)
from skep.wire.relay.descriptor import Descriptor
from skep.wire.relay.frames import (
    Agents,
    ConnectorFrame,
    DescriptorFrame,
    GatewayFrame,
    GoingIdle,
    GoingIdleAck,
    Hello,
    InboundAck,
    Outbound,
    Skipped,
    decode_gateway_frame,
    encode_frame,
)
from skep.wire.relay.team import AgentHere
from skep.wire.relay.token import Verdict, check_token

__all__ = ["DoorStub", "RelayStub", "a_lease", "web_descriptor"]

GATEWAY_ID = "gw-test"
SECRET = "ab" * 32


def web_descriptor(**changes: Any) -> Descriptor:
    """Return what a Skep connector says of the web platform."""
    fields: dict[str, Any] = {
        "contract_version": 1,
        "platform": "web",
        "label": "Web",
        "max_message_length": 32_000,
        "supports_draft_streaming": False,
        "supports_edit": True,
        "supports_threads": True,
        "markdown_dialect": "gfm",
        "len_unit": "chars",
        "supported_ops": ("send", "edit", "typing", "seen", "draft", "prompt"),
        "skep": 1,
    }
    return Descriptor(**{**fields, **changes})


def a_lease(number: int = 1, **changes: Any) -> Lease:
    """Return a lease of the lane of a web chat with one answer in it."""
    route: dict[str, Any] = {
        "relay": "local",
        "platform": "web",
        "bot_id": "",
        "chat_id": f"c{number}",
        "reply_to": "m1",
        "answers": ("m1",),
    }
    envelope: dict[str, Any] = {
        "id": f"0190-{number}",
        "delivery_id": number,
        "kind": "message",
        "from_": "agent:concierge",
        "to": "person:1",
        "session": "out",
        "thread": "t1",
        "body": f"answer {number}",
        "lane_seq": 1,
        "attempt": 1,
        "created_at": 1,
        "age_ms": 1,
        "reply_key": f"r:in-{number}",
        "agent": "concierge",
        "route": Route(**{**route, **changes.pop("route", {})}),
    }
    return Lease(
        lease_id=changes.pop("lease_id", f"lease-{number}"),
        fence=1,
        lane=number,
        session="out",
        envelopes=(Envelope(**{**envelope, **changes}),),
    )


@dataclass
class RelayStub:
    """A relay server on loopback.

    Attributes:
        descriptors: Sent for the first hello of a connection; none keeps the handshake waiting.
        upgrade_status: Answered instead of the upgrade, when set.
        close_code: With which a connection is closed instead of a descriptor, when set.
        answer: What becomes of an action; `None` as its result: no answer.
        dials: Headers of each upgrade.
        frames: All frames of all connections; `messages` are what they came in.
    """

    descriptors: tuple[Descriptor, ...] = field(default_factory=lambda: (web_descriptor(),))
    upgrade_status: int | None = None
    close_code: tuple[int, str] | None = None
    answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda action: {
        "success": True,
        "message_id": f"p-{action['chat_id']}",
    }
    dials: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    frames: list[GatewayFrame] = field(default_factory=list[GatewayFrame])
    messages: list[bytes] = field(default_factory=list[bytes])
    sockets: list[web.WebSocketResponse] = field(default_factory=list[web.WebSocketResponse])
    url: str = ""
    _greeted: list[web.WebSocketResponse] = field(default_factory=list[web.WebSocketResponse])
    _runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen on loopback."""
        app = web.Application()
        app.router.add_get("/relay", self._upgrade)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Drop all connections without a word and stop listening."""
        await self.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def drop(self) -> None:
        """Cut each open connection, without a close frame."""
        for transport in self._transports():
            transport.abort()
        self.sockets.clear()

    def stop_reading(self) -> None:
        """Take nothing more from the connections that are open."""
        for transport in self._transports():
            transport.pause_reading()

    def _transports(self) -> list[asyncio.Transport]:
        requests = [socket._req for socket in self.sockets]  # pyright: ignore[reportPrivateUsage]
        return [request.transport for request in requests if request and request.transport]

    async def close(self, code: int, reason: str = "") -> None:
        """Close each open connection."""
        for socket in list(self.sockets):
            await socket.close(code=code, message=reason.encode())
        self.sockets.clear()

    async def send(self, frame: ConnectorFrame | dict[str, Any]) -> None:
        """Send a frame on the newest connection."""
        line = encode_frame(frame) if not isinstance(frame, dict) else json.dumps(frame).encode() + b"\n"
        await self.sockets[-1].send_str(line.decode())

    async def send_event(
        self, text: str, *, chat: str = "c1", buffer_id: str | None = None, **source: Any
    ) -> None:
        """Send an inbound event of the web platform."""
        event = {"text": text, "message_id": text, "source": {"platform": "web", "chat_id": chat, **source}}
        buffered = {} if buffer_id is None else {"bufferId": buffer_id}
        await self.send({"type": "inbound", "event": event, **buffered})

    def actions(self, *ops: str) -> list[dict[str, Any]]:
        """Return the actions that were asked, of `ops` alone when given."""
        found = [msgspec.json.decode(f.action) for f in self.frames if isinstance(f, Outbound)]
        return [action for action in found if not ops or action["op"] in ops]

    def acks(self) -> list[str]:
        """Return the buffer ids that were acknowledged, in order."""
        return [frame.buffer_id for frame in self.frames if isinstance(frame, InboundAck)]

    def teams(self) -> list[tuple[AgentHere, ...]]:
        """Return which agents were told of, time by time."""
        return [frame.agents for frame in self.frames if isinstance(frame, Agents)]

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        self.dials.append(dict(request.headers))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.upgrade_status is not None:
            return web.Response(status=self.upgrade_status)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        if (
            check_token(token, secrets=(SECRET,), now_s=int(time.time()), upgrade=True).verdict
            is not Verdict.VALID
        ):
            await socket.close(code=4401, message=b"unauthorized")
            return socket
        self.sockets.append(socket)
        if self.close_code is not None:
            await socket.close(code=self.close_code[0], message=self.close_code[1].encode())
            return socket
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            data: bytes = message.data.encode()
            self.messages.append(data)
            for line in data.splitlines():
                frame = decode_gateway_frame(line)
                assert not isinstance(frame, Skipped), line
                self.frames.append(frame)
                await self._reply(socket, frame)
        return socket

    async def _reply(self, socket: web.WebSocketResponse, frame: GatewayFrame) -> None:
        match frame:
            case Hello():
                if socket not in self._greeted:
                    self._greeted.append(socket)
                    for descriptor in self.descriptors:
                        await socket.send_str(encode_frame(DescriptorFrame(descriptor=descriptor)).decode())
            case Outbound():
                result = self.answer(msgspec.json.decode(frame.action))
                if result is not None:
                    reply = {"type": "outbound_result", "requestId": frame.request_id, "result": result}
                    await socket.send_str(json.dumps(reply) + "\n")
            case GoingIdle():
                await socket.send_str(encode_frame(GoingIdleAck()).decode())
            case _:
                pass


@dataclass
class DoorStub:
    """A daemon's door: keeps what it was told, answers as the test says.

    Attributes:
        accept: Answers `door.accept`; may raise `RpcError`, or wait.
        leases: Given out by `pump.next`, in order.
    """

    path: Path
    accept: Callable[[AcceptArgs], Awaitable[AcceptResult]] | None = None
    attached: list[AttachArgs] = field(default_factory=list[AttachArgs])
    accepted: list[AcceptArgs] = field(default_factory=list[AcceptArgs])
    interrupted: list[InterruptArgs] = field(default_factory=list[InterruptArgs])
    started: list[StartedArgs] = field(default_factory=list[StartedArgs])
    ended: list[EndedArgs] = field(default_factory=list[EndedArgs])
    nacked: list[NackArgs] = field(default_factory=list[NackArgs])
    renewed: list[RenewArgs] = field(default_factory=list[RenewArgs])
    asked: list[NextArgs] = field(default_factory=list[NextArgs])
    refuse_ended: list[str] = field(default_factory=list[str])
    listener: Listener | None = None
    _leases: asyncio.Queue[Lease | None] = field(default_factory=asyncio.Queue["Lease | None"])
    _connections: list[Connection] = field(default_factory=list[Connection])

    async def start(self) -> None:
        """Listen on `path`."""
        self.listener = Listener(
            DOOR,
            {
                "door.attach": self._attach,
                "door.accept": self._accept,
                "door.interrupt": self._interrupt,
                "pump.next": self._next,
                "pump.started": self._started,
                "pump.renew": self._renew,
                "pump.ended": self._ended,
                "pump.nack": self._nack,
            },
            in_flight=1024,
            epoch=1,
            on_open=self._connections.append,
        )
        await self.listener.start(self.path)

    async def stop(self) -> None:
        """Hang up, as a daemon that is killed does."""
        if self.listener is not None:
            await self.listener.close()
        self._connections.clear()

    @property
    def callers(self) -> int:
        """How many connections there are now."""
        return sum(connection.is_open for connection in self._connections)

    def drain(self) -> None:
        """Begin to stop: `pump.next` is told so, and nobody comes in any more."""
        assert self.listener is not None
        self.listener.refuse_callers()
        self._leases.put_nowait(None)

    def give(self, *leases: Lease) -> None:
        """Let `pump.next` hand these out."""
        for lease in leases:
            self._leases.put_nowait(lease)

    def tell(self, turn: Turn) -> None:
        """Send the state of a turn to the gateway."""
        self._connections[-1].emit(TURN, turn)

    def tell_agents(self, *agents: AgentHere) -> None:
        """Say to the gateway which agents are here."""
        self._connections[-1].emit(AGENTS, AgentsHere(agents=agents))

    @property
    def texts(self) -> list[str]:
        """Texts of the events that were handed in, in order."""
        return [msgspec.json.decode(args.event)["text"] for args in self.accepted]

    async def _attach(self, call: Call, args: AttachArgs) -> Empty:
        self.attached.append(args)
        return Empty()

    async def _accept(self, call: Call, args: AcceptArgs) -> AcceptResult:
        self.accepted.append(args)
        if self.accept is not None:
            return await self.accept(args)
        return AcceptResult(outcome="stored", message_id="m")

    async def _interrupt(self, call: Call, args: InterruptArgs) -> InterruptResult:
        self.interrupted.append(args)
        return InterruptResult(cancelled=1)

    async def _next(self, call: Call, args: NextArgs) -> NextResult:
        self.asked.append(args)
        if (lease := await self._leases.get()) is None:
            raise RpcError("shutting_down", "the daemon is stopping")
        leases = [lease]
        while len(leases) < args.lanes and not self._leases.empty():
            if (lease := self._leases.get_nowait()) is not None:
                leases.append(lease)
        return NextResult(leases=tuple(leases))

    async def _started(self, call: Call, args: StartedArgs) -> Empty:
        self.started.append(args)
        return Empty()

    async def _renew(self, call: Call, args: RenewArgs) -> RenewResult:
        self.renewed.append(args)
        return RenewResult(lease_until=0)

    async def _ended(self, call: Call, args: EndedArgs) -> EndedResult:
        if self.refuse_ended:
            raise RpcError(self.refuse_ended.pop(0), "as the test wants it")
        self.ended.append(args)
        return EndedResult(released=True)

    async def _nack(self, call: Call, args: NackArgs) -> Empty:
        self.nacked.append(args)
        return Empty()
