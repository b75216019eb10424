"""What goes into each tool of the hive and what comes out, as typed structs with JSON schemas.

Source: hive, sections 7 and 8. No tool takes a name of its caller: who calls is the socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from skep.wire.control.base import Args, Result
from skep.wire.control.envelope import Attachment, Envelope, Pending, Urgency
from skep.wire.control.tools import ToolSpec

__all__ = [
    "TOOLS_OF_AGENTS",
    "AgentLine",
    "AgentsResult",
    "AnswerArgs",
    "AnswerResult",
    "AskArgs",
    "AskLine",
    "AskResult",
    "AsksResult",
    "CancelArgs",
    "ListAsksArgs",
    "NoToolArgs",
    "ReceiveArgs",
    "ReceiveBatchArgs",
    "ReceiveBatchResult",
    "ReceiveResult",
    "RemindArgs",
    "RemindResult",
    "ReminderLine",
    "RemindersResult",
    "SendArgs",
    "SendResult",
    "StateResult",
    "ThreadArgs",
    "ThreadLine",
    "ThreadResult",
    "ToolDef",
    "WhoamiResult",
    "describe",
]

Whom = Annotated[
    str,
    Meta(
        max_length=200, description="`agent:NAME`, `person:ID`, `operator:ID`, or `*` for every other agent"
    ),
]
WaitS = Annotated[float, Meta(ge=0, le=60, description="how long to wait, in seconds")]
MessageRef = Annotated[str, Meta(max_length=64)]
Idem = Annotated[str, Meta(min_length=1, max_length=128, description="same key, same effect, once")]
Session = Annotated[str, Meta(min_length=1, max_length=512)]
DeadlineS = Annotated[float, Meta(gt=0, le=34_560_000, description="given up after so many seconds")]
AskState = Literal["open", "answered", "cancelled", "expired", "target_gone"]


class NoToolArgs(Args, frozen=True):
    """Nothing."""


class SendArgs(Args, frozen=True):
    """Send a message."""

    to: Whom
    body: str
    in_reply_to: MessageRef | None = None
    session: Session | None = None
    urgency: Urgency = "normal"
    idem: Idem | None = None
    not_before: (
        Annotated[int, Meta(ge=0, le=1 << 53, description="earliest delivery, UTC milliseconds")] | None
    ) = None
    deadline_s: DeadlineS | None = None
    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=16)] = ()


class SendResult(Result, frozen=True):
    """Stored; never more than that is claimed.

    Attributes:
        recipient_state: `idle`, `busy`, `starting`, `stopped` or `held`; null for people.
    """

    id: str
    thread: str
    duplicate: bool
    reply_ignored: bool
    recipients: int
    recipient_state: str | None


class ReceiveArgs(Args, frozen=True):
    """Take the next message of this conversation into the running turn."""

    wait_s: WaitS = 0


class ReceiveResult(Result, frozen=True, omit_defaults=False):
    """`envelope` is null when nothing came."""

    envelope: Envelope | None
    pending: Pending


class ReceiveBatchArgs(Args, frozen=True):
    """Take up to `max` messages of this conversation into the running turn, in order."""

    max: Annotated[int, Meta(ge=1, le=50)] = 10
    wait_s: WaitS = 0


class ReceiveBatchResult(Result, frozen=True):
    """Empty when nothing came."""

    envelopes: tuple[Envelope, ...]
    pending: Pending


class ThreadArgs(Args, frozen=True):
    """Read a thread: of it, what you wrote and what was written to you."""

    id: Annotated[str, Meta(max_length=64, description="id of any message in it")]
    limit: Annotated[int, Meta(ge=1, le=100)] = 50
    before: MessageRef | None = None


class ThreadLine(Result, frozen=True):
    """One message of a thread."""

    id: str
    kind: str
    from_: str = msgspec.field(name="from")
    to: str
    body: str
    created_at: int
    in_reply_to: str | None = None


class ThreadResult(Result, frozen=True):
    """Newest last."""

    messages: tuple[ThreadLine, ...]


class AskArgs(Args, frozen=True):
    """Ask a question that stays open until it is answered, cancelled or expires."""

    to: Whom
    question: str
    choices: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=80)], ...], Meta(max_length=10)
    ] = ()
    deadline_s: DeadlineS | None = None
    wait_s: WaitS = 0


class AskResult(Result, frozen=True):
    """`answer` is there when it came while you waited; later it comes as an envelope."""

    id: str
    state: AskState
    answer: str | None = None


class AnswerArgs(Args, frozen=True):
    """Answer an ask that was put to you."""

    id: MessageRef
    body: str


class AnswerResult(Result, frozen=True):
    """Id of the answer."""

    id: str


class ListAsksArgs(Args, frozen=True):
    """List your asks."""

    state: AskState = "open"


class AskLine(Result, frozen=True):
    """One ask of yours."""

    id: str
    target: str
    question: str
    asked_at: int
    deadline_at: int | None
    state: AskState
    target_state: str | None = None


class AsksResult(Result, frozen=True):
    """Newest first."""

    asks: tuple[AskLine, ...]


class CancelArgs(Args, frozen=True):
    """Cancel what has this id, if it is yours."""

    id: MessageRef


class StateResult(Result, frozen=True):
    """The state it is in now."""

    state: str


class RemindArgs(Args, frozen=True):
    """Send yourself a message later; give `in_s` or `at`, not both."""

    body: str
    in_s: Annotated[float, Meta(gt=0, description="seconds from now, at least 10")] | None = None
    at: Annotated[int, Meta(ge=0, le=1 << 53, description="when, UTC milliseconds")] | None = None
    session: Session | None = None
    missed: Annotated[
        Literal["once", "skip", "all"], Meta(description="what to do when Skep was stopped at that time")
    ] = "once"
    idem: Idem | None = None


class RemindResult(Result, frozen=True):
    """`open` of at most `limit` reminders wait."""

    id: str
    due_at: int
    open: int
    limit: int


class ReminderLine(Result, frozen=True):
    """One reminder of yours."""

    id: str
    due_at: int
    rrule: str | None
    body: str
    session: str


class RemindersResult(Result, frozen=True):
    """Next first."""

    reminders: tuple[ReminderLine, ...]


class AgentLine(Result, frozen=True, omit_defaults=False):
    """One agent; `busy` turns run, `queue` envelopes wait."""

    name: str
    role: str
    state: str
    busy: int
    queue: int


class AgentsResult(Result, frozen=True):
    """All agents, you included."""

    agents: tuple[AgentLine, ...]


class WhoamiResult(Result, frozen=True):
    """Who you are here."""

    name: str
    role: str
    paths: dict[str, str]
    limits: dict[str, dict[str, int]]
    boot_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDef:
    """One tool: its name, what it is for, and its two types."""

    name: str
    description: str
    args: type[Args]
    result: type[Result]


TOOLS_OF_AGENTS: tuple[ToolDef, ...] = (
    ToolDef(
        name="send",
        description="Send a message to an agent, a person, an operator, or with `*` to every other agent. "
        "The result means it is stored, not that it was read.",
        args=SendArgs,
        result=SendResult,
    ),
    ToolDef(
        name="recv",
        description="Take the next message that waits in this conversation into your running turn.",
        args=ReceiveArgs,
        result=ReceiveResult,
    ),
    ToolDef(
        name="recv_batch",
        description="Take all messages that wait in this conversation, up to `max`, before you act.",
        args=ReceiveBatchArgs,
        result=ReceiveBatchResult,
    ),
    ToolDef(
        name="thread",
        description="Read a thread: what you wrote in it and what was written to you.",
        args=ThreadArgs,
        result=ThreadResult,
    ),
    ToolDef(
        name="ask",
        description="Ask an agent or a person something and, with `wait_s`, wait for the answer. "
        "An answer that comes later arrives as a message.",
        args=AskArgs,
        result=AskResult,
    ),
    ToolDef(
        name="answer",
        description="Answer an ask by its id.",
        args=AnswerArgs,
        result=AnswerResult,
    ),
    ToolDef(
        name="list_my_asks",
        description="List what you have asked and what became of it.",
        args=ListAsksArgs,
        result=AsksResult,
    ),
    ToolDef(
        name="cancel_ask",
        description="Cancel an open ask of yours.",
        args=CancelArgs,
        result=StateResult,
    ),
    ToolDef(
        name="remind",
        description="Set a reminder: it starts a turn of yours, in this conversation, at that time.",
        args=RemindArgs,
        result=RemindResult,
    ),
    ToolDef(
        name="list_my_reminders",
        description="List your reminders that have not fired.",
        args=NoToolArgs,
        result=RemindersResult,
    ),
    ToolDef(
        name="cancel_reminder",
        description="Cancel a reminder of yours that has not fired.",
        args=CancelArgs,
        result=StateResult,
    ),
    ToolDef(
        name="agents",
        description="List the agents of this hive, how they are and how much waits for them.",
        args=NoToolArgs,
        result=AgentsResult,
    ),
    ToolDef(
        name="whoami",
        description="Show your name, role, directories and limits.",
        args=NoToolArgs,
        result=WhoamiResult,
    ),
)


def describe(tool: ToolDef) -> ToolSpec:
    """Return `tool` as it goes over the wire, with JSON schemas made from its types."""
    return ToolSpec(
        name=tool.name,
        description=tool.description,
        input_schema=_schema(tool.args),
        output_schema=_schema(tool.result),
    )


def _schema(type_: type[Any]) -> dict[str, Any]:
    """Return the schema of `type_` with the type itself at the top, as tool clients want it."""
    schema = msgspec.json.schema(type_)
    defs: dict[str, Any] = schema.pop("$defs", {})
    if "$ref" in schema:
        schema = defs.pop(schema["$ref"].rpartition("/")[2])
    return {**schema, "$defs": defs} if defs else schema
