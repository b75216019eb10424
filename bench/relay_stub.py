"""A relay server for both transports: it answers at once, in as few messages as it can, and decides nothing.

An action `get_chat_info` on the chat `inbound:N` is answered when N events were sent and acknowledged, 64 of
them in flight. Run as `python -m bench.relay_stub`; prints its port.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import msgspec
import uvloop
from aiohttp import WSMsgType, web

from bench.frames import INBOUND_IN_FLIGHT, inbound_line
from skep.wire.relay.actions import Result
from skep.wire.relay.descriptor import Descriptor
from skep.wire.relay.frames import (
    DescriptorFrame,
    GatewayFrame,
    Hello,
    InboundAck,
    Outbound,
    OutboundResult,
    encode_frame,
    gateway_frames,
)

__all__: list[str] = []

_SAID: Final = Result(success=True, message_id="p-1")
_DESCRIPTOR: Final = Descriptor(
    contract_version=1,
    platform="web",
    label="Web",
    max_message_length=32_000,
    supports_draft_streaming=False,
    supports_edit=True,
    supports_threads=True,
    markdown_dialect="gfm",
    len_unit="chars",
)


class _Session:
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._lines: list[bytes] = []
        self._left = self._unacked = self._number = 0
        self._asked_by = ""

    async def serve(self) -> None:
        reader = gateway_frames()
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                for frame in reader.feed(message.data):
                    self._take(frame)
                lines, self._lines = self._lines, []
                if lines:
                    await self._socket.send_frame(b"".join(lines), WSMsgType.TEXT)

    def _take(self, frame: GatewayFrame) -> None:
        match frame:
            case Hello():
                self._lines.append(encode_frame(DescriptorFrame(descriptor=_DESCRIPTOR)))
            case Outbound():
                action: dict[str, Any] = msgspec.json.decode(frame.action)
                if action["op"] == "get_chat_info":
                    self._left = int(action["chat_id"].removeprefix("inbound:"))
                    self._asked_by = frame.request_id
                    for _ in range(min(self._left, INBOUND_IN_FLIGHT)):
                        self._give()
                else:
                    self._answer(frame.request_id)
            case InboundAck():
                self._unacked -= 1
                if self._left:
                    self._give()
                elif not self._unacked:
                    self._answer(self._asked_by)
            case _:
                pass

    def _give(self) -> None:
        self._left -= 1
        self._unacked += 1
        self._number += 1
        self._lines.append(inbound_line(self._number))

    def _answer(self, request_id: str) -> None:
        self._lines.append(encode_frame(OutboundResult(request_id=request_id, result=_SAID)))


async def _upgrade(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    await _Session(socket).serve()
    return socket


async def _main() -> None:
    app = web.Application()
    app.router.add_get("/relay", _upgrade)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main())
