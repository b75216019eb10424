"""skep-mcp under the SDK's own client, both generations; control protocol, section 8.2."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client

from support.hive import Hive, open_hive

GENERATIONS = ["legacy", "2026-07-28"]


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    """Run a hive with `concierge` and `scribe`."""
    async with open_hive() as running:
        yield running


async def lane_of_a_turn(hive: Hive) -> int:
    """Begin a turn of `concierge` and return its conversation."""
    gateway = await hive.gateway()
    pump = await hive.pump("concierge")
    await gateway.say("hello")
    lease, _ = await pump.begin()
    return lease.lane


def client_of(hive: Hive, *, lane: int, mode: str) -> Client:
    """Return a client whose server is `skep-mcp` on the tool socket of `concierge`."""
    server = StdioServerParameters(
        command=str(Path(sys.executable).with_name("skep-mcp")),
        args=["--lane", str(lane), "--socket", str(hive.home.hive_socket("concierge"))],
    )
    return Client(stdio_client(server), mode=mode)


def problem_of(result: Any) -> dict[str, Any]:
    """Return the JSON of a tool error."""
    assert result.is_error
    return json.loads(result.content[0].text)


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_tb_04_tools_are_the_hives_own(hive: Hive, mode: str) -> None:
    """`tools/list` gives what the hive gives: names, schemas of what goes in and what comes out."""
    async with client_of(hive, lane=await lane_of_a_turn(hive), mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert {"send", "recv", "recv_batch", "ask", "answer", "remind", "agents", "whoami"} <= tools.keys()
    assert tools["send"].input_schema["required"] == ["to", "body"]
    assert tools["send"].output_schema is not None


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_tb_04_a_call_is_the_agents_own(hive: Hive, mode: str) -> None:
    """Who calls follows from the socket: the message is from `concierge`, and is stored once."""
    async with client_of(hive, lane=await lane_of_a_turn(hive), mode=mode) as client:
        me = await client.call_tool("whoami", {})
        sent = await client.call_tool("send", {"to": "agent:scribe", "body": "the kettle is on"})

    scribe = await hive.pump("scribe")
    leases = await scribe.take()
    assert me.structured_content["name"] == "concierge"
    assert [envelope.from_ for envelope in leases[0].envelopes] == ["agent:concierge"]
    assert leases[0].envelopes[0].id == sent.structured_content["id"]


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_tb_04_a_refusal_is_a_tool_error_with_a_code(hive: Hive, mode: str) -> None:
    """An agent learns what was wrong, as JSON, and the server goes on."""
    async with client_of(hive, lane=await lane_of_a_turn(hive), mode=mode) as client:
        unknown = await client.call_tool("send", {"to": "agent:nobody", "body": "x"})
        forged = await client.call_tool("send", {"to": "agent:scribe", "body": "x", "from": "operator:x"})
        after = await client.call_tool("agents", {})

    assert problem_of(unknown)["code"] == "no_such_recipient"
    assert problem_of(forged)["code"] == "invalid_argument"
    assert not after.is_error


async def test_tb_02_a_foreign_conversation_is_not_found(hive: Hive) -> None:
    """A lane that is not this agent's does not exist for it."""
    async with client_of(hive, lane=await lane_of_a_turn(hive) + 1_000, mode="legacy") as client:
        refused = await client.call_tool("send", {"to": "agent:scribe", "body": "x"})

    assert problem_of(refused)["code"] == "not_found"
