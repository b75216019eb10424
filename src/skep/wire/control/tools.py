"""The tools bridge: what an agent may do in the hive.

Source: control protocol, section 8; hive, section 7. The tools themselves are data: this bridge
knows none by name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from skep.foundation.rpc import Method, Table
from skep.wire.control.base import Args, NoArgs, Result

__all__ = [
    "TOOLS",
    "TOOL_CALL",
    "TOOL_CALL_IN_TURN",
    "TOOL_LIST",
    "ToolCallArgs",
    "ToolCallInTurnArgs",
    "ToolResult",
    "ToolSpec",
    "ToolSpecs",
]


class ToolSpec(Result, frozen=True):
    """One tool, with JSON schemas of what goes in and what comes out."""

    name: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class ToolSpecs(Result, frozen=True):
    """All tools of this agent."""

    tools: tuple[ToolSpec, ...] = ()


class ToolCallArgs(Args, frozen=True):
    """Call a tool from outside the harness: `lane` says which conversation of this agent."""

    lane: int
    call_id: str
    name: str
    args: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class ToolCallInTurnArgs(Args, frozen=True):
    """Call a tool from a runtime inside the harness."""

    turn_id: str
    call_id: str
    name: str
    args: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class ToolResult(Result, frozen=True):
    """What the tool gave, by its output schema."""

    result: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


TOOL_LIST = Method(name="tool.list", args=NoArgs, result=ToolSpecs)
TOOL_CALL = Method(
    name="tool.call", args=ToolCallArgs, result=ToolResult, timeout_s=75.0, ends_with_connection=True
)
TOOL_CALL_IN_TURN = Method(
    name="tool.call", args=ToolCallInTurnArgs, result=ToolResult, timeout_s=75.0, ends_with_connection=True
)

TOOLS = Table("hive.sock", (TOOL_LIST, TOOL_CALL))
