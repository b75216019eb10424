"""The one event that all cases send: words of a person in the web chat, as a connector passes them on."""

from __future__ import annotations

from typing import Final

import msgspec

from skep.wire.relay.event import MessageEvent, SessionSource

__all__ = ["INBOUND_IN_FLIGHT", "TEXT", "inbound_line"]

TEXT: Final = "The quick brown fox jumps over the lazy dog, then asks what the bees think of it. " * 2
INBOUND_IN_FLIGHT: Final = 64


def inbound_line(number: int) -> bytes:
    """Return an `inbound` line with a buffer id, as a connector sends it to its gateway."""
    message, chat = f"m_{number:032x}", f"c_{number % INBOUND_IN_FLIGHT:032x}"
    event = MessageEvent(
        text=TEXT,
        message_id=message,
        source=SessionSource(
            platform="web",
            chat_id=chat,
            user_id="owner",
            user_name="owner",
            scope_id="local",
            message_id=message,
            bot_id="local",
            user_ns="local",
        ),
    )
    frame = {"type": "inbound", "bufferId": f"0badcafe-{number}", "event": event.to_wire()}
    return _encoder.encode(frame) + b"\n"


_encoder: Final = msgspec.json.Encoder()
