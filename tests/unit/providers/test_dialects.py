"""skep.providers.dialects and exchange: what goes out and how a stream is read."""

from __future__ import annotations

from typing import Any

import pytest

from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.secret import Secret
from skep.providers.completion import read_completion
from skep.providers.dialects import TOOL_NAME, dialect_of, json_prompt
from skep.providers.exchange import EventReader

KEY = Secret("key", "canary-key-000111")
QUESTION = [{"role": "user", "content": "hello"}]


def test_b3_no_dialect_leaves_a_field_of_the_schema_open() -> None:
    """All properties required, no others, and the word is the only one that fits."""
    openai = dialect_of("openai", "https://x/v1")
    body = openai.demand(openai.chat("m", QUESTION, max_tokens=1), "json_schema", "skep1")
    schema = body["response_format"]["json_schema"]["schema"]

    assert body["response_format"]["json_schema"]["strict"] is True
    assert set(schema["required"]) == set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert schema["properties"]["word"]["enum"] == ["skep1"]


@pytest.mark.parametrize("rung", ["json_schema", "json_object", "prompt"])
def test_b3_every_prompt_holds_the_word_json(rung: Any) -> None:
    """Some endpoints refuse the mode without it."""
    assert "JSON" in json_prompt(rung, "skep1")
    assert ("schema" in json_prompt(rung, "skep1")) == (rung == "prompt")


def test_b3_the_last_rung_sends_no_format() -> None:
    """What an endpoint refuses is left out, whole."""
    for api in ("openai", "anthropic"):
        dialect = dialect_of(api, "https://x/v1")
        plain = dialect.chat("m", QUESTION, max_tokens=1)
        assert dialect.demand(plain, "prompt", "w") == plain


def test_anthropic_speaks_its_own() -> None:
    """Its header, its paths with and without the version in the address, its schema, its tool."""
    outside, inside = dialect_of("anthropic", "https://x"), dialect_of("anthropic", "https://x/v1")
    body = outside.offer_tool(outside.chat("m", QUESTION, max_tokens=1), force=True)

    assert outside.headers(KEY) == {"anthropic-version": "2023-06-01", "x-api-key": "canary-key-000111"}
    assert (outside.chat_path, inside.chat_path) == ("/v1/messages", "/messages")
    assert outside.rungs == ("json_schema", "prompt")
    assert outside.demand({}, "json_schema", "w")["output_config"]["format"]["type"] == "json_schema"
    assert body["tool_choice"] == {"type": "tool", "name": TOOL_NAME}


def test_anthropic_message_is_read() -> None:
    """Text, thoughts, a call and the counts, in the shape that the checks know."""
    said = read_completion(
        {
            "type": "message",
            "model": "claude-x",
            "stop_reason": "tool_use",
            "content": [
                {"type": "thinking", "thinking": "hm"},
                {"type": "text", "text": "hello"},
                {"type": "tool_use", "id": "t1", "name": TOOL_NAME, "input": {"word": "w"}},
            ],
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }
    )

    assert said is not None
    assert (said.text, said.reasoning, said.finish, said.tokens_in) == ("hello", "hm", "tool_calls", 3)
    assert (said.tool_calls[0].name, said.tool_calls[0].arguments) == (TOOL_NAME, {"word": "w"})


@pytest.mark.parametrize("cut", range(1, 60))
def test_events_are_whole_however_they_come(cut: int) -> None:
    """Any piece may end anywhere: in a line, between CR and LF, in a character of several bytes."""
    data = b': hi\r\ndata: {"a":\r\ndata: "\xc3\xa9"}\r\n\r\nevent: x\ndata:[DONE]\n\n'
    reader = EventReader(SYSTEM_CLOCK, 0)

    for at in range(0, len(data), cut):
        reader.feed(data[at : at + cut])

    assert [event.data for event in reader.events] == ['{"a":\n"é"}', "[DONE]"]
    assert not reader.is_broken
