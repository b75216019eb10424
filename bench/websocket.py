"""The near end of a WebSocket, as small as it can be: it must not be what is measured.

Text messages only, unmasked in effect (a mask of zeros), no extensions; corked: what is sent in one turn of
the loop leaves in one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

__all__ = ["NearSocket", "dial"]

_TEXT_FINAL: Final = 0x81


class NearSocket(asyncio.Protocol):
    """One open socket; `on_message` takes each message."""

    def __init__(self, request: bytes, on_message: Callable[[bytes], None]) -> None:
        self.opened: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self._request: Final = request
        self._on_message: Final = on_message
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._transport: asyncio.WriteTransport
        self._is_open = False

    def send(self, message: bytes) -> None:
        """Queue one message."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        size = len(message)
        head = bytes((_TEXT_FINAL, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
        self._out += (head, b"\0\0\0\0", message)

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        if not self._is_open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(bytes(buffer[:end]).decode(errors="replace")))
                return
            self._is_open, at = True, end + 4
            self.opened.set_result(None)
        size = len(buffer)
        while size - at >= 2:
            length, start = buffer[at + 1] & 0x7F, at + 2
            if length == 126:
                length, start = int.from_bytes(buffer[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(buffer[start : start + 8], "big"), start + 8
            if size < start + length:
                break
            if buffer[at] == _TEXT_FINAL:
                self._on_message(bytes(buffer[start : start + length]))
            at = start + length
        del buffer[:at]

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


async def dial(port: int, path: str, *, token: str, on_message: Callable[[bytes], None]) -> NearSocket:
    """Open `path` on this machine with a bearer token."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: c2tlcC1iZW5jaC1zb2NrZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(lambda: NearSocket(request, on_message), "127.0.0.1", port)
    await socket.opened
    return socket
