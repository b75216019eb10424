"""The door: what a gateway hands in, and what it carries out.

Source: control protocol, sections 4 and 7.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from skep.foundation.rpc import Event, Method, Table
from skep.wire.control.base import Args, Empty, Result
from skep.wire.control.envelope import Route
from skep.wire.control.pump import CANCEL, ENDED, NACK, NEXT, RENEW, STARTED
from skep.wire.relay.team import AgentHere

__all__ = [
    "ACCEPT",
    "AGENTS",
    "ATTACH",
    "CANCEL",
    "DOOR",
    "INTERRUPT",
    "TURN",
    "AcceptArgs",
    "AcceptOutcome",
    "AcceptResult",
    "AgentsHere",
    "AttachArgs",
    "FrontedPlatform",
    "InterruptArgs",
    "InterruptResult",
    "Turn",
]


class FrontedPlatform(Args, frozen=True):
    """What the connector said of one platform in its descriptor."""

    platform: str
    bot_id: str
    max_message_length: int
    len_unit: str
    markdown_dialect: str = ""
    supported_ops: tuple[str, ...] = ()


class AttachArgs(Args, frozen=True):
    """State of one relay; once per connector that is dialled, and at each change."""

    relay: str
    state: Literal["off", "connecting", "connected"]
    detail: str | None = None
    descriptors: tuple[FrontedPlatform, ...] = ()


class AcceptArgs(Args, frozen=True):
    """An event of a platform, unchanged (relay contract, section 6)."""

    relay: str
    event: msgspec.Raw
    received_at: int
    buffer_id: str | None = None


AcceptOutcome = Literal["stored", "duplicate", "handled", "refused"]
"""Each is on disk when it is answered; the gateway then sends `inbound_ack`."""


class AcceptResult(Result, frozen=True):
    """What became of an event; `reason` only when `refused`."""

    outcome: AcceptOutcome
    message_id: str | None = None
    reason: str | None = None


class InterruptArgs(Args, frozen=True):
    """Cancel the running turn of exactly this session."""

    relay: str
    session_key: str
    chat_id: str
    reason: str | None = None


class InterruptResult(Result, frozen=True):
    """How many turns were told to stop."""

    cancelled: Annotated[int, msgspec.Meta(ge=0)]


class AgentsHere(Result, frozen=True):
    """Event: the agents that anybody may write to, the default first; after `door.attach`, and at each change."""

    agents: tuple[AgentHere, ...]


class Turn(Result, frozen=True):
    """Event: newest state of a running turn; `text` is the whole text so far.

    Attributes:
        shown: Platform ids of the messages that this turn has begun with.
    """

    turn_id: str
    seq: int
    state: Literal["started", "text", "tool", "ended", "dropped"]
    agent: str
    route: Route
    reply_key: str
    text: str | None = None
    tool: str | None = None
    shown: tuple[str, ...] = ()


ATTACH = Method(name="door.attach", args=AttachArgs, result=Empty)
ACCEPT = Method(name="door.accept", args=AcceptArgs, result=AcceptResult)
INTERRUPT = Method(name="door.interrupt", args=InterruptArgs, result=InterruptResult)

TURN = Event(name="turn", data=Turn)
AGENTS = Event(name="agents", data=AgentsHere)

DOOR = Table("door.sock", (ATTACH, ACCEPT, INTERRUPT, NEXT, STARTED, RENEW, ENDED, NACK))
