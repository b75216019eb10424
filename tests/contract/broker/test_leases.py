"""skep.broker: leases and turns, against hive, sections 3.3, 5 and 6."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from skep.broker.errors import NotFoundError, NoTurnError, StaleLeaseError
from skep.broker.types import BrokerSettings, Lease
from support.broker import Desk, agent, open_desk
from support.waiting import eventually


async def test_lane_is_leased_once(desk: Desk) -> None:
    """Two turns of one lane never run together, and other lanes go on."""
    await desk.send("scribe", "1", session="a")
    await desk.send("scribe", "2", session="a")
    await desk.take()
    assert not await desk.waits()

    await desk.send("scribe", "3", session="b")

    assert (await desk.take()).session == "b"


async def test_shown_is_not_delivered_before_the_turn_begins(desk: Desk) -> None:
    """The tick is drawn at `shown`: never at `leased`."""
    sent = await desk.send("scribe")
    seen = [await desk.state(sent.delivery_ids[0])]
    lease = await desk.take()
    seen.append(await desk.state(sent.delivery_ids[0]))
    turn = await desk.begin(lease)
    seen.append(await desk.state(sent.delivery_ids[0]))
    await desk.end(lease, turn)
    seen.append(await desk.state(sent.delivery_ids[0]))

    assert seen == ["ready", "leased", "shown", "done"]
    told = [data["state"] for kind, data in desk.changes if kind == "delivery"]
    assert told == seen


async def test_st_03_stale_fence_changes_nothing(desk: Desk) -> None:
    """Once a lease has ended, its holder can do nothing with it."""
    sent = await desk.send("scribe")
    old = await desk.take()
    await desk.broker.end_leases(holder="h")
    new = await desk.take()
    turn = await desk.begin(new)

    for late in (
        lambda: desk.broker.started(old.lease_id, fence=old.fence, turn_id="t-old"),
        lambda: desk.broker.renew(old.lease_id, fence=old.fence),
        lambda: desk.broker.more(old.lease_id, fence=old.fence, limit=1),
        lambda: desk.broker.nack(old.lease_id, fence=old.fence),
        lambda: desk.broker.ended(old.lease_id, fence=old.fence, turn_id="t-old", outcome="ok"),
        lambda: desk.broker.ended(new.lease_id, fence=new.fence - 1, turn_id=turn, outcome="ok"),
        lambda: desk.broker.renew("no such lease", fence=1),
    ):
        with pytest.raises(StaleLeaseError):
            await late()

    assert await desk.state(sent.delivery_ids[0]) == "shown"
    assert new.fence > old.fence


async def test_lease_lost_before_the_turn_is_not_a_redelivery(desk: Desk) -> None:
    """What nobody has begun comes again as if for the first time (le-01)."""
    await desk.send("scribe")
    await desk.take()

    (lost,) = await desk.broker.end_leases(holder="h")

    assert (lost.turn_id, lost.missed_start) == (None, False)
    (envelope,) = (await desk.take()).envelopes
    assert (envelope.attempt, envelope.redelivered) == (1, False)


async def test_le_01_dead_turn_comes_again_marked_with_what_it_did(desk: Desk) -> None:
    """The new turn is told that it is a repeat and what the dead one had sent."""
    await desk.send("scribe", "do it", session="s")
    lease = await desk.take()
    turn = await desk.begin(lease)
    effect = await desk.send("tester", "x" * 100, by=agent("scribe", lease, turn))
    reminder = await desk.broker.remind(agent("scribe", lease, turn), body="look", in_ms=60_000)

    (lost,) = await desk.broker.end_leases(mailbox="agent:scribe")

    assert lost.turn_id == turn
    (envelope,) = (await desk.take()).envelopes
    assert (envelope.attempt, envelope.redelivered, envelope.lane_seq) == (2, True, 1)
    assert [(e.kind, e.id, e.text) for e in envelope.prior_effects] == [
        ("message", effect.id, "x" * 80),
        ("reminder", reminder.id, "look"),
    ]


async def test_start_time_out_gives_it_back_and_is_told(desk: Desk) -> None:
    """Popped and no turn: after `start_timeout` the message is ready again (hive, section 5.4)."""
    sent = await desk.send("scribe")
    await desk.take()
    desk.clock.advance(29_999)
    assert (await desk.broker.sweep()).lost == ()

    desk.clock.advance(1)
    (lost,) = (await desk.broker.sweep()).lost

    assert (lost.recipient, lost.missed_start) == ("agent:scribe", True)
    assert await desk.state(sent.delivery_ids[0]) == "ready"
    assert (await desk.take()).envelopes[0].redelivered


async def test_le_06_renewed_lease_holds_and_an_old_one_runs_out(desk: Desk) -> None:
    """A long turn keeps its lease while it renews; without, it ends after 60 s."""
    await desk.send("scribe")
    lease = await desk.take()
    await desk.begin(lease)
    for _ in range(60):
        desk.clock.advance(20_000)
        assert (await desk.broker.sweep()).lost == ()
        assert await desk.broker.renew(lease.lease_id, fence=lease.fence) > desk.clock.now_ms()

    desk.clock.advance(60_000)
    (lost,) = (await desk.broker.sweep()).lost

    assert lost.lease_id == lease.lease_id
    assert not lost.missed_start


@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000, -30 * 86_400_000])
async def test_wall_clock_that_jumps_neither_stalls_nor_doubles(desk: Desk, jump_ms: int) -> None:
    """A running turn keeps its lease, and what is sent after the jump is delivered at once, in order."""
    before = await desk.send("scribe", "before", session="s")
    lease = await desk.take()
    turn = await desk.begin(lease)

    desk.clock.jump(jump_ms)
    desk.clock.advance(1_000)
    after = await desk.send("scribe", "after", session="s")
    assert (await desk.broker.sweep()).lost == ()
    await desk.end(lease, turn)

    assert (await desk.take()).envelopes[0].id == after.id
    assert after.id > before.id
    assert (await desk.rows("SELECT count(*) FROM delivery")) == [(2,)]


async def test_clock_set_back_between_two_starts_does_not_stall(tmp_path: Path) -> None:
    """Times of the clock before never put a lane off."""
    async with open_desk(tmp_path) as first:
        await first.send("scribe", session="s")
        lease = await first.take()
        await first.begin(lease)
        await first.broker.nack(lease.lease_id, fence=lease.fence, delay_ms=60_000)
        clock = first.clock
    clock.jump(-86_400_000)
    async with open_desk(tmp_path, clock=clock) as second:
        assert await second.waits()


async def test_boot_ends_every_lease_and_raises_the_epoch(tmp_path: Path) -> None:
    """After a start no lane is held by a harness of the epoch before."""
    async with open_desk(tmp_path) as first:
        await first.send("scribe", session="a")
        await first.send("tester", session="b")
        begun, _ = await first.take(), await first.take("agent:tester")
        turn = await first.begin(begun)
        epoch = first.broker.epoch
        clock = first.clock
    async with open_desk(tmp_path, clock=clock) as second:
        assert second.broker.epoch == epoch + 1
        assert {lost.turn_id for lost in second.broker.cut_off} == {turn, None}
        with pytest.raises(StaleLeaseError):
            await second.end(begun, turn)
        assert (await second.take()).envelopes[0].redelivered
        assert not (await second.take("agent:tester")).envelopes[0].redelivered


async def test_lanes_go_by_urgency_then_by_the_oldest_head(desk: Desk) -> None:
    """Across lanes of one agent: urgency, then who has waited longest."""
    for session, urgency in (("old", "normal"), ("new", "normal"), ("soon", "soon"), ("now", "interrupt")):
        await desk.send("scribe", session=session, urgency=urgency)
        desk.clock.advance(1)

    assert [(await desk.take()).session for _ in range(4)] == ["now", "soon", "old", "new"]


async def test_interrupt_goes_before_its_lane(desk: Desk) -> None:
    """An interrupt starts the next turn; the rest keeps its order."""
    for body, urgency in (("1", "normal"), ("2", "normal"), ("stop", "interrupt")):
        await desk.send("scribe", body, session="s", urgency=urgency)

    assert [(await desk.turn()).envelopes[0].body for _ in range(3)] == ["stop", "1", "2"]


async def test_interrupt_during_a_turn_is_told(desk: Desk) -> None:
    """Who runs the turn learns at once that it should stop."""
    await desk.send("scribe", session="s")
    lease = await desk.take()
    await desk.begin(lease)

    await desk.send("scribe", "stop", session="s", urgency="interrupt")

    assert ("interrupt", {"lane": lease.lane, "recipient": "agent:scribe"}) in desk.changes


async def test_burst_of_people_comes_at_once_and_others_alone(desk: Desk) -> None:
    """A burst is what people wrote at the head; an agent's mail is handed over one by one (section 6.2)."""
    who, chat = await desk.someone()
    await desk.write(who, chat, "1")
    await desk.write(who, chat, "2")
    await desk.send("concierge", "3", session="chat-session")
    await desk.send("concierge", "4", session="chat-session")
    await desk.write(who, chat, "5")

    turns = [await desk.turn("agent:concierge") for _ in range(4)]

    assert [[e.body for e in lease.envelopes] for lease in turns] == [["1", "2"], ["3"], ["4"], ["5"]]
    assert [lease.pending.lane for lease in turns] == [3, 2, 1, 0]


async def test_quiet_window_waits_for_the_rest_of_a_burst(desk: Desk) -> None:
    """500 ms of quiet, 2 s at most; web has none."""
    who, chat = await desk.someone()
    await desk.write(who, chat, "0", quiet_ms=500)
    for body in "1234":
        desk.clock.advance(400)
        assert not await desk.waits("agent:concierge")
        await desk.write(who, chat, body, quiet_ms=500)

    desk.clock.advance(399)
    assert not await desk.waits("agent:concierge")
    desk.clock.advance(1)
    assert [e.body for e in (await desk.take("agent:concierge")).envelopes] == list("01234")


async def test_quiet_window_ends_with_the_quiet(desk: Desk) -> None:
    """The lane can be taken 500 ms after the last word, and the pump is told when to look."""
    who, chat = await desk.someone()
    await desk.write(who, chat, quiet_ms=500)
    granted = await desk.broker.take(("agent:concierge",), holder="h")
    assert (granted.leases, granted.ready_in_ms) == ((), 500)

    desk.clock.advance(500)

    assert await desk.waits("agent:concierge")


async def test_tu_01_hint_and_recv_batch(desk: Desk) -> None:
    """Four from an agent: the first turn is told of three and may take them; no turn follows."""
    for body in "1234":
        await desk.send("scribe", body, session="s", by=agent("tester"))
    lease = await desk.take()
    assert [e.body for e in lease.envelopes] == ["1"]
    assert (lease.pending.lane, lease.pending.other_lanes, lease.pending.from_) == (3, 0, ("agent:tester",))
    turn = await desk.begin(lease)

    taken, pending = await desk.broker.recv(agent("scribe", lease, turn), limit=10)
    await desk.end(lease, turn)

    assert [e.body for e in taken] == ["2", "3", "4"]
    assert pending.lane == 0
    assert await desk.states() == ["done"] * 4
    assert not await desk.waits()


async def test_tu_07_hint_of_other_conversations(desk: Desk) -> None:
    """N = 0 and M > 0: what waits elsewhere is told; nothing waiting tells nothing."""
    await desk.send("scribe", session="a")
    await desk.send("scribe", session="b", by=agent("tester"))
    await desk.send("scribe", session="b", by=agent("tester"))
    desk.clock.advance(7)

    first = await desk.take()

    assert (first.pending.lane, first.pending.other_lanes) == (0, 2)
    assert (first.pending.oldest_age_ms, first.pending.from_) == (7, ("agent:tester",))


async def test_repeated_recv_gives_the_same_again(desk: Desk) -> None:
    """After a broken connection the same `call_id` returns what this turn took with it."""
    for body in "123":
        await desk.send("scribe", body, session="s")
    lease = await desk.take()
    actor = agent("scribe", lease, await desk.begin(lease))

    first, _ = await desk.broker.recv(actor, call_id="c1")
    again, _ = await desk.broker.recv(actor, call_id="c1")
    other, _ = await desk.broker.recv(actor, call_id="c2")

    assert [e.body for e in first] == ["2"]
    assert [(e.id, e.attempt) for e in again] == [(e.id, e.attempt) for e in first]
    assert [e.body for e in other] == ["3"]


async def test_recv_outside_a_turn_and_on_a_foreign_lane(desk: Desk) -> None:
    """`no_turn` where none runs; a lane of another agent is not there."""
    await desk.send("scribe")
    lease = await desk.take()
    with pytest.raises(NoTurnError):
        await desk.broker.recv(agent("scribe", lease))
    await desk.begin(lease)
    with pytest.raises(NotFoundError):
        await desk.broker.recv(agent("tester", lease))


async def test_recv_waits_for_what_comes(desk: Desk) -> None:
    """A running turn is woken by new mail in its lane."""
    await desk.send("scribe", session="s")
    lease = await desk.take()
    actor = agent("scribe", lease, await desk.begin(lease))

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(desk.broker.recv(actor, wait_ms=5_000))
        await eventually(lambda: f"lane:{lease.lane}" in desk.broker.doorbells.names())
        await desk.send("scribe", "new", session="s")

    assert [e.body for e in waiting.result()[0]] == ["new"]


async def test_le_08_next_wakes_by_its_bell_and_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bell shortens the wait; with every bell lost the store is looked at again."""
    async with open_desk(tmp_path) as desk:

        async def wait() -> tuple[Lease, ...]:
            return await desk.broker.next(lambda: ("agent:scribe",), holder="h", wait_ms=10_000)

        async with asyncio.TaskGroup() as tasks:
            rung = tasks.create_task(wait())
            await eventually(lambda: "agent:scribe" in desk.broker.doorbells.names())
            await desk.send("scribe", session="a")
        assert rung.result()[0].session == "a"

        monkeypatch.setattr("skep.broker.broker.POLL_S", 0.05)
        monkeypatch.setattr(desk.broker.doorbells, "ring", len)
        async with asyncio.TaskGroup() as tasks:
            silent = tasks.create_task(wait())
            await eventually(lambda: "agent:scribe" in desk.broker.doorbells.names())
            await desk.send("scribe", session="b")
        assert silent.result()[0].session == "b"


async def test_next_grants_nothing_while_there_is_no_mailbox(desk: Desk) -> None:
    """A pump that is drained waits, and goes on when it is told."""
    await desk.send("scribe")
    names: list[str] = []
    changed = asyncio.Event()

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            desk.broker.next(lambda: tuple(names), holder="h", wait_ms=10_000, changed=changed)
        )
        await asyncio.sleep(0)
        names.append("agent:scribe")
        changed.set()

    assert len(waiting.result()) == 1


async def test_next_is_empty_after_its_time(desk: Desk) -> None:
    """Nothing there: nothing comes, and not later than asked."""
    assert await desk.broker.next(lambda: ("agent:scribe",), holder="h", wait_ms=5) == ()


async def test_nack_is_without_blame(desk: Desk) -> None:
    """What is given back counts no attempt, waits as long as asked, and keeps its place."""
    await desk.send("scribe", "1", session="s")
    await desk.send("scribe", "2", session="s")
    lease = await desk.take()

    await desk.broker.nack(lease.lease_id, fence=lease.fence, delay_ms=1_000)

    assert not await desk.waits()
    desk.clock.advance(1_000)
    (envelope,) = (await desk.take()).envelopes
    assert (envelope.body, envelope.attempt, envelope.redelivered) == ("1", 1, False)


async def test_nack_of_some_keeps_the_rest(desk: Desk) -> None:
    """A turn may give back a part of what it holds."""
    who, chat = await desk.someone()
    for body in "12":
        await desk.write(who, chat, body)
    lease = await desk.take("agent:concierge")

    await desk.broker.nack(lease.lease_id, fence=lease.fence, delivery_ids=[lease.envelopes[1].delivery_id])
    await desk.end(lease, await desk.begin(lease))

    assert await desk.states() == ["done", "ready"]
    assert [e.body for e in (await desk.take("agent:concierge")).envelopes] == ["2"]


async def test_held_lane_is_not_granted(desk: Desk) -> None:
    """A hold keeps a lane or a mailbox; a resume frees what was held for that reason."""
    lane = (await desk.rows("SELECT count(*) FROM lane"))[0][0]
    await desk.send("scribe", session="a")
    (lane,) = (await desk.rows("SELECT id FROM lane"))[0]
    assert await desk.broker.hold(lane=lane, reason="paused") == 1
    assert not await desk.waits()
    assert await desk.broker.resume(lane=lane, reason="restart") == 0
    assert await desk.broker.resume(lane=lane, reason="paused") == 1
    assert await desk.waits()

    assert await desk.broker.hold(mailbox="agent:scribe", reason="restart") == 1
    assert not await desk.waits()
    assert await desk.broker.resume(mailbox="agent:scribe") == 1
    assert await desk.waits()


async def test_tu_05_order_per_lane_holds_across_lost_leases(desk: Desk) -> None:
    """Interleaved senders keep their places, whatever dies."""
    for number in range(6):
        await desk.send("scribe", str(number), session="s", by=agent("tester" if number % 2 else "concierge"))
    got: list[str] = []
    for number in range(12):
        if number % 2:
            got.append((await desk.turn()).envelopes[0].body)
        else:
            await desk.begin(await desk.take())
            await desk.broker.end_leases(mailbox="agent:scribe")

    assert got == list("012345")


async def test_tu_04_two_agents_in_a_circle_are_stopped(tmp_path: Path) -> None:
    """Over 30 messages in one thread between agents: the lane is held and the manager told, once."""
    settings = BrokerSettings(guard_messages=6, buckets={"send": (1_000, 1.0)})
    async with open_desk(tmp_path, settings=settings) as desk:
        last = await desk.send("scribe", by=agent("tester"))
        speakers = ("scribe", "tester")
        for number in range(10):
            speaker, other = speakers[number % 2], speakers[1 - number % 2]
            last = await desk.send(other, by=agent(speaker), in_reply_to=last.id)

        holds = await desk.rows("SELECT recipient FROM lane WHERE hold = 'loop_guard' ORDER BY 1")
        assert holds == [("agent:scribe",), ("agent:tester",)]
        told = await desk.rows(
            "SELECT count(*) FROM message WHERE kind = 'system' AND addressed_to = 'agent:concierge'"
        )
        assert told == [(2,)]


@pytest.mark.parametrize("lanes", [1, 3])
async def test_take_gives_as_many_lanes_as_asked(desk: Desk, lanes: int) -> None:
    """A pump that runs several lanes gets several in one call."""
    for session in "abcd":
        await desk.send("scribe", session=session)

    granted = await desk.broker.take(("agent:scribe",), holder="h", lanes=lanes)

    assert [lease.session for lease in granted.leases] == list("abcd")[:lanes]
