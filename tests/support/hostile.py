"""An endpoint that means no good: raw bytes over TCP, of which a test chooses what is written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ["HOSTILE", "Behaviour", "Hostile", "hostile"]


class Hostile:
    """A server that does one thing.

    Attributes:
        sent_bytes: How much it could write.
        requests: Heads of what it was asked.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.sent_bytes = 0
        self.requests: list[str] = []

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Write `data`, and wait until it is taken."""
        writer.write(data)
        await writer.drain()
        self.sent_bytes += len(data)


Behaviour = Callable[[Hostile, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def hostile(behaviour: Behaviour) -> AsyncIterator[Hostile]:
    """Serve `behaviour` to every request."""
    server = Hostile()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            server.requests.append(head)
            size = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(size[1]) if size else 0)
            await behaviour(server, writer)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await listener.wait_closed()


def _head(kind: str = "application/json", *, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{more}connection: close\r\n\r\n".encode()


def _says(
    body: bytes, *, kind: str = "application/json", status: str = "200 OK", more: str = ""
) -> Behaviour:
    async def behave(server: Hostile, writer: asyncio.StreamWriter) -> None:
        await server.send(writer, _head(kind, status=status, more=more) + body)

    return behave


def _completion(content: str, *, model: str = "m") -> bytes:
    body = f'{{"model":"{model}","choices":[{{"message":{{"content":"{content}"}},"finish_reason":"stop"}}]}}'
    return body.encode()


async def _nothing(server: Hostile, writer: asyncio.StreamWriter) -> None:
    """Hang up."""


async def _forever(server: Hostile, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _head_then_forever(server: Hostile, writer: asyncio.StreamWriter) -> None:
    await server.send(writer, _head() + b"{")
    await asyncio.sleep(3600)


async def _a_byte_at_a_time(server: Hostile, writer: asyncio.StreamWriter) -> None:
    await server.send(writer, _head())
    while True:
        await server.send(writer, b" ")
        await asyncio.sleep(0.02)


async def _huge(server: Hostile, writer: asyncio.StreamWriter) -> None:
    await server.send(writer, _head())
    for _ in range(1600):
        await server.send(writer, b" " * 65_536)


async def _endless_events(server: Hostile, writer: asyncio.StreamWriter) -> None:
    await server.send(writer, _head("text/event-stream"))
    while True:
        await server.send(writer, b'data: {"choices":[{"delta":{"content":"' + b"bee " * 4096 + b'"}}]}\n\n')


async def _comments_only(server: Hostile, writer: asyncio.StreamWriter) -> None:
    await server.send(writer, _head("text/event-stream"))
    while True:
        await server.send(writer, b": still here\n\n")
        await asyncio.sleep(0.02)


async def _cut(server: Hostile, writer: asyncio.StreamWriter) -> None:
    await server.send(writer, _head(more="content-length: 1000\r\n") + _completion("hello"))


HOSTILE: dict[str, Behaviour] = {
    "nothing": _nothing,
    "forever": _forever,
    "head, then forever": _head_then_forever,
    "a byte at a time": _a_byte_at_a_time,
    "100 MB": _huge,
    "endless events": _endless_events,
    "comments only": _comments_only,
    "cut": _cut,
    "a page": _says(b"<html><body>Sign in</body></html>", kind="text/html"),
    "empty": _says(b""),
    "an empty object": _says(b"{}"),
    "nested deep": _says(b"[" * 10_000 + b"]" * 10_000),
    "nested deep in an error": _says(b'{"error":' * 10_000 + b"1" + b"}" * 10_000, status="400 Bad Request"),
    "not UTF-8": _says(_completion("hello").replace(b"hello", b"\xff\xfe")),
    "names twice": _says(b'{"choices":[],' + _completion("hello")[1:]),
    "packed": _says(_completion("hello"), more="content-encoding: gzip\r\n"),
    "redirect to metadata": _says(
        b"", status="302 Found", more="location: http://169.254.169.254/latest/meta-data\r\n"
    ),
    "not HTTP": lambda server, writer: server.send(writer, b"\x16\x03\x01 this is not HTTP\r\n\r\n"),
    "escape codes": _says(_completion("hello", model="\\u001b[31mm\\u0007\\nverdict=pass")),
    "events that are not JSON": _says(b"data: nope\n\n", kind="text/event-stream"),
    "events not UTF-8": _says(b"data: \xff\n\n", kind="text/event-stream"),
    "an error among events": _says(
        b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: {"error":{"message":"slow down","code":429}}\n\n',
        kind="text/event-stream",
    ),
}
