"""Many messages to one tab in one write.

Source: RFC 6455, section 5.2. The server library writes each message by itself, and every write over
loopback or a network costs more than the message did. Nothing is held back: what there is goes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import WSMsgType, web

__all__ = ["send_all", "text_frame"]

_FINAL_TEXT: Final = b"\x81"
_SHORT: Final = 126
_MEDIUM: Final = 1 << 16


async def send_all(socket: web.WebSocketResponse, request: web.Request, messages: Sequence[bytes]) -> None:
    """Send `messages`; returns when the peer keeps up again.

    `socket` has a `writer_limit` of 0, no compression, and was made by `request`.

    Raises:
        ConnectionError: The peer is gone.
    """
    if not messages:
        return
    if len(messages) > 1:
        transport = request.transport
        if socket.closed or transport is None or transport.is_closing():
            raise ConnectionResetError("the tab is gone")
        transport.write(b"".join(map(text_frame, messages[:-1])))
    await socket.send_frame(messages[-1], WSMsgType.TEXT)


def text_frame(message: bytes) -> bytes:
    """Return `message` as a whole text frame of a server."""
    size = len(message)
    if size < _SHORT:
        return b"%b%c%b" % (_FINAL_TEXT, size, message)
    if size < _MEDIUM:
        return b"%b~%b%b" % (_FINAL_TEXT, size.to_bytes(2, "big"), message)
    return b"%b\x7f%b%b" % (_FINAL_TEXT, size.to_bytes(8, "big"), message)
