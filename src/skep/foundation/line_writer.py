"""Lines on their way into one WebSocket, without a task: all of one turn of the loop leave in one message.

Source: relay contract, section 3. A peer that does not read is waited for; lines are kept meanwhile. For aiohttp's
sockets of either end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol

__all__ = ["LineWriter"]

_TEXT: Final = 1
"""Opcode of a text message. RFC 6455, section 5.2."""


class _Socket(Protocol):
    """A WebSocket that does not compress."""

    def send_frame(self, message: bytes, opcode: Any, /) -> Coroutine[Any, Any, None]: ...


class LineWriter:
    """What writes to `socket`.

    Args:
        messages: Joins lines into messages.
        on_room: Called when lines that had to wait for the peer have left.

    Attributes:
        turn: Number of the turn whose lines wait: a line that was given in an earlier one may be written.
        waiting_bytes: Size of the lines that have not left.
    """

    def __init__(
        self,
        socket: _Socket,
        *,
        messages: Callable[[Sequence[bytes]], Iterable[bytes]],
        on_room: Callable[[], None] | None = None,
    ) -> None:
        self.turn = 0
        self.waiting_bytes = 0
        self._socket: Final = socket
        self._messages: Final = messages
        self._on_room: Final = on_room
        self._loop: Final = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._is_held = False
        self._is_stopped = False

    def write(self, *lines: bytes) -> None:
        """Send `lines` with whatever else comes up in this turn of the loop."""
        if self._is_stopped:
            return
        if not self._lines and not self._is_held:
            self._loop.call_soon(self._flush)
        self._lines += lines
        self.waiting_bytes += sum(map(len, lines))

    def stop(self) -> None:
        """Send nothing any more, what waits neither."""
        self._is_stopped = True
        self._lines.clear()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self.turn += 1
            self._send(iter(self._messages(lines)))

    def _send(self, parts: Iterator[bytes]) -> None:
        try:
            for part in parts:
                room = _written(self._socket.send_frame(part, _TEXT))
                if room is not None:
                    self._is_held = True
                    room.add_done_callback(partial(self._go_on, parts))
                    return
        except OSError:
            self.stop()  # the reader sees the end
        self.waiting_bytes = sum(map(len, self._lines))

    def _go_on(self, parts: Iterator[bytes], room: asyncio.Future[Any]) -> None:
        self._is_held = False
        if room.cancelled() or room.exception() is not None:
            self.stop()
        if not self._is_stopped:
            self._send(parts)
        if not self._is_held:
            self._flush()
        if not self._is_held and self._on_room is not None:
            self._on_room()


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
