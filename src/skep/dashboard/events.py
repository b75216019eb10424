"""Server-sent events: what changes in the hive, to one tab of a browser.

Source: interface rules, section 10; control protocol, section 9. Each tab has a bounded buffer; one
that does not keep up is told to ask again (`resync`), and slows nobody. When the daemon is away the
stream stays, says so with each try, and goes on from where it was. Whether the session still may
listen is checked by the daemon, which hangs up when it may not.

    ready   {epoch, cursor}         events follow from there on; ask for the state now
    hive    {cursor, kind, data}    something changed
    away    {next_ms}               the daemon does not answer; the next try is then
    sign_in {}                      the session has ended, and so does the stream
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

import msgspec

from skep.dashboard.daemon import Daemon, Position, Subscription
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.tasks import Backoff, TaskSet

__all__ = ["MAX_WAITING", "EventStream", "Writer"]

MAX_WAITING: Final = 1_000
"""Events that wait for one tab; one more makes all of them a single `resync`."""
_HEARTBEAT_S: Final = 15.0

_log = get_logger(part="dashboard")


class _HasCursor(msgspec.Struct, frozen=True):
    cursor: int


_decoder: Final = msgspec.json.Decoder(_HasCursor)


class Writer(Protocol):
    """Where the bytes of a stream go."""

    async def write(self, data: bytes, /) -> None:
        """Send `data`; waits while the browser does not read."""
        ...


class EventStream:
    """The stream of one tab, from `after` on."""

    def __init__(self, daemon: Daemon, *, session: str, after: Position | None = None) -> None:
        self._daemon: Final = daemon
        self._session: Final = session
        self._after = after
        self._waiting: deque[bytes] = deque()
        self._wake: Final = asyncio.Event()
        self._tasks: Final = TaskSet(on_error=_unexpected)
        self._is_ended = False

    def end(self) -> None:
        """End the stream: signed out, or the process stops."""
        self._is_ended = True
        self._wake.set()

    async def open(self) -> Subscription | None:
        """Subscribe for the first time; return `None` when the daemon is away.

        Raises:
            CallError: The daemon refused (`sign_in`: no such session).
        """
        try:
            return await self._subscribe()
        except SkepError as error:
            if _is_final(error):
                raise
            return None

    async def run(self, writer: Writer, first: Subscription | None) -> None:
        """Write the stream until it is ended or its session is."""
        backoff = Backoff(first_s=0.25, last_s=5.0, jitter=0.1)
        subscription = first
        while not self._is_ended:
            if subscription is not None:
                backoff.reset()
                await self._pass_on(writer, subscription)
            else:
                wait_s = backoff.next_s()
                await writer.write(_event("away", b'{"next_ms":%d}' % int(wait_s * 1000)))
                if not self._is_ended:
                    self._wake.clear()
                    await self._sleep(wait_s)
            if self._is_ended:
                break
            try:
                subscription = await self._subscribe()
            except SkepError as error:
                if _is_final(error):
                    await writer.write(_event("sign_in", b"{}"))
                    break
                subscription = None

    async def _subscribe(self) -> Subscription:
        self._waiting.clear()
        return await self._daemon.subscribe(session=self._session, after=self._after, take=self._take)

    async def _pass_on(self, writer: Writer, subscription: Subscription) -> None:
        """Write events until the connection is lost."""
        watch = self._tasks.spawn(self._watch(subscription))
        try:
            await self._write_all(writer, subscription)
        finally:
            watch.cancel()
            subscription.caller.close()

    async def _write_all(self, writer: Writer, subscription: Subscription) -> None:
        position = subscription.position
        ready = b'{"epoch":%d,"cursor":%d}' % (position.epoch, position.cursor)
        self._after = position
        await writer.write(_event("ready", ready, at=position))
        while not self._is_ended:
            self._wake.clear()
            if self._waiting:
                await writer.write(self._take_waiting(position.epoch))
            elif not subscription.caller.is_open:
                return
            elif not await self._sleep(_HEARTBEAT_S):
                await writer.write(b": here\n\n")

    def _take_waiting(self, epoch: int) -> bytes:
        """Return what waits as one write; what is returned counts as passed on."""
        parts: list[bytes] = []
        while self._waiting:
            body = self._waiting.popleft()
            self._after = Position(epoch=epoch, cursor=_decoder.decode(body).cursor)
            parts.append(_event("hive", body, at=self._after))
        return b"".join(parts)

    async def _watch(self, subscription: Subscription) -> None:
        await subscription.caller.wait_closed()
        self._wake.set()

    async def _sleep(self, seconds: float) -> bool:
        """Wait until something happens, at most `seconds`; return whether it did."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def _take(self, raw: msgspec.Raw) -> None:
        body = bytes(raw)
        try:
            cursor = _decoder.decode(body).cursor
        except msgspec.DecodeError:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.clear()
            body = b'{"cursor":%d,"kind":"resync","data":{}}' % cursor
        self._waiting.append(body)
        self._wake.set()


def _event(name: str, data: bytes, *, at: Position | None = None) -> bytes:
    mark = b"" if at is None else f"id: {at}\n".encode()
    return b"%sevent: %s\ndata: %s\n\n" % (mark, name.encode(), data)


def _is_final(error: SkepError) -> bool:
    return error.wire_code in {"sign_in", "not_allowed"}


def _unexpected(error: BaseException) -> None:
    _log.error("task_failed", exc_info=error)
