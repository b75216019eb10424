"""The envelope as its recipient sees it, and what goes with it.

Source: hive, section 2; control protocol, section 5.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from skep.wire.control.base import Result

__all__ = ["Attachment", "Effect", "Envelope", "Kind", "Lease", "Pending", "Route", "Urgency"]

Kind = Literal["message", "ask", "answer", "reminder", "system", "receipt"]
Urgency = Literal["normal", "soon", "interrupt"]


class Attachment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file in the shared space or in the sender's own state directory."""

    path: str
    media_type: str
    bytes: int


class Effect(Result, frozen=True):
    """Something that a dead turn had already sent; `text` is its first 80 characters."""

    kind: str
    id: str
    text: str


class Pending(Result, frozen=True):
    """What else waits for this recipient."""

    lane: int = 0
    other_lanes: int = 0
    oldest_age_ms: int = 0
    from_: tuple[str, ...] = msgspec.field(default=(), name="from")


class Route(Result, frozen=True):
    """Where a message to a person is said; the gateway copies it and looks nothing up.

    Attributes:
        reply_to: Newest platform message of the turn; `answers` are all of them.
        repeat: The platform may have this message already.
    """

    relay: str
    platform: str
    bot_id: str
    chat_id: str
    chat_type: str = "dm"
    thread_id: str | None = None
    scope_id: str | None = None
    user_id: str | None = None
    reply_to: str | None = None
    answers: tuple[str, ...] = ()
    repeat: bool = False


class Envelope(Result, frozen=True):
    """A message and the state of its one delivery.

    Attributes:
        origin: Platform, chat, display name, platform message id; opaque to the broker.
        route, reply_key: Only on the lane of a chat.
        agent: Name of the speaking agent, only on the lane of a chat.
        choices: Of an ask.
    """

    id: str
    delivery_id: int
    kind: Kind
    from_: str = msgspec.field(name="from")
    to: str
    session: str
    thread: str
    body: str
    lane_seq: int
    attempt: int
    created_at: int
    age_ms: int
    in_reply_to: str | None = None
    attachments: tuple[Attachment, ...] = ()
    urgency: Urgency = "normal"
    deadline_at: int | None = None
    origin: dict[str, Any] | None = None
    broadcast: bool = False
    hint: str | None = None
    redelivered: bool = False
    prior_effects: tuple[Effect, ...] = ()
    choices: tuple[str, ...] = ()
    late: bool = False
    route: Route | None = None
    reply_key: str | None = None
    agent: str | None = None


class Lease(Result, frozen=True):
    """The right to work on one lane until it is ended, given back or lost."""

    lease_id: str
    fence: int
    lane: int
    session: str
    envelopes: tuple[Envelope, ...]
    pending: Pending = Pending()
