"""Inbound events: handed to the daemon, acknowledged only when they are on its disk.

Source: control protocol, section 4; relay contract, sections 11 and 16. Order is kept per chat: one event
of it is on its way at a time, because any may have to be repeated. Chats do not wait for each other. An
event is passed on unchanged; nothing of it is logged. No task runs for one but while it waits to be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.rpc import CallError
from skep.foundation.tasks import Backoff, TaskSet
from skep.gateway.door import Door, is_worth_repeating
from skep.wire.control.door import ACCEPT, AcceptArgs, AcceptResult
from skep.wire.relay.frames import Inbound

__all__ = ["WINDOW", "Inbox"]

WINDOW: Final = 512
"""Events that are taken and not acknowledged yet, at most."""
MAX_EVENT_BYTES: Final = 900_000
"""What is left of an event that does not fit into one frame to the daemon (1 MiB)."""
MAX_TEXT_CHARS: Final = 128_000
"""What is left of a text that does not fit; the daemon cuts at 64 KiB, and says so."""

_log = get_logger(part="inbox")
_ChatKey = tuple[str, str, str]


class _Taken(msgspec.Struct):
    """An event that is not settled yet.

    Attributes:
        next: The one behind it in its chat.
        backoff: There when it has to be repeated.
        is_cut: Whether it had to be made to fit.
    """

    chat: _ChatKey
    args: AcceptArgs
    next: _Taken | None = None
    backoff: Backoff | None = None
    is_cut: bool = False


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
        self._newest: dict[_ChatKey, _Taken] = {}
        self._count = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether the window is used up: reading goes on when an event is on disk."""
        return self._count >= WINDOW

    async def room(self) -> None:
        """Wait until the window has room."""
        await self._has_room.wait()

    def close(self) -> None:
        """Repeat nothing any more: what is not acknowledged, the connector keeps."""
        self._is_closed = True

    def take(self, frame: Inbound) -> None:
        """Hand an event over, behind those of its chat."""
        args = AcceptArgs(
            relay=self._relay,
            event=frame.event,
            buffer_id=frame.buffer_id,
            received_at=self._clock.now_ms(),
        )
        taken = _Taken(_chat_of(frame.event), args)
        self._count += 1
        if self._count >= WINDOW:
            self._has_room.clear()
        before = self._newest.get(taken.chat)
        self._newest[taken.chat] = taken
        if before is None:
            self._hand_over(taken)
        else:
            before.next = taken

    def _hand_over(self, taken: _Taken) -> None:
        self._door.begin(ACCEPT, taken.args, partial(self._answered, taken))

    def _answered(self, taken: _Taken, outcome: AcceptResult | SkepError) -> None:
        """Acknowledge what is on disk; hand over the next of the chat, or this one again."""
        if isinstance(outcome, SkepError):
            self._failed(taken, outcome)
            return
        if outcome.outcome == "refused":
            _log.warning("event_refused", reason=outcome.reason)
        if taken.args.buffer_id is not None:
            self._acknowledge(taken.args.buffer_id)
        self._end(taken)

    def _failed(self, taken: _Taken, error: SkepError) -> None:
        if self._is_closed:
            return
        if isinstance(error, CallError) and error.wire_code == "too_large" and not taken.is_cut:
            taken.is_cut = True
            taken.args = msgspec.structs.replace(taken.args, event=_cut(taken.args.event))
            self._hand_over(taken)
        elif is_worth_repeating(error):
            self._tasks.spawn(self._repeat(taken, error))
        else:
            # No daemon of this build will ever take it so. Not acknowledged: the connector
            # keeps it and tries again on the next connection; the chat goes on.
            _log.error("event_not_taken", code=error.code, problem=error.problem)
            self._end(taken)

    async def _repeat(self, taken: _Taken, error: SkepError) -> None:
        """Hand `taken` over again when the daemon may take it."""
        taken.backoff = taken.backoff or Backoff()
        wait_s = taken.backoff.next_s()
        if isinstance(error, CallError) and error.retry_after_ms is not None:
            wait_s = max(wait_s, error.retry_after_ms / 1000)
        await asyncio.sleep(wait_s)
        await self._door.wait_open()
        self._hand_over(taken)

    def _end(self, taken: _Taken) -> None:
        self._count -= 1
        self._has_room.set()
        if taken.next is None:
            del self._newest[taken.chat]
        else:
            self._hand_over(taken.next)


_NOWHERE: Final[_ChatKey] = ("", "", "")


class _Place(msgspec.Struct, frozen=True):
    platform: str = "None"
    scope_id: str = "None"
    chat_id: str = "None"


class _Placed(msgspec.Struct, frozen=True):
    source: _Place


class _OddPlace(msgspec.Struct, frozen=True):
    platform: Any = None
    scope_id: Any = None
    chat_id: Any = None


class _OddlyPlaced(msgspec.Struct, frozen=True):
    source: _OddPlace | None = None


_place_decoder: Final = msgspec.json.Decoder(_Placed)
_odd_place_decoder: Final = msgspec.json.Decoder(_OddlyPlaced)


def _chat_of(event: msgspec.Raw) -> _ChatKey:
    """Return which chat `event` is of; events that do not say it are one queue."""
    try:
        source = _place_decoder.decode(event).source
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _odd_chat_of(event)
    return source.platform, source.scope_id, source.chat_id


def _odd_chat_of(event: msgspec.Raw) -> _ChatKey:
    """Return the same, where something in a source is not text: 5 and "5" are one chat."""
    try:
        source = _odd_place_decoder.decode(event).source
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOWHERE
    if source is None:
        return _NOWHERE
    return str(source.platform), str(source.scope_id), str(source.chat_id)


def _cut(event: msgspec.Raw) -> msgspec.Raw:
    """Return what fits of an event that is too long: without context, its text cut."""
    try:
        parsed: dict[str, Any] = msgspec.json.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return event  # nothing can be cut out of it, and nobody would read it
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
