"""The two protocols that endpoints speak: how a question is written, and how an event of a stream is read.

Source: secrets and providers, sections B1 and B3. Pure, but for the header that carries the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from skep.foundation.secret import Secret
from skep.providers.answers import Rung
from skep.providers.completion import Completion, ToolCall, as_count, as_dict, as_list, as_text
from skep.providers.presets import Api
from skep.providers.smoke_schema import SCHEMA_NAME, schema_for

__all__ = ["TOOL_NAME", "Anthropic", "Body", "Delta", "Dialect", "OpenAi", "dialect_of", "json_prompt"]

TOOL_NAME: Final = "skep_lookup"
_TOOL_ABOUT: Final = "Look up what a word means."

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Delta:
    """What one event of a stream adds."""

    text: str = ""
    reasoning: str = ""
    finish: str = ""
    tokens_out: int | None = None


class Dialect(Protocol):
    """How to speak to an endpoint.

    Attributes:
        rungs: Ways to ask for JSON, the best first.
        end_marks: Whole events that are not JSON and end a stream.
    """

    rungs: tuple[Rung, ...]
    end_marks: frozenset[str]
    chat_path: str
    models_path: str
    embeddings_path: str | None

    def headers(self, key: Secret | None) -> dict[str, str]:
        """Return the headers that carry `key`."""
        ...

    def chat(self, model: str, messages: Sequence[Mapping[str, Any]], *, max_tokens: int) -> Body:
        """Return the body of a plain question."""
        ...

    def demand(self, body: Body, rung: Rung, word: str) -> Body:
        """Return `body` with the demand for JSON of `rung`."""
        ...

    def offer_tool(self, body: Body, *, force: bool) -> Body:
        """Return `body` with one tool, which may have to be called."""
        ...

    def stream(self, body: Body) -> Body:
        """Return `body` asking for events."""
        ...

    def tool_result(self, said: Completion, call: ToolCall, result: str) -> list[Mapping[str, Any]]:
        """Return the messages that answer a call."""
        ...

    def read_delta(self, event: object) -> Delta:
        """Return what an event adds."""
        ...


def dialect_of(api: Api, base_url: str) -> Dialect:
    """Return the protocol of `api`; `base_url` says whether its version is a part of the address."""
    return OpenAi() if api == "openai" else Anthropic(prefix="" if base_url.endswith("/v1") else "/v1")


def _tool_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"word": {"type": "string", "description": "The word"}},
        "required": ["word"],
        "additionalProperties": False,
    }


class OpenAi:
    """Chat completions, as OpenAI defined them and everybody else speaks them."""

    rungs: tuple[Rung, ...] = ("json_schema", "json_object", "prompt")
    end_marks: frozenset[str] = frozenset({"[DONE]"})
    chat_path = "/chat/completions"
    models_path = "/models"
    embeddings_path: str | None = "/embeddings"

    def headers(self, key: Secret | None) -> dict[str, str]:
        """Return the headers that carry `key`."""
        return {} if key is None else {"authorization": f"Bearer {key.reveal()}"}

    def chat(self, model: str, messages: Sequence[Mapping[str, Any]], *, max_tokens: int) -> Body:
        """Return the body of a plain question."""
        return {"model": model, "messages": list(messages), "max_tokens": max_tokens}

    def demand(self, body: Body, rung: Rung, word: str) -> Body:
        """Return `body` with the demand for JSON."""
        match rung:
            case "json_schema":
                schema = {"name": SCHEMA_NAME, "strict": True, "schema": schema_for(word)}
                return {**body, "response_format": {"type": "json_schema", "json_schema": schema}}
            case "json_object":
                return {**body, "response_format": {"type": "json_object"}}
            case _:
                return body

    def offer_tool(self, body: Body, *, force: bool) -> Body:
        """Return `body` with one tool."""
        function = {"name": TOOL_NAME, "description": _TOOL_ABOUT, "parameters": _tool_schema()}
        choice: Body = {"tool_choice": {"type": "function", "function": {"name": TOOL_NAME}}} if force else {}
        return {**body, "tools": [{"type": "function", "function": function}], **choice}

    def stream(self, body: Body) -> Body:
        """Return `body` asking for events."""
        return {**body, "stream": True, "stream_options": {"include_usage": True}}

    def tool_result(self, said: Completion, call: ToolCall, result: str) -> list[Mapping[str, Any]]:
        """Return the messages that answer a call."""
        message = {**said.message, "role": "assistant", "content": said.message.get("content")}
        return [message, {"role": "tool", "tool_call_id": call.call_id, "content": result}]

    def read_delta(self, event: object) -> Delta:
        """Return what an event adds."""
        fields = as_dict(event)
        choices = as_list(fields.get("choices"))
        choice = as_dict(choices[0]) if choices else {}
        delta = as_dict(choice.get("delta"))
        return Delta(
            text=as_text(delta.get("content")),
            reasoning=as_text(delta.get("reasoning_content")) or as_text(delta.get("reasoning")),
            finish=as_text(choice.get("finish_reason")),
            tokens_out=as_count(as_dict(fields.get("usage")).get("completion_tokens")),
        )


class Anthropic:
    """Messages, as Anthropic defined them."""

    rungs: tuple[Rung, ...] = ("json_schema", "prompt")
    end_marks: frozenset[str] = frozenset()
    embeddings_path: str | None = None

    def __init__(self, *, prefix: Literal["", "/v1"]) -> None:
        self.chat_path = f"{prefix}/messages"
        self.models_path = f"{prefix}/models"

    def headers(self, key: Secret | None) -> dict[str, str]:
        """Return the headers that carry `key`."""
        version = {"anthropic-version": "2023-06-01"}
        return version if key is None else {**version, "x-api-key": key.reveal()}

    def chat(self, model: str, messages: Sequence[Mapping[str, Any]], *, max_tokens: int) -> Body:
        """Return the body of a plain question."""
        return {"model": model, "messages": list(messages), "max_tokens": max_tokens}

    def demand(self, body: Body, rung: Rung, word: str) -> Body:
        """Return `body` with the demand for JSON."""
        if rung != "json_schema":
            return body
        return {**body, "output_config": {"format": {"type": "json_schema", "schema": schema_for(word)}}}

    def offer_tool(self, body: Body, *, force: bool) -> Body:
        """Return `body` with one tool."""
        tool = {"name": TOOL_NAME, "description": _TOOL_ABOUT, "input_schema": _tool_schema()}
        choice: Body = {"tool_choice": {"type": "tool", "name": TOOL_NAME}} if force else {}
        return {**body, "tools": [tool], **choice}

    def stream(self, body: Body) -> Body:
        """Return `body` asking for events."""
        return {**body, "stream": True}

    def tool_result(self, said: Completion, call: ToolCall, result: str) -> list[Mapping[str, Any]]:
        """Return the messages that answer a call."""
        block = {"type": "tool_result", "tool_use_id": call.call_id, "content": result}
        return [said.message, {"role": "user", "content": [block]}]

    def read_delta(self, event: object) -> Delta:
        """Return what an event adds."""
        fields = as_dict(event)
        delta = as_dict(fields.get("delta"))
        return Delta(
            text=as_text(delta.get("text")),
            reasoning=as_text(delta.get("thinking")),
            finish=as_text(delta.get("stop_reason")),
            tokens_out=as_count(as_dict(fields.get("usage")).get("output_tokens")),
        )


def json_prompt(rung: Rung, word: str) -> str:
    """Return the question of a rung; each holds the word JSON, which some endpoints insist on."""
    wish = (
        'Answer in JSON only: an object with exactly two fields, "ok", which is true, '
        f'and "word", which is "{word}".'
    )
    if rung != "prompt":
        return wish
    return (
        f"{wish}\nIt fits this JSON schema: {json.dumps(schema_for(word))}\nWrite nothing before or after it."
    )
