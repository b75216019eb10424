"""Inbound events: what a person wrote, and where.

Source: relay contract, sections 6.1, 6.2 and 16. Decoding is lenient where the released client is, and
refuses what would break its keys (a number as chat id of a group, a null chat type). Keys that are
not listed here are dropped: who must pass an event on unchanged passes its JSON on. Trust flags
(`is_bot`, `role_authorized`, `delivered_via_upstream_relay`) are never read. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import msgspec

from skep.foundation.errors import WireError

__all__ = [
    "STOCK_PLATFORMS",
    "EventInvalidError",
    "MediaItem",
    "MessageEvent",
    "PromptResponse",
    "Quote",
    "SessionSource",
    "context_text",
    "decode_event",
    "decode_source",
    "encode_event",
    "stock_platform",
]

T = TypeVar("T")

MESSAGE_TYPES: Final = frozenset(
    {"text", "location", "photo", "video", "audio", "voice", "document", "sticker", "command"}
)
SKEP_MESSAGE_TYPES: Final = frozenset({"edited", "deleted"})
"""Only between Skep's own two ends: any other gateway would take them for new text."""
_KNOWN_TYPES: Final = MESSAGE_TYPES | SKEP_MESSAGE_TYPES

STOCK_PLATFORMS: Final = frozenset(
    {
        "api_server",
        "bluebubbles",
        "dingtalk",
        "discord",
        "email",
        "feishu",
        "google_chat",
        "homeassistant",
        "irc",
        "line",
        "local",
        "matrix",
        "mattermost",
        "msgraph_webhook",
        "ntfy",
        "photon",
        "qqbot",
        "raft",
        "relay",
        "signal",
        "simplex",
        "slack",
        "sms",
        "teams",
        "telegram",
        "webhook",
        "wecom",
        "wecom_callback",
        "weixin",
        "whatsapp",
        "whatsapp_cloud",
        "yuanbao",
    }
)
"""Platforms that Hermes 0.19.0 knows without plugins of its user; any other is `relay` to it."""
_PLAIN_NAMES: Final = STOCK_PLATFORMS | {"twilio", "web"}
"""Names of platforms that are known to be as they must be, so that the usual event costs no look at them."""


class EventInvalidError(WireError):
    """The event can never be taken; the text names the field, never its content."""

    code = "relay.event_invalid"


class SessionSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message comes from.

    Attributes:
        platform: In lower case, without blanks around it; `relay` when absent.
        chat_type: `dm`, `group`, `channel`, `thread` or `forum`; others are passed on.
        user_id: The authentic author, as the connector saw it.
        scope_id: Guild, workspace or server.
        bot_id: Account that heard it (Skep's own ends only).
        user_ns: Namespace of `user_id` (Skep's own ends only).
    """

    platform: str = "relay"
    chat_id: str = ""
    chat_type: str = "dm"
    chat_name: str | None = None
    chat_topic: str | None = None
    user_name: str | None = None
    user_id: str | None = None
    thread_id: str | None = None
    user_id_alt: str | None = None
    chat_id_alt: str | None = None
    scope_id: str | None = None
    parent_chat_id: str | None = None
    message_id: str | None = None
    profile: str | None = None
    user_display_name: str | None = None
    user_handle: str | None = None
    bot_id: str | None = None
    user_ns: str | None = None

    def __post_init__(self) -> None:
        if self.platform in _PLAIN_NAMES:
            return
        name = self.platform.strip().lower() or "relay"
        if name != self.platform:
            msgspec.structs.force_setattr(self, "platform", name)

    def to_wire(self) -> dict[str, object]:
        """Return the object that goes out: the first eight keys always, others when known.

        `guild_id` stands beside `scope_id` with the same value, for first-generation gateways.
        """
        return msgspec.to_builtins(_wire_source(self))


class Quote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the message replies to."""

    text: str | None = None
    author: str | None = None
    is_own: bool | None = None


class MediaItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one entry of `media_urls`; `size` is in bytes."""

    url: str
    kind: str | None = None
    mime: str | None = None
    size: int | None = None
    filename: str | None = None
    caption: str | None = None


class PromptResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pressed button."""

    prompt_id: str
    option_id: str
    label: str | None = None
    prompt_message_id: str | None = None


class MessageEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a person did in a chat.

    Attributes:
        message_type: One of `MESSAGE_TYPES`, or of `SKEP_MESSAGE_TYPES`; anything else is `text`.
        context: What was said before in the channel, oldest first.
        edit_of: Id of the message that this one replaces (`edited`, Skep's own ends only).
        edited_at: When it was edited or deleted, UTC milliseconds (Skep's own ends only).
    """

    text: str = ""
    message_type: str = "text"
    source: SessionSource = SessionSource()
    message_id: str | None = None
    reply_to_message_id: str | None = None
    reply_to: Quote | None = None
    media_urls: tuple[str, ...] = ()
    media: tuple[MediaItem, ...] = ()
    context: tuple[MessageEvent, ...] = ()
    context_error: bool = False
    prompt_response: PromptResponse | None = None
    edit_of: str | None = None
    edited_at: int | None = None

    def __post_init__(self) -> None:
        if self.message_type not in _KNOWN_TYPES:
            msgspec.structs.force_setattr(self, "message_type", "text")

    def to_wire(self) -> dict[str, object]:
        """Return the object that goes into an `inbound` frame."""
        return msgspec.to_builtins(_wire_event(self))


class _WireSource(msgspec.Struct, omit_defaults=True):
    """A source as it goes out: the first eight keys always, others when known; in the order of `SessionSource`."""

    platform: str
    chat_id: str
    chat_type: str
    chat_name: str | None
    chat_topic: str | None
    user_name: str | None
    user_id: str | None
    thread_id: str | None
    user_id_alt: str | None = None
    chat_id_alt: str | None = None
    scope_id: str | None = None
    parent_chat_id: str | None = None
    message_id: str | None = None
    profile: str | None = None
    user_display_name: str | None = None
    user_handle: str | None = None
    bot_id: str | None = None
    user_ns: str | None = None
    guild_id: str | None = None


class _WireEvent(msgspec.Struct, omit_defaults=True):
    """An event as it goes out; in the order of `MessageEvent`, but for what is always there."""

    text: str
    message_type: str
    source: _WireSource
    message_id: str | None
    reply_to_message_id: str | None = None
    reply_to: Quote | None = None
    media_urls: tuple[str, ...] = ()
    media: tuple[MediaItem, ...] = ()
    context: tuple[_WireEvent, ...] = ()
    context_error: bool = False
    prompt_response: PromptResponse | None = None
    edit_of: str | None = None
    edited_at: int | None = None


def _wire_source(source: SessionSource) -> _WireSource:
    wire = cast("Callable[..., _WireSource]", _WireSource)
    return wire(*msgspec.structs.astuple(source), source.scope_id)


def _wire_event(event: MessageEvent) -> _WireEvent:
    fields: tuple[Any, ...] = msgspec.structs.astuple(event)
    around = tuple([_wire_event(item) for item in event.context]) if event.context else ()
    wire = cast("Callable[..., _WireEvent]", _WireEvent)
    return wire(*fields[:2], _wire_source(event.source), *fields[3:8], around, *fields[9:])


def encode_event(event: MessageEvent) -> bytes:
    """Return the JSON of an event as it goes into an `inbound` frame."""
    return _encoder.encode(_wire_event(event))


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(MessageEvent)


def decode_event(data: bytes | msgspec.Raw | Mapping[str, object]) -> MessageEvent:
    """Return the event in `data`: JSON, or an object that was parsed already.

    Raises:
        EventInvalidError: Not an object, or a field that cannot be read as meant.
    """
    is_json = isinstance(data, (bytes, msgspec.Raw))
    try:
        try:
            return _decoder.decode(data) if is_json else msgspec.convert(data, MessageEvent)
        except msgspec.ValidationError:  # not of the plain form: mended below, or refused
            parsed: object = msgspec.json.decode(data) if is_json else data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise EventInvalidError("event is not JSON") from exc
    if not isinstance(parsed, Mapping):
        raise EventInvalidError("event is not an object")
    return _convert(_mend_event(cast("Mapping[str, object]", parsed)), MessageEvent, "event")


def decode_source(wire: object) -> SessionSource:
    """Return the source in `wire`; null, or nothing, is a source of defaults.

    Raises:
        EventInvalidError: Not an object, or an id that is not text where it must be.
    """
    return _convert(_mend_source(wire), SessionSource, "source")


def stock_platform(name: str) -> str:
    """Return what Hermes 0.19.0 makes of the platform `name`: itself, or `relay`."""
    return name if name in STOCK_PLATFORMS else "relay"


def context_text(event: MessageEvent) -> str | None:
    """Return the surrounding messages as the text block that an agent reads, if there are any."""
    lines: list[str] = []
    for item in event.context:
        author = item.source.user_name or item.source.user_id
        if item.text:
            lines.append(f"{author}: {item.text}" if author else item.text)
    return "\n".join(["[Recent channel messages]", *lines]) if lines else None


def _convert(wire: object, type_: type[T], what: str) -> T:
    try:
        return msgspec.convert(wire, type_)
    except (msgspec.ValidationError, RecursionError) as exc:
        # msgspec names the field and the expected type; it never quotes the value.
        raise EventInvalidError(f"{what} cannot be read: {exc}") from exc


def _mend_event(wire: Mapping[str, object]) -> dict[str, object]:
    """Return `wire` with each known leniency applied; what is left wrong is for `_convert` to refuse."""
    event = {name: wire[name] for name in MessageEvent.__struct_fields__ if name in wire}
    event["source"] = _mend_source(event.get("source"))
    event["text"] = "" if (text := event.get("text")) is None else _as_text(text)
    for name in ("message_id", "reply_to_message_id", "edit_of"):
        if name in event:
            event[name] = _as_text(event[name])
    if not isinstance(event.get("message_type"), str):
        event["message_type"] = "text"
    event["media_urls"] = [url for url in _as_list(event.get("media_urls")) if isinstance(url, str)]
    event["media"] = [item for item in _as_list(event.get("media")) if _fits(item, MediaItem)]
    event["context_error"] = event.get("context_error") is True
    for name, type_ in (("reply_to", Quote), ("prompt_response", PromptResponse)):
        if not _fits(event.get(name), type_):
            event[name] = None
    if not isinstance(event.get("edited_at"), int):
        event["edited_at"] = None
    event["context"] = [
        _mend_context(cast("Mapping[str, object]", item))
        for item in _as_list(event.get("context"))
        if isinstance(item, Mapping)
    ]
    return event


def _mend_context(wire: Mapping[str, object]) -> dict[str, object]:
    """Return an item of context with only what is shown of it: it must never break its event."""
    text, source = wire.get("text"), wire.get("source")
    author: dict[str, object] = {}
    if isinstance(source, Mapping):
        known = cast("Mapping[str, object]", source)
        author = {name: _as_text(known.get(name)) for name in ("user_name", "user_id")}
    return {
        "text": _as_text(text) if text else "",
        "source": {name: value for name, value in author.items() if isinstance(value, str)},
    }


def _mend_source(wire: object) -> object:
    if not wire:
        return {}
    if not isinstance(wire, Mapping):
        return wire
    known = cast("Mapping[str, Any]", wire)
    source: dict[str, Any] = {name: known[name] for name in SessionSource.__struct_fields__ if name in known}
    if not isinstance(source.get("platform"), str):
        source.pop("platform", None)
    for name, value in source.items():
        if name in _JOINED and not value:
            source[name] = None if name == "thread_id" else ""
        elif name in _JOINED and source.get("chat_type", "dm") != "dm":
            continue  # a number here breaks the keys of a group: left for `_convert` to refuse
        elif name in _NAMES:
            source[name] = _as_text(value) if value else None
        elif name not in ("platform", "chat_type"):
            source[name] = text if isinstance(text := _as_text(value), str) else None
    return source


_JOINED: Final = frozenset({"chat_id", "thread_id"})
_NAMES: Final = frozenset({"chat_id", "thread_id", "user_id", "user_id_alt", "scope_id"})


def _as_text(value: object) -> object:
    """Return a number as text; anything else as it is."""
    return str(value) if isinstance(value, (int, float)) else value


def _as_list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _fits(value: object, type_: type[Any]) -> bool:
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return False
    return True
