"""support.network: a test cannot leave this machine."""

from __future__ import annotations

import asyncio
import socket
import urllib.request

import pytest

from support.network import OutsideSocketError


def test_connecting_elsewhere_raises() -> None:
    """The `socket` module reaches no other machine, by address or by name."""
    with socket.socket() as sock, pytest.raises(OutsideSocketError):
        sock.connect(("192.0.2.1", 80))
    with pytest.raises(OutsideSocketError):
        socket.create_connection(("relay.example", 443))
    with pytest.raises(OutsideSocketError):
        urllib.request.urlopen("http://relay.example/")


async def test_the_event_loop_reaches_nobody_else() -> None:
    """Async code reaches no other machine either: uvloop connects without the `socket` module."""
    with pytest.raises(OutsideSocketError):
        await asyncio.open_connection("relay.example", 443)
    with pytest.raises(OutsideSocketError):
        await asyncio.open_connection("192.0.2.1", 80)


async def test_this_machine_is_allowed() -> None:
    """A server of the test is reached by address and by name."""

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for host in ("127.0.0.1", "localhost"):
            reader, writer = await asyncio.open_connection(host, port)
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
