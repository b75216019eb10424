"""What the ratios stand on: a raw echo of newline-delimited JSON, and a synced append.

Source: design, section 11. The forms of "raw echo" differ by twenty times, so this one is fixed: two
processes over loopback TCP, under the event loop that Skep itself uses; both ends split what a read brought
into lines and answer all lines of it in one write; no line is parsed. `in_flight` lines are always under way.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import uvloop

from bench.processes import python, started

__all__ = ["APPEND_BYTES", "Echo", "append_rate", "append_times", "echo_server"]

APPEND_BYTES: Final = 4096


class Echo:
    """The near end of a running echo server."""

    def __init__(self, port: int) -> None:
        self._port: Final = port

    async def rate(self, line: bytes, *, in_flight: int, span_s: float) -> float:
        """Return lines a second with `in_flight` under way."""
        near = await self._connect(line)
        begun = time.perf_counter()
        near.send(in_flight)
        await asyncio.sleep(span_s)
        rate = near.count / (time.perf_counter() - begun)
        near.close()
        return rate

    async def times(self, line: bytes, *, count: int) -> list[float]:
        """Return how long each of `count` lines took, one at a time, in seconds."""
        near = await self._connect(line, is_single=True)
        took: list[float] = []
        for _ in range(count):
            begun = time.perf_counter()
            near.answered.clear()
            near.send(1)
            await near.answered.wait()
            took.append(time.perf_counter() - begun)
        near.close()
        return took

    async def _connect(self, line: bytes, *, is_single: bool = False) -> _Near:
        loop = asyncio.get_running_loop()
        _, near = await loop.create_connection(lambda: _Near(line, is_single), "127.0.0.1", self._port)
        return near


@asynccontextmanager
async def echo_server(where: Path) -> AsyncIterator[Echo]:
    """Run the far end in a process of its own."""
    command = python("bench.floor")
    with started(command, log=where / "echo.log", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Echo(int(await asyncio.to_thread(process.stdout.readline)))


def append_times(where: Path, *, count: int) -> list[float]:
    """Return how long each append of 4 KiB with fdatasync took, in seconds."""
    path = where / "append.bin"
    block = bytes(APPEND_BYTES)
    took: list[float] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            begun = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - begun)
    finally:
        os.close(descriptor)
        path.unlink()
    return took


def append_rate(where: Path, *, count: int) -> float:
    """Return synced appends a second, one after the other."""
    return count / sum(append_times(where, count=count))


class _Far(asyncio.Protocol):
    """Answers every line with itself."""

    def __init__(self) -> None:
        self._rest = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._transport.write(b"".join([line + b"\n" for line in lines]))


class _Near(asyncio.Protocol):
    """Sends a line for each that comes back."""

    def __init__(self, line: bytes, is_single: bool) -> None:  # noqa: FBT001 - private
        self.count = 0
        self.answered: Final = asyncio.Event()
        self._line: Final = line
        self._is_single: Final = is_single
        self._rest = b""
        self._transport: asyncio.WriteTransport

    def send(self, count: int) -> None:
        self._transport.write(self._line * count)

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.count += len(lines)
        if self._is_single:
            self.answered.set()
        elif lines:
            self._transport.write(b"".join([self._line] * len(lines)))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Far, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
