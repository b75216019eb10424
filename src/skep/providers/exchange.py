"""One bounded exchange with an endpoint: no retry, no redirect, no proxy, own limits on time and size.

Source: secrets and providers, section B1. What the library raises holds the request with its key: it is never
passed on, and never the cause of what is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from skep.foundation.clock import Clock
from skep.foundation.outbound import as_request_id, is_encoded, make_client, why_unreached
from skep.foundation.secret import Secret
from skep.providers.answers import Answer, Transport
from skep.providers.dialects import Dialect
from skep.providers.endpoint import Endpoint, Limits

__all__ = ["Event", "EventReader", "Exchange", "Streamed"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event:
    """One event of a stream: when it came, counted from the request, and its data."""

    at_ms: int
    data: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Streamed:
    """An answer in events; `answer.body` is empty where there were any."""

    answer: Answer
    events: tuple[Event, ...] = ()
    is_broken: bool = False
    """Not UTF-8."""


@dataclass(slots=True, kw_only=True, repr=False)
class _Got:
    """What has come so far."""

    status: int | None = None
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytearray = field(default_factory=bytearray)
    is_cut: bool = False
    has_stalled: bool = False
    transport: Transport | None = None


class _TooLongError(Exception):
    """Over the limit."""


class Exchange:
    """Speaks to one endpoint; a context manager."""

    def __init__(self, endpoint: Endpoint, dialect: Dialect, *, limits: Limits, clock: Clock) -> None:
        self._endpoint = endpoint
        self._dialect = dialect
        self._limits = limits
        self._clock = clock
        self._client = make_client(
            trust=ssl.create_default_context(),
            timeout=httpx.Timeout(limits.first_byte_s, connect=limits.connect_s),
            # A server may close a connection that lies idle just as the next question goes out on it, and nothing
            # here is asked twice: each question has a connection of its own.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def get(self, path: str) -> Answer:
        """Return the answer to a GET."""
        return (await self._run("GET", path, None, None, as_events=False)).answer

    async def post(self, path: str, body: dict[str, Any], *, key: Secret | None = None) -> Answer:
        """Return the answer to a POST; with another `key` than the endpoint's if given."""
        return (await self._run("POST", path, body, key, as_events=False)).answer

    async def stream(self, path: str, body: dict[str, Any]) -> Streamed:
        """Return the events that a POST is answered with, or what came instead."""
        return await self._run("POST", path, body, None, as_events=True)

    async def _run(
        self, method: str, path: str, body: dict[str, Any] | None, key: Secret | None, *, as_events: bool
    ) -> Streamed:
        start = self._clock.monotonic_ms()
        got = _Got()
        reader = EventReader(self._clock, start)
        try:
            async with (
                asyncio.timeout(self._limits.total_s),
                self._client.stream(
                    method,
                    f"{self._endpoint.base_url}{path}",
                    json=body,
                    headers=self._dialect.headers(key or self._endpoint.key),
                ) as response,
            ):
                got.status, got.headers = response.status_code, response.headers
                if not 300 <= got.status < 400:
                    is_stream = as_events and got.status == 200 and _content_type(got) == "text/event-stream"
                    await self._read(response, got, reader if is_stream else None)
        except httpx.ConnectTimeout:
            got.transport = "connect_timeout"
        except httpx.TimeoutException:
            got.transport = "read_timeout"
        except TimeoutError:
            got.transport = "read_timeout" if got.has_stalled else "total_timeout"
        except httpx.RemoteProtocolError:
            if got.status is None:
                got.transport = "connection"
            got.is_cut = True
        except httpx.TransportError as exc:
            got.transport = why_unreached(exc)
        except _TooLongError:
            got.is_cut = True
        except (httpx.InvalidURL, UnicodeError):
            got.transport = "name"
        if got.transport and (got.status or 0) >= 400:  # the status says more than what befell its body
            got.transport, got.is_cut = None, True
        answer = Answer(
            status=None if got.transport else got.status,
            transport=got.transport,
            content_type=_content_type(got),
            body=bytes(got.body),
            is_cut=got.is_cut,
            request_id=_request_id(got.headers),
            took_ms=self._clock.monotonic_ms() - start,
        )
        return Streamed(answer=answer, events=tuple(reader.events), is_broken=reader.is_broken)

    async def _read(self, response: httpx.Response, got: _Got, reader: EventReader | None) -> None:
        if is_encoded(response):
            got.is_cut = True
            return
        loop = asyncio.get_running_loop()
        stall_s = self._limits.stall_s
        size = 0
        try:
            async with asyncio.timeout(None if reader is None else stall_s) as stall:
                async for part in response.aiter_raw():
                    size += len(part)
                    if size > self._limits.body_bytes:
                        raise _TooLongError
                    if reader is None:
                        got.body += part
                    elif reader.feed(part):
                        stall.reschedule(loop.time() + stall_s)
                    if reader is not None and reader.is_broken:
                        return
        except TimeoutError:
            got.has_stalled = True
            raise


class EventReader:
    """Server-sent events, out of bytes that come in any pieces."""

    def __init__(self, clock: Clock, start_ms: int) -> None:
        self.events: list[Event] = []
        self.is_broken = False
        self._clock = clock
        self._start_ms = start_ms
        self._rest = b""
        self._data: list[str] = []

    def feed(self, part: bytes) -> bool:
        """Take `part` in; return whether it ended an event."""
        before = len(self.events)
        for line in self._lines(part):
            if not line:
                self._end()
            elif line.startswith(b"data:"):
                try:
                    self._data.append(line[5:].removeprefix(b" ").decode())
                except UnicodeDecodeError:
                    self.is_broken = True
        return len(self.events) > before

    def _lines(self, part: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")

    def _end(self) -> None:
        if self._data:
            at_ms = self._clock.monotonic_ms() - self._start_ms
            self.events.append(Event(at_ms=at_ms, data="\n".join(self._data)))
            self._data = []


def _content_type(got: _Got) -> str:
    return got.headers.get("content-type", "").partition(";")[0].strip().lower()


def _request_id(headers: httpx.Headers) -> str | None:
    return as_request_id(headers.get("x-request-id")) or as_request_id(headers.get("request-id"))
