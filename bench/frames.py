"""The one event that all cases send: words of a person in a chat, as a connector passes them on."""

from __future__ import annotations

import itertools
import time
from typing import Final

import msgspec

from skep.foundation.ids import uuid7
from skep.wire.relay.event import MessageEvent, SessionSource

__all__ = ["BENCH", "CHATS", "INBOUND_IN_FLIGHT", "TEXT", "author_of", "event_lines", "inbound_line"]

TEXT: Final = "The quick brown fox jumps over the lazy dog, then asks what the bees think of it. " * 2
INBOUND_IN_FLIGHT: Final = 64
BENCH: Final = "bench"
"""A platform of the bench's own: `bench.connector_half`."""
CHATS: Final = 512
"""As many as events can be in flight: one of a chat goes at a time."""
IDS_PER_MS: Final = 30
"""How many message ids begin with the same millisecond."""
_ID: Final = "m_" + "_" * 32
"""Stands for a message id until there is one."""


def inbound_line(number: int) -> bytes:
    """Return an `inbound` line with a buffer id, as a connector sends it to its gateway."""
    event = _event("web", f"m_{number:032x}", chat=number % INBOUND_IN_FLIGHT)
    return _encoder.encode({"type": "inbound", "bufferId": f"0badcafe-{number}", "event": event}) + b"\n"


def event_lines(count: int) -> list[bytes]:
    """Return events of the platform `bench`, a line each: all chats in turn, under ids that grow like UUIDv7."""
    lines: list[bytes] = []
    for number in itertools.islice(_numbers, count):
        head, between, end = _parts[number % CHATS]
        message = b"m_" + uuid7(_begun_ms + number // IDS_PER_MS).replace("-", "").encode()
        lines.append(b"".join((head, message, between, message, end)))
    return lines


def author_of(chat: int) -> str:
    """Return the account of who writes in a chat: somebody else in each."""
    return f"u_{chat:03d}"


def _event(platform: str, message: str, *, chat: int) -> dict[str, object]:
    source = SessionSource(
        platform=platform,
        chat_id=f"c_{chat:032x}",
        user_id=author_of(chat),
        user_name="somebody",
        scope_id="local",
        message_id=message,
        bot_id="local",
        user_ns="local",
    )
    return MessageEvent(text=TEXT, message_id=message, source=source).to_wire()


_numbers: Final = itertools.count()
_begun_ms: Final = time.time_ns() // 1_000_000
_encoder: Final = msgspec.json.Encoder()
_parts: Final = [
    (_encoder.encode(_event(BENCH, _ID, chat=number)) + b"\n").split(_ID.encode()) for number in range(CHATS)
]
"""An event of each chat, cut where its message id goes."""
