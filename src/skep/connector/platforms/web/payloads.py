"""What the web chat's API says and hears, as types.

Source: control protocol, section 13. Pure.

Beside the documented fields, a person's own message carries `client_id` (the `id` it was sent with)
and `state`, so that a tab that lost the answer to its `send` finds its own words again.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from skep.wire.relay.team import AgentHere

__all__ = [
    "MAX_ID_CHARS",
    "MAX_SOCKET_BYTES",
    "MAX_TEXT_BYTES",
    "MAX_TITLE_CHARS",
    "Agents",
    "Choose",
    "ConversationRow",
    "Draft",
    "Incoming",
    "Me",
    "MessageEvent",
    "MessageState",
    "NewConversation",
    "NewSession",
    "Option",
    "PatchConversation",
    "Problem",
    "Prompt",
    "Read",
    "Ready",
    "Reset",
    "Resume",
    "Send",
    "Speaker",
    "SpeakerKind",
    "State",
    "Stop",
    "Stored",
    "Typing",
    "WebMessage",
    "decode_incoming",
    "encode",
]

MAX_TEXT_BYTES: Final = 64 * 1024
"""Longest text of a person, in bytes of UTF-8."""
MAX_SOCKET_BYTES: Final = 256 * 1024
"""Longest message on the socket, in bytes."""
MAX_TITLE_CHARS: Final = 200
MAX_ID_CHARS: Final = 64

MessageState = Literal["stored", "delivered", "seen", "failed"]
SpeakerKind = Literal["person", "agent", "system"]
ClientId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]
Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)]


class _In(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    pass


class Resume(_In, frozen=True, tag="resume"):
    """First message on a socket: `n` is the last event seen, 0 for none, -1: only what is new."""

    n: Annotated[int, msgspec.Meta(ge=-1)]


class Send(_In, frozen=True, tag="send"):
    """A person's words. The same `id` again in the same conversation is a resend."""

    id: ClientId
    conversation: Id
    text: str
    reply_to: Id | None = None
    thread: Id | None = None


class Stop(_In, frozen=True, tag="stop"):
    """Stop what answers here: in this thread, with `null` outside of threads, without it where was written last."""

    conversation: Id
    thread: Id | msgspec.UnsetType | None = msgspec.UNSET


class Choose(_In, frozen=True, tag="choose"):
    """A pressed button."""

    conversation: Id
    prompt: Id
    option: Id


class Read(_In, frozen=True, tag="read"):
    """Everything in this conversation has been read."""

    conversation: Id


Incoming = Resume | Send | Stop | Choose | Read


class _Out(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


class Ready(_Out, frozen=True, tag="ready"):
    """Everything after the resumed event has been sent."""

    n: int


class Reset(_Out, frozen=True, tag="reset"):
    """Too much happened since the resumed event: reload over HTTP, go on from `n`."""

    n: int


class Stored(_Out, frozen=True, tag="stored"):
    """The words are on disk. Takes the place of event `n` on the socket that sent them."""

    id: str
    message: str
    n: int


class State(_Out, frozen=True, tag="state"):
    """How far a person's message has come."""

    message: str
    state: MessageState
    n: int


class Typing(_Out, frozen=True, tag="typing"):
    """Somebody is at work, or no longer."""

    conversation: str
    agent: str
    on: bool
    thread: str | None = None


class Draft(_Out, frozen=True, tag="draft"):
    """Of the text shown so far, keep the first `at` code points and append `add`."""

    conversation: str
    message: str
    agent: str
    at: int
    add: str
    thread: str | None = None


class Agents(_Out, frozen=True, tag="agents"):
    """Which agents one can write to by `@name`, the default first, and how they are: the whole list each time."""

    agents: tuple[AgentHere, ...]


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """Who said it."""

    kind: SpeakerKind
    name: str


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One choice."""

    id: str
    label: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The choices of a question.

    Attributes:
        until: When it closes by itself, UTC milliseconds.
        chosen: Id of the option that was pressed, at `chosen_at`.
    """

    id: str
    options: tuple[Option, ...]
    until: int | None = None
    chosen: str | None = None
    chosen_at: int | None = None


class WebMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation."""

    id: str
    from_: Speaker = msgspec.field(name="from")
    text: str
    reply_to: str | None
    answers: tuple[str, ...]
    at: int
    thread: str | None = None
    state: MessageState | None = None
    client_id: str | None = None
    prompt: Prompt | None = None


class MessageEvent(_Out, frozen=True, tag="message"):
    """A message, or a later form of it: the same `id` with a new `n`."""

    n: int
    conversation: str
    message: WebMessage


class Problem(_Out, frozen=True, tag="error"):
    """What could not be done; `id` is that of the `send` it is about, or of the prompt."""

    ok: Literal[False]
    code: str
    problem: str
    hint: str
    id: str | None = None
    retry_after_ms: int | None = None


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a sign-in."""

    once: Annotated[str, msgspec.Meta(max_length=200)]
    bearer: bool = False


class NewConversation(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a new conversation."""

    title: Annotated[str, msgspec.Meta(max_length=MAX_TITLE_CHARS)] | None = None


class PatchConversation(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change: what is absent stays as it is."""

    title: Annotated[str, msgspec.Meta(max_length=MAX_TITLE_CHARS)] | None = None
    archived: bool | None = None
    read: bool | None = None


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed in."""

    account: str
    name: str


class ConversationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list of conversations."""

    id: str
    title: str | None
    last_at: int
    unread: int
    archived: bool


_incoming: Final = msgspec.json.Decoder(Incoming)
_encoder: Final = msgspec.json.Encoder()


def decode_incoming(data: bytes | str) -> Incoming:
    """Return what a tab says.

    Raises:
        msgspec.DecodeError: Not JSON, not an object, or not of a known kind; never quotes the data.
    """
    return _incoming.decode(data)


def encode(message: object) -> bytes:
    """Return `message` as one JSON object."""
    return _encoder.encode(message)
