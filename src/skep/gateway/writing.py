"""Lines on their way into one WebSocket, without a task: all of one turn of the loop leave in one message.

Source: relay contract, section 3. A connector that does not read is waited for; lines are kept meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any, Final

import aiohttp

from skep.wire.relay.frames import MAX_MESSAGE_BYTES, messages

__all__ = ["LineWriter", "Socket"]

Socket = aiohttp.ClientWebSocketResponse[bool]


class LineWriter:
    """What writes to `socket`, which does not compress.

    Attributes:
        turn: Number of the turn whose lines wait: a line that was given in an earlier one may be written.
    """

    def __init__(self, socket: Socket) -> None:
        self.turn = 0
        self._socket: Final = socket
        self._loop: Final = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._is_held = False
        self._is_stopped = False

    def write(self, line: bytes) -> None:
        """Send `line` with whatever else comes up in this turn of the loop."""
        if self._is_stopped:
            return
        if not self._lines and not self._is_held:
            self._loop.call_soon(self._flush)
        self._lines.append(line)

    def stop(self) -> None:
        """Send nothing any more, what waits neither."""
        self._is_stopped = True
        self._lines.clear()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        self.turn += 1
        whole = b"".join(lines)
        self._send(iter((whole,)) if len(whole) <= MAX_MESSAGE_BYTES else messages(lines))

    def _send(self, parts: Iterator[bytes]) -> None:
        try:
            for part in parts:
                room = _written(self._socket.send_frame(part, aiohttp.WSMsgType.TEXT))
                if room is not None:
                    self._is_held = True
                    room.add_done_callback(partial(self._go_on, parts))
                    return
        except (aiohttp.ClientError, OSError):
            self.stop()  # the reader sees the end

    def _go_on(self, parts: Iterator[bytes], room: asyncio.Future[Any]) -> None:
        self._is_held = False
        if room.cancelled() or room.exception() is not None:
            self.stop()
        if not self._is_stopped:
            self._send(parts)
        if not self._is_held:
            self._flush()


def _written(sending: Coroutine[Any, Any, None]) -> asyncio.Future[Any] | None:
    """Have `sending` write its message; return what it then waits for, if the peer does not read.

    It writes first and waits last: when that has come there is nothing left for it to do.
    """
    try:
        return sending.send(None)
    except StopIteration:
        return None
    finally:
        sending.close()
