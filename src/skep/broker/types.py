"""What goes into the broker and what comes out. Envelopes and leases are those of the wire.

Source: hive, sections 1 to 8; control protocol, sections 4 to 6.
What is made for each message is a `msgspec.Struct`: five times as quick to make as a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from skep.wire.control.envelope import Attachment, Effect, Envelope, Kind, Lease, Pending, Route, Urgency
from skep.wire.control.pump import Outcome, Reply

__all__ = [
    "BROADCAST",
    "BROADCAST_HINT",
    "OPERATOR_INBOX",
    "SYSTEM",
    "Actor",
    "AgentEntry",
    "AskOpened",
    "AskRow",
    "Attachment",
    "BrokerSettings",
    "Chat",
    "ChatSeen",
    "Draft",
    "Effect",
    "Ended",
    "Envelope",
    "Fired",
    "Granted",
    "Intake",
    "IntakeKey",
    "Kind",
    "Lease",
    "LostLease",
    "Outcome",
    "Pending",
    "Queue",
    "ReminderRow",
    "ReminderSet",
    "Reply",
    "Role",
    "Route",
    "Sent",
    "Started",
    "Swept",
    "Urgency",
]

BROADCAST: Final = "*"
BROADCAST_HINT: Final = "this was a broadcast and may not need any action from you"
OPERATOR_INBOX: Final = "inbox"
"""Session of what is sent to an operator."""

Role = Literal["operator", "manager", "agent", "person", "system", "reminder"]


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts, from the authenticated connection; never from arguments.

    Attributes:
        principal: `agent:scribe`, `person:7`, `operator:local`, `system`, `reminder`.
        lane: Of the turn in which an agent acts; gives the session and the chat of what it sends.
        turn_id: Of that turn; what it sends is listed as `prior_effects` if the turn dies.
    """

    principal: str
    role: Role
    lane: int | None = None
    turn_id: str | None = None


SYSTEM: Final = Actor(principal="system", role="system")


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message as its sender gives it.

    Attributes:
        to: `agent:NAME` or a bare agent name, `person:7`, `operator:local`, or `*`.
        session: Of the recipient; by default that of the message replied to, else `dm:<from>`.
        idem: Idempotency key, unique per sender.
        not_before, deadline_at: UTC milliseconds.
        origin: Opaque; shown to the recipient.
        chat: Row id of the chat: where a person wrote it, or where to say it to a person (else the
            broker picks one; control protocol, section 5.3).
        platform_id: The platform's id of what a person wrote.
        answers: Platform ids that this message answers, newest last; for messages to people that
            answer without a turn (commands).
        quiet_ms: How long a chat lane waits for more of the same burst (hive, section 6.2).
        choices: Of an ask.
    """

    to: str
    body: str
    kind: Kind = "message"
    session: str | None = None
    in_reply_to: str | None = None
    urgency: Urgency = "normal"
    idem: str | None = None
    not_before: int | None = None
    deadline_at: int | None = None
    attachments: tuple[Attachment, ...] = ()
    origin: Mapping[str, Any] | msgspec.Struct | None = None
    chat: int | None = None
    platform_id: str | None = None
    answers: tuple[str, ...] = ()
    quiet_ms: int = 0
    choices: tuple[str, ...] = ()


class Sent(msgspec.Struct, kw_only=True):
    """A message that is stored.

    Attributes:
        duplicate: The same key and body were stored before; this is that message.
        reply_ignored: `in_reply_to` was unknown, foreign or gone.
        recipients: How many deliveries it has.
        recipient_state: State column of the recipient's agent row (see `AgentEntry`), `busy` when it
            is `up` with a running turn, `idle` when `up` without; else `stored`.
        delivery_ids: Of its deliveries; empty for a duplicate.
    """

    id: str
    thread: str
    duplicate: bool = False
    reply_ignored: bool = False
    recipients: int = 1
    recipient_state: str = "stored"
    delivery_ids: tuple[int, ...] = ()


class IntakeKey(msgspec.Struct, frozen=True):
    """By what a repeated event is known: `<place>:<event>` (control protocol, section 4).

    Attributes:
        event: The platform's message id, and which edit of it. It grows, so new keys lie together.
        place: `<relay>:<platform>:<scope>:<chat>`.
    """

    event: str
    place: str


class Intake(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an event, by its key (control protocol, section 4)."""

    outcome: Literal["stored", "handled", "refused"]
    message_id: str | None = None
    reason: str | None = None


class ChatSeen(msgspec.Struct, frozen=True):
    """Where an event came from; `relay` to `thread_id` say which chat it is."""

    relay: str
    platform: str
    bot_id: str
    chat_id: str
    scope_id: str = ""
    thread_id: str = ""
    chat_type: str = "dm"
    user_id: str = ""
    person: int | None = None


class Chat(msgspec.Struct, frozen=True):
    """One place where Skep can write: `chat:<id>` (control protocol, section 5.1)."""

    id: int
    relay: str
    platform: str
    bot_id: str
    scope_id: str
    chat_id: str
    thread_id: str
    chat_type: str
    user_id: str
    agent: str | None
    last_seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEntry:
    """One agent, as the broker must know it to deliver and to check rights.

    Attributes:
        state: As the supervisor says (hive, section 10.1).
        people, talks_to: `all`, `none`, or principals / names.
    """

    name: str
    role: Literal["agent", "manager"] = "agent"
    state: str = "defined"
    people: Literal["all", "none"] | tuple[str, ...] = "all"
    talks_to: Literal["all", "none"] | tuple[str, ...] = "all"


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """Leases of one look at the store.

    Attributes:
        ready_in_ms: When the next lane can be taken, if one is known (quiet window, back-off).
    """

    leases: tuple[Lease, ...] = ()
    ready_in_ms: int | None = None


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that has begun.

    Attributes:
        lane: Its lane, `session` its session, `recipient` whose it is.
        route: Where its answer goes, when its head came from a chat.
        speaks_in: Relay and chat id of the chat that its session is of, whatever its head is.
        reply_key: Of its answer.
        shown: Platform ids of the messages it has begun with.
    """

    lane: int
    recipient: str
    session: str
    reply_key: str
    route: Route | None = None
    speaks_in: tuple[str, str] | None = None
    shown: tuple[str, ...] = ()


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn was closed.

    Attributes:
        message_id: Of the reply, when there was one.
        reply_to: Where the reply went: `chat:<n>`, `operator:<id>`, `ask`, or `record`.
        duplicate: It was ended before with the same `turn_id`.
        dead: Deliveries that will not be tried again.
    """

    released: bool
    lane: int = 0
    recipient: str = ""
    message_id: str | None = None
    reply_to: str | None = None
    duplicate: bool = False
    dead: int = 0
    envelopes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LostLease:
    """A lease that ended without its harness.

    Attributes:
        missed_start: It was never started: the agent popped it and ran no turn.
        turn_id: Of the turn that was cut off, if one had begun.
    """

    lane: int
    recipient: str
    session: str
    lease_id: str
    holder: str
    turn_id: str | None
    missed_start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did, and when the next is due at the latest (milliseconds from now)."""

    lost: tuple[LostLease, ...] = ()
    due: int = 0
    expired: int = 0
    dead: int = 0
    asks_expired: int = 0
    next_in_ms: int = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOpened:
    """An ask that is stored; `answer` when it came while the asker waited.

    Attributes:
        platform_id: The platform's id of the answer, when a person wrote it.
    """

    id: str
    state: str
    answer: str | None = None
    platform_id: str | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRow:
    """One ask, as its asker or an operator sees it.

    Attributes:
        state: `open`, `answered`, `cancelled`, `expired`, `target_gone`.
        target_state: State of the delivery: `ready`, `leased`, `shown`, `done` …
    """

    id: str
    asker: str
    target: str
    question: str
    asked_at: int
    deadline_at: int | None
    state: str
    target_state: str
    choices: tuple[str, ...] = ()
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReminderSet:
    """A reminder that is armed; `open` of `limit` are."""

    id: str
    due_at: int
    open: int
    limit: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReminderRow:
    """One reminder, as its owner or an operator sees it."""

    id: str
    owner: str
    session: str
    body: str
    due_at: int
    state: str
    rrule: str | None = None
    created_at: int = 0
    sent_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """One batch of due reminders.

    Attributes:
        sent: How many were delivered; `failed` could not be.
        more: Others are due now: call again after yielding.
        next_due_at: When the next is due (UTC ms).
    """

    sent: int = 0
    failed: int = 0
    more: bool = False
    next_due_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits for one mailbox: `agent:NAME`, `door:RELAY` or `operator:ID`."""

    mailbox: str
    ready: int = 0
    oldest_at: int | None = None
    running: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Bounds and times; the defaults are those of hive, sections 3.3, 5.2, 6 and 7.7. Times in ms."""

    lease_ttl_ms: int = 60_000
    start_timeout_ms: int = 30_000
    attempts_max: int = 5
    failures_max: int = 3
    error_backoff_ms: tuple[int, ...] = (2_000, 10_000, 60_000)
    age_max_ms: int = 7 * 86_400_000
    system_age_max_ms: int = 86_400_000
    quiet_max_ms: int = 2_000
    burst_max: int = 20
    body_max_bytes: int = 65_536
    attachments_max: int = 16
    queue_max: int = 1_000
    asks_max: int = 20
    reminders_max: int = 50
    reminder_min_ms: int = 10_000
    reminder_max_ms: int = 400 * 86_400_000
    reminder_body_max_bytes: int = 4_096
    guard_messages: int = 30
    guard_window_ms: int = 600_000
    buckets: Mapping[str, tuple[int, float]] = field(
        default_factory=lambda: {
            "send": (30, 1_000.0),
            "broadcast": (3, 600_000.0),
            "ask": (10, 6_000.0),
            "remind": (10, 30_000.0),
        }
    )
    """By act: burst, and milliseconds for one more."""
