"""What the ratios stand on: a raw echo of newline-delimited JSON, and a synced append.

The forms of "raw echo" differ by twenty times, so this one is fixed: two
processes over loopback TCP, under the event loop that Skep itself uses; both ends split what a read brought
into lines and answer all lines of it in one write; no line is parsed. `in_flight` lines are always under way.
The same with each line decoded and encoded again at both ends is measured too, for the reader: it says how
much of the distance is bytes and how much is JSON.
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

import msgspec
import uvloop

from bench.processes import python, started

__all__ = ["APPEND_BYTES", "Echo", "append_rate", "append_times", "echo_server"]

APPEND_BYTES: Final = 4096


class Echo:
    """The near end of a running echo server."""

    def __init__(self, port: int, reading_port: int) -> None:
        self._port: Final = port
        self._reading_port: Final = reading_port

    async def rate(self, line: bytes, *, in_flight: int, span_s: float, reads_json: bool = False) -> float:
        """Return lines a second with `in_flight` under way."""
        near = await self._connect(reads_json=reads_json)
        begun = time.perf_counter()
        near.send(line * in_flight)
        await asyncio.sleep(span_s)
        rate = near.count / (time.perf_counter() - begun)
        near.close()
        return rate

    async def times(self, line: bytes, *, count: int) -> list[float]:
        """Return how long each of `count` lines took, one at a time, in seconds."""
        near = await self._connect(is_single=True)
        took: list[float] = []
        for _ in range(count):
            begun = time.perf_counter()
            near.answered.clear()
            near.send(line)
            await near.answered.wait()
            took.append(time.perf_counter() - begun)
        near.close()
        return took

    async def _connect(self, *, is_single: bool = False, reads_json: bool = False) -> _End:
        loop = asyncio.get_running_loop()
        port = self._reading_port if reads_json else self._port
        _, near = await loop.create_connection(
            lambda: _End(is_single=is_single, reads_json=reads_json), "127.0.0.1", port
        )
        return near


@asynccontextmanager
async def echo_server(where: Path) -> AsyncIterator[Echo]:
    """Run the far end in a process of its own."""
    command = python("bench.floor")
    with started(command, log=where / "echo.log", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port, reading_port = (await asyncio.to_thread(process.stdout.readline)).split()
        yield Echo(int(port), int(reading_port))


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


class _End(asyncio.Protocol):
    """Either end: answers every line with itself, unless lines go one at a time."""

    def __init__(self, *, is_single: bool = False, reads_json: bool = False) -> None:
        self.count = 0
        self.answered: Final = asyncio.Event()
        self._is_single: Final = is_single
        self._reads_json: Final = reads_json
        self._rest = b""
        self._transport: asyncio.WriteTransport

    def send(self, lines: bytes) -> None:
        """Send lines."""
        self._transport.write(lines)

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.count += len(lines)
        if self._is_single:
            self.answered.set()
        elif self._reads_json:
            self._transport.write(b"".join([_encode(_decode(line)) + b"\n" for line in lines]))
        elif lines:
            self._transport.write(b"".join([line + b"\n" for line in lines]))


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda reads=reads: _End(reads_json=reads), "127.0.0.1", 0)
        for reads in (False, True)
    ]
    sys.stdout.write(" ".join(str(server.sockets[0].getsockname()[1]) for server in servers) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
