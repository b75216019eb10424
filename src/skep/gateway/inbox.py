"""Inbound events: handed to the daemon, acknowledged only when they are on its disk.

Source: control protocol, section 4; relay contract, sections 11 and 16. Order is kept per chat; chats do
not wait for each other. An event is passed on unchanged; nothing of it is logged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.rpc import CallError, ConnectionLostError
from skep.foundation.tasks import Backoff, TaskSet
from skep.gateway.door import Door, is_worth_repeating
from skep.wire.control.door import ACCEPT, AcceptArgs
from skep.wire.relay.frames import Inbound

__all__ = ["WINDOW", "Inbox"]

WINDOW: Final = 512
"""Events that are taken and not acknowledged yet, at most."""
MAX_EVENT_BYTES: Final = 900_000
"""An event must fit into one frame to the daemon (1 MiB)."""
MAX_TEXT_CHARS: Final = 128_000
"""What is left of a text that does not fit; the daemon cuts at 64 KiB, and says so."""

_log = get_logger(part="inbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    event: msgspec.Raw
    buffer_id: str | None
    received_at: int


class Inbox:
    """Events on their way to the daemon.

    Args:
        relay: Name of the relay that they come from.
        acknowledge: Tells the connector that a buffered event is on disk.
    """

    def __init__(
        self, door: Door, tasks: TaskSet, *, relay: str, clock: Clock, acknowledge: Callable[[str], None]
    ) -> None:
        self._door: Final = door
        self._tasks: Final = tasks
        self._relay: Final = relay
        self._clock: Final = clock
        self._acknowledge: Final = acknowledge
        self._chats: dict[_ChatKey, deque[_Taken]] = {}
        self._count = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def is_full(self) -> bool:
        """Whether the window is used up: reading goes on when an event is on disk."""
        return self._count >= WINDOW

    async def room(self) -> None:
        """Wait until the window has room."""
        await self._has_room.wait()

    def take(self, frame: Inbound) -> None:
        """Queue an event behind those of its chat."""
        taken = _Taken(
            event=_fitting(frame.event), buffer_id=frame.buffer_id, received_at=self._clock.now_ms()
        )
        self._count += 1
        if self.is_full:
            self._has_room.clear()
        key = _chat_of(frame.event)
        waiting = self._chats.get(key)
        if waiting is None:
            self._chats[key] = deque((taken,))
            self._tasks.spawn(self._drain(key))
        else:
            waiting.append(taken)

    async def _drain(self, key: _ChatKey) -> None:
        waiting = self._chats[key]
        try:
            while waiting:
                await self._hand_over(waiting[0])
                waiting.popleft()
                self._count -= 1
                self._has_room.set()
        finally:
            del self._chats[key]
            self._count -= len(waiting)  # only when this was cancelled or failed

    async def _hand_over(self, taken: _Taken) -> None:
        """Hand `taken` to the daemon until it is on disk, then acknowledge."""
        args = AcceptArgs(
            relay=self._relay,
            event=taken.event,
            buffer_id=taken.buffer_id,
            received_at=taken.received_at,
        )
        backoff = Backoff()
        while True:
            try:
                result = await self._door.call(ACCEPT, args)
            except (CallError, ConnectionLostError) as error:
                if not is_worth_repeating(error):
                    # No daemon of this build will ever take it so. Not acknowledged: the connector
                    # keeps it and tries again on the next connection; the chat goes on.
                    _log.error("event_not_taken", code=error.code, problem=error.problem)
                    return
                await self._wait(error, backoff)
                continue
            if result.outcome == "refused":
                _log.warning("event_refused", reason=result.reason)
            if taken.buffer_id is not None:
                self._acknowledge(taken.buffer_id)
            return

    async def _wait(self, error: SkepError, backoff: Backoff) -> None:
        wait_s = backoff.next_s()
        if isinstance(error, CallError) and error.retry_after_ms is not None:
            wait_s = max(wait_s, error.retry_after_ms / 1000)
        await asyncio.sleep(wait_s)
        await self._door.wait_open()


_ChatKey = tuple[str, str, str]
_NOWHERE: Final[_ChatKey] = ("", "", "")


class _Place(msgspec.Struct, frozen=True):
    platform: Any = None
    scope_id: Any = None
    chat_id: Any = None


class _Placed(msgspec.Struct, frozen=True):
    source: _Place | None = None


_place_decoder: Final = msgspec.json.Decoder(_Placed)


def _chat_of(event: msgspec.Raw) -> _ChatKey:
    """Return which chat `event` is of; events that do not say it are one queue."""
    try:
        source = _place_decoder.decode(event).source
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOWHERE
    if source is None:
        return _NOWHERE
    return str(source.platform), str(source.scope_id), str(source.chat_id)


def _fitting(event: msgspec.Raw) -> msgspec.Raw:
    """Return `event`, or what fits of one that is too long: without context, its text cut."""
    if len(memoryview(event)) <= MAX_EVENT_BYTES:
        return event
    parsed: dict[str, Any] = msgspec.json.decode(event)
    parsed.pop("context", None)
    if isinstance(text := parsed.get("text"), str):
        parsed["text"] = text[:MAX_TEXT_CHARS]
    cut = msgspec.json.encode(parsed)
    _log.warning("event_cut", size_bytes=len(memoryview(event)), left_bytes=len(cut))
    return msgspec.Raw(cut if len(cut) <= MAX_EVENT_BYTES else _only_head(parsed))


def _only_head(parsed: dict[str, Any]) -> bytes:
    """Return where an event came from, and no more: what is odd must not block its chat."""
    kept = {name: parsed.get(name) for name in ("message_id", "message_type") if name in parsed}
    source: object = parsed.get("source")
    if len(msgspec.json.encode(source)) > MAX_EVENT_BYTES // 2:
        source = None
    return msgspec.json.encode({**kept, "source": source, "text": str(parsed.get("text"))[:MAX_TEXT_CHARS]})
