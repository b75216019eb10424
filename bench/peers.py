"""Other brokers, started for the bench: Redis Streams and NATS JetStream, both syncing every write.

Redis is driven by its own Python client. JetStream is driven by a client of a few lines, which costs it less
than a full one would. A part that is not installed is reported, never skipped in silence.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast

from bench.processes import started

__all__ = ["Found", "Peer", "start_all"]

REDIS: Final = "Redis Streams, appendfsync always"
JETSTREAM: Final = "JetStream, sync always"
_STARTS_WITHIN_S: Final = 5.0
_PLACES: Final = 64


class Peer(Protocol):
    """A running broker."""

    @property
    def name(self) -> str: ...

    async def rate(self, *, body: str, in_flight: int, span_s: float) -> float:
        """Return messages a second that were sent, received and acknowledged."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


@dataclass
class Found:
    """Which peers run; `named` has all of them, with why not for those that do not."""

    running: list[Peer] = field(default_factory=list[Peer])
    named: dict[str, str] = field(default_factory=dict[str, str])
    processes: ExitStack = field(default_factory=ExitStack)

    async def close(self) -> None:
        """End them all."""
        for peer in self.running:
            await peer.close()
        self.processes.close()


async def start_all(where: Path) -> Found:
    """Start what is installed, with its data on the filesystem of `where`."""
    found = Found()
    for name, start in ((REDIS, _start_redis), (JETSTREAM, _start_jetstream)):
        try:
            found.running.append(await start(where, found.processes))
            found.named[name] = ""
        except (ImportError, FileNotFoundError, OSError, TimeoutError) as error:
            found.named[name] = str(error) or type(error).__name__
    return found


async def _cycles(
    worker: Callable[[int], Coroutine[Any, Any, None]], *, in_flight: int, span_s: float
) -> float:
    """Return how often `worker` ran a second, with `in_flight` of it at a time."""
    count = 0
    begun = time.perf_counter()
    end = begun + span_s

    async def repeat(place: int) -> None:
        nonlocal count
        while time.perf_counter() < end:
            await worker(place)
            count += 1

    await asyncio.gather(*(repeat(place) for place in range(in_flight)))
    return count / (time.perf_counter() - begun)


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"`{name}` is not installed: `make test` sets it up")
    return found


# Redis.


class _Redis:
    name = REDIS

    def __init__(self, client: Any) -> None:
        self._client: Final = client

    async def rate(self, *, body: str, in_flight: int, span_s: float) -> float:
        client = self._client

        async def cycle(_place: int) -> None:
            await client.xadd("s", {"b": body})
            for _, messages in await client.xreadgroup("g", "c", {"s": ">"}, count=1):
                for ident, _ in messages:
                    await client.xack("s", "g", ident)

        rate = await _cycles(cycle, in_flight=in_flight, span_s=span_s)
        await client.xtrim("s", maxlen=0)
        return rate

    async def close(self) -> None:
        await self._client.aclose()


async def _start_redis(where: Path, processes: ExitStack) -> Peer:
    from redis.asyncio import Redis

    path = where / "redis.sock"
    command = [
        *(_program("redis-server"), "--port", "0", "--unixsocket", str(path), "--dir", str(where)),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
    ]
    processes.enter_context(started(command, log=where / "redis.log"))
    client: Any = Redis(unix_socket_path=str(path))
    await _eventually(lambda: _pinged(client))
    await client.xgroup_create("s", "g", mkstream=True)
    return _Redis(client)


async def _pinged(client: Any) -> Any:
    return await client.ping()


# NATS.


class _Nats(asyncio.Protocol):
    """The near end of a NATS connection. Each of its places asks for one thing at a time.

    A pulled message comes under its own subject, so an answer is told by the subscription of its place.
    """

    def __init__(self, places: int) -> None:
        self.ready: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self._places: Final = places
        self._answers: Final[dict[bytes, asyncio.Future[tuple[bytes, bytes]]]] = {}
        self._transport: asyncio.WriteTransport
        self._buffer = b""
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        places = b"".join(b"SUB _r.%d %d\r\n" % (place, place) for place in range(self._places))
        self._send(b'CONNECT {"verbose":false,"pedantic":false}\r\n' + places + b"PING\r\n")

    def ask(self, place: int, subject: bytes, body: bytes) -> asyncio.Future[tuple[bytes, bytes]]:
        """Publish, and return a future of (reply subject, body) of the answer."""
        answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self._answers[b"%d" % place] = answer
        self._send(b"PUB %b _r.%d %d\r\n%b\r\n" % (subject, place, len(body), body))
        return answer

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        at = 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            line = buffer[at:end]
            at = end + 2
            if line.startswith(b"MSG "):
                _, _, place, *reply, size = line.split()
                if len(buffer) < at + int(size) + 2:
                    at = end - len(line)
                    break
                self._answered(place, reply[0] if reply else b"", buffer[at : at + int(size)])
                at += int(size) + 2
            elif line == b"PING":
                self._send(b"PONG\r\n")
            elif line == b"PONG" and not self.ready.done():
                self.ready.set_result(None)
        self._buffer = buffer[at:]

    def _answered(self, place: bytes, reply: bytes, body: bytes) -> None:
        answer = self._answers.pop(place)
        if b'"error"' in body:
            answer.set_exception(OSError(body.decode(errors="replace")))
        else:
            answer.set_result((reply, body))

    def _send(self, data: bytes) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


class _JetStream:
    name = JETSTREAM

    def __init__(self, nats: _Nats) -> None:
        self._nats: Final = nats

    async def rate(self, *, body: str, in_flight: int, span_s: float) -> float:
        ask, payload = self._nats.ask, body.encode()

        async def cycle(place: int) -> None:
            await ask(place, b"s", payload)
            reply, _ = await ask(place, b"$JS.API.CONSUMER.MSG.NEXT.S.C", b'{"batch":1}')
            await ask(place, reply, b"+ACK")

        return await _cycles(cycle, in_flight=in_flight, span_s=span_s)

    async def close(self) -> None:
        self._nats.close()


async def _start_jetstream(where: Path, processes: ExitStack) -> Peer:
    config = where / "nats.conf"
    config.write_text(
        f'host: 127.0.0.1\nport: -1\nports_file_dir: "{where}"\n'
        f'jetstream {{ store_dir: "{where}/jetstream", sync_interval: always }}\n'
    )
    command = [_program("nats-server"), "-c", str(config)]
    processes.enter_context(started(command, log=where / "nats.log"))
    found = await _eventually(lambda: _ports(where))
    host, _, port = found["nats"][0].removeprefix("nats://").rpartition(":")
    _, nats = await asyncio.get_running_loop().create_connection(lambda: _Nats(_PLACES), host, int(port))
    await nats.ready
    stream = {"name": "S", "subjects": ["s"], "storage": "file", "retention": "workqueue"}
    await nats.ask(0, b"$JS.API.STREAM.CREATE.S", json.dumps(stream).encode())
    consumer = {
        "stream_name": "S",
        "config": {"durable_name": "C", "ack_policy": "explicit", "max_ack_pending": -1},
    }
    await nats.ask(0, b"$JS.API.CONSUMER.DURABLE.CREATE.S.C", json.dumps(consumer).encode())
    return _JetStream(nats)


async def _ports(where: Path) -> Any:
    return json.loads(next(where.glob("*.ports")).read_bytes())


async def _eventually(check: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Return what `check` returns once it does not raise."""
    end = time.monotonic() + _STARTS_WITHIN_S
    while True:
        try:
            return await check()
        except Exception as error:
            if time.monotonic() > end:
                raise TimeoutError("it did not start in time") from error
            await asyncio.sleep(0.02)
