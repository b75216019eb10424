"""skep.wire.relay.event and session_key, against relay contract, sections 6 and 16."""

from __future__ import annotations

import json

import msgspec
import pytest

from skep.wire.relay.event import (
    EventInvalidError,
    MediaItem,
    MessageEvent,
    PromptResponse,
    Quote,
    SessionSource,
    decode_event,
    decode_source,
)
from skep.wire.relay.session_key import session_key, stock_session_key

LENIENT: dict[str, tuple[dict[str, object], MessageEvent]] = {
    "nothing": ({}, MessageEvent()),
    "null source and text": ({"text": None, "source": None}, MessageEvent()),
    "numbers in a direct chat": (
        {"source": {"chat_id": 5, "user_id": 7, "thread_id": 9}, "message_id": 3},
        MessageEvent(source=SessionSource(chat_id="5", user_id="7", thread_id="9"), message_id="3"),
    ),
    "unknown message type": ({"message_type": "hologram"}, MessageEvent()),
    "message type of another type": ({"message_type": 5}, MessageEvent()),
    "context that is no list": ({"context": "oops", "text": "x"}, MessageEvent(text="x")),
    "junk in lists": (
        {"media_urls": ["a", 5], "media": [{"url": "a", "size": 3}, "junk", {}], "context": ["junk"]},
        MessageEvent(media_urls=("a",), media=(MediaItem(url="a", size=3),)),
    ),
    "odd optional parts": ({"reply_to": "x", "prompt_response": {}, "context_error": "no"}, MessageEvent()),
    "odd names of a source": (
        {"source": {"chat_name": {}, "platform": None, "scope_id": 0}},
        MessageEvent(),
    ),
    "keys that are not listed": (
        {"internal": True, "source": {"is_bot": True, "guild_id": "g"}},
        MessageEvent(),
    ),
}
REFUSED: dict[str, object] = {
    "a list": [1],
    "a number": 5,
    "text is a list": {"text": ["my secret words"]},
    "source is a list": {"source": ["x"]},
    "chat id of a group is a number": {"source": {"chat_type": "group", "chat_id": 5}},
    "thread id of a group is a number": {"source": {"chat_type": "forum", "chat_id": "c", "thread_id": 5}},
    "chat type is null": {"source": {"chat_type": None, "chat_id": "c"}},
    "user id is an object": {"source": {"user_id": {"my secret words": 1}}},
}


@pytest.mark.parametrize(("wire", "event"), LENIENT.values(), ids=LENIENT.keys())
def test_event_is_read_leniently(wire: dict[str, object], event: MessageEvent) -> None:
    """As the released client does, from bytes and from an object alike."""
    assert decode_event(wire) == event
    assert decode_event(json.dumps(wire).encode()) == event


@pytest.mark.parametrize("wire", REFUSED.values(), ids=REFUSED.keys())
def test_event_is_refused(wire: object) -> None:
    """What would break keys, or means nothing; the text of it is not told."""
    with pytest.raises(EventInvalidError) as raised:
        decode_event(json.dumps(wire).encode())

    assert "secret" not in raised.value.problem


@pytest.mark.parametrize("data", [b"{oops", b"\xff", b'{"text":"\xff"}', b"[" * 100_000])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    """With our own error, whatever the decoder raised."""
    with pytest.raises(EventInvalidError):
        decode_event(data)


def test_event_survives_the_wire() -> None:
    """Everything that is sent is read again, context included."""
    event = MessageEvent(
        text="hi",
        message_type="edited",
        source=SessionSource(platform="web", chat_id="c", user_id="u", scope_id="s", bot_id="b", user_ns="n"),
        message_id="m",
        reply_to_message_id="m0",
        reply_to=Quote(text="q", is_own=True),
        media_urls=("u",),
        media=(MediaItem(url="u", mime="image/png", size=3),),
        context=(MessageEvent(text="before", source=SessionSource(user_name="Ann")),),
        prompt_response=PromptResponse(prompt_id="p", option_id="yes"),
        edit_of="m0",
        edited_at=5,
    )

    assert decode_event(msgspec.json.encode(event.to_wire())) == event


def test_source_always_has_its_first_eight_keys_and_the_alias_of_its_scope() -> None:
    """Null where unknown; `guild_id` beside `scope_id` for first-generation gateways."""
    assert SessionSource(platform="web", chat_id="c", scope_id="s").to_wire() == {
        "platform": "web",
        "chat_id": "c",
        "chat_type": "dm",
        "chat_name": None,
        "chat_topic": None,
        "user_name": None,
        "user_id": None,
        "thread_id": None,
        "scope_id": "s",
        "guild_id": "s",
    }


def test_platform_is_normalised() -> None:
    """Case and blanks do not make another platform."""
    assert decode_source({"platform": " Discord "}).platform == "discord"
    assert SessionSource(platform="").platform == "relay"


def test_own_key_separates_scopes_and_keeps_platforms() -> None:
    """Two guilds with one chat id are two sessions; the same guild, chat and user are one."""
    one = SessionSource(platform="web", chat_id="c", chat_type="group", user_id="u", scope_id="s1")
    other = msgspec.structs.replace(one, scope_id="s2")

    assert session_key(one) == "agent:main:web:group:s1:c:u"
    assert session_key(other) != session_key(one)
    assert stock_session_key(other) == stock_session_key(one) == "agent:main:relay:group:c:u"
    assert (
        session_key(SessionSource(platform="web", chat_id="c", scope_id="local"))
        == "agent:main:web:dm:local:c"
    )
    assert session_key(msgspec.structs.replace(one, scope_id=None)) == "agent:main:web:group:c:u"
