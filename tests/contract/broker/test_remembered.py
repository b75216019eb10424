"""skep.broker: what the writer remembers is what the store says, whatever was undone or changed behind it."""

from __future__ import annotations

import asyncio

import pytest

from skep.broker import ops
from skep.broker.errors import NoSuchRecipientError
from skep.broker.types import AgentEntry, Draft
from skep.foundation.errors import SkepError
from skep.store.ports import HiveTx
from support.broker import OPERATOR, Desk, person

STILL = AgentEntry(name="concierge", role="manager", state="up")


async def _lane(desk: Desk, session: str = "s") -> tuple[object, ...]:
    rows = await desk.rows(f"SELECT next_seq, ready_n, hold, fence FROM lane WHERE session = '{session}'")
    return rows[0]


async def test_a_place_that_was_undone_is_taken_by_the_next(desk: Desk) -> None:
    """An operation that fails after it has sent leaves no gap in the lane and no count behind."""
    await desk.send("scribe", session="s")

    def fails(tx: HiveTx) -> None:
        ops.send(tx, desk.broker.rules, OPERATOR, Draft(to="scribe", body="undone", session="s"))
        raise SkepError("no")

    with pytest.raises(SkepError):
        await desk.broker.transact(fails)
    await desk.send("scribe", "second", session="s")

    assert await _lane(desk) == (3, 2, None, 0)
    bodies: list[str] = []
    for _ in range(2):
        lease = await desk.take()
        bodies.append(lease.envelopes[0].body)
        await desk.end(lease, await desk.begin(lease))
    assert bodies == ["hello", "second"]


async def test_many_at_once_are_what_they_would_be_one_by_one(desk: Desk) -> None:
    """Fifty sends, leases and ends that wait together: each its own place, lease and end; one of them fails."""
    sends = [desk.send("scribe", f"{n}", session=f"s{n % 5}") for n in range(50)]
    sends.insert(20, desk.send("nobody"))
    done = await asyncio.gather(*sends, return_exceptions=True)
    assert isinstance(done.pop(20), NoSuchRecipientError)

    seen: dict[str, list[int]] = {}
    for _ in range(10):
        leases = await asyncio.gather(*(desk.take() for _ in range(5)))
        assert len({lease.lane for lease in leases}) == 5
        for lease in leases:
            seen.setdefault(lease.session, []).append(int(lease.envelopes[0].body))
        turns = [await desk.begin(lease) for lease in leases]
        await asyncio.gather(*(desk.end(lease, turn) for lease, turn in zip(leases, turns, strict=True)))

    assert seen == {f"s{k}": list(range(k, 50, 5)) for k in range(5)}
    assert await desk.rows("SELECT sum(ready_n), count(lease_id) FROM lane") == [(0, 0)]


async def test_a_lane_that_is_held_is_not_leased_although_it_was_known(desk: Desk) -> None:
    """Hold and resume change lanes in bulk: what was remembered of them is read again."""
    await desk.send("scribe", session="s")
    await desk.broker.hold(mailbox="agent:scribe", reason="paused")
    await desk.send("scribe", "second", session="s")

    assert not await desk.waits()
    assert await _lane(desk) == (3, 2, "paused", 0)
    await desk.broker.resume(mailbox="agent:scribe")
    lease = await desk.take()
    assert lease.pending.lane == 1


async def test_an_agent_that_is_gone_gets_nothing_more(desk: Desk) -> None:
    """Who was known as a recipient a moment ago is refused as soon as the configuration says so."""
    await desk.send("scribe")
    await desk.broker.set_agents([STILL])

    with pytest.raises(NoSuchRecipientError):
        await desk.send("scribe")


async def test_a_person_is_reached_where_they_wrote_last(desk: Desk) -> None:
    """Going back and forth between two chats within a minute is noticed each time."""
    who, first = await desk.someone("Ann", chat="c1")
    second = await desk.see(who, "Ann", chat="c2")
    assert first != second

    for chat, place in (("c1", first), ("c2", second), ("c1", first)):
        desk.clock.advance(5)
        assert await desk.see(who, "Ann", chat=chat) == place
        await desk.send(f"person:{who}", chat)
        lease = await desk.take("door:local")
        assert lease.envelopes[0].route is not None
        assert lease.envelopes[0].route.chat_id == chat
        await desk.end(lease, await desk.begin(lease))


async def test_what_waits_elsewhere_is_counted_right_after_everything(desk: Desk) -> None:
    """The hint of a lease equals a count of the store: after sends, leases, ends, give-backs and cancels."""
    for n in range(6):
        await desk.send("scribe", session=f"s{n}")
    one = await desk.take()
    assert one.pending.other_lanes == 5
    await desk.broker.nack(one.lease_id, fence=one.fence)
    two = await desk.take()
    assert two.pending.other_lanes == 5
    await desk.end(two, await desk.begin(two))
    sent = await desk.send("scribe", session="late")
    await desk.broker.cancel(OPERATOR, sent.delivery_ids[0])
    three = await desk.take()
    assert three.pending.other_lanes == 4


async def test_a_reader_remembers_nothing(desk: Desk) -> None:
    """What a view has read once is read again by the next one."""

    def look(tx: HiveTx) -> object:
        return ops.agent_of(tx, "scribe")

    for _ in range(4):  # more than there are readers
        assert await desk.broker.view(look) is not None
    await desk.broker.set_agents([STILL])
    for _ in range(4):
        assert await desk.broker.view(look) is None


async def test_people_and_operators_are_posted_in_the_order_of_their_calls(desk: Desk) -> None:
    """Messages that are stored together keep the order of the calls in their lane."""
    who, chat = await desk.someone()
    await asyncio.gather(*(desk.write(who, chat, f"{n}") for n in range(20)))
    lease = await desk.take("agent:concierge")

    assert [envelope.body for envelope in lease.envelopes] == [f"{n}" for n in range(20)]
    assert lease.envelopes[0].from_ == person(who).principal
