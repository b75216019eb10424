"""The door: events in, answers out, over real sockets and a real store (control protocol, sections 4 and 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from skep.broker.types import BrokerSettings
from skep.foundation.rpc import CallError, Method
from skep.identity import people
from skep.wire.control import door, pump, tools
from skep.wire.control.envelope import Lease
from support.hive import Gateway, Hive, open_hive, person_event
from support.waiting import MS, eventually

MALFORMED: dict[str, object] = {
    "not an object": ["text"],
    "no author": {"text": "hi", "message_id": "m-1", "source": {"platform": "web", "chat_id": "c-1"}},
    "source is text": {"text": "hi", "message_id": "m-1", "source": "web"},
    "group id is a number": person_event("hi", chat_type="group", chat_id=7),  # type: ignore[arg-type]
    "nothing names it": person_event("hi", message_id=None),
}


async def test_an_event_becomes_one_envelope_and_its_answer_goes_back(hive: Hive) -> None:
    """The whole way: a person writes, the default agent answers, the answer names what it answers."""
    gateway, concierge = await hive.gateway(), await hive.pump()

    stored = await gateway.say("hello")
    lease = await concierge.answer("hello yourself")
    said = await gateway.heard()

    (envelope,) = lease.envelopes
    assert stored.outcome == "stored"
    assert (envelope.id, envelope.body, envelope.from_, envelope.kind) == (
        stored.message_id,
        "hello",
        "person:1",
        "message",
    )
    assert lease.session == "agent:main:web:dm:local:c-1"
    assert envelope.origin is not None
    assert envelope.origin["name"] == "Ada"
    (answer,) = said.envelopes
    assert (answer.body, answer.to, answer.from_) == ("hello yourself", "person:1", "agent:concierge")
    assert answer.in_reply_to == envelope.id
    assert answer.reply_key == f"r:{envelope.id}"
    assert answer.route is not None
    assert (answer.route.chat_id, answer.route.reply_to, answer.route.answers) == ("c-1", "m-1", ("m-1",))


async def test_do_01_an_event_that_cannot_be_stored_is_not_answered_as_taken(hive: Hive) -> None:
    """The gateway gets an error that it repeats, never an outcome."""
    gateway = await hive.gateway()
    await hive.broker.close()

    with pytest.raises(CallError) as raised:
        await gateway.say("hello")

    assert raised.value.is_worth_repeating


async def test_do_02_a_repeat_is_known(hive: Hive) -> None:
    """The same event again answers `duplicate`, and there is one envelope."""
    gateway, concierge = await hive.gateway(), await hive.pump()

    first = await gateway.say("hello")
    again = await gateway.say("hello")

    assert (again.outcome, again.message_id) == ("duplicate", first.message_id)
    (lease,) = await concierge.take()
    assert len(lease.envelopes) == 1
    assert lease.pending.lane == 0


async def test_do_02_a_repeated_command_does_not_act_twice(hive: Hive) -> None:
    """A `/agent` is answered once, however often the gateway hands it in."""
    gateway = await hive.gateway()

    first = await gateway.say("/agent scribe")
    again = await gateway.say("/agent scribe")

    assert (first.outcome, again.outcome) == ("handled", "duplicate")
    assert "scribe" in (await gateway.heard()).envelopes[0].body
    assert await gateway.take(wait_ms=50) == []


async def test_do_02_a_repeat_that_comes_together_with_its_first_is_known(hive: Hive) -> None:
    """Events that wait together are taken together: a repeat among them is no second envelope."""
    gateway, concierge = await hive.gateway(), await hive.pump()

    results = await asyncio.gather(
        *(gateway.say(f"{n % 4}", message_id=f"m-{n % 4}", chat_id=f"c-{n % 4}") for n in range(12))
    )

    assert sorted(result.outcome for result in results) == ["duplicate"] * 8 + ["stored"] * 4
    assert len({result.message_id for result in results}) == 4
    leases = await concierge.take(lanes=20)
    assert sorted(envelope.body for lease in leases for envelope in lease.envelopes) == ["0", "1", "2", "3"]


async def test_do_03_a_poison_event_among_many_is_refused_alone(
    hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of fifty that wait together breaks the daemon's code: the other forty-nine are stored, in order."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    real = people.resolve

    def resolve(tx: Any, account: Any, *, name: str | None, at: int) -> Any:
        if account.user_id == "poison":
            raise ZeroDivisionError
        return real(tx, account, name=name, at=at)

    monkeypatch.setattr("skep.hive.door.accept.resolve", resolve)
    results = await asyncio.gather(
        *(gateway.say(f"{n}", message_id=f"m-{n}", user_id="poison" if n == 25 else "ada") for n in range(50))
    )

    assert [result.outcome for result in results].index("refused") == 25
    assert [result.outcome for result in results].count("stored") == 49
    bodies: list[str] = []
    while len(bodies) < 49:
        lease = await concierge.answer("yes")
        bodies += [envelope.body for envelope in lease.envelopes]
    assert bodies == [f"{n}" for n in range(50) if n != 25]


@pytest.mark.parametrize("event", MALFORMED.values(), ids=MALFORMED.keys())
async def test_do_03_a_poison_event_is_refused_and_kept(hive: Hive, event: object) -> None:
    """It is answered, so that it blocks nothing, it is kept, and the next message goes through."""
    gateway = await hive.gateway()

    refused = await gateway.accept(event)
    again = await gateway.accept(event)
    after = await gateway.say("and now?", message_id="m-2")

    assert refused.outcome == "refused"
    assert refused.reason
    assert again.outcome == "duplicate"
    assert after.outcome == "stored"
    kept = await hive.broker.view(lambda tx: tx.one("refused_count"))
    assert kept == (1,)


async def test_do_03_what_is_said_of_a_refused_event_quotes_nothing_of_it(hive: Hive) -> None:
    """The reason names a field, never what a person wrote."""
    gateway = await hive.gateway()

    refused = await gateway.accept({"text": "hunter2", "source": {"chat_type": 5, "chat_id": "hunter2"}})

    assert refused.outcome == "refused"
    assert "hunter2" not in str(refused.reason)


async def test_do_04_an_event_that_was_answered_survives(root: Path) -> None:
    """After another start the event is there once, and a repeat is known."""
    async with open_hive(root=root) as hive:
        gateway = await hive.gateway()
        stored = await gateway.say("hello")
    async with open_hive(root=root) as hive:
        gateway, concierge = await hive.gateway(), await hive.pump()
        again = await gateway.say("hello")
        (lease,) = await concierge.take()

    assert again.outcome == "duplicate"
    assert [envelope.id for envelope in lease.envelopes] == [stored.message_id]


async def test_do_05_text_over_64_kib_is_cut_and_the_chat_is_told(hive: Hive) -> None:
    """The envelope ends with the line that says so, and a notice goes to the chat."""
    gateway, concierge = await hive.gateway(), await hive.pump()

    stored = await gateway.say("x" * 70_000)
    (lease,) = await concierge.take()
    notice = await gateway.heard()

    body = lease.envelopes[0].body
    assert stored.outcome == "stored"
    assert len(body.encode()) <= 65_536
    assert body.endswith(" more bytes]")
    assert notice.envelopes[0].kind == "system"
    assert "cut" in notice.envelopes[0].body
    assert notice.envelopes[0].route is not None
    assert notice.envelopes[0].route.answers == ()  # the answer of the turn is still to come


@pytest.mark.parametrize(
    "facts",
    [
        {"user_name": "person:1"},
        {"user_name": "Ada", "user_id_alt": "owner"},
        {"profile": "owner"},
        {"user_ns": "elsewhere", "user_id": "owner"},
        {"platform": "telegram", "user_id": "owner", "user_ns": None},
    ],
)
async def test_do_06_only_the_account_says_whose_person_it_is(hive: Hive, facts: dict[str, Any]) -> None:
    """Names, alternative ids, profiles and equal ids elsewhere never make somebody else of a person."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("I am the owner")
    owner = await concierge.answer("hello")

    await gateway.say("so am I", message_id="m-2", chat_id="c-2", **{"user_id": "mallory", **facts})
    other = await concierge.answer("hello")

    assert owner.envelopes[0].from_ == "person:1"
    assert other.envelopes[0].from_ == "person:2"


async def test_do_06_the_same_account_is_the_same_person_everywhere(hive: Hive) -> None:
    """Another chat, another name, another scope: one person, who is known again."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("here")
    await concierge.answer("hello")

    await gateway.say("and here", message_id="m-2", chat_id="c-2", user_name="A. L.", scope_id="other")
    lease = await concierge.answer("hello")

    assert lease.envelopes[0].from_ == "person:1"


async def test_do_06_the_gateway_gets_no_lane_of_an_agent(hive: Hive) -> None:
    """Mail of agents is never leased over the door, whatever relay is attached."""
    gateway = await hive.gateway(relay="local")
    await gateway.attach(relay="agent:concierge")
    await gateway.say("for concierge")

    assert await gateway.take(wait_ms=100, lanes=64) == []


async def test_do_06_the_gateway_cannot_use_a_lease_of_an_agent(hive: Hive) -> None:
    """Even with its id and fence."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("for concierge")
    (lease,) = await concierge.take()

    with pytest.raises(CallError) as raised:
        await gateway.start(lease)

    assert raised.value.wire_code == "stale_lease"
    await concierge.start(lease)


async def test_a_relay_that_is_not_connected_gets_no_lease(hive: Hive) -> None:
    """What is said waits until the relay is there again."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    await gateway.attach("connecting")
    await concierge.answer("hello")

    waiting = asyncio.create_task(gateway.take(wait_ms=5_000))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await gateway.attach("connected")

    assert len(await waiting) == 1
    assert [row.state for row in hive.messages.relays()] == ["connected"]


async def test_the_relay_of_a_gateway_that_is_gone_is_away(hive: Hive) -> None:
    """`status` shows it, and that no gateway is attached."""
    gateway = await hive.gateway()
    assert hive.messages.gateway_attached()

    gateway.caller.close()
    await asyncio.sleep(0.05)

    assert not hive.messages.gateway_attached()
    assert [(row.relay, row.state) for row in hive.messages.relays()] == [("local", "away")]


COMMANDS = {
    "help": ("/help", "/agents"),
    "who am I": ("/whoami", "`person:1`, called Ada, on web"),
    "agents": ("/agents", "**scribe**: up"),
    "choose": ("/agent scribe", "**scribe** answers"),
    "choose nobody": ("/agent nobody", "no such agent"),
    "nothing to stop": ("/stop please", "Nothing is running"),
}


@pytest.mark.parametrize(("text", "part"), COMMANDS.values(), ids=COMMANDS.keys())
async def test_a_command_is_answered_without_an_agent(hive: Hive, text: str, part: str) -> None:
    """By the system, naming the command, and no agent sees it."""
    gateway, concierge = await hive.gateway(), await hive.pump()

    handled = await gateway.say(text)
    (answer,) = (await gateway.heard()).envelopes

    assert handled.outcome == "handled"
    assert part in answer.body
    assert (answer.kind, answer.from_) == ("system", "system")
    assert answer.route is not None
    assert answer.route.answers == ("m-1",)
    assert answer.reply_key == f"m:{answer.id}"
    assert await concierge.take(wait_ms=50) == []


async def test_a_thread_begins_with_the_agent_of_its_chat(hive: Hive) -> None:
    """And keeps it, whoever answers in the chat later."""
    gateway, scribe = await hive.gateway(), await hive.pump("scribe")
    await gateway.say("/agent scribe", message_id="m-1")
    await gateway.say("in a thread", message_id="m-2", thread_id="m-0")
    assert (await scribe.answer("yes")).envelopes[0].body == "in a thread"
    await gateway.say("/agent concierge", message_id="m-3")
    await gateway.say("once more", message_id="m-4", thread_id="m-0")
    assert (await scribe.answer("yes")).envelopes[0].body == "once more"


async def test_a_name_at_the_start_picks_the_agent(hive: Hive) -> None:
    """And the chat keeps its own agent."""
    gateway, concierge, scribe = await hive.gateway(), await hive.pump(), await hive.pump("scribe")

    await gateway.say("@scribe count this")
    await gateway.say("@nobody hello", message_id="m-2")

    assert (await scribe.take())[0].envelopes[0].body == "count this"
    assert (await concierge.take())[0].envelopes[0].body == "@nobody hello"


async def test_the_agent_of_a_chat_stays(hive: Hive) -> None:
    """`/agent` binds this chat and no other."""
    gateway, concierge, scribe = await hive.gateway(), await hive.pump(), await hive.pump("scribe")
    await gateway.say("/agent scribe")

    await gateway.say("here", message_id="m-2")
    await gateway.say("there", message_id="m-3", chat_id="c-2")

    assert (await scribe.take())[0].envelopes[0].body == "here"
    assert (await concierge.take())[0].envelopes[0].body == "there"


async def test_an_agent_that_takes_no_people_says_so(hive: Hive) -> None:
    """The person is told; nothing is stored for the agent."""
    hive.team.change("scribe", people="none")
    gateway = await hive.gateway()

    handled = await gateway.say("@scribe hello")

    assert handled.outcome == "handled"
    assert "does not take messages" in (await gateway.heard()).envelopes[0].body


async def test_stop_cancels_the_running_turn_of_this_chat(hive: Hive) -> None:
    """The pump is told at once; another chat's turn runs on; the partial text is the answer."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("here")
    await gateway.say("there", message_id="m-2", chat_id="c-2")
    here, there = await concierge.take(lanes=2)
    await concierge.start(here)
    await concierge.start(there)

    await gateway.say("/stop", message_id="m-3")
    renewed = await concierge.caller.call(
        pump.RENEW, pump.RenewArgs(lease_id=here.lease_id, fence=here.fence)
    )
    await concierge.end(here, "cancelled", reply="so far\n\n(stopped)")
    said = [(await gateway.heard()).envelopes[0].body for _ in range(2)]

    assert [(cancel.lease_id, cancel.reason) for cancel in concierge.cancels] == [(here.lease_id, "stopped")]
    assert renewed.cancel == "stopped"
    assert said == ["Stopping.", "so far\n\n(stopped)"]


async def test_interrupt_cancels_exactly_that_session(hive: Hive) -> None:
    """Another session key, chat or relay stops nothing."""
    gateway, concierge = await hive.gateway(), await hive.pump()
    await gateway.say("hello")
    lease, _ = await concierge.begin()

    async def interrupt(**facts: str) -> int:
        args = {"relay": "local", "session_key": lease.session, "chat_id": "c-1", **facts}
        return (await gateway.caller.call(door.INTERRUPT, door.InterruptArgs(**args))).cancelled

    assert await interrupt(session_key=f"{lease.session}:x") == 0
    assert await interrupt(chat_id="c-2") == 0
    assert await interrupt(relay="other") == 0
    assert await interrupt() == 1
    await asyncio.sleep(0.02)
    assert len(concierge.cancels) == 1


async def _by_command(gateway: Gateway, _lease: Lease) -> None:
    await gateway.say("/stop", message_id="m-stop")


async def _by_button(gateway: Gateway, lease: Lease) -> None:
    args = door.InterruptArgs(relay="local", session_key=lease.session, chat_id="c-1")
    assert (await gateway.caller.call(door.INTERRUPT, args)).cancelled == 1


@pytest.mark.parametrize("stop", [_by_command, _by_button], ids=["command", "button"])
@pytest.mark.parametrize("began", ["reminder", "answer"])
async def test_stop_reaches_a_turn_that_no_message_of_a_person_began(
    began: str, stop: Callable[[Gateway, Lease], Awaitable[None]]
) -> None:
    """What comes into the session of this chat may speak here; so it can be stopped from here."""
    async with open_hive(settings=BrokerSettings(reminder_min_ms=10)) as hive:
        gateway, concierge, scribe = await hive.gateway(), await hive.pump(), await hive.pump("scribe")
        await gateway.say("hello")
        asking, turn_id = await concierge.begin()
        if began == "reminder":
            await concierge.tool(turn_id, "remind", in_s=0.05, body="stretch")
            await concierge.end(asking)
        else:
            await concierge.tool(turn_id, "ask", to="agent:scribe", question="how many?")
            await concierge.end(asking)
            await scribe.answer("four")
        lease, _ = await concierge.begin()

        await stop(gateway, lease)
        renewed = await concierge.caller.call(
            pump.RENEW, pump.RenewArgs(lease_id=lease.lease_id, fence=lease.fence)
        )

        assert (lease.envelopes[0].kind, renewed.cancel) == (began, "stopped")
        assert [cancel.lease_id for cancel in concierge.cancels] == [lease.lease_id]


async def test_stop_reaches_no_reminder_of_another_chat_or_person() -> None:
    """Not from another chat, and not by another member of a group where each has a session of their own."""
    async with open_hive(settings=BrokerSettings(reminder_min_ms=10)) as hive:
        gateway, concierge = await hive.gateway(), await hive.pump()
        group = {"chat_id": "g-1", "chat_type": "group"}
        await gateway.say("hello", user_id="ada", **group)
        asking, turn_id = await concierge.begin()
        await concierge.tool(turn_id, "remind", in_s=0.05, body="stretch")
        await concierge.end(asking)
        lease, _ = await concierge.begin()

        for number, place in enumerate(({"user_id": "bob", **group}, {"user_id": "ada"})):
            await gateway.say("/stop", message_id=f"m-{number}", **place)
        refused = [(await gateway.heard()).envelopes[0].body for _ in range(2)]
        assert concierge.cancels == []
        await gateway.say("/stop", message_id="m-own", user_id="ada", **group)
        await eventually(lambda: concierge.cancels, within=500 * MS)

        assert refused == ["Nothing is running here."] * 2
        assert [cancel.lease_id for cancel in concierge.cancels] == [lease.lease_id]


REFUSED_AT_DOOR: dict[str, tuple[Method[Any, Any], object]] = {
    "tool.call": (
        tools.TOOL_CALL_IN_TURN,
        tools.ToolCallInTurnArgs(turn_id="t", call_id="c", name="whoami"),
    ),
    "memory.context": (pump.MEMORY_CONTEXT, pump.MemoryContextArgs(delivery_id=1)),
    "pump.hello": (pump.HELLO, pump.HelloArgs(harness_id="h", harness_version="0")),
    "pump.more": (pump.MORE, pump.MoreArgs(lease_id="l", fence=1)),
}


@pytest.mark.parametrize(("method", "args"), REFUSED_AT_DOOR.values(), ids=REFUSED_AT_DOOR.keys())
async def test_cp_03_the_door_knows_no_method_of_agents(
    hive: Hive, method: Method[Any, Any], args: object
) -> None:
    """It is `unknown_method`, and the connection stays."""
    gateway = await hive.gateway()

    with pytest.raises(CallError) as raised:
        await gateway.caller.call(method, args)

    assert raised.value.wire_code == "unknown_method"
    assert (await gateway.say("still here")).outcome == "stored"


async def test_gateways_are_told_whom_anybody_may_write_to(hive: Hive) -> None:
    """The default first, how each is, and how much waits for it; not an agent that is only for some."""
    hive.team.change("scribe", people=("person:7",))
    gateway, concierge = await hive.gateway(), await hive.pump()
    await eventually(lambda: len(gateway.teams) == 1, within=4_000 * MS)
    (only,) = gateway.teams[0].agents
    assert (only.name, only.role, only.state, only.waiting) == ("concierge", "manager", "idle", 0)

    hive.team.change("scribe", people="all")
    await gateway.say("hello")
    await gateway.say("and this", chat_id="c-2", message_id="m-2")
    lease, _ = await concierge.begin()
    await eventually(lambda: len(gateway.teams[-1].agents) == 2, within=4_000 * MS)
    await eventually(lambda: gateway.teams[-1].agents[0].state == "busy", within=4_000 * MS)
    assert [(agent.name, agent.waiting) for agent in gateway.teams[-1].agents] == [
        ("concierge", 1),
        ("scribe", 0),
    ]
    told = len(gateway.teams)
    await asyncio.sleep(1_500 * MS)
    assert len(gateway.teams) == told, "nothing changed"
    await concierge.end(lease)
