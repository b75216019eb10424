"""A broker over a real store in a temporary directory, and the few acts that most tests begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from skep.broker import lanes, ops, people
from skep.broker.broker import Broker
from skep.broker.types import Actor, AgentEntry, BrokerSettings, ChatSeen, Draft, Lease, Outcome, Reply, Sent
from skep.foundation.clock import Clock, ManualClock
from skep.store.ports import HiveTx
from skep.store.sqlite.engine import OpenOptions

__all__ = ["OPERATOR", "Desk", "agent", "open_desk", "person"]

OPERATOR = Actor(principal="operator:local", role="operator")
TEAM = (
    AgentEntry(name="concierge", role="manager", state="up"),
    AgentEntry(name="scribe", state="up"),
    AgentEntry(name="tester", state="up"),
)


def agent(name: str, lease: Lease | None = None, turn_id: str | None = None) -> Actor:
    """An agent, in the turn of a lease when one is given."""
    role = "manager" if name == "concierge" else "agent"
    lane = lease.lane if lease is not None else None
    return Actor(principal=f"agent:{name}", role=role, lane=lane, turn_id=turn_id)


def person(number: int) -> Actor:
    """A person, by number."""
    return Actor(principal=f"person:{number}", role="person")


class Desk:
    """One broker, its clock, and short forms of what tests do all the time."""

    def __init__(self, broker: Broker, clock: ManualClock) -> None:
        self.broker = broker
        self.clock = clock
        self.changes: list[tuple[str, dict[str, Any]]] = []
        self._turns = 0

    def changed(self, kind: str, data: Mapping[str, Any]) -> None:
        self.changes.append((kind, dict(data)))

    async def send(self, to: str, body: str = "hello", *, by: Actor = OPERATOR, **fields: Any) -> Sent:
        return await self.broker.send(by, Draft(to=to, body=body, **fields))

    async def someone(self, name: str = "Ann", *, chat: str = "c1", chat_type: str = "dm") -> tuple[int, int]:
        """Make a person who has written in a chat; return both ids."""

        def op(tx: HiveTx) -> tuple[int, int]:
            row = tx.one("person_insert", name, None, self.broker.rules.time.stamp())
            assert row is not None
            seen = ChatSeen(
                relay="local",
                platform="web",
                bot_id="bot",
                chat_id=chat,
                chat_type=chat_type,
                user_id=name,
                person=row[0],
            )
            return row[0], people.see_chat(tx, self.broker.rules, seen).id

        return await self.broker.transact(op)

    async def see(self, who: int, name: str, *, chat: str) -> int:
        """Note that a person writes in a chat; return its id."""
        seen = ChatSeen("local", "web", "bot", chat, user_id=name, person=who)
        return (await self.broker.transact(lambda tx: people.see_chat(tx, self.broker.rules, seen))).id

    async def write(
        self,
        who: int,
        chat: int,
        body: str = "hello",
        *,
        to: str = "concierge",
        session: str = "chat-session",
        **fields: Any,
    ) -> Sent:
        """Let a person write in a chat, as the door does."""
        draft = Draft(to=to, body=body, session=session, chat=chat, **fields)
        rules = self.broker.rules
        return await self.broker.transact(lambda tx: ops.send(tx, rules, person(who), draft))

    async def take(self, mailbox: str = "agent:scribe", *, holder: str = "h", burst: int = 20) -> Lease:
        """Lease the next lane of a mailbox; there must be one."""
        granted = await self.broker.take((mailbox,), holder=holder, burst=burst)
        assert len(granted.leases) == 1, "nothing to take"
        return granted.leases[0]

    async def waits(self, mailbox: str = "agent:scribe") -> bool:
        """Whether a lane of the mailbox can be taken now (it is given back)."""
        granted = await self.broker.take((mailbox,), holder="look")
        for lease in granted.leases:
            await self.broker.nack(lease.lease_id, fence=lease.fence)
        return bool(granted.leases)

    async def begin(self, lease: Lease) -> str:
        self._turns += 1
        turn_id = f"turn-{self._turns}"
        await self.broker.started(lease.lease_id, fence=lease.fence, turn_id=turn_id)
        return turn_id

    async def end(
        self,
        lease: Lease,
        turn_id: str,
        outcome: Outcome = "ok",
        *,
        reply: str | None = None,
        ids: Sequence[str] = (),
        code: str | None = None,
    ) -> Any:
        return await self.broker.ended(
            lease.lease_id,
            fence=lease.fence,
            turn_id=turn_id,
            outcome=outcome,
            reply=Reply(body=reply) if reply is not None else None,
            platform_message_ids=ids,
            code=code,
        )

    async def turn(self, mailbox: str = "agent:scribe", *, reply: str | None = None, **ending: Any) -> Lease:
        """Take, begin and end one turn; return its lease."""
        lease = await self.take(mailbox)
        await self.end(lease, await self.begin(lease), reply=reply, **ending)
        return lease

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Read what the store holds, past all code under test, once all before is committed."""
        await self.broker.transact(lambda tx: None)  # a lease is granted before its commit
        return await self.broker.view(lambda tx: tx._execute(sql).fetchall())  # type: ignore[attr-defined]

    async def sql(self, statement: str) -> None:
        """Change what the store holds, or how, past all code under test."""
        await self.broker.transact(lambda tx: tx._execute(statement).fetchall())  # type: ignore[attr-defined]

    async def mistaken(self) -> list[object]:
        """Return what the writer remembers of lanes that is not so."""

        def look(tx: HiveTx) -> list[object]:
            known = [lane for lane in tx.memo.values() if isinstance(lane, lanes.Lane)]
            stored = [lanes.Lane(*(tx.one("lane", lane.id) or ())) for lane in known]
            pairs = [
                (msgspec.structs.replace(lane, held=None), row)
                for lane, row in zip(known, stored, strict=True)
            ]
            return [pair for pair in pairs if pair[0] != pair[1]]

        return await self.broker.transact(look)

    async def state(self, delivery_id: int) -> str:
        rows = await self.rows(f"SELECT state FROM delivery WHERE id = {delivery_id}")
        return rows[0][0]

    async def states(self) -> list[str]:
        return [row[0] for row in await self.rows("SELECT state FROM delivery ORDER BY id")]


@asynccontextmanager
async def open_desk(
    directory: Path,
    *,
    clock: ManualClock | None = None,
    settings: BrokerSettings | None = None,
    agents: Sequence[AgentEntry] = TEAM,
    options: OpenOptions | None = None,
) -> AsyncIterator[Desk]:
    """Open the broker of a directory; a second time it is a second start."""
    used: Clock = clock or ManualClock()
    assert isinstance(used, ManualClock)
    broker = await Broker.open(
        directory / "hive.db", clock=used, settings=settings, options=options or OpenOptions(log_bytes=0)
    )
    desk = Desk(broker, used)
    broker.on_change = desk.changed
    try:
        await broker.set_agents(agents)
        yield desk
    finally:
        await broker.close()
