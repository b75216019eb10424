"""The pump: leases, turns and progress. For a harness, and for the gateway over lanes of chats.

Source: control protocol, sections 6 and 7.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from skep.foundation.rpc import Event, Method, Table
from skep.wire.control.base import Args, Empty, NoArgs, Result
from skep.wire.control.envelope import Attachment, Envelope, Lease, Pending
from skep.wire.control.tools import TOOL_CALL_IN_TURN, TOOL_LIST

__all__ = [
    "ALIVE",
    "CANCEL",
    "ENDED",
    "HELLO",
    "MEMORY_CONTEXT",
    "MORE",
    "NACK",
    "NEXT",
    "PROGRESS",
    "PUMP",
    "RENEW",
    "STARTED",
    "Cancel",
    "EndedArgs",
    "EndedResult",
    "HelloArgs",
    "HelloResult",
    "MemoryContextArgs",
    "MemoryContextResult",
    "MoreArgs",
    "MoreResult",
    "NackArgs",
    "NextArgs",
    "NextResult",
    "Outcome",
    "ProgressArgs",
    "RenewArgs",
    "RenewResult",
    "Reply",
    "StartedArgs",
]

Outcome = Literal["ok", "error", "cancelled", "refused", "unknown"]
"""`refused` and `unknown` end only lanes of chats."""


class HelloArgs(Args, frozen=True):
    """A pump says who it is; `takeover` ends another pump of the same agent."""

    harness_id: str
    harness_version: str
    capabilities: tuple[str, ...] = ()
    takeover: bool = False


class HelloResult(Result, frozen=True):
    """What the pump must keep to, and how its agent is set up (`agents.toml`)."""

    boot_epoch: int
    agent: str
    lease_ttl_ms: int
    start_timeout_ms: int
    role: str = "agent"
    runtime: str = "rehearsal"
    max_parallel_lanes: int = 1
    turn_limit_s: int = 7_200


class NextArgs(Args, frozen=True):
    """Take up to `lanes` lanes, waiting up to `wait_ms` for the first."""

    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=30_000)] = 30_000
    max: Annotated[int, msgspec.Meta(ge=1, le=20)] = 20
    lanes: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class NextResult(Result, frozen=True):
    """Empty after `wait_ms`."""

    leases: tuple[Lease, ...] = ()


class StartedArgs(Args, frozen=True):
    """`leased` becomes `shown`: before the first model request or platform call."""

    lease_id: str
    fence: int
    turn_id: str


class MoreArgs(Args, frozen=True):
    """Further envelopes of the lane into the running turn."""

    lease_id: str
    fence: int
    max: Annotated[int, msgspec.Meta(ge=1, le=50)] = 10


class MoreResult(Result, frozen=True):
    """What was taken, and what still waits."""

    envelopes: tuple[Envelope, ...] = ()
    pending: Pending = Pending()


class RenewArgs(Args, frozen=True):
    """Keep the lease for another `lease_ttl_ms`."""

    lease_id: str
    fence: int


class RenewResult(Result, frozen=True):
    """`cancel` is the reason why the turn should stop."""

    lease_until: int
    cancel: str | None = None


class Reply(Args, frozen=True):
    """What the turn says at its end."""

    body: str
    attachments: tuple[Attachment, ...] = ()


class EndedArgs(Args, frozen=True):
    """The turn is over; repeat by `turn_id`.

    Attributes:
        code: Why a platform refused (platforms, section 7).
        platform_message_ids: What the platform called our message.
    """

    lease_id: str
    fence: int
    turn_id: str
    outcome: Outcome
    reply: Reply | None = None
    stats: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    platform_message_ids: tuple[str, ...] = ()
    code: str | None = None


class EndedResult(Result, frozen=True):
    """`message_id` is the reply's."""

    released: bool
    message_id: str | None = None
    duplicate: bool = False


class NackArgs(Args, frozen=True):
    """Give back without blame; no ids: all of the lease."""

    lease_id: str
    fence: int
    delivery_ids: tuple[int, ...] = ()
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0
    reason: str = ""


class ProgressArgs(Args, frozen=True):
    """What a running turn shows; never durable, may be dropped.

    Attributes:
        kind: `text` (append `add` at character `at`), `tool`, `usage`, or `beat`.
    """

    turn_id: str
    seq: int
    kind: Literal["text", "tool", "usage", "beat"]
    at: int = 0
    add: str = ""
    name: str = ""
    state: str = ""
    usage: dict[str, int] = msgspec.field(default_factory=dict[str, int])


class MemoryContextArgs(Args, frozen=True):
    """What is known of the author of that delivery."""

    delivery_id: int
    query: str = ""
    tokens: Annotated[int, msgspec.Meta(ge=0, le=8_000)] = 1_000


class MemoryContextResult(Result, frozen=True):
    """`degraded`: memory did not answer in time; the turn goes on."""

    person: str | None
    text: str
    degraded: bool = False


class Cancel(Result, frozen=True):
    """Event: stop the turn of this lease."""

    lease_id: str
    reason: str


HELLO = Method(name="pump.hello", args=HelloArgs, result=HelloResult)
NEXT = Method(name="pump.next", args=NextArgs, result=NextResult, timeout_s=40.0, ends_with_connection=True)
STARTED = Method(name="pump.started", args=StartedArgs, result=Empty)
MORE = Method(name="pump.more", args=MoreArgs, result=MoreResult)
RENEW = Method(name="pump.renew", args=RenewArgs, result=RenewResult)
PROGRESS = Method(name="pump.progress", args=ProgressArgs, result=Empty)
ENDED = Method(name="pump.ended", args=EndedArgs, result=EndedResult)
NACK = Method(name="pump.nack", args=NackArgs, result=Empty)
ALIVE = Method(name="pump.alive", args=NoArgs, result=Empty)
MEMORY_CONTEXT = Method(name="memory.context", args=MemoryContextArgs, result=MemoryContextResult)

CANCEL = Event(name="cancel", data=Cancel)

PUMP = Table(
    "pump.sock",
    (
        HELLO,
        NEXT,
        STARTED,
        MORE,
        RENEW,
        PROGRESS,
        ENDED,
        NACK,
        ALIVE,
        MEMORY_CONTEXT,
        TOOL_LIST,
        TOOL_CALL_IN_TURN,
    ),
)
