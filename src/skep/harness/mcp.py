"""skep-mcp: the agent's tools as an MCP server on stdio.

Source: control protocol, section 8.2. Runs inside the agent's sandbox, one per conversation. It
maps `tools/list` and `tools/call` one to one to the hive's socket and knows no tool by name: who
the agent is follows from the socket alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from pathlib import Path
from typing import Any, Final

import mcp.types as types
import uvloop
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from skep import __version__
from skep.foundation.ids import random_token
from skep.foundation.rpc import Caller, CallError, ConnectionLostError, connect
from skep.wire.control import tools
from skep.wire.control.base import NoArgs

__all__ = ["main", "serve"]

_REDIALS: Final = 5


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(
        prog="skep-mcp",
        description="Serve the hive's tools over MCP on stdio",
        epilog="example: skep-mcp --lane 7 --socket /agents/scribe/hive.sock",
    )
    parser.add_argument("--lane", type=int, required=True, help="conversation of this agent that calls")
    parser.add_argument("--socket", type=Path, required=True, help="the agent's hive.sock")
    given = parser.parse_args()
    uvloop.run(serve(given.socket, lane=given.lane))


async def serve(socket: Path, *, lane: int) -> None:
    """Bridge stdio to the hive's socket at `socket`, for one conversation."""
    bridge = _Bridge(socket, lane)
    server: Server[Any] = Server(
        "skep", version=__version__, on_list_tools=bridge.list_tools, on_call_tool=bridge.call_tool
    )
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
    bridge.close()


class _Bridge:
    def __init__(self, socket: Path, lane: int) -> None:
        self._socket = socket
        self._lane = lane
        self._caller: Caller | None = None
        self._dialing = asyncio.Lock()
        mark = random_token(64)  # a pid means nothing here: each sandbox counts its own
        self._call_ids = (f"{mark}-{number}" for number in itertools.count(1))

    def close(self) -> None:
        if self._caller is not None:
            self._caller.close()

    async def list_tools(self, _context: object, _params: object) -> types.ListToolsResult:
        caller = await self._dial()
        found = await caller.call(tools.TOOL_LIST, NoArgs())
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.name,
                    description=tool.description,
                    input_schema=tool.input_schema,
                    output_schema=tool.output_schema,
                )
                for tool in found.tools
            ]
        )

    async def call_tool(self, _context: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        args = tools.ToolCallArgs(
            lane=self._lane, call_id=next(self._call_ids), name=params.name, args=params.arguments or {}
        )
        try:
            answer = await self._call(args)
        except CallError as error:
            problem = {"code": error.wire_code, "problem": error.problem, "hint": error.hint}
            if error.retry_after_ms is not None:
                problem["retry_after_ms"] = str(error.retry_after_ms)
            return types.CallToolResult(content=[_text(problem)], is_error=True)
        return types.CallToolResult(content=[_text(answer.result)], structured_content=answer.result)

    async def _call(self, args: tools.ToolCallArgs) -> tools.ToolResult:
        # The same `call_id` again is the same call, so a lost connection is safe to repeat.
        for left in range(_REDIALS, 0, -1):
            try:
                return await (await self._dial()).call(tools.TOOL_CALL, args)
            except ConnectionLostError:
                if left == 1:
                    raise CallError("unavailable", "the hive does not answer") from None
                await asyncio.sleep(0.2)
        raise AssertionError("not reached")

    async def _dial(self) -> Caller:
        async with self._dialing:
            if self._caller is None or not self._caller.is_open:
                self._caller = await connect(self._socket, role="skep-mcp")
            return self._caller


def _text(value: object) -> types.TextContent:
    return types.TextContent(type="text", text=json.dumps(value, ensure_ascii=False))
