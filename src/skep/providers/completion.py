"""A finished answer of a model, whichever protocol it came by.

Pure. OpenAI's chat completions and Anthropic's messages are read into one shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from skep.providers.strict_json import NotJsonError, parse_object

__all__ = [
    "Completion",
    "ToolCall",
    "as_count",
    "as_dict",
    "as_list",
    "as_text",
    "error_inside",
    "read_completion",
]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ToolCall:
    """A tool that the model wants called; `arguments` is `None` when they are not a JSON object."""

    call_id: str
    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Completion:
    """What the model said, and how it came to stop.

    Attributes:
        finish: `stop`, `length`, `tool_calls`, …; empty when the endpoint does not say.
        model: The name that the endpoint answers under.
        tokens_in: `None` when not said.
        message: The message as it came, to be sent back.
    """

    text: str
    reasoning: str
    refusal: str
    finish: str
    model: str
    tool_calls: tuple[ToolCall, ...]
    tokens_in: int | None
    tokens_out: int | None
    message: Mapping[str, Any]


def read_completion(value: object) -> Completion | None:
    """Return the completion that `value` is, `None` when it is something else."""
    fields = as_dict(value)
    if fields.get("type") == "message" and isinstance(fields.get("content"), list):
        return _of_anthropic(fields)
    choices = as_list(fields.get("choices"))
    message = as_dict(as_dict(choices[0]).get("message")) if choices else {}
    if not message:
        return None
    usage = as_dict(fields.get("usage"))
    return Completion(
        text=_joined(message.get("content")),
        reasoning=as_text(message.get("reasoning_content")) or as_text(message.get("reasoning")),
        refusal=as_text(message.get("refusal")),
        finish=as_text(as_dict(choices[0]).get("finish_reason")),
        model=as_text(fields.get("model")),
        tool_calls=tuple(_call(as_dict(call)) for call in as_list(message.get("tool_calls"))),
        tokens_in=as_count(usage.get("prompt_tokens")),
        tokens_out=as_count(usage.get("completion_tokens")),
        message=message,
    )


def error_inside(value: object) -> bool:
    """Return whether `value`, answered with 200, tells of an error instead."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        return bool(items) and error_inside(items[0])
    fields = as_dict(value)
    if fields.get("error") or fields.get("object") == "error" or fields.get("type") == "error":
        return True
    choices = as_list(fields.get("choices"))
    return bool(choices) and bool(as_dict(choices[0]).get("error"))


def _of_anthropic(fields: dict[str, Any]) -> Completion:
    blocks = [as_dict(block) for block in as_list(fields["content"])]
    usage = as_dict(fields.get("usage"))
    reason = as_text(fields.get("stop_reason"))
    finish = {"max_tokens": "length", "end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls"}
    return Completion(
        text="".join(as_text(block.get("text")) for block in blocks if block.get("type") == "text"),
        reasoning="".join(as_text(block.get("thinking")) for block in blocks),
        refusal="refused" if reason == "refusal" else "",
        finish=finish.get(reason, reason),
        model=as_text(fields.get("model")),
        tool_calls=tuple(
            ToolCall(
                call_id=as_text(block.get("id")),
                name=as_text(block.get("name")),
                arguments=as_dict(block.get("input")),
            )
            for block in blocks
            if block.get("type") == "tool_use"
        ),
        tokens_in=as_count(usage.get("input_tokens")),
        tokens_out=as_count(usage.get("output_tokens")),
        message={"role": "assistant", "content": fields["content"]},
    )


def _call(fields: dict[str, Any]) -> ToolCall:
    function = as_dict(fields.get("function"))
    arguments: dict[str, Any] | None = None
    given: object = function.get("arguments")
    if isinstance(given, str):
        try:
            arguments = parse_object(given)
        except NotJsonError:
            arguments = None
    elif isinstance(given, dict):
        arguments = cast("dict[str, Any]", given)
    return ToolCall(
        call_id=as_text(fields.get("id")), name=as_text(function.get("name")), arguments=arguments
    )


def _joined(content: object) -> str:
    """Return the text of a message, which may be in parts."""
    if isinstance(content, list):
        parts = cast("list[object]", content)
        return "".join(as_text(as_dict(part).get("text")) for part in parts)
    return as_text(content)


def as_dict(value: object) -> dict[str, Any]:
    """Return `value` if it is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """Return `value` if it is a list, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def as_text(value: object) -> str:
    """Return `value` if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def as_count(value: object) -> int | None:
    """Return `value` if it is a whole number, else `None`."""
    return value if type(value) is int else None
