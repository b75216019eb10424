"""skep.wire.relay.actions, against relay contract, sections 7 and 16."""

from __future__ import annotations

import json
from typing import Any

import pytest

from skep.wire.relay.actions import (
    ActionInvalidError,
    Hints,
    Result,
    Seen,
    Typing,
    decode_action,
    decode_result,
    read_hints,
)

INVALID = {
    "unknown op": (b'{"op":"fly"}', "unsupported op: fly"),
    "no op": (b"{}", "unsupported op: "),
    "not an object": (b"[1]", "invalid action: not an object with an `op`"),
    "op is a number": (b'{"op":5}', "invalid action: not an object with an `op`"),
    "field missing": (
        b'{"op":"send","chat_id":"c"}',
        "invalid action: Object missing required field `content`",
    ),
}


@pytest.mark.parametrize(("raw", "problem"), INVALID.values(), ids=INVALID.keys())
def test_action_that_cannot_be_done_says_so(raw: bytes, problem: str) -> None:
    """The text is the `error` of the result: silence would cost the caller 30 s."""
    with pytest.raises(ActionInvalidError) as raised:
        decode_action(raw)

    assert raised.value.problem == problem


def test_error_quotes_nothing_that_was_said() -> None:
    """A wrong type is named by its field."""
    with pytest.raises(ActionInvalidError) as raised:
        decode_action(b'{"op":"send","chat_id":"c","content":["my secret words"]}')

    assert "secret" not in raised.value.problem


def test_typing_tells_clearing_from_showing() -> None:
    """No content shows, empty content clears."""
    assert decode_action(b'{"op":"typing","chat_id":"c"}') == Typing(chat_id="c")
    assert decode_action(b'{"op":"typing","chat_id":"c","content":""}') == Typing(chat_id="c", content="")
    assert Typing(chat_id="c") != Typing(chat_id="c", content="")


def test_seen_is_read() -> None:
    """An op of Skep's own ends."""
    action = decode_action(b'{"op":"seen","chat_id":"c","message_ids":["a","b"]}')

    assert action == Seen(chat_id="c", message_ids=("a", "b"))
    assert action.op == "seen"


HINTS: dict[str, tuple[dict[str, Any], Hints]] = {
    "nothing": ({}, Hints()),
    "all": (
        {
            "scope_id": "s",
            "user_id": "u",
            "thread_id": "t",
            "idem": "r:1",
            "agent": "a",
            "answers": ["m1", 5],
            "notify": True,
            "repeat": True,
        },
        Hints(
            scope_id="s",
            user_id="u",
            thread_id="t",
            idem="r:1",
            agent="a",
            answers=("m1",),
            notify=True,
            repeat=True,
        ),
    ),
    "bug 25: the alias alone": ({"guild_id": "g"}, Hints(scope_id="g")),
    "bug 25: both, equal": ({"scope_id": "g", "guild_id": "g"}, Hints(scope_id="g")),
    "bug 25: both, disagreeing": (
        {"scope_id": "s", "guild_id": "g"},
        Hints(scope_id="s", scopes_disagree=True),
    ),
    "wrong types": ({"idem": ["x"], "notify": "yes", "answers": "m1", "user_id": {}}, Hints()),
    "a key that cannot be kept": ({"idem": "x" * 129}, Hints()),
    "a number": ({"thread_id": 5}, Hints(thread_id="5")),
}


@pytest.mark.parametrize(("metadata", "hints"), HINTS.values(), ids=HINTS.keys())
def test_hints_are_read_from_metadata(metadata: dict[str, Any], hints: Hints) -> None:
    """Known keys by type; what is odd counts as absent."""
    assert read_hints(metadata) == hints


def test_hints_survive_the_wire() -> None:
    """What says nothing is not sent."""
    hints = Hints(scope_id="s", idem="r:1", answers=("m",), notify=True)

    assert read_hints(json.loads(json.dumps(hints.to_metadata()))) == hints
    assert Hints().to_metadata() == {}


def test_result_names_all_parts() -> None:
    """A split message has several ids."""
    result = decode_result({"success": True, "message_id": "a", "continuation_ids": ["b", "c"]})

    assert result.message_ids == ("a", "b", "c")
    assert result.to_wire() == {"success": True, "message_id": "a", "continuation_ids": ("b", "c")}


@pytest.mark.parametrize("wire", [None, [], "x", 5])
def test_result_that_is_no_object_is_a_failure(wire: object) -> None:
    """Never an exception."""
    assert decode_result(wire) == Result()


def test_result_with_odd_fields_keeps_the_others() -> None:
    """A number as message id is an id."""
    assert decode_result({"success": True, "message_id": 5, "partial": "x"}) == Result(
        success=True, message_id="5"
    )
