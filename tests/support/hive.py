"""The message half of a daemon over a real store and real sockets, without processes around it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from skep.broker.broker import Broker
from skep.broker.types import AgentEntry, BrokerSettings
from skep.foundation.clock import SYSTEM_CLOCK, Clock
from skep.foundation.paths import Home
from skep.foundation.rpc import Caller, connect
from skep.foundation.settings import HiveSettings
from skep.hive.messages import Messages
from skep.hive.ports import AgentCard, PumpInfo, TurnStats
from skep.wire.control import door, pump, tools
from skep.wire.control.envelope import Lease
from skep.wire.control.operator import AgentState

__all__ = ["Gateway", "Hive", "Pump", "Team", "Watched", "open_hive", "person_event"]

CARDS = {
    "concierge": AgentCard(name="concierge", role="manager"),
    "scribe": AgentCard(name="scribe", max_parallel_lanes=2),
}


class Team:
    """Which agents there are (`skep.hive.ports.Agents`)."""

    def __init__(self, cards: dict[str, AgentCard] | None = None) -> None:
        self.cards = dict(CARDS if cards is None else cards)
        self.default = next(iter(self.cards))

    def names(self) -> tuple[str, ...]:
        return tuple(self.cards)

    def get(self, name: str) -> AgentCard | None:
        return self.cards.get(name)

    def state(self, name: str) -> AgentState:
        return "up"

    def change(self, name: str, **facts: Any) -> None:
        """Set an agent up differently."""
        self.cards[name] = replace(self.cards[name], **facts)


class Watched:
    """What the supervisor would be told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.turns: list[TurnStats] = []

    def on_pump_up(self, agent: str, pump: PumpInfo) -> None:
        self.told.append(("up", agent))

    def on_pump_lost(self, agent: str) -> None:
        self.told.append(("lost", agent))

    def on_missed_start(self, agent: str) -> None:
        self.told.append(("missed_start", agent))

    def on_turn_ended(self, agent: str, turn: TurnStats) -> None:
        self.told.append(("turn", agent))
        self.turns.append(turn)


class Hive:
    """A running message half."""

    def __init__(
        self, *, home: Home, broker: Broker, messages: Messages, team: Team, watched: Watched
    ) -> None:
        self.home = home
        self.broker = broker
        self.messages = messages
        self.team = team
        self.watched = watched
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._callers: list[Caller] = []

    async def gateway(self, *, relay: str = "local", attach: bool = True) -> Gateway:
        """Dial the door."""
        turns: list[door.Turn] = []
        teams: list[door.AgentsHere] = []
        caller = await connect(
            self.home.door_socket,
            role="gateway",
            events={
                "turn": lambda raw: turns.append(msgspec.json.decode(raw, type=door.Turn)),
                "agents": lambda raw: teams.append(msgspec.json.decode(raw, type=door.AgentsHere)),
            },
        )
        self._callers.append(caller)
        gateway = Gateway(caller, relay=relay, turns=turns, teams=teams)
        if attach:
            await gateway.attach()
        return gateway

    async def pump(self, agent: str = "concierge", *, takeover: bool = False) -> Pump:
        """Dial the pump socket of `agent` and say hello."""
        cancels: list[pump.Cancel] = []
        caller = await connect(
            self.home.pump_socket(agent),
            role="harness",
            events={"cancel": lambda raw: cancels.append(msgspec.json.decode(raw, type=pump.Cancel))},
        )
        self._callers.append(caller)
        hello = pump.HelloArgs(harness_id="h-1", harness_version="0", takeover=takeover)
        return Pump(caller, setup=await caller.call(pump.HELLO, hello), cancels=cancels)

    async def tools(self, agent: str = "concierge") -> Caller:
        """Dial the tool socket of `agent`."""
        caller = await connect(self.home.hive_socket(agent), role="tools")
        self._callers.append(caller)
        return caller

    def hang_up(self) -> None:
        """Close what was dialled."""
        for caller in self._callers:
            caller.close()


class Gateway:
    """The gateway's end of the door."""

    def __init__(
        self,
        caller: Caller,
        *,
        relay: str,
        turns: list[door.Turn],
        teams: Sequence[door.AgentsHere] = (),
    ) -> None:
        self.caller = caller
        self.relay = relay
        self.turns = turns
        self.teams = teams

    async def attach(self, state: Any = "connected", relay: str | None = None) -> None:
        """Tell how the relay is."""
        args = door.AttachArgs(relay=relay or self.relay, state=state)
        await self.caller.call(door.ATTACH, args)

    async def accept(self, event: object, *, buffer_id: str | None = None) -> door.AcceptResult:
        """Hand an event in."""
        args = door.AcceptArgs(
            relay=self.relay,
            event=msgspec.Raw(msgspec.json.encode(event)),
            received_at=1,
            buffer_id=buffer_id,
        )
        return await self.caller.call(door.ACCEPT, args)

    async def say(self, text: str, **facts: Any) -> door.AcceptResult:
        """Hand in what the owner wrote."""
        return await self.accept(person_event(text, **facts))

    async def take(self, *, wait_ms: int = 2_000, lanes: int = 1) -> list[Lease]:
        """Take what is to be said in chats."""
        got = await self.caller.call(pump.NEXT, pump.NextArgs(wait_ms=wait_ms, max=1, lanes=lanes))
        return list(got.leases)

    async def heard(self, *, wait_ms: int = 2_000) -> Lease:
        """Take one message for a chat, and say that the platform has it."""
        (lease,) = await self.take(wait_ms=wait_ms)
        await self.start(lease)
        await self.end(lease, ids=(f"p-{lease.envelopes[0].id}",))
        return lease

    async def start(self, lease: Lease) -> None:
        """Say that the platform is called now."""
        args = pump.StartedArgs(lease_id=lease.lease_id, fence=lease.fence, turn_id=f"g-{lease.lease_id}")
        await self.caller.call(pump.STARTED, args)

    async def end(
        self,
        lease: Lease,
        outcome: pump.Outcome = "ok",
        *,
        ids: tuple[str, ...] = (),
        code: str | None = None,
    ) -> pump.EndedResult:
        """Say what the platform answered."""
        args = pump.EndedArgs(
            lease_id=lease.lease_id,
            fence=lease.fence,
            turn_id=f"g-{lease.lease_id}",
            outcome=outcome,
            platform_message_ids=ids,
            code=code,
        )
        return await self.caller.call(pump.ENDED, args)


class Pump:
    """A harness's end of its pump socket."""

    def __init__(self, caller: Caller, *, setup: pump.HelloResult, cancels: list[pump.Cancel]) -> None:
        self.caller = caller
        self.setup = setup
        self.cancels = cancels

    async def take(self, *, wait_ms: int = 2_000, lanes: int = 1) -> list[Lease]:
        """Take leases."""
        got = await self.caller.call(pump.NEXT, pump.NextArgs(wait_ms=wait_ms, lanes=lanes))
        return list(got.leases)

    async def start(self, lease: Lease, turn_id: str | None = None) -> str:
        """Begin a turn."""
        turn_id = turn_id or f"t-{lease.lease_id}"
        args = pump.StartedArgs(lease_id=lease.lease_id, fence=lease.fence, turn_id=turn_id)
        await self.caller.call(pump.STARTED, args)
        return turn_id

    async def begin(self, *, wait_ms: int = 2_000) -> tuple[Lease, str]:
        """Take one lease and begin its turn."""
        (lease,) = await self.take(wait_ms=wait_ms)
        return lease, await self.start(lease)

    async def end(
        self, lease: Lease, outcome: pump.Outcome = "ok", *, reply: str | None = None
    ) -> pump.EndedResult:
        """End its turn."""
        args = pump.EndedArgs(
            lease_id=lease.lease_id,
            fence=lease.fence,
            turn_id=f"t-{lease.lease_id}",
            outcome=outcome,
            reply=pump.Reply(body=reply) if reply is not None else None,
        )
        return await self.caller.call(pump.ENDED, args)

    async def answer(self, reply: str) -> Lease:
        """Run one turn that says `reply`."""
        lease, _ = await self.begin()
        await self.end(lease, reply=reply)
        return lease

    async def tool(
        self, turn_id: str, name: str, *, call_id: str | None = None, **args: Any
    ) -> dict[str, Any]:
        """Call a tool in a turn."""
        call = tools.ToolCallInTurnArgs(turn_id=turn_id, call_id=call_id or name, name=name, args=args)
        return (await self.caller.call(tools.TOOL_CALL_IN_TURN, call)).result

    def progress(self, turn_id: str, seq: int, **facts: Any) -> None:
        """Tell progress."""
        self.caller.notify(pump.PROGRESS, pump.ProgressArgs(turn_id=turn_id, seq=seq, **facts))


def person_event(
    text: str, *, message_id: str | None = "m-1", chat_id: str = "c-1", **facts: Any
) -> dict[str, Any]:
    """Return an event of the web platform; `facts` of the source by name, `event_*` of the event."""
    event = {
        name.removeprefix("event_"): facts.pop(name) for name in list(facts) if name.startswith("event_")
    }
    source = {
        "platform": "web",
        "chat_id": chat_id,
        "chat_type": "dm",
        "user_id": "owner",
        "user_name": "Ada",
        "scope_id": "local",
        "user_ns": "local",
        "bot_id": "web",
        **facts,
    }
    return {"text": text, "message_type": "text", "message_id": message_id, "source": source, **event}


@asynccontextmanager
async def open_hive(
    *,
    settings: BrokerSettings | None = None,
    clock: Clock = SYSTEM_CLOCK,
    team: Team | None = None,
    root: Path | None = None,
) -> AsyncIterator[Hive]:
    """Run the message half over a store in a short directory; `root` is used again and kept."""
    path = root or Path(tempfile.mkdtemp(prefix="skep-"))
    home = Home(path)
    home.prepare()
    team = team or Team()
    events: list[tuple[str, dict[str, Any]]] = []
    broker = await Broker.open(
        home.hive_db,
        clock=clock,
        settings=settings,
        on_change=lambda kind, data: events.append((kind, dict(data))),
    )
    watched = Watched()
    messages = Messages(
        broker=broker,
        home=home,
        clock=clock,
        agents=team,
        emit=lambda kind, data: events.append((kind, data)),
        settings=HiveSettings(),
        watch=watched,
    )
    hive = Hive(home=home, broker=broker, messages=messages, team=team, watched=watched)
    hive.events = events
    try:
        await broker.set_agents(
            [
                AgentEntry(
                    name=card.name, role=card.role, state="up", people=card.people, talks_to=card.talks_to
                )
                for card in team.cards.values()
            ]
        )
        for name in team.names():
            await broker.set_agent_state(name, "up")
        await messages.start()
        for name in team.names():
            await messages.add_agent(name)
        yield hive
    finally:
        hive.hang_up()
        await messages.close()
        await broker.close()
        if root is None:
            shutil.rmtree(path, ignore_errors=True)
