"""Outbound actions: what a gateway asks a connector to do on a platform, and what it answers.

Source: relay contract, sections 7 and 16. `metadata` is an object of hints; unknown keys in it are
ignored, and `read_hints` gives the known ones by type. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from skep.foundation.errors import WireError

__all__ = [
    "RESULT_CODES",
    "Action",
    "ActionInvalidError",
    "Delete",
    "Draft",
    "Edit",
    "FollowUp",
    "GetChatInfo",
    "Hints",
    "Metadata",
    "Partial",
    "Prompt",
    "PromptOption",
    "React",
    "Result",
    "Seen",
    "Send",
    "SendMedia",
    "TaskCard",
    "TaskCardStop",
    "ThreadCreate",
    "ThreadRename",
    "Typing",
    "decode_action",
    "decode_result",
    "read_hints",
]

MAX_IDEM_CHARS: Final = 128

RESULT_CODES: Final = frozenset(
    {
        "account_down",
        "bad_format",
        "capability_gone",
        "config_error",
        "egress_declined",
        "forbidden",
        "media_refused",
        "not_found_chat",
        "not_found_message",
        "not_found_thread",
        "rate_limited",
        "too_long",
        "transient",
        "unknown",
        "unknown_outcome",
        "unsupported",
        "window_closed",
    }
)
"""What `code` may be in a result of a Skep connector."""

Metadata = dict[str, Any]


class ActionInvalidError(WireError):
    """An action cannot be done as it stands; `problem` is the `error` of its result.

    The caller gets it as a result at once: silence would cost it 30 seconds.
    """

    code = "relay.action_invalid"


class _Action(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    """One thing to do. The tag is `op`."""

    @property
    def op(self) -> str:
        """What is to be done, as the wire names it."""
        return str(self.__struct_config__.tag)


class _OmitsDefaults(_Action, frozen=True, omit_defaults=True):
    pass


class Send(_Action, frozen=True, tag="send"):
    """Say something; any length: the connector splits it."""

    chat_id: str
    content: str
    reply_to: str | None = None
    metadata: Metadata = {}


class FollowUp(_Action, frozen=True, tag="follow_up"):
    """Answer an interaction with the short-lived credential that the connector holds."""

    session_key: str
    kind: str
    content: str
    metadata: Metadata = {}


class GetChatInfo(_OmitsDefaults, frozen=True, tag="get_chat_info"):
    """Ask for name and type of a chat."""

    chat_id: str
    metadata: Metadata = {}


class Edit(_Action, frozen=True, tag="edit"):
    """Replace the text of one of our messages."""

    chat_id: str
    message_id: str
    content: str
    metadata: Metadata = {}


class Typing(_Action, frozen=True, tag="typing"):
    """Show that somebody writes; `content` of `""` clears it, other text is a phrase to show."""

    chat_id: str
    metadata: Metadata = {}
    content: str | msgspec.UnsetType = msgspec.UNSET


class Delete(_Action, frozen=True, tag="delete"):
    """Take one of our messages away."""

    chat_id: str
    message_id: str
    metadata: Metadata = {}


class SendMedia(_Action, frozen=True, tag="send_media"):
    """Send what lies at `source_url`; `content` is its caption."""

    chat_id: str
    media_kind: str
    source_url: str
    content: str | None = None
    reply_to: str | None = None
    metadata: Metadata = {}
    filename: str | msgspec.UnsetType = msgspec.UNSET


class PromptOption(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One button."""

    id: str
    label: str
    style: str | None = None


class Prompt(_Action, frozen=True, tag="prompt"):
    """Ask with buttons."""

    chat_id: str
    content: str
    prompt_kind: str
    prompt_id: str
    options: tuple[PromptOption, ...]
    reply_to: str | None = None
    metadata: Metadata = {}
    timeout_s: float | msgspec.UnsetType | None = msgspec.UNSET


class React(_Action, frozen=True, tag="react"):
    """Add or remove a reaction."""

    chat_id: str
    message_id: str
    emoji: str
    remove: bool = False
    metadata: Metadata = {}


class ThreadCreate(_OmitsDefaults, frozen=True, tag="thread_create"):
    """Open a thread, on the message `message_id` when it is given."""

    chat_id: str
    thread_name: str
    message_id: str | None = None
    metadata: Metadata = {}


class ThreadRename(_OmitsDefaults, frozen=True, tag="thread_rename"):
    """Rename the thread `message_id`, under one of two conditions."""

    chat_id: str
    message_id: str
    thread_name: str
    only_if_connector_created: bool = False
    only_if_current_name: str | None = None
    metadata: Metadata = {}


class Draft(_Action, frozen=True, tag="draft"):
    """Show the whole text so far; with `final` it is the message itself."""

    chat_id: str
    draft_id: int
    content: str
    final: bool
    metadata: Metadata = {}


class TaskCard(_Action, frozen=True, tag="task_card"):
    """Show steps of a turn."""

    chat_id: str
    card_id: str
    chunks: list[Any]
    metadata: Metadata = {}


class TaskCardStop(_Action, frozen=True, tag="task_card_stop"):
    """Steps are over."""

    chat_id: str
    card_id: str
    metadata: Metadata = {}


class Seen(_Action, frozen=True, tag="seen"):
    """A turn has begun with these messages (Skep's own ends only)."""

    chat_id: str
    message_ids: tuple[str, ...]
    metadata: Metadata = {}


Action = (
    Send
    | FollowUp
    | GetChatInfo
    | Edit
    | Typing
    | Delete
    | SendMedia
    | Prompt
    | React
    | ThreadCreate
    | ThreadRename
    | Draft
    | TaskCard
    | TaskCardStop
    | Seen
)

_action_decoder: Final = msgspec.json.Decoder(Action)
_KNOWN_OPS: Final = frozenset(
    kind.__struct_config__.tag for kind in cast("tuple[type[_Action], ...]", Action.__args__)
)


def decode_action(raw: msgspec.Raw | bytes) -> Action:
    """Return the action in `raw`.

    Raises:
        ActionInvalidError: `unsupported op: <op>`, or a field is missing or of a wrong type.
    """
    try:
        return _action_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ActionInvalidError(_what_is_wrong(raw, exc)) from exc


def _what_is_wrong(raw: msgspec.Raw | bytes, exc: Exception) -> str:
    try:
        op = msgspec.json.decode(raw, type=_OpOnly).op
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "invalid action: not an object with an `op`"
    if op not in _KNOWN_OPS:
        return f"unsupported op: {op[:64]}"
    return f"invalid action: {exc}"  # msgspec names the field, never the value


class _OpOnly(msgspec.Struct, frozen=True):
    op: str = ""


class Hints(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The known keys of `metadata`.

    Attributes:
        scope_id: Or its alias `guild_id`, when it is absent.
        notify: A final reply.
        idem: Idempotency key of this action (Skep's own ends only, like those below).
        repeat: It was asked before and its outcome is not known: send, marked as a repeat.
        agent: Name of the speaker.
        answers: Platform ids of the messages that this answers.
        scopes_disagree: `scope_id` and `guild_id` were both there and differ: refuse.
    """

    scope_id: str | None = None
    user_id: str | None = None
    thread_id: str | None = None
    message_id: str | None = None
    profile: str | None = None
    notify: bool = False
    idem: str | None = None
    repeat: bool = False
    agent: str | None = None
    answers: tuple[str, ...] = ()
    scopes_disagree: bool = False

    def to_metadata(self) -> Metadata:
        """Return the `metadata` that says this."""
        return {name: value for name in _HINT_NAMES if (value := getattr(self, name))}


_HINT_NAMES: Final = Hints.__struct_fields__[:-1]
_TEXT_HINTS: Final = ("user_id", "thread_id", "message_id", "profile", "agent")


def read_hints(metadata: Mapping[str, Any]) -> Hints:
    """Return what is known in `metadata`; a value of a wrong type counts as absent.

    An `idem` that is too long counts as absent too: it could not be kept.
    """
    texts = {name: text for name in _TEXT_HINTS if (text := _text(metadata.get(name)))}
    scope, alias = _text(metadata.get("scope_id")), _text(metadata.get("guild_id"))
    idem = _text(metadata.get("idem"))
    answers = metadata.get("answers")
    return Hints(
        **texts,
        scope_id=scope or alias,
        scopes_disagree=bool(scope and alias and scope != alias),
        notify=metadata.get("notify") is True,
        idem=idem if idem and len(idem) <= MAX_IDEM_CHARS else None,
        repeat=metadata.get("repeat") is True,
        answers=tuple(item for item in cast("list[object]", answers) if isinstance(item, str))
        if isinstance(answers, list)
        else (),
    )


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """How far a split message got."""

    delivered: int = 0
    total: int = 0
    delivered_chars: int = 0


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an action.

    Attributes:
        error: In words. Their choice steers a 0.19.0 gateway (relay contract, section 7).
        code: One of `RESULT_CODES` from a Skep connector.
        continuation_ids: Ids of further parts of a split message.
        degraded: It was shown, but not as asked: say, as plain text.
    """

    success: bool = False
    message_id: str | None = None
    error: str | None = None
    code: str | None = None
    retry_after_ms: int | None = None
    continuation_ids: tuple[str, ...] = ()
    partial: Partial | None = None
    degraded: bool | str | None = None
    thread_id: str | None = None
    auto_thread_name: str | None = None
    chat_info: dict[str, Any] | None = None

    @property
    def message_ids(self) -> tuple[str, ...]:
        """What the platform called all parts of the message."""
        return (self.message_id, *self.continuation_ids) if self.message_id else self.continuation_ids

    def to_wire(self) -> dict[str, object]:
        """Return the object that goes into an `outbound_result`; `success` is always there."""
        return {"success": self.success, **cast("dict[str, object]", msgspec.to_builtins(self))}


def decode_result(wire: object) -> Result:
    """Return the result in `wire`; never raises, what cannot be read is a failure."""
    if not isinstance(wire, Mapping):
        return Result()
    try:
        return msgspec.convert(wire, Result)
    except msgspec.ValidationError:
        known = cast("Mapping[str, object]", wire)
        retry_after_ms = known.get("retry_after_ms")
        return Result(
            success=known.get("success") is True,
            message_id=_text(known.get("message_id")),
            error=_text(known.get("error")),
            code=_text(known.get("code")),
            retry_after_ms=int(retry_after_ms) if isinstance(retry_after_ms, (int, float)) else None,
        )


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
