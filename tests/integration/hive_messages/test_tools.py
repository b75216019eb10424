"""The tools bridge over real sockets (control protocol, section 8; hive, sections 7 and 8)."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from skep.broker.types import Actor, BrokerSettings, Draft
from skep.foundation.rpc import Caller, CallError, Method
from skep.wire.control import pump, tools
from skep.wire.control.base import NoArgs
from support.hive import Hive, open_hive
from support.waiting import MS, eventually

OPERATOR = Actor(principal="operator:local", role="operator")
NAMES = {
    "send",
    "recv",
    "recv_batch",
    "thread",
    "ask",
    "answer",
    "list_my_asks",
    "cancel_ask",
    "remind",
    "list_my_reminders",
    "cancel_reminder",
    "agents",
    "whoami",
}


async def call(
    caller: Caller, lane: int, name: str, *, call_id: str | None = None, **args: Any
) -> dict[str, Any]:
    """Call a tool from the sandbox."""
    request = tools.ToolCallArgs(lane=lane, call_id=call_id or name, name=name, args=args)
    return (await caller.call(tools.TOOL_CALL, request)).result


async def refusal(caller: Caller, lane: int, name: str, **args: Any) -> str:
    """Return the code with which a call is refused."""
    with pytest.raises(CallError) as raised:
        await call(caller, lane, name, **args)
    return raised.value.wire_code


async def tell(hive: Hive, body: str, *, session: str, to: str = "agent:concierge") -> None:
    """Write to an agent as the operator, in a conversation of its own."""
    await hive.broker.send(OPERATOR, Draft(to=to, body=body, session=session))


async def test_tools_are_listed_with_schemas_of_both_sides(hive: Hive) -> None:
    """The same on both sockets; each schema is an object that refuses unknown arguments."""
    sandbox, harness = await hive.tools(), await hive.pump()

    outside = await sandbox.call(tools.TOOL_LIST, NoArgs())
    inside = await harness.caller.call(tools.TOOL_LIST, NoArgs())

    assert outside == inside
    assert {tool.name for tool in outside.tools} == NAMES
    for tool in outside.tools:
        assert tool.description
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema["type"] == "object"
        assert "from" not in tool.input_schema["properties"]
    assert hive.messages.tools_at("concierge") is not None


async def test_tb_01_tools_by_lane_with_four_turns_running(hive: Hive) -> None:
    """Each call acts in the conversation of its lane: what it receives is that conversation's."""
    harness, sandbox = await hive.pump(), await hive.tools()
    for number in range(4):
        await tell(hive, f"first of {number}", session=f"s-{number}")
        await tell(hive, f"more of {number}", session=f"s-{number}")
    leases = await harness.take(lanes=4)
    for lease in leases:
        await harness.start(lease)

    got = await asyncio.gather(*(call(sandbox, lease.lane, "recv") for lease in leases))

    assert len(leases) == 4
    for lease, result in zip(leases, got, strict=True):
        assert result["envelope"]["body"] == lease.envelopes[0].body.replace("first", "more")
        assert result["envelope"]["session"] == lease.session


async def test_tb_02_a_foreign_lane_is_not_found(hive: Hive) -> None:
    """Another agent's lane looks like one that is not there, whatever the tool."""
    harness, foreign = await hive.pump(), await hive.tools("scribe")
    await tell(hive, "hello", session="s")
    lease, _ = await harness.begin()

    assert await refusal(foreign, lease.lane, "whoami") == "not_found"
    assert await refusal(foreign, lease.lane, "recv") == "not_found"
    assert await refusal(foreign, 999, "whoami") == "not_found"


async def test_a_tool_works_without_a_turn_but_receives_nothing(hive: Hive) -> None:
    """`recv` and `recv_batch` answer `no_turn`."""
    harness, sandbox = await hive.pump(), await hive.tools()
    await tell(hive, "hello", session="s")
    lease, _ = await harness.begin()
    await harness.end(lease)

    assert (await call(sandbox, lease.lane, "whoami"))["name"] == "concierge"
    assert await refusal(sandbox, lease.lane, "recv") == "no_turn"
    assert await refusal(sandbox, lease.lane, "recv_batch") == "no_turn"


REFUSED: dict[str, tuple[Method[Any, Any], object]] = {
    "pump.hello": (pump.HELLO, pump.HelloArgs(harness_id="h", harness_version="0")),
    "pump.next": (pump.NEXT, pump.NextArgs(wait_ms=0)),
    "pump.started": (pump.STARTED, pump.StartedArgs(lease_id="l", fence=1, turn_id="t")),
    "pump.ended": (pump.ENDED, pump.EndedArgs(lease_id="l", fence=1, turn_id="t", outcome="ok")),
    "pump.alive": (pump.ALIVE, NoArgs()),
    "memory.context": (pump.MEMORY_CONTEXT, pump.MemoryContextArgs(delivery_id=1)),
}


@pytest.mark.parametrize(("method", "args"), REFUSED.values(), ids=REFUSED.keys())
async def test_tb_03_the_tool_socket_knows_no_method_of_pumps(
    hive: Hive, method: Method[Any, Any], args: object
) -> None:
    """It is `unknown_method`: code that the agent runs takes no mail and ends no turn."""
    sandbox = await hive.tools()

    with pytest.raises(CallError) as raised:
        await sandbox.call(method, args)

    assert raised.value.wire_code == "unknown_method"


async def test_a_repeated_call_gets_the_same_answer(hive: Hive) -> None:
    """While the turn lives it acts once, on both sockets; another id acts again."""
    harness, sandbox = await hive.pump(), await hive.tools()
    await tell(hive, "hello", session="s")
    lease, turn_id = await harness.begin()

    first = await call(sandbox, lease.lane, "send", call_id="1", to="scribe", body="hello")
    again = await call(sandbox, lease.lane, "send", call_id="1", to="scribe", body="hello")
    inside = await harness.tool(turn_id, "send", call_id="1", to="scribe", body="hello")
    other = await call(sandbox, lease.lane, "send", call_id="2", to="scribe", body="hello")

    assert first == again == inside
    assert other["id"] != first["id"]


async def test_a_call_that_waits_is_taken_up_after_a_broken_connection(hive: Hive) -> None:
    """What `recv` took for this turn is handed over to whoever repeats the call."""
    harness, sandbox = await hive.pump(), await hive.tools()
    await tell(hive, "hello", session="s")
    lease, _ = await harness.begin()
    waiting = asyncio.create_task(call(sandbox, lease.lane, "recv", call_id="1", wait_s=10))
    await asyncio.sleep(0.05)
    sandbox.close()
    await asyncio.gather(waiting, return_exceptions=True)
    await tell(hive, "second", session="s")

    other = await hive.tools()
    got = await call(other, lease.lane, "recv", call_id="1", wait_s=10)

    assert got["envelope"]["body"] == "second"


async def test_a_call_that_waits_ends_with_its_turn(hive: Hive) -> None:
    """Nobody waits for a turn that is over."""
    harness, sandbox = await hive.pump(), await hive.tools()
    await tell(hive, "hello", session="s")
    lease, _ = await harness.begin()
    waiting = asyncio.create_task(refusal(sandbox, lease.lane, "recv", wait_s=30))
    await asyncio.sleep(0.05)

    await harness.end(lease)

    async with asyncio.timeout(1):
        assert await waiting == "no_turn"


async def test_env_02_nobody_says_who_they_are(hive: Hive) -> None:
    """A `from` among the arguments is refused, and so is anything else that is unknown."""
    harness, sandbox = await hive.pump(), await hive.tools()
    await tell(hive, "hello", session="s")
    lease, _ = await harness.begin()

    assert (
        await refusal(sandbox, lease.lane, "send", to="scribe", body="hi", **{"from": "operator:local"})
        == "invalid_argument"
    )
    assert await refusal(sandbox, lease.lane, "send", to="scribe", body=5) == "invalid_argument"
    assert (
        await refusal(sandbox, lease.lane, "send", call_id="3", to="nobody", body="hi") == "no_such_recipient"
    )
    assert await refusal(sandbox, lease.lane, "fly") == "unknown_method"


async def test_send_and_broadcast_say_what_is_stored(hive: Hive) -> None:
    """To one: its state. To all: how many, and each gets the exact hint."""
    concierge, scribe = await hive.pump(), await hive.pump("scribe")
    await tell(hive, "hello", session="s")
    _, turn_id = await concierge.begin()

    one = await concierge.tool(turn_id, "send", to="agent:scribe", body="for you")
    every = await concierge.tool(turn_id, "send", call_id="2", to="*", body="for all")
    first = await scribe.answer("")
    second = await scribe.answer("")

    assert (one["recipients"], one["duplicate"], one["recipient_state"]) == (1, False, "idle")
    assert every["recipients"] == 1
    assert first.envelopes[0].body == "for you"
    assert second.envelopes[0].hint == "this was a broadcast and may not need any action from you"


async def test_an_ask_is_answered_by_the_tool(hive: Hive) -> None:
    """Only by whom it was asked, and once."""
    concierge, scribe = await hive.pump(), await hive.pump("scribe")
    await tell(hive, "hello", session="s")
    lease, turn_id = await concierge.begin()
    asked = await concierge.tool(turn_id, "ask", to="scribe", question="how many?")
    _, answering = await scribe.begin()

    with pytest.raises(CallError) as raised:
        await concierge.tool(turn_id, "answer", call_id="a", id=asked["id"], body="me")
    await scribe.tool(answering, "answer", id=asked["id"], body="three")
    with pytest.raises(CallError) as twice:
        await scribe.tool(answering, "answer", call_id="b", id=asked["id"], body="four")
    await concierge.end(lease)
    (came,) = await concierge.take()

    assert raised.value.wire_code == "not_found"
    assert twice.value.wire_code == "closed"
    assert (came.envelopes[0].kind, came.envelopes[0].body) == ("answer", "three")
    assert came.session == lease.session


async def test_thread_shows_what_the_caller_may_read(hive: Hive) -> None:
    """What it wrote and what was written to it; a foreign thread is not found."""
    gateway, concierge, scribe = await hive.gateway(), await hive.pump(), await hive.pump("scribe")
    await gateway.say("hello")
    await concierge.answer("hello yourself")
    await gateway.say("again", message_id="m-2", event_reply_to_message_id=None)
    lease, turn_id = await concierge.begin()
    await tell(hive, "hi", session="s", to="agent:scribe")
    _, other = await scribe.begin()

    shown = await concierge.tool(turn_id, "thread", id=lease.envelopes[0].thread)
    with pytest.raises(CallError) as raised:
        await scribe.tool(other, "thread", id=lease.envelopes[0].thread)

    assert [(row["from"], row["body"]) for row in shown["messages"]] == [("person:1", "again")]
    assert raised.value.wire_code == "not_found"


async def test_agents_and_whoami(hive: Hive) -> None:
    """Who is here and how busy, and who one is."""
    concierge = await hive.pump()
    await tell(hive, "hello", session="s")
    await tell(hive, "for scribe", session="s", to="agent:scribe")
    _, turn_id = await concierge.begin()

    team = (await concierge.tool(turn_id, "agents"))["agents"]
    me = await concierge.tool(turn_id, "whoami")

    assert [(row["name"], row["role"], row["state"], row["busy"], row["queue"]) for row in team] == [
        ("concierge", "manager", "up", 1, 0),
        ("scribe", "agent", "up", 0, 1),
    ]
    assert (me["name"], me["role"], me["boot_epoch"]) == ("concierge", "manager", hive.broker.epoch)
    assert me["limits"]["open"] == {"asks": 20, "reminders": 50}
    json.dumps(me)


async def test_a_reminder_starts_a_turn_in_its_conversation() -> None:
    """At its time, once; it is listed until then."""
    async with open_hive(settings=BrokerSettings(reminder_min_ms=10)) as hive:
        harness = await hive.pump()
        await tell(hive, "hello", session="s")
        lease, turn_id = await harness.begin()

        armed = await harness.tool(turn_id, "remind", in_s=0.3, body="stretch")
        listed = await harness.tool(turn_id, "list_my_reminders")
        await harness.end(lease)
        (due,) = await harness.take(wait_ms=5_000)

        assert (armed["open"], armed["limit"]) == (1, 50)
        assert [(row["id"], row["body"], row["session"]) for row in listed["reminders"]] == [
            (armed["id"], "stretch", "s")
        ]
        assert (due.envelopes[0].kind, due.envelopes[0].body, due.session) == ("reminder", "stretch", "s")
        assert due.envelopes[0].created_at >= armed["due_at"]


async def test_remind_takes_one_time(hive: Hive) -> None:
    """`in_s` or `at`; too soon and too far are told apart."""
    harness, sandbox = await hive.pump(), await hive.tools()
    await tell(hive, "hello", session="s")
    lease, _ = await harness.begin()

    assert await refusal(sandbox, lease.lane, "remind", call_id="1", body="x") == "invalid_argument"
    assert await refusal(sandbox, lease.lane, "remind", call_id="2", body="x", in_s=1) == "too_soon"
    assert await refusal(sandbox, lease.lane, "remind", call_id="3", body="x", in_s=1e9) == "too_far"
    assert (
        await refusal(sandbox, lease.lane, "remind", call_id="4", body="x", in_s=20, at=1)
        == "invalid_argument"
    )


async def test_re_07_cancel_and_fire_have_one_winner() -> None:
    """Each reminder is either cancelled or sent, and the caller is told which."""
    async with open_hive(
        settings=BrokerSettings(reminder_min_ms=1, reminders_max=500, buckets=LOOSE)
    ) as hive:
        harness = await hive.pump()
        await tell(hive, "hello", session="s")
        _, turn_id = await harness.begin()
        outcomes: list[str] = []
        for number in range(100):
            armed = await harness.tool(turn_id, "remind", call_id=f"r{number}", in_s=0.02, body=f"{number}")
            await asyncio.sleep(0.018 + number % 5 * 0.001)
            try:
                await harness.tool(turn_id, "cancel_reminder", call_id=f"c{number}", id=armed["id"])
            except CallError as error:
                outcomes.append(error.wire_code)
            else:
                outcomes.append("cancelled")

        def sent() -> int:
            return sum(1 for kind, data in hive.events if kind == "reminder" and data["state"] == "sent")

        assert set(outcomes) <= {"cancelled", "already_sent"}
        await eventually(lambda: sent() == outcomes.count("already_sent"), within=5_000 * MS)
        got = await harness.tool(turn_id, "recv_batch", max=50, call_id="all")
        more = await harness.tool(turn_id, "recv_batch", max=50, call_id="more")
        assert len(got["envelopes"]) + len(more["envelopes"]) == sent()


LOOSE = {"send": (1_000, 1.0), "broadcast": (1_000, 1.0), "ask": (1_000, 1.0), "remind": (1_000, 1.0)}


async def test_re_02_close_leaves_nothing_and_is_quick() -> None:
    """Made and closed again and again, also while reminders are due: no task, no thread, at most 2 s."""
    for _ in range(10):
        async with open_hive(settings=BrokerSettings(reminder_min_ms=1, buckets=LOOSE)) as hive:
            harness = await hive.pump()
            await tell(hive, "hello", session="s")
            _, turn_id = await harness.begin()
            for number in range(20):
                await harness.tool(turn_id, "remind", call_id=f"{number}", in_s=0.01, body="now")
            harness.caller.close()
            loop = asyncio.get_running_loop()
            began = loop.time()
            await hive.messages.close()
            await hive.broker.close()
            assert loop.time() - began < 2
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("hive") for name in names)
    assert not {task.get_name() for task in asyncio.all_tasks()} & {"sweeps", "reminders"}
