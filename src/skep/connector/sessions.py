"""Relay sessions: one socket of one gateway, from its first hello to its end.

Source: relay contract, sections 2.3, 3 to 5, 7, 11 and 16. Who is behind the socket was settled at the upgrade;
nothing in a frame changes it. A bad line is skipped and counted, and ends nothing. Frames that wait
leave in one message at the end of the loop's turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from aiohttp import WSMsgType, web

from skep.connector.deliveries import Deliveries, Receiver, Sent
from skep.connector.egress import Egress, Identity, Origin
from skep.connector.platform import Platform
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.line_writer import LineWriter
from skep.foundation.log import get_logger
from skep.foundation.tasks import TaskSet
from skep.store.sqlite.connector import ConnectorStore
from skep.wire.relay.actions import Result
from skep.wire.relay.descriptor import CONTRACT_VERSION, Descriptor
from skep.wire.relay.frames import (
    SKEP,
    Agents,
    ConnectorFrame,
    DescriptorFrame,
    GoingIdle,
    GoingIdleAck,
    Hello,
    InboundAck,
    Interrupt,
    Outbound,
    OutboundResult,
    encode_frame,
    gateway_frames,
    messages,
)
from skep.wire.relay.team import AgentHere

__all__ = ["CLOSE_UNAUTHORIZED", "GatewayIdentity", "RelaySession", "Sessions"]

CLOSE_UNAUTHORIZED: Final = 4401
STOCK_WINDOW: Final = 32
SKEP_WINDOW: Final = 512
"""Events without an acknowledgement that one socket may have."""
CHOKED_BYTES: Final = 1 << 20
"""A socket that has so much to write gets no further event until it has caught up."""
OUTBOUND_MAX: Final = 1_024
"""Actions of one socket that may wait for an answer."""
SUPERSEDED_FOR_S: Final = 60.0
QUARREL_WITHIN_MS: Final = 5_000
_UNSPECIFIC: Final = "relay"
_HELLOS_MAX: Final = 64

_log = get_logger(part="relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayIdentity:
    """The authenticated record: the only source of tenant and instance."""

    gateway_id: str
    tenant: str
    instance: str


class Sessions:
    """All sockets of gateways.

    Attributes:
        quarrels: Gateways that two live processes use at once.
    """

    def __init__(
        self,
        *,
        store: ConnectorStore,
        deliveries: Deliveries,
        egress: Egress,
        platforms: Mapping[str, Platform],
        provisioned: Mapping[str, tuple[Identity, ...]],
        clock: Clock,
        settle_s: float,
    ) -> None:
        """Make the register.

        Args:
            provisioned: What the gateways of each tenant may front.
            settle_s: How long a stock gateway gets nothing after its first hello.
        """
        self.store: Final = store
        self.deliveries: Final = deliveries
        self.egress: Final = egress
        self.platforms: Final = platforms
        self.provisioned: Final = provisioned
        self.clock: Final = clock
        self.settle_s: Final = settle_s
        self.quarrels: Final[set[str]] = set()
        self._open: Final[set[RelaySession]] = set()
        self._replaced_at_ms: Final[dict[str, int]] = {}

    async def serve(self, socket: web.WebSocketResponse, gateway: GatewayIdentity) -> None:
        """Serve one authenticated socket until it is gone."""
        session = RelaySession(socket, gateway, self)
        self._open.add(session)
        try:
            await session.serve()
        finally:
            self._open.discard(session)

    def is_connected(self, gateway_id: str) -> bool:
        """Whether a gateway has a socket that said hello."""
        return any(s.gateway.gateway_id == gateway_id and s.has_greeted for s in self._open)

    def revoke(self, gateway_id: str) -> None:
        """Close every socket of a gateway as unauthorized."""
        for session in list(self._open):
            if session.gateway.gateway_id == gateway_id:
                session.close(CLOSE_UNAUTHORIZED, "unauthorized")

    async def close(self) -> None:
        """Tell every gateway that the connector restarts."""
        for session in list(self._open):
            session.close(1012, "restarting")
        for session in list(self._open):
            await session.wait_closed()

    def said_hello(self, session: RelaySession) -> None:
        """Make `session` the newest of its gateway."""
        gateway = session.gateway
        now_ms = self.clock.monotonic_ms()
        closed_at_ms = self._replaced_at_ms.get(gateway.gateway_id)
        if closed_at_ms is not None and now_ms - closed_at_ms < QUARREL_WITHIN_MS:
            self.quarrels.add(gateway.gateway_id)
            _log.warning("gateway_used_twice", gateway_id=gateway.gateway_id)
        before = self.deliveries.attach(session, tenant=gateway.tenant, instance=gateway.instance)
        if isinstance(before, RelaySession) and gateway.gateway_id not in self.quarrels:
            asyncio.get_running_loop().call_later(SUPERSEDED_FOR_S, self._end_superseded, before)

    def _end_superseded(self, session: RelaySession) -> None:
        gateway_id = session.gateway.gateway_id
        if session in self._open and gateway_id not in self.quarrels:
            self._replaced_at_ms[gateway_id] = self.clock.monotonic_ms()
            session.close(1000, "superseded")


class RelaySession(Receiver):
    """One socket of one gateway.

    Attributes:
        identities: What it advertised and is provisioned for, the default first.
    """

    def __init__(self, socket: web.WebSocketResponse, gateway: GatewayIdentity, sessions: Sessions) -> None:
        self.gateway: Final = gateway
        self.identities: tuple[Identity, ...] = ()
        self._socket: Final = socket
        self._sessions: Final = sessions
        self._reader: Final = gateway_frames()
        self._in_flight: Final[dict[str, Sent]] = {}
        self._hellos = 0
        self._is_skep = False
        self._is_settled = False
        self._is_idle = False
        self._agents: tuple[AgentHere, ...] = ()
        self._writer: Final = LineWriter(socket, messages=messages, on_room=self._caught_up)
        self._tasks: Final = TaskSet(on_error=self._failed)
        self._outbound = 0
        self._settle_timer: asyncio.TimerHandle | None = None
        self._closed: Final = asyncio.Event()

    @property
    def in_flight(self) -> dict[str, Sent]:
        """What it was given and has not acknowledged, oldest first."""
        return self._in_flight

    @property
    def has_greeted(self) -> bool:
        """Whether it said hello."""
        return self._hellos > 0

    @property
    def is_skep(self) -> bool:
        """Whether its hello said so."""
        return self._is_skep

    @property
    def room(self) -> int:
        """How many events it may be given now."""
        if (
            not self._is_settled
            or self._is_idle
            or self._writer.waiting_bytes > CHOKED_BYTES
            or self._socket.closed
        ):
            return 0
        return (SKEP_WINDOW if self._is_skep else STOCK_WINDOW) - len(self._in_flight)

    def send(self, *lines: bytes) -> None:
        """Queue frames; they leave at the end of the loop's turn."""
        self._writer.write(*lines)

    def abandon(self, reason: str) -> None:
        """Close the socket: nothing more goes over it."""
        _log.warning("gateway_abandoned", gateway_id=self.gateway.gateway_id, why=reason)
        self.close(1000, reason)

    def close(self, code: int, reason: str) -> None:
        """Close the socket."""
        self._tasks.spawn(self._socket.close(code=code, message=reason.encode()))

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        await self._closed.wait()

    async def serve(self) -> None:
        """Hear the gateway until it hangs up."""
        try:
            async for message in self._socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self._hear(message.data)
        finally:
            self._writer.stop()
            self._closed.set()
            if self._settle_timer is not None:
                self._settle_timer.cancel()
            gateway = self.gateway
            self._sessions.deliveries.detach(self, tenant=gateway.tenant, instance=gateway.instance)
            if self._agents:
                self._agents = tuple(msgspec.structs.replace(agent, state="away") for agent in self._agents)
                self._tell_agents()
            await self._tasks.close()
            _log.info(
                "connection_closed",
                gateway_id=gateway.gateway_id,
                code=self._socket.close_code,
                skipped={reason.value: count for reason, count in self._reader.skipped.items()},
            )

    def _hear(self, message: bytes) -> None:
        acked: list[str] = []
        for frame in self._reader.feed(message):
            if isinstance(frame, InboundAck):  # nearly all are
                acked.append(frame.buffer_id)
            else:
                self._take(frame)
        if acked:
            gateway = self.gateway
            self._sessions.deliveries.ack(self, *acked, tenant=gateway.tenant, instance=gateway.instance)

    def _take(self, frame: Hello | Outbound | Interrupt | GoingIdle | Agents) -> None:
        match frame:
            case Outbound():
                self._start(frame)
            case Hello():
                self._greet(frame)
            case GoingIdle():
                self._is_idle = True
                self._say(GoingIdleAck())
            case Agents():
                self._agents = frame.agents
                self._tell_agents()
            case Interrupt():
                # For a session that another gateway of the tenant runs: there is none, so nothing changes.
                pass

    def _tell_agents(self) -> None:
        """Tell the platforms which agents are here, unless another socket of this gateway does."""
        gateway = self.gateway
        serves = self._sessions.deliveries.receiver(tenant=gateway.tenant, instance=gateway.instance)
        if self._is_skep and serves in (self, None):
            for platform in self._sessions.platforms.values():
                platform.agents_here(gateway.tenant, gateway.instance, self._agents)

    # Handshake.

    def _greet(self, hello: Hello) -> None:
        """Answer one hello with its descriptor; the first one also opens the tap."""
        if self._hellos >= _HELLOS_MAX:
            return
        is_first, self._hellos = self._hellos == 0, self._hellos + 1
        if is_first:
            self._is_skep = hello.skep == SKEP
        allowed = self._allowed(hello)
        for identity in allowed:
            platform = self._sessions.platforms[identity.platform]
            descriptor = platform.descriptor(identity.bot_id, is_skep=self._is_skep)
            self._say(DescriptorFrame(descriptor=descriptor))
        if not allowed:
            self._say(DescriptorFrame(descriptor=_unprovisioned(hello, is_skep=self._is_skep)))
        known = {*self.identities}
        self.identities += tuple(identity for identity in allowed if identity not in known)
        if is_first:
            self._open_tap()

    def _allowed(self, hello: Hello) -> tuple[Identity, ...]:
        """Return the accounts that `hello` names and the tenant may front; `relay` names all."""
        provisioned = self._sessions.provisioned.get(self.gateway.tenant, ())
        if hello.platform == _UNSPECIFIC:
            # One hello, one descriptor: only a Skep gateway reads that there are more accounts.
            return provisioned if self._is_skep else provisioned[:1]
        named = tuple(
            identity
            for identity in provisioned
            if identity.platform == hello.platform and hello.bot_id in ("", identity.bot_id)
        )
        return named if self._is_skep else named[:1]

    def _open_tap(self) -> None:
        """Give it everything from now on; a stock gateway only when it has settled."""
        if self._is_skep or self._sessions.settle_s <= 0:
            self._is_settled = True
        else:
            loop = asyncio.get_running_loop()
            self._settle_timer = loop.call_later(self._sessions.settle_s, self._settled)
        self._sessions.said_hello(self)
        self._tasks.spawn(self._record_hello())
        _log.info("gateway_connected", gateway_id=self.gateway.gateway_id, is_skep=self._is_skep)

    def _settled(self) -> None:
        self._is_settled = True
        gateway = self.gateway
        self._sessions.deliveries.resume_flow(tenant=gateway.tenant, instance=gateway.instance)

    async def _record_hello(self) -> None:
        gateway_id, now_ms, is_skep = self.gateway.gateway_id, self._sessions.clock.now_ms(), self._is_skep
        try:
            await self._sessions.store.write(
                lambda tx: tx.gateway_seen(gateway_id, now_ms=now_ms, is_skep=is_skep)
            )
        except SkepError as error:
            _log.warning("hello_not_written", code=error.code)

    # Actions.

    def _start(self, frame: Outbound) -> None:
        if self._outbound >= OUTBOUND_MAX:
            result = Result(
                error="network: too many actions at once", code="rate_limited", retry_after_ms=250
            )
            self._say(OutboundResult(request_id=frame.request_id, result=result))
            return
        self._outbound += 1
        self._tasks.spawn(self._perform(frame))

    async def _perform(self, frame: Outbound) -> None:
        gateway = self.gateway
        origin = Origin(
            gateway_id=gateway.gateway_id,
            tenant=gateway.tenant,
            instance=gateway.instance,
            identities=self.identities,
        )
        try:
            result = await self._sessions.egress.perform(frame, origin)
        finally:
            self._outbound -= 1
        self._say(OutboundResult(request_id=frame.request_id, result=result))

    # Writing.

    def _say(self, frame: ConnectorFrame) -> None:
        self.send(encode_frame(frame))

    def _caught_up(self) -> None:
        """The gateway has read what it left lying."""
        gateway = self.gateway
        self._sessions.deliveries.resume_flow(tenant=gateway.tenant, instance=gateway.instance)

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, ConnectionError):
            _log.error("session_failed", exc_info=error)
        # The writer is gone; so is the session, and nothing is lost: all unacknowledged comes again.
        self._tasks.spawn(self._socket.close(code=1011))


def _unprovisioned(hello: Hello, *, is_skep: bool) -> Descriptor:
    """Return a descriptor for what this connection may not front: its sends are declined."""
    return Descriptor(
        contract_version=CONTRACT_VERSION,
        platform=hello.platform,
        label=hello.platform,
        max_message_length=4096,
        supports_draft_streaming=False,
        supports_edit=False,
        supports_threads=False,
        markdown_dialect="plain",
        len_unit="chars",
        skep=SKEP if is_skep else 0,
    )
