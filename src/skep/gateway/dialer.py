"""The relay link: one WebSocket to a connector, dialled out and dialled again.

Source: relay contract, sections 2 to 5 and 7. The read loop never waits for an answer: who asks waits
in a task of its own. Never logs a frame, a token or a query.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec

from skep.foundation.clock import Clock
from skep.foundation.errors import SettingError
from skep.foundation.line_writer import LineWriter
from skep.foundation.log import get_logger
from skep.foundation.tasks import Awaited, Backoff
from skep.gateway.errors import AmbiguousError, NotSentError
from skep.gateway.identity import Credentials, RelayIdentity
from skep.wire.control.envelope import Route
from skep.wire.relay.actions import Action, Result
from skep.wire.relay.descriptor import Descriptor
from skep.wire.relay.frames import (
    MAX_LINE_BYTES,
    SKEP,
    ConnectorFrame,
    DescriptorFrame,
    GatewayFrame,
    GoingIdle,
    GoingIdleAck,
    Hello,
    Inbound,
    InterruptInbound,
    Outbound,
    OutboundResult,
    PassthroughForward,
    connector_frames,
    encode_frame,
    messages,
)
from skep.wire.relay.token import mint_token
from skep.wire.relay.urls import dial_url

__all__ = ["Account", "LinkHandler", "RelayLink", "State"]

State = Literal["off", "connecting", "connected"]

DIAL_TIMEOUT_S: Final = 15.0
HANDSHAKE_TIMEOUT_S: Final = 30.0
RESULT_TIMEOUT_S: Final = 30.0
IDLE_ACK_TIMEOUT_S: Final = 2.0
CLOSE_TIMEOUT_S: Final = 1.0
LOOK_AGAIN_S: Final = 1.0
"""How often an unset address or missing credentials are looked for, in seconds."""
HEARTBEAT_S: Final = 20.0
REFUSED: Final = 4401

_Socket = aiohttp.ClientWebSocketResponse[bool]
_log = get_logger(part="relay")
_encode: Final = msgspec.json.Encoder().encode


class _End(enum.Enum):
    """How a connection ended, as far as dialling again goes."""

    AWAY = enum.auto()
    REFUSED = enum.auto()
    """Closed as unauthorized, after a descriptor had been received once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account behind the connector, and what can be done through it.

    Attributes:
        platform, bot_id: As an `outbound` frame names it; either may be empty.
    """

    platform: str
    bot_id: str
    descriptor: Descriptor


class _Asked(msgspec.Struct, frozen=True):
    """A request that waits for its result; `turn` is when it was given to the writer."""

    answer: asyncio.Future[Result]
    turn: int


class LinkHandler(Protocol):
    """Who takes what a connector sends. Nothing here may wait, but `room`."""

    def on_inbound(self, frame: Inbound) -> None:
        """Take an event."""
        ...

    def on_interrupt(self, frame: InterruptInbound) -> None:
        """Take a stop."""
        ...

    def on_state(self) -> None:
        """Look at the link: its state, its detail or its descriptors changed."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether no further event can be taken now."""
        ...

    async def room(self) -> None:
        """Wait until another event can be taken."""
        ...


class RelayLink:
    """The link to one connector.

    Attributes:
        name: The relay's name in the configuration.
        state, detail: As told to the daemon.
    """

    def __init__(
        self, identity: RelayIdentity, handler: LinkHandler, *, clock: Clock, name: str = "local"
    ) -> None:
        self.name: Final = name
        self.state: State = "off"
        self.detail: str | None = None
        self._accounts: dict[tuple[str, str], Account] = {}
        self._identity: Final = identity
        self._handler: Final = handler
        self._clock: Final = clock
        self._connected = asyncio.Event()
        self._waiting: Awaited[str, _Asked] = Awaited(on_late=_expire)
        self._writer: LineWriter | None = None
        self._idle_ack = asyncio.Event()
        self._request_prefix: Final = secrets.token_hex(8)
        self._request_number = 0
        self._has_had_descriptor = False
        self._is_provisional = False
        self._refused: tuple[str | None, Credentials | None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether frames can be sent."""
        return self._connected.is_set()

    @property
    def accounts(self) -> tuple[Account, ...]:
        """What the connector told on this connection, the default first."""
        return tuple(self._accounts.values())

    async def wait_connected(self) -> None:
        """Wait until frames can be sent."""
        await self._connected.wait()

    def account(self, route: Route) -> Account | None:
        """Return through what `route` is reached; `None` while the relay is down.

        A platform that the connector did not tell of gets the default's descriptor: the connector
        decides.
        """
        if not self.is_connected:
            return None
        exact = self._accounts.get((route.platform, route.bot_id))
        if exact is not None:
            return exact
        found = next((item for item in self.accounts if item.platform == route.platform), None)
        descriptor = (found or self.accounts[0]).descriptor
        bot_id = (found.bot_id or route.bot_id) if found else ""
        return Account(platform=route.platform, bot_id=bot_id, descriptor=descriptor)

    async def request(self, action: Action, *, platform: str, bot_id: str) -> Result:
        """Ask the connector to do `action` and wait for what became of it.

        Raises:
            NotSentError: The relay is down; nothing was written.
            AmbiguousError: The socket died, or no answer came in time.
        """
        writer = self._writer
        if writer is None:
            raise NotSentError("the relay is down")
        request_id = self._next_request_id()
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.add(request_id, _Asked(answer, writer.turn), limit_s=RESULT_TIMEOUT_S)
        self._ask(writer, action, request_id, platform, bot_id)
        try:
            return await answer
        finally:
            self._waiting.pop(request_id)

    def post(self, action: Action, *, platform: str, bot_id: str) -> None:
        """Ask the connector to do `action` and let its answer go; dropped when the relay is down."""
        if self._writer is not None:
            self._ask(self._writer, action, self._next_request_id(), platform, bot_id)

    def send(self, frame: GatewayFrame) -> None:
        """Send `frame` with whatever else waits; dropped when the relay is down."""
        if self._writer is not None:
            self._writer.write(encode_frame(frame))

    def acknowledge(self, buffer_id: str) -> None:
        """Send an `inbound_ack`, as `send` does: there is one for each event."""
        if self._writer is not None:
            self._writer.write(b'{"type":"inbound_ack","bufferId":%b}\n' % _encode(buffer_id))

    async def go_idle(self) -> None:
        """Tell the connector to keep everything from now on, and wait a moment for its answer."""
        if self.is_connected:
            self._idle_ack.clear()
            self.send(GoingIdle())
            try:
                async with asyncio.timeout(IDLE_ACK_TIMEOUT_S):
                    await self._idle_ack.wait()
            except TimeoutError:
                _log.debug("idle_not_acknowledged")

    async def run(self) -> None:
        """Keep the link until cancelled."""
        backoff = Backoff(first_s=1.0, last_s=30.0)
        async with aiohttp.ClientSession() as session:
            while True:
                ready = self._ready_to_dial()
                if ready is None:
                    await asyncio.sleep(LOOK_AGAIN_S)
                    continue
                url, pair = ready
                end = await self._connection(session, url, pair, backoff)
                if end is _End.AWAY:
                    self._is_provisional = False
                elif self._is_provisional:
                    self._refused = (url, pair)
                    self._is_provisional = False
                    continue
                else:
                    self._is_provisional = True  # dialled at once, with a fresh token
                    continue
                await asyncio.sleep(backoff.next_s())

    def _ready_to_dial(self) -> tuple[str, Credentials] | None:
        """Return where and as whom to dial; says once why not."""
        try:
            url, pair = self._identity.url(), self._identity.credentials()
        except SettingError as error:
            self._set_state("off", error.problem)
            return None
        if url is None:
            self._set_state("off", "no relay address")
        elif pair is None:
            self._set_state("off", "no credentials")
        elif self._refused == (url, pair):
            self._set_state("off", "refused by the connector: enrol this gateway again")
        else:
            return url, pair
        return None

    async def _connection(
        self, session: aiohttp.ClientSession, url: str, pair: Credentials, backoff: Backoff
    ) -> _End:
        if self.state != "connecting":
            self._set_state("connecting", None)
        token = mint_token(pair.gateway_id, secret=pair.secret.reveal(), now_s=self._clock.now_ms() // 1000)
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                socket = await session.ws_connect(
                    dial_url(url),
                    headers={"Authorization": f"Bearer {token}"},
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=MAX_LINE_BYTES,
                    compress=0,
                    decode_text=False,
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._set_state("connecting", _why_not(url, error))
            return _End.AWAY
        try:
            return await self._read(socket, backoff)
        except (aiohttp.ClientError, ConnectionError):
            # The library answers pings while it reads: on a line that is closing it cannot.
            self._set_state("connecting", "the connection was lost")
            return _End.AWAY
        except asyncio.CancelledError:
            self.state, self.detail = "off", None  # we hang up: no news for anybody
            raise
        finally:
            self._lost()
            await _close(socket)

    async def _read(self, socket: _Socket, backoff: Backoff) -> _End:
        reader = connector_frames()
        writer = LineWriter(socket, messages=messages)
        for identity in self._identity.identities:
            hello = Hello(platform=identity.platform, bot_id=identity.bot_id, skep=SKEP)
            writer.write(encode_frame(hello))
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S) as handshake:
                while True:
                    message = await socket.receive()
                    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        return self._ended(socket.close_code, message.extra)
                    for frame in reader.feed(message.data):
                        self._take(frame)
                        if self._writer is None and self._accounts:
                            handshake.reschedule(None)
                            backoff.reset()
                            self._writer = writer
                            self._connected.set()
                            self._set_state("connected", None)
                    if self._handler.is_full:
                        await self._handler.room()
        except TimeoutError:
            self._set_state("connecting", "the connector sent no descriptor")
            return _End.AWAY
        finally:
            if reader.skipped:
                skipped = {reason.value: count for reason, count in reader.skipped.items()}
                _log.warning("frames_skipped", **skipped)

    def _ended(self, code: int | None, reason: object) -> _End:
        self._set_state("connecting", f"the connection was closed with {code}")
        if code != REFUSED or reason == "expired" or not self._has_had_descriptor:
            return _End.AWAY
        return _End.REFUSED

    def _take(self, frame: ConnectorFrame) -> None:
        match frame:
            case Inbound():
                self._handler.on_inbound(frame)
            case OutboundResult():
                asked = self._waiting.pop(frame.request_id)
                if asked is not None and not asked.answer.done():
                    asked.answer.set_result(frame.result)
            case DescriptorFrame():
                self._adopt(frame.descriptor)
            case InterruptInbound():
                self._handler.on_interrupt(frame)
            case GoingIdleAck():
                self._idle_ack.set()
            case PassthroughForward():
                _log.warning("passthrough_dropped", platform=frame.forward.platform[:32])

    def _adopt(self, descriptor: Descriptor) -> None:
        """Keep a descriptor; one that does not name its account is of the one that a hello named."""
        named = (item.bot_id for item in self._identity.identities if item.platform == descriptor.platform)
        bot_id = descriptor.bot_id or next(named, "")
        key = (descriptor.platform, bot_id)
        self._accounts[key] = Account(platform=descriptor.platform, bot_id=bot_id, descriptor=descriptor)
        self._has_had_descriptor = True
        if self.is_connected:
            self._handler.on_state()

    def _ask(self, writer: LineWriter, action: Action, request_id: str, platform: str, bot_id: str) -> None:
        frame = Outbound.of(action, request_id=request_id, platform=platform, bot_id=bot_id)
        writer.write(encode_frame(frame))

    def _next_request_id(self) -> str:
        self._request_number += 1
        return f"{self._request_prefix}{self._request_number:016x}"

    def _lost(self) -> None:
        """Fail at once what waits for an answer: it will not come on another socket."""
        self._connected.clear()
        self._accounts = {}
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()
            for asked in self._waiting.pop_all():
                if not asked.answer.done():
                    error = NotSentError if asked.turn == writer.turn else AmbiguousError
                    asked.answer.set_exception(error("the connection to the connector was lost"))
        if self.state == "connected":
            self._set_state("connecting", "the connection was lost")

    def _set_state(self, state: State, detail: str | None) -> None:
        if (state, detail) == (self.state, self.detail):
            return
        is_news = state != self.state or self.detail is None
        self.state, self.detail = state, detail
        if state == "connected":
            _log.info("relay_connected", relay=self.name, identities=len(self._accounts))
        elif is_news and detail is not None:
            _log.warning("relay_not_connected", relay=self.name, state=state, why=detail)
        self._handler.on_state()


async def _close(socket: _Socket) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()


def _expire(asked: _Asked) -> None:
    if not asked.answer.done():
        asked.answer.set_exception(AmbiguousError(f"no answer within {RESULT_TIMEOUT_S:g} s"))


def _why_not(url: str, error: Exception) -> str:
    """Return why the dial failed, with nothing of the address but host and port."""
    try:
        parts = urlsplit(url)
        where = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
    except ValueError:
        where = "the connector"
    match error:
        case aiohttp.WSServerHandshakeError():
            return f"{where} answered {error.status}"
        case TimeoutError():
            return f"{where} did not answer in {DIAL_TIMEOUT_S:g} s"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | ValueError():
            return "the relay address is not an address"
        case _:
            return f"{where} cannot be reached"
