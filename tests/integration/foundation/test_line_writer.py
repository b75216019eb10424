"""skep.foundation.line_writer: lines on their way into a WebSocket whose other end may not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from skep.foundation.line_writer import LineWriter
from skep.wire.relay.frames import MAX_MESSAGE_BYTES, messages
from support.waiting import MS, eventually

pytestmark = pytest.mark.anyio

Socket = aiohttp.ClientWebSocketResponse[bool]
MUCH = [b"%d" % number * 50_000 + b"\n" for number in range(100, 300)]
"""Some 30 MB: more than all buffers on the way hold."""


@dataclass
class Peer:
    """A server that reads when it is told to, and a socket to it."""

    reads: asyncio.Event = field(default_factory=asyncio.Event)
    messages: list[bytes] = field(default_factory=list[bytes])
    server_side: web.WebSocketResponse | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Keep each message, from when on it may be read."""
        self.server_side = web.WebSocketResponse(compress=False, max_msg_size=0)
        await self.server_side.prepare(request)
        await self.reads.wait()
        async for message in self.server_side:
            assert message.type is WSMsgType.TEXT
            self.messages.append(message.data.encode())
        return self.server_side

    def cut(self) -> None:
        """Go away without a word."""
        assert self.server_side is not None
        transport = self.server_side._req.transport if self.server_side._req else None  # pyright: ignore[reportPrivateUsage]
        assert transport is not None
        transport.abort()
        self.reads.set()


@pytest.fixture
def peer() -> Peer:
    """Return a peer that does not read yet."""
    return Peer()


@pytest.fixture
async def socket(peer: Peer) -> AsyncIterator[Socket]:
    """Return a socket to `peer`."""
    app = web.Application()
    app.router.add_get("/", peer.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        socket = await session.ws_connect(url, compress=0, decode_text=False)
        yield socket
        peer.reads.set()
        await socket.close()
    await runner.cleanup()


async def test_lines_of_one_turn_leave_in_one_message(peer: Peer, socket: Socket) -> None:
    """With no added delay: those of the next turn do not wait for more."""
    peer.reads.set()
    writer = LineWriter(socket, messages=messages)
    writer.write(b"one\n")
    writer.write(b"two\n")
    turn = writer.turn
    await asyncio.sleep(0)
    later = writer.turn
    writer.write(b"three\n")

    await eventually(lambda: peer.messages == [b"one\ntwo\n", b"three\n"])
    assert (turn, later) == (0, 1)


async def test_a_peer_that_does_not_read_is_waited_for_and_misses_nothing(peer: Peer, socket: Socket) -> None:
    """Lines are held back meanwhile, then come in order, and no message is longer than one may be."""
    writer = LineWriter(socket, messages=messages)
    for at in range(0, len(MUCH), 40):
        for line in MUCH[at : at + 40]:
            writer.write(line)
        await asyncio.sleep(5 * MS)
    held_at = writer.turn
    await asyncio.sleep(20 * MS)
    is_held = writer.turn == held_at

    peer.reads.set()

    await eventually(lambda: sum(map(len, peer.messages)) == sum(map(len, MUCH)), within=10_000 * MS)
    assert is_held
    assert b"".join(peer.messages) == b"".join(MUCH)
    assert max(map(len, peer.messages)) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("ends", ["stopped", "cut"])
async def test_nothing_is_written_after_the_end(peer: Peer, socket: Socket, ends: str) -> None:
    """What is held when the writer is stopped, or the peer goes away, stays unwritten; nothing fails."""
    writer = LineWriter(socket, messages=messages)
    for line in MUCH:
        writer.write(line)
    await asyncio.sleep(5 * MS)
    writer.write(b"held\n")
    turn = writer.turn
    {"stopped": writer.stop, "cut": peer.cut}[ends]()
    peer.reads.set()
    await asyncio.sleep(50 * MS)
    writer.write(b"late\n")
    await asyncio.sleep(50 * MS)

    assert writer.turn == turn
    assert not [message for message in peer.messages if b"held" in message or b"late" in message]
