"""A TCP line that fails: it is cut between or inside frames, stalls, or dies on one side without a word."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["ChaosProxy"]


@dataclass(eq=False)
class _Line:
    """One connection through the proxy; `near` is who dialled, `far` the server."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    is_silent: bool = False


class ChaosProxy:
    """Forwards to a port of this machine, as well as it is allowed to.

    Attributes:
        target: Port that new connections are forwarded to.
        dials: Connections so far.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.dials = 0
        self._lines: set[_Line] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._budget: int | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut everything and stop listening."""
        self._flows.set()
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def cut(self) -> None:
        """Break every line now, for both sides."""
        self._budget = None
        for line in list(self._lines):
            line.near.transport.abort()
            line.far.transport.abort()

    def cut_after(self, count: int) -> None:
        """Break the line on which the next `count` bytes have passed, in whichever direction."""
        self._budget = count

    def stall(self) -> None:
        """Pass nothing on until `flow`."""
        self._flows.clear()

    def flow(self) -> None:
        """Pass things on again."""
        self._flows.set()

    def half_open(self) -> None:
        """Break every line for the server alone: who dialled hears nothing, and nothing of the end."""
        for line in list(self._lines):
            line.is_silent = True
            line.far.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.dials += 1
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            near.transport.abort()
            return
        line = _Line(near, far)
        self._lines.add(line)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pipe(line, reader, far))
                tasks.create_task(self._pipe(line, far_reader, near))
        finally:
            self._lines.discard(line)
            near.transport.abort()
            far.transport.abort()

    async def _pipe(self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                is_last = self._budget is not None and self._budget < len(data)
                if self._budget is not None:
                    data = data[: self._budget]
                    self._budget -= len(data)
                if not line.is_silent and not writer.transport.is_closing():
                    writer.write(data)
                    await writer.drain()
                if is_last:
                    self.cut()
        if not line.is_silent:
            writer.transport.abort()
            (line.near if writer is line.far else line.far).transport.abort()
