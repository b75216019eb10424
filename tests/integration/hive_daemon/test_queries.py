"""skep.hive.queries and skep.hive.overview over a real store: what they say equals a recount."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from skep.broker.broker import Broker
from skep.broker.errors import ClosedError, NotFoundError
from skep.broker.types import Actor, AgentEntry, BrokerSettings, Draft, Reply
from skep.foundation.clock import ManualClock
from skep.foundation.errors import SkepError
from skep.hive.agents import DEFAULT_AGENTS, Roster
from skep.hive.overview import Overview
from skep.hive.queries import Queries
from skep.hive.telemetry import HOUR_MS, Telemetry
from skep.store.ports import HiveTx
from skep.store.sqlite.driver import Db, connect
from skep.wire.control.operator import AgentRow, QueryArgs, QueryName
from support.daemon import open_daemon, short_home
from support.hive import person_event
from support.still import Still

AGENTS = ("concierge", "scribe")
PLENTY = BrokerSettings(
    buckets=dict.fromkeys(("send", "broadcast", "ask", "remind"), (10000, 1.0)),
    guard_messages=10_000,
    asks_max=1_000,
    reminders_max=1_000,
    failures_max=2,
    error_backoff_ms=(1,),
)
ALIVE = {"scheduled", "ready", "leased", "shown"}


class Archive:
    """A hive in which a lot has happened, and its raw tables."""

    def __init__(self, broker: Broker, telemetry: Telemetry, db: Db, clock: ManualClock, home: Any) -> None:
        self.broker = broker
        self.clock = clock
        roster, still = Roster(DEFAULT_AGENTS), Still()
        self.queries = Queries(broker, telemetry, roster=roster)
        self.overview = Overview(
            store=broker,
            telemetry=telemetry,
            roster=roster,
            live=still,
            views=still,
            home=home,
            clock=clock,
            epoch=1,
        )
        self._db = db

    def raw(self, table: str) -> list[dict[str, Any]]:
        """Return all rows of a table."""
        columns = [row[1] for row in self._db.execute(f"PRAGMA table_info({table})").fetchall()]
        rows = self._db.execute(f"SELECT * FROM {table}").fetchall()
        return [dict(zip(columns, row, strict=True)) for row in rows]

    async def all(self, name: QueryName, **params: Any) -> list[dict[str, Any]]:
        """Return all rows of a query, page by page; no page is longer than asked."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await self.queries.run(QueryArgs(name=name, params=params, cursor=cursor))
            assert len(page.rows) <= params.get("limit", 500)
            rows += page.rows
            cursor = page.cursor
            if cursor is None:
                return rows


def actor(name: str, *, lane: int | None = None, turn_id: str | None = None) -> Actor:
    """An agent."""
    role = "manager" if name == "concierge" else "agent"
    return Actor(principal=f"agent:{name}", role=role, lane=lane, turn_id=turn_id)


async def live(broker: Broker, clock: ManualClock, rng: random.Random, steps: int) -> None:
    """Let agents write, ask, remind, answer, fail and forget, at random."""
    sent: list[str] = []
    asks: list[str] = []
    reminders: list[str] = []
    turns = 0
    for _ in range(steps):
        clock.advance(rng.randrange(1, 60_000))
        name = rng.choice(AGENTS)
        other = AGENTS[1 - AGENTS.index(name)]
        act = rng.randrange(9)
        try:
            if act <= 1:
                reply_to = rng.choice(sent) if sent and rng.random() < 0.7 else None
                draft = Draft(to=rng.choice((other, "*")), body=f"words {turns}", in_reply_to=reply_to)
                sent.append((await broker.send(actor(name), draft)).id)
            elif act == 2:
                asks.append((await broker.ask(actor(name), to=other, question="why?")).id)
            elif act == 3:
                due = rng.choice((10_000, 3 * HOUR_MS))
                reminders.append((await broker.remind(actor(name), body="tea", in_ms=due, session="s")).id)
            elif act == 4 and asks:
                await broker.cancel_ask(actor(name), rng.choice(asks))
            elif act == 5 and reminders:
                await broker.cancel_reminder(actor(name), rng.choice(reminders))
            elif act == 6:
                await broker.fire_due()
            else:
                granted = await broker.take([f"agent:{name}"], holder="h")
                for lease in granted.leases:
                    turns += 1
                    await broker.started(lease.lease_id, fence=lease.fence, turn_id=f"t-{turns}")
                    if rng.random() < 0.2:
                        continue  # it still runs
                    outcome = rng.choice(("ok", "error"))
                    await broker.ended(
                        lease.lease_id,
                        fence=lease.fence,
                        turn_id=f"t-{turns}",
                        outcome=outcome,
                        reply=Reply(body="done") if outcome == "ok" else None,
                    )
            if act == 8:
                await broker.sweep()
        except (ClosedError, NotFoundError):
            continue  # it has ended by itself in the meantime


@pytest.fixture
async def archive() -> AsyncIterator[Archive]:
    """A store with a random history."""
    clock = ManualClock()
    async with short_home() as home:
        broker = await Broker.open(home.hive_db, clock=clock, settings=PLENTY)
        telemetry = await Telemetry.open(home.telemetry_db, boot_epoch=1, clock=clock)
        await broker.set_agents([AgentEntry(name="concierge", role="manager"), AgentEntry(name="scribe")])
        await live(broker, clock, random.Random(5), 900)
        db = connect(home.hive_db, flags=1, vfs=None)  # read-only
        yield Archive(broker, telemetry, db, clock, home)
        db.close()
        await telemetry.close()
        await broker.close()


async def test_threads_equal_a_recount(archive: Archive) -> None:
    """Each thread once, the newest first, with what is in it and where it stands."""
    messages, deliveries = archive.raw("message"), archive.raw("delivery")
    held = {lane["id"] for lane in archive.raw("lane") if lane["hold"] is not None}
    by_thread: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for message in sorted(messages, key=lambda row: row["id"]):
        by_thread[message["thread"]].append(message)
    thread_of = {message["id"]: message["thread"] for message in messages}
    states: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for delivery in deliveries:
        states[thread_of[delivery["message"]]].append(delivery)
    expected: list[tuple[Any, ...]] = []
    for thread, found in sorted(by_thread.items(), key=lambda item: item[1][-1]["id"], reverse=True):
        waiting = [row for row in states[thread] if row["state"] in ALIVE]
        dead = sum(row["state"] == "dead" for row in states[thread])
        is_stuck = dead > 0 or any(row["lane"] in held for row in waiting)
        people: list[str] = []
        for message in found:
            people += [message["sender"], message["addressed_to"]]
        expected.append(
            (
                thread,
                found[0]["body"],
                len(found),
                "stuck" if is_stuck else "moving" if waiting else "earlier",
                len(waiting),
                dead,
                tuple(dict.fromkeys(people)),
                found[-1]["created_at"],
            )
        )

    for limit in (3, 500):
        rows = await archive.all("threads", limit=limit)
        assert [
            (
                row["id"],
                row["opening"],
                row["messages"],
                row["stage"],
                row.get("waiting", 0),
                row.get("dead", 0),
                tuple(row["people"]),
                row["last_at"],
            )
            for row in rows
        ] == expected
    assert {stage for _, _, _, stage, *_ in expected} == {"stuck", "moving", "earlier"}


async def test_a_thread_shows_each_message_and_each_delivery(archive: Archive) -> None:
    """Ticks are drawn from the states on disk, and from nothing else."""
    messages = archive.raw("message")
    largest = Counter(message["thread"] for message in messages).most_common(1)[0][0]
    expected = sorted(message["id"] for message in messages if message["thread"] == largest)
    states = Counter(
        (delivery["message"], delivery["state"])
        for delivery in archive.raw("delivery")
        if delivery["message"] in expected
    )

    for limit in (2, 500):
        rows = await archive.all("thread", id=largest, limit=limit)
        assert [row["id"] for row in rows] == expected
        assert (
            Counter((row["id"], each["state"]) for row in rows for each in row.get("deliveries", ()))
            == states
        )
        assert [row["id"] for row in rows if row.get("broadcast")] == [
            message["id"]
            for message in sorted(messages, key=lambda row: row["id"])
            if message["thread"] == largest and message["addressed_to"] == "*"
        ]


@pytest.mark.parametrize("state", ["open", "closed", "all"])
async def test_asks_and_reminders_equal_a_recount(archive: Archive, state: str) -> None:
    """In their order, whole and by agent."""

    def chosen(table: str, is_open: str, who: Callable[[dict[str, Any]], set[str]]) -> Any:
        def pick(agent: str | None) -> list[str]:
            return sorted(
                row["id"]
                for row in archive.raw(table)
                if (state == "all" or (state == "open") == (row["state"] == is_open))
                and (agent is None or f"agent:{agent}" in who(row))
            )

        return pick

    asks = chosen("ask", "open", lambda row: {row["asker"], row["target"]})
    reminders = chosen("reminder", "armed", lambda row: {row["owner"]})
    for agent in (None, "scribe"):
        found = await archive.all("asks", state=state, agent=agent, limit=7)
        assert [row["id"] for row in found] == sorted(asks(agent), reverse=True)
        due = await archive.all("reminders", state=state, agent=agent, limit=7)
        assert sorted(row["id"] for row in due) == reminders(agent)
        assert len(due) > 7 or state != "all"
    if state == "open":
        soonest = [row["due_at"] for row in await archive.all("reminders", limit=7)]
        assert soonest == sorted(soonest)


async def test_dead_letters_and_lanes_equal_a_recount(archive: Archive) -> None:
    """What was given up, and where something waits, runs or is held."""
    await archive.broker.hold(mailbox="agent:scribe", reason="paused")
    dead = {row["id"] for row in archive.raw("delivery") if row["state"] in {"dead", "expired"}}
    lanes = {
        row["id"]: (row["ready_n"], row["hold"])
        for row in archive.raw("lane")
        if row["ready_n"] > 0 or row["lease_id"] is not None or row["hold"] is not None
    }
    rows = await archive.all("dead", limit=2)
    found = await archive.all("lane", limit=2)

    assert {row["delivery_id"] for row in rows} == dead
    assert len(rows) == len(dead) > 2
    assert [row["at"] for row in rows] == sorted((row["at"] for row in rows), reverse=True)
    assert {row["lane"]: (row.get("ready", 0), row.get("hold")) for row in found} == lanes


async def test_te_05_rows_of_agents_equal_a_recount(archive: Archive) -> None:
    """Queue, asks, reminders of 24 hours by hour, and dead letters."""
    now = archive.clock.now_ms()
    since = now - 24 * HOUR_MS
    lanes = {row["id"]: row["recipient"] for row in archive.raw("lane")}
    made = {row["id"]: row["created_at"] for row in archive.raw("message")}
    deliveries, attempts = archive.raw("delivery"), archive.raw("reminder_attempt")

    def expected(who: str) -> dict[str, Any]:
        ready = [row for row in deliveries if lanes[row["lane"]] == who and row["state"] == "ready"]
        tried = [row for row in attempts if row["owner"] == who and row["at"] >= since]
        reminders = [row for row in archive.raw("reminder") if row["owner"] == who]
        return {
            "queue": len(ready),
            "oldest_at": min((made[row["message"]] for row in ready), default=None),
            "dead": sum(lanes[row["lane"]] == who and row["state"] == "dead" for row in deliveries),
            "open_asks": sum(row["asker"] == who and row["state"] == "open" for row in archive.raw("ask")),
            "open_reminders": sum(row["state"] == "armed" for row in reminders),
            "reminders_sent": sum((row["sent_at"] or 0) >= since for row in reminders),
            "reminders_tried": len(tried),
            "hours": Counter((row["at"] - since) // HOUR_MS for row in tried),
        }

    def told(row: AgentRow) -> dict[str, Any]:
        hours = {hour: tried for hour, (tried, _) in enumerate(row.reminder_hours) if tried}
        return {
            **{name: getattr(row, name) for name in expected(f"agent:{row.name}") if name != "hours"},
            "hours": hours,
        }

    rows = await archive.overview.agents()
    assert {row.name: told(row) for row in rows} == {name: expected(f"agent:{name}") for name in AGENTS}
    assert all(row.reminders_sent > 0 and row.dead > 0 for row in rows)


async def test_a_page_stops_at_a_mebibyte(archive: Archive) -> None:
    """Long messages make shorter pages, and none is left out."""
    root: str | None = None
    for _ in range(40):
        sent = await archive.broker.send(
            actor("scribe"), Draft(to="concierge", body="x" * 60_000, in_reply_to=root)
        )
        root = root or sent.id
    page = await archive.queries.run(QueryArgs(name="thread", params={"id": root}))

    assert 10 < len(page.rows) < 20
    assert len(await archive.all("thread", id=root)) == 40


async def test_people_are_told_by_name(archive: Archive) -> None:
    """An id alone means nothing to an operator."""

    def add(tx: HiveTx) -> int:
        row = tx.one("person_insert", "Ada", None, archive.clock.now_ms())
        return cast("int", row[0]) if row else 0

    person = await archive.broker.transact(add)
    await archive.broker.send(
        Actor(principal=f"person:{person}", role="person"), Draft(to="scribe", body="hello")
    )
    page = await archive.queries.run(QueryArgs(name="threads", params={"limit": 1}))

    assert page.names == {f"person:{person}": "Ada"}


async def test_the_timeline_shows_what_happened_newest_first(archive: Archive) -> None:
    """Page by page, of one agent and of several side by side."""
    rows = await archive.all("timeline", agents=["scribe"], limit=50)
    times = [row["at"] for row in rows]

    assert times == sorted(times, reverse=True)
    assert {row["agent"] for row in rows} == {"scribe"}
    assert {row["what"] for row in rows} >= {"stored", "done", "dead"}
    assert {row["agent"] for row in await archive.all("timeline", limit=500)} == set(AGENTS)


async def test_an_unknown_thread_is_not_found(archive: Archive) -> None:
    """As one that is there and foreign would be."""
    with pytest.raises(SkepError) as raised:
        await archive.queries.run(QueryArgs(name="thread", params={"id": "nothing"}))

    assert raised.value.wire_code == NotFoundError.code.rpartition(".")[2]


async def test_a_thread_is_called_by_what_was_written_not_by_what_was_said_before() -> None:
    """An agent reads what surrounds a message with it; an operator looks for the message."""
    around = person_event("Five shops list them.", message_id="m-0", user_name="scout")
    async with open_daemon() as daemon:
        gateway = await daemon.gateway()
        await gateway.accept(person_event("and the seal?", message_id="m-1", event_context=[around]))
        await gateway.accept(person_event("[Recent channel messages] is what it says", message_id="m-2"))
        found = {row["opening"] for row in await daemon.query("threads")}
    assert found == {"and the seal?", "[Recent channel messages] is what it says"}
