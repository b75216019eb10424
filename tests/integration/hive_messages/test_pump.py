"""Pumps and turns over real sockets (control protocol, sections 6 and 7; hive, sections 5 and 6)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skep.broker.types import Actor, BrokerSettings, Draft
from skep.foundation.rpc import CallError, ConnectionLostError, Method, connect
from skep.wire.control import door, pump
from skep.wire.control.base import NoArgs
from support.hive import Hive, Pump, open_hive
from support.waiting import MS, eventually

OPERATOR = Actor(principal="operator:local", role="operator")


async def mail(hive: Hive, *bodies: str, to: str = "agent:concierge") -> None:
    """Let `scribe` write to another agent."""
    for body in bodies:
        await hive.broker.send(Actor(principal="agent:scribe", role="agent"), Draft(to=to, body=body))


async def turns(hive: Hive) -> list[tuple[str, str | None]]:
    """Return (state, text) of what operators were shown."""
    return [(data["state"], data["text"]) for kind, data in hive.events if kind == "turn"]


async def test_hello_tells_how_the_agent_is_set_up(hive: Hive) -> None:
    """Epoch, times and bounds come with it."""
    hive.team.change("scribe", max_parallel_lanes=2, turn_limit_s=60)

    setup = (await hive.pump("scribe")).setup

    assert (setup.agent, setup.role, setup.max_parallel_lanes, setup.turn_limit_s) == (
        "scribe",
        "agent",
        2,
        60,
    )
    assert setup.boot_epoch == hive.broker.epoch
    assert (setup.lease_ttl_ms, setup.start_timeout_ms) == (60_000, 30_000)
    assert hive.watched.told == [("up", "scribe")]
    assert hive.messages.pump_at("scribe") is not None
    assert hive.messages.pump_at("concierge") is None


async def test_le_09_a_second_pump_is_refused(hive: Hive) -> None:
    """The first goes on taking leases."""
    first = await hive.pump()

    with pytest.raises(CallError) as raised:
        await hive.pump()

    assert raised.value.wire_code == "conflict"
    await mail(hive, "hello")
    assert len(await first.take()) == 1


async def test_le_09_a_takeover_ends_the_first(hive: Hive) -> None:
    """Its leases end with it, and the second gets what it held."""
    first = await hive.pump()
    await mail(hive, "hello")
    lease, _ = await first.begin()

    second = await hive.pump(takeover=True)
    (again,) = await second.take()

    assert again.envelopes[0].id == lease.envelopes[0].id
    assert again.envelopes[0].redelivered
    with pytest.raises(ConnectionLostError):
        await first.end(lease, reply="too late")
    assert hive.watched.told.count(("lost", "concierge")) == 0


async def test_a_connection_without_hello_gets_no_lease(hive: Hive) -> None:
    """`pump.next` comes only after `pump.hello`."""
    caller = await connect(hive.home.pump_socket("concierge"), role="harness")
    with pytest.raises(CallError) as raised:
        await caller.call(pump.NEXT, pump.NextArgs(wait_ms=0))
    caller.close()

    assert raised.value.wire_code == "conflict"


async def test_le_03_a_closed_socket_gives_everything_back(hive: Hive) -> None:
    """Fifty pumps come, take the same mail and go: it is never lost, and only one has it at a time."""
    await mail(hive, "hello")
    for _ in range(50):
        harness = await hive.pump(takeover=True)
        (lease,) = await harness.take()
        assert lease.envelopes[0].body == "hello"
        harness.caller.close()

    last = await hive.pump(takeover=True)
    lease = await last.answer("done")

    assert lease.envelopes[0].attempt == 1  # it was never shown
    assert await last.take(wait_ms=50) == []


async def test_le_04_a_pump_that_waits_gets_what_comes(hive: Hive) -> None:
    """At once, by the doorbell."""
    concierge = await hive.pump()
    waiting = asyncio.create_task(concierge.take(wait_ms=10_000))
    await asyncio.sleep(0.05)

    await mail(hive, "hello")
    async with asyncio.timeout(1):
        (lease,) = await waiting

    assert lease.envelopes[0].body == "hello"


async def test_le_08_without_doorbells_mail_comes_within_the_poll(hive: Hive) -> None:
    """A pump that hears no bell looks by itself, at least every 5 s."""
    concierge = await hive.pump()
    waiting = asyncio.create_task(concierge.take(wait_ms=10_000))
    await asyncio.sleep(0.05)
    hive.broker.doorbells.ring = lambda names: None

    await mail(hive, "hello")
    async with asyncio.timeout(7_000 * MS):
        (lease,) = await waiting

    assert lease.envelopes[0].body == "hello"


async def test_a_turn_is_watched_from_start_to_end(hive: Hive) -> None:
    """It is listed while it runs, and told when it ends, with what the harness says of it."""
    concierge = await hive.pump()
    await mail(hive, "hello")
    lease, turn_id = await concierge.begin()

    (running,) = hive.messages.running_turns()
    assert (running.turn_id, running.agent, running.lane) == (turn_id, "concierge", lease.lane)
    assert hive.messages.running_turns("scribe") == ()

    await concierge.end(lease, reply="hello")
    assert hive.messages.running_turns() == ()
    (turn,) = hive.watched.turns
    assert (turn.turn_id, turn.outcome, turn.envelopes) == (turn_id, "ok", 1)


async def test_an_end_told_twice_answers_the_same(hive: Hive) -> None:
    """`duplicate`, and one reply."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    lease, _ = await concierge.begin()

    first = await concierge.end(lease, reply="hello")
    again = await concierge.end(lease, reply="hello")

    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.message_id == first.message_id
    assert len(await gateway.take()) == 1
    assert await gateway.take(wait_ms=50) == []


async def test_a_reply_over_64_kib_is_cut_not_refused(hive: Hive) -> None:
    """A turn that says too much still ends."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")

    await concierge.answer("y" * 70_000)

    assert (await gateway.heard()).envelopes[0].body.endswith(" more bytes]")


async def test_an_agent_cannot_end_as_a_chat_does(hive: Hive) -> None:
    """`refused` and `unknown` are of chats."""
    concierge = await hive.pump()
    await mail(hive, "hello")
    lease, _ = await concierge.begin()

    with pytest.raises(CallError) as raised:
        await concierge.end(lease, "refused")

    assert raised.value.wire_code == "invalid_argument"


async def test_le_02_a_lease_that_is_never_started_comes_back() -> None:
    """Within the start time-out, and the supervisor is told; until then it is not shown."""
    settings = BrokerSettings(start_timeout_ms=200)
    async with open_hive(settings=settings) as hive:
        concierge = await hive.pump()
        await mail(hive, "hello")
        (lease,) = await concierge.take()

        await eventually(lambda: ("missed_start", "concierge") in hive.watched.told, within=5_000 * MS)
        with pytest.raises(CallError) as raised:
            await concierge.start(lease)
        (again,) = await concierge.take()

        assert raised.value.wire_code == "stale_lease"
        assert again.envelopes[0].id == lease.envelopes[0].id
        assert "shown" not in {data["state"] for kind, data in hive.events if kind == "delivery"}


async def test_a_lease_that_runs_out_is_taken_back() -> None:
    """The turn's progress is dropped, its pump is told, and the mail is ready again, marked."""
    async with open_hive(settings=BrokerSettings(lease_ttl_ms=200)) as hive:
        concierge = await hive.pump()
        await mail(hive, "hello")
        lease, _ = await concierge.begin()

        await eventually(lambda: hive.messages.running_turns() == (), within=5_000 * MS)
        (again,) = await concierge.take()

        assert again.envelopes[0].redelivered
        assert [cancel.lease_id for cancel in concierge.cancels] == [lease.lease_id]
        await eventually(
            lambda: [data["state"] for kind, data in hive.events if kind == "turn"][-1] == "dropped"
        )


async def test_no_more_lanes_than_the_agent_may_run(hive: Hive) -> None:
    """The rest waits until one ends."""
    hive.team.change("concierge", max_parallel_lanes=2)
    gateway, concierge = await hive.gateway(), await hive.pump()
    for number in range(3):
        await gateway.say("hello", message_id=f"m-{number}", chat_id=f"c-{number}")

    leases = await concierge.take(lanes=8)
    assert len(leases) == 2
    assert await concierge.take(wait_ms=50) == []

    waiting = asyncio.create_task(concierge.take(wait_ms=10_000))
    await concierge.start(leases[0])
    await concierge.end(leases[0], reply="done")
    async with asyncio.timeout(1):
        assert len(await waiting) == 1


async def test_no_lease_is_granted_until_it_may(hive: Hive) -> None:
    """While a daemon waits for its harnesses, pumps get nothing."""
    concierge = await hive.pump()
    hive.messages.set_granting("concierge", granting=False)
    await mail(hive, "hello")
    assert await concierge.take(wait_ms=50) == []

    waiting = asyncio.create_task(concierge.take(wait_ms=10_000))
    await asyncio.sleep(0.02)
    hive.messages.set_granting("concierge", granting=True)
    async with asyncio.timeout(1):
        assert len(await waiting) == 1


async def test_drain_waits_for_turns_and_grants_nothing(hive: Hive) -> None:
    """It is over when the last turn ends."""
    concierge = await hive.pump()
    await mail(hive, "one", "two")
    lease, _ = await concierge.begin()

    draining = asyncio.create_task(hive.messages.drain(10))
    await asyncio.sleep(0.05)
    assert not draining.done()
    await concierge.end(lease)
    async with asyncio.timeout(1):
        await draining

    assert await _refusal(concierge.take(wait_ms=50)) == "shutting_down"


async def _refusal(call: Awaitable[object]) -> str:
    with pytest.raises(CallError) as raised:
        await call
    return raised.value.wire_code


async def test_a_drain_is_told_to_all_that_wait_for_leases(hive: Hive) -> None:
    """Harness and gateway hear it at once, and again when they ask again; mail stays where it is."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    waiting = [
        asyncio.create_task(_refusal(gateway.take(wait_ms=30_000))),
        asyncio.create_task(_refusal(concierge.take(wait_ms=30_000))),
    ]
    await asyncio.sleep(0.05)

    await hive.messages.drain(10)
    async with asyncio.timeout(1):
        told = await asyncio.gather(*waiting)
    await mail(hive, "hello")
    stored = await gateway.say("hello")

    assert told == ["shutting_down"] * 2
    assert stored.outcome == "stored"
    assert await _refusal(gateway.take(wait_ms=30_000)) == "shutting_down"
    assert await _refusal(concierge.take(wait_ms=30_000)) == "shutting_down"
    assert (await hive.broker.queues())["agent:concierge"].ready == 2


async def test_what_runs_ends_and_is_stored_during_a_drain(hive: Hive) -> None:
    """A turn may begin, go on and end, take more of its lane, and give back; so may what is said in a chat."""
    gateway, concierge, scribe = await hive.gateway(), await hive.pump(), await hive.pump("scribe")
    await gateway.say("hello")
    await concierge.answer("hello yourself")
    (saying,) = await gateway.take()
    await mail(hive, "one", "two")
    lease, turn_id = await concierge.begin()
    await hive.broker.send(OPERATOR, Draft(to="agent:scribe", body="x", session="1"))
    await hive.broker.send(OPERATOR, Draft(to="agent:scribe", body="y", session="2"))
    begun, given_back = await scribe.take(lanes=2)
    draining = asyncio.create_task(hive.messages.drain(10))
    await eventually(lambda: hive.messages.is_busy("scribe"), within=500 * MS)

    await scribe.start(begun)
    renewed = await concierge.caller.call(
        pump.RENEW, pump.RenewArgs(lease_id=lease.lease_id, fence=lease.fence)
    )
    more = await concierge.caller.call(
        pump.MORE, pump.MoreArgs(lease_id=lease.lease_id, fence=lease.fence, max=5)
    )
    me = await concierge.tool(turn_id, "whoami")
    nack = pump.NackArgs(lease_id=given_back.lease_id, fence=given_back.fence, reason="draining")
    await scribe.caller.call(pump.NACK, nack)
    assert (await concierge.end(lease, reply="noted")).released
    assert (await scribe.end(begun, reply="noted")).released
    await gateway.start(saying)
    assert not draining.done()
    assert (await gateway.end(saying, ids=("p-1",))).released
    async with asyncio.timeout(1):
        await draining

    assert renewed.cancel is None
    assert [envelope.body for envelope in more.envelopes] == ["two"]
    assert me["name"] == "concierge"
    assert (await hive.broker.queues())["agent:scribe"].ready == 1


async def test_who_dials_during_a_drain_finds_nobody(hive: Hive) -> None:
    """Neither harness nor gateway comes in again; they wait for the next daemon."""
    await hive.messages.drain(0.05)

    for path in (hive.home.door_socket, hive.home.pump_socket("concierge")):
        with pytest.raises(ConnectionLostError):
            await connect(path, role="late")


async def test_rs_08_what_drain_cuts_off_is_not_lost(root: Path) -> None:
    """A turn that does not end in time is redelivered at the next start, marked."""
    async with open_hive(root=root) as hive:
        concierge = await hive.pump()
        await mail(hive, "hello")
        lease, _ = await concierge.begin()
        await hive.messages.drain(0.05)
        assert concierge.cancels == []
    async with open_hive(root=root) as hive:
        concierge = await hive.pump()
        (again,) = await concierge.take()

    assert again.envelopes[0].id == lease.envelopes[0].id
    assert again.envelopes[0].redelivered


async def test_tu_03_an_interrupt_stops_the_running_turn_of_its_lane(hive: Hive) -> None:
    """At once; a message that is not urgent stops nothing."""
    concierge = await hive.pump()
    await hive.broker.send(OPERATOR, Draft(to="agent:concierge", body="go", session="s"))
    lease, _ = await concierge.begin()

    await hive.broker.send(OPERATOR, Draft(to="agent:concierge", body="more", session="s"))
    await asyncio.sleep(0.05)
    assert concierge.cancels == []
    await hive.broker.send(
        OPERATOR, Draft(to="agent:concierge", body="stop", session="s", urgency="interrupt")
    )

    await eventually(lambda: [cancel.lease_id for cancel in concierge.cancels] == [lease.lease_id])
    await concierge.end(lease, "cancelled")
    (following,) = await concierge.take()
    assert following.envelopes[0].body == "stop"


async def test_nack_gives_back_without_blame(hive: Hive) -> None:
    """The attempt is not counted, and the lane is free."""
    concierge = await hive.pump()
    await mail(hive, "hello")
    (lease,) = await concierge.take()

    args = pump.NackArgs(lease_id=lease.lease_id, fence=lease.fence, reason="draining")
    await concierge.caller.call(pump.NACK, args)
    (again,) = await concierge.take()

    assert (again.envelopes[0].attempt, again.envelopes[0].redelivered) == (1, False)


async def test_tu_01_agents_mail_comes_alone_with_the_hint(hive: Hive) -> None:
    """Four queued: one in the lease, three told of; `recv_batch` returns them in order; no further turn."""
    concierge = await hive.pump()
    await mail(hive, "1", "2", "3", "4")
    lease, turn_id = await concierge.begin()

    got = await concierge.tool(turn_id, "recv_batch", max=10)
    await concierge.end(lease)

    assert [envelope.body for envelope in lease.envelopes] == ["1"]
    assert lease.pending.lane == 3
    assert lease.pending.from_ == ("agent:scribe",)
    assert [envelope["body"] for envelope in got["envelopes"]] == ["2", "3", "4"]
    assert got["pending"].get("lane", 0) == 0
    assert await concierge.take(wait_ms=50) == []
    assert hive.watched.turns[0].envelopes == 4


async def test_tu_05_order_holds_across_a_crash(hive: Hive) -> None:
    """Interleaved senders, a pump that dies mid-way: each lane goes on where it was."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    for number in range(4):
        await gateway.say(f"person {number}", message_id=f"m-{number}")
        await mail(hive, f"agent {number}")
    seen: list[str] = []
    lease, _ = await concierge.begin()
    seen += [envelope.body for envelope in lease.envelopes]
    concierge.caller.close()

    second = await hive.pump(takeover=True)
    again: list[str] = []
    while leases := await second.take(wait_ms=100):
        await second.start(leases[0])
        await second.end(leases[0])
        again += [envelope.body for envelope in leases[0].envelopes]

    assert set(seen) <= set(again)
    assert [body for body in again if body.startswith("person")] == [
        f"person {number}" for number in range(4)
    ]
    assert [body for body in again if body.startswith("agent")] == [f"agent {number}" for number in range(4)]


async def test_tu_06_a_gateway_that_dies_before_the_call_leaves_no_mark(hive: Hive) -> None:
    """What was only leased is said again as new."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    await concierge.answer("hello yourself")
    (first,) = await gateway.take()
    gateway.caller.close()

    other = await hive.gateway()
    (again,) = await other.take()

    assert again.envelopes[0].id == first.envelopes[0].id
    assert again.envelopes[0].reply_key == first.envelopes[0].reply_key
    assert again.envelopes[0].route is not None
    assert not again.envelopes[0].route.repeat


async def test_tu_06_a_gateway_that_dies_during_the_call_leaves_the_mark(hive: Hive) -> None:
    """The platform may have it: the same key, marked; after the end nothing comes again."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    await concierge.answer("hello yourself")
    (first,) = await gateway.take()
    await gateway.start(first)
    gateway.caller.close()

    other = await hive.gateway()
    (again,) = await other.take()
    await other.start(again)
    await other.end(again, ids=("p-1",))

    assert again.envelopes[0].route is not None
    assert again.envelopes[0].route.repeat
    assert again.envelopes[0].reply_key == first.envelopes[0].reply_key
    assert await other.take(wait_ms=50) == []


async def test_progress_reaches_the_gateway_of_the_chat(hive: Hive) -> None:
    """Started with what it has seen, text so far, then its end; a later gateway is told what runs."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    lease, turn_id = await concierge.begin()
    concierge.progress(turn_id, 1, kind="text", at=0, add="Hel")
    concierge.progress(turn_id, 2, kind="text", at=3, add="lo")

    await eventually(lambda: [turn.text for turn in gateway.turns][-1:] == ["Hello"])
    late = await hive.gateway()
    await eventually(lambda: [turn.text for turn in late.turns] == ["Hello"])
    await concierge.end(lease, reply="Hello")
    await eventually(lambda: gateway.turns[-1].state == "ended")

    first = gateway.turns[0]
    assert (first.state, first.agent, first.shown) == ("started", "concierge", ("m-1",))
    assert first.route.chat_id == "c-1"
    assert first.reply_key == f"r:{lease.envelopes[0].id}"


async def test_progress_of_other_chats_stays_away(hive: Hive) -> None:
    """A gateway sees turns of the relays that it attached, and a turn for agents nobody's."""
    gateway, other, concierge = await hive.gateway(), await hive.gateway(relay="other"), await hive.pump()
    await mail(hive, "for you")
    lease, _ = await concierge.begin()
    await concierge.end(lease)
    await gateway.say("hello")
    await concierge.begin()

    await eventually(lambda: len(gateway.turns) == 1)
    assert other.turns == []


async def test_pg_01_the_answer_is_right_whatever_progress_was_lost(hive: Hive) -> None:
    """Progress with gaps never reaches the final text."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    lease, turn_id = await concierge.begin()
    for seq in (1, 4, 2, 9):
        concierge.progress(turn_id, seq, kind="text", at=seq * 3, add="abc")
    await concierge.end(lease, reply="the whole answer")

    assert (await gateway.heard()).envelopes[0].body == "the whole answer"


async def test_pg_02_a_gateway_that_does_not_read_slows_nobody(hive: Hive) -> None:
    """It costs one state a turn; the turn ends and others are served."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    lease, turn_id = await concierge.begin()
    await eventually(lambda: len(gateway.turns) == 1)
    transport: Any = gateway.caller._transport  # pyright: ignore[reportPrivateUsage]
    transport.pause_reading()
    for seq in range(1, 60):
        concierge.progress(turn_id, seq, kind="text", at=(seq - 1) * 1_000, add="x" * 1_000)
        await asyncio.sleep(0.02)

    async with asyncio.timeout(1):
        await concierge.end(lease, reply="done")
    transport.resume_reading()
    await eventually(lambda: gateway.turns[-1].state == "ended")


async def test_memory_context_names_the_author_of_that_delivery(hive: Hive) -> None:
    """And of no other: a delivery that is not leased to this pump is not found."""
    gateway, concierge, scribe = await hive.gateway(), await hive.pump(), await hive.pump("scribe")
    await gateway.say("hello")
    lease, _ = await concierge.begin()
    args = pump.MemoryContextArgs(delivery_id=lease.envelopes[0].delivery_id)

    known = await concierge.caller.call(pump.MEMORY_CONTEXT, args)
    with pytest.raises(CallError) as raised:
        await scribe.caller.call(pump.MEMORY_CONTEXT, args)

    assert (known.person, known.text, known.degraded) == ("person:1", "", False)
    assert raised.value.wire_code == "not_found"


REFUSED_AT_PUMP: dict[str, tuple[Method[Any, Any], object]] = {
    "door.attach": (door.ATTACH, door.AttachArgs(relay="local", state="connected")),
    "door.interrupt": (door.INTERRUPT, door.InterruptArgs(relay="local", session_key="s", chat_id="c")),
}


@pytest.mark.parametrize(("method", "args"), REFUSED_AT_PUMP.values(), ids=REFUSED_AT_PUMP.keys())
async def test_cp_03_the_pump_socket_knows_no_method_of_the_door(
    hive: Hive, method: Method[Any, Any], args: object
) -> None:
    """It is `unknown_method`."""
    concierge = await hive.pump()

    with pytest.raises(CallError) as raised:
        await concierge.caller.call(method, args)

    assert raised.value.wire_code == "unknown_method"
    await concierge.caller.call(pump.ALIVE, NoArgs())


async def answer_ask(harness: Pump, **end: Any) -> None:
    """Run one turn, ended by `end`."""
    lease, _ = await harness.begin()
    await harness.end(lease, **end)


async def test_rp_05_an_ask_ended_by_a_reply_is_answered(hive: Hive) -> None:
    """A runtime without tools can answer: the reply of the turn is the answer."""
    gateway, concierge, scribe = await hive.gateway(), await hive.pump(), await hive.pump("scribe")
    await gateway.say("ask scribe")
    _, turn_id = await concierge.begin()

    asking = asyncio.create_task(
        concierge.tool(turn_id, "ask", to="agent:scribe", question="how many words?", wait_s=5)
    )
    await answer_ask(scribe, reply="three")

    async with asyncio.timeout(2):
        asked = await asking
    assert (asked["state"], asked["answer"]) == ("answered", "three")


async def test_as_01_an_ask_that_is_seen_and_not_answered_is_told(hive: Hive) -> None:
    """The asker gets one receipt, and the ask stays open until it is cancelled."""
    concierge, scribe = await hive.pump(), await hive.pump("scribe")
    await hive.broker.send(OPERATOR, Draft(to="agent:concierge", body="go"))
    lease, turn_id = await concierge.begin()
    asked = await concierge.tool(turn_id, "ask", to="agent:scribe", question="how many?")
    await answer_ask(scribe)

    listed = await concierge.tool(turn_id, "list_my_asks")
    cancelled = await concierge.tool(turn_id, "cancel_ask", id=asked["id"])
    await concierge.end(lease)
    (receipt,) = await concierge.take()

    assert asked["state"] == "open"
    assert [(row["id"], row["target"], row["question"]) for row in listed["asks"]] == [
        (asked["id"], "agent:scribe", "how many?")
    ]
    assert cancelled == {"state": "cancelled"}
    assert receipt.envelopes[0].kind == "receipt"
    assert "not answered" in json.dumps(receipt.envelopes[0].body)


async def test_rp_04_a_person_without_a_chat_cannot_be_reached(hive: Hive) -> None:
    """`no_route` for the tool; nothing is stored."""
    concierge = await hive.pump()
    person = await hive.broker.transact(
        lambda tx: tx.one("person_insert", "Eve", None, 1),
    )
    assert person is not None
    await mail(hive, "hello")
    _, turn_id = await concierge.begin()

    with pytest.raises(CallError) as raised:
        await concierge.tool(turn_id, "send", to=f"person:{person[0]}", body="hello")

    assert raised.value.wire_code == "no_route"


async def test_a_button_answers_the_question_it_belongs_to(hive: Hive) -> None:
    """Only by whom it was asked, and once."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    lease, turn_id = await concierge.begin()
    await concierge.tool(turn_id, "ask", to="person:1", question="tea?", choices=["yes", "no"])
    await concierge.end(lease)
    (question,) = (await gateway.heard()).envelopes
    number = base_36(question.delivery_id)
    prompt = f"{hashlib.sha256(b'local').hexdigest()[:4]}.{number}"

    async def press(message_id: str, prompt_id: str, **facts: Any) -> str:
        response = {"prompt_id": prompt_id, "option_id": "2"}
        pressed = await gateway.say("/2", message_id=message_id, event_prompt_response=response, **facts)
        return pressed.outcome

    assert await press("m-2", prompt, user_id="mallory") == "handled"
    assert await press("m-3", prompt) == "handled"
    assert await press("m-4", prompt) == "handled"
    (answer,) = await concierge.take()

    assert (answer.envelopes[0].kind, answer.envelopes[0].body) == ("answer", "no")
    assert answer.envelopes[0].from_ == "person:1"
    assert await concierge.take(wait_ms=50) == []


BY_TEXT: dict[str, tuple[str, dict[str, Any], str]] = {
    "number": ("1", {}, "yes"),
    "label": ("No", {}, "no"),
    "reply": ("maybe", {"event_reply_to_message_id": "the question"}, "maybe"),
}


@pytest.mark.parametrize(("text", "facts", "answer"), BY_TEXT.values(), ids=BY_TEXT.keys())
async def test_a_number_a_label_or_a_reply_answers_a_question(
    hive: Hive, text: str, facts: dict[str, Any], answer: str
) -> None:
    """So that people without buttons can answer too."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    lease, turn_id = await concierge.begin()
    await concierge.tool(turn_id, "ask", to="person:1", question="tea?", choices=["yes", "no"])
    await concierge.end(lease)
    (question,) = await gateway.take()
    await gateway.start(question)
    await gateway.end(question, ids=("the question",))

    handled = await gateway.say(text, message_id="m-2", **facts)
    (lease,) = await concierge.take()

    assert handled.outcome == "handled"
    assert (lease.envelopes[0].kind, lease.envelopes[0].body) == ("answer", answer)


async def test_what_is_said_to_an_answer_goes_where_it_was_given(hive: Hive) -> None:
    """A person's answer is a message of their chat: seen when its turn begins, and named by the reply."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    lease, turn_id = await concierge.begin()
    await concierge.tool(turn_id, "ask", to="person:1", question="tea?", choices=["yes", "no"])
    await concierge.end(lease)
    await gateway.heard()

    await gateway.say("yes", message_id="m-2")
    begun = await concierge.answer("tea it is")
    (said,) = (await gateway.heard()).envelopes

    assert begun.envelopes[0].kind == "answer"
    assert (said.body, said.to, said.reply_key) == ("tea it is", "person:1", f"r:{begun.envelopes[0].id}")
    assert said.route is not None
    assert (said.route.chat_id, said.route.answers) == ("c-1", ("m-2",))


def base_36(number: int) -> str:
    """Return `number` in base 36."""
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


async def test_close_leaves_nothing_alive(hive: Hive) -> None:
    """No task of ours, no socket file."""
    concierge = await hive.pump()
    waiting = asyncio.create_task(concierge.take(wait_ms=10_000))
    await asyncio.sleep(0.05)

    async with asyncio.timeout(2):
        await hive.messages.close()

    with pytest.raises(ConnectionLostError):
        await waiting
    assert not hive.home.door_socket.exists()
    assert not hive.home.pump_socket("concierge").exists()
    rest = {task.get_name() for task in asyncio.all_tasks()}
    assert not rest & {"sweeps", "reminders"}


LONG = '"\n' * (32 * 1024)
"""As long as a message may be, and twice as long in JSON."""


def encoded(envelopes: Any) -> int:
    """Return how long these are in a frame."""
    return len(msgspec.json.encode(envelopes))


async def test_a_batch_of_long_messages_stops_at_a_mebibyte(hive: Hive) -> None:
    """A burst is handed over in parts that a frame takes; nothing of it is lost or out of order."""
    gateway = await hive.gateway()
    pump_ = await hive.pump()
    sent = [await gateway.say(LONG, message_id=f"m-{number}") for number in range(20)]
    lease, _ = await pump_.begin()
    got = list(lease.envelopes)
    assert 1 < len(got) < 20
    assert encoded(got) <= 1 << 20
    while len(got) < len(sent):
        args = pump.MoreArgs(lease_id=lease.lease_id, fence=lease.fence, max=50)
        more = await pump_.caller.call(pump.MORE, args)
        assert more.envelopes
        assert encoded(more.envelopes) <= 1 << 20
        got += more.envelopes

    assert [envelope.id for envelope in got] == [accepted.message_id for accepted in sent]


async def test_lanes_of_long_messages_come_one_frame_after_the_other(hive: Hive) -> None:
    """A gateway that comes back to 64 chats with long answers is not hung up on."""
    gateway = await hive.gateway(attach=False)
    pump_ = await hive.pump()
    for number in range(40):
        await gateway.say("hello", message_id=f"m-{number}", chat_id=f"c-{number}")
        await pump_.answer(LONG)
    await gateway.attach()
    heard = 0
    while heard < 40:
        leases = await gateway.take(lanes=64)
        assert leases
        assert encoded(leases) <= 2 << 20
        heard += len(leases)
        for lease in leases:
            await gateway.start(lease)
            await gateway.end(lease)
