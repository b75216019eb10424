"""skep.broker: dead letters, deadlines and what may be done to a delivery; hive, sections 3.3 and 9."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from skep.broker.errors import ClosedError, NotFoundError
from skep.broker.types import Actor
from skep.foundation.clock import ManualClock
from skep.foundation.errors import SkepError
from support.broker import OPERATOR, TEAM, Desk, agent, open_desk

MANAGER, WORKER, OTHER = agent("concierge"), agent("tester"), agent("scribe")


async def test_deadline_expires_what_waits_and_tells_its_sender(desk: Desk) -> None:
    """After the deadline it is not delivered; the sender has one receipt."""
    sent = await desk.send("scribe", by=WORKER, deadline_at=desk.clock.now_ms() + 5_000)
    desk.clock.advance(5_000)

    assert (await desk.broker.sweep()).expired == 1

    assert await desk.state(sent.delivery_ids[0]) == "expired"
    assert not await desk.waits()
    receipts = await desk.take("agent:tester")
    assert [e.kind for e in receipts.envelopes] == ["receipt"]
    assert (await desk.broker.sweep()).expired == 0


async def test_mail_that_waited_a_week_is_dead(desk: Desk) -> None:
    """7 days for messages, a day for system words; the operator's inbox has time."""
    old = await desk.send("scribe", by=WORKER)
    word = await desk.send("scribe", kind="system", session="s")
    await desk.send("operator:local", by=WORKER)
    desk.clock.advance(86_400_000 + 1)
    await desk.broker.sweep()
    assert (await desk.state(old.delivery_ids[0]), await desk.state(word.delivery_ids[0])) == (
        "ready",
        "dead",
    )

    desk.clock.advance(6 * 86_400_000)
    assert (await desk.broker.sweep()).dead == 1

    assert await desk.state(old.delivery_ids[0]) == "dead"
    assert await desk.rows("SELECT ready_n FROM lane WHERE mailbox = 'operator:local'") == [(2,)]


async def test_retired_agent_leaves_no_mail_waiting(desk: Desk) -> None:
    """Its mail is dead, its senders are told."""
    sent = await desk.send("scribe", by=WORKER)

    await desk.broker.set_agents([entry for entry in TEAM if entry.name != "scribe"])

    assert await desk.state(sent.delivery_ids[0]) == "dead"
    assert (await desk.take("agent:tester")).envelopes[0].kind == "receipt"


async def test_requeue_goes_to_the_end_of_the_lane_with_a_new_key(tmp_path: Path) -> None:
    """Attempts start again, and the answer of the new turn is not a repeat of the notice."""
    async with open_desk(tmp_path, clock=ManualClock()) as desk:
        who, chat = await desk.someone()
        sent = await desk.write(who, chat, "first")
        await desk.write(who, chat, "second", session="chat-session")
        for wait_ms in (2_000, 10_000, 60_000):
            await desk.turn("agent:concierge", outcome="error")
            desk.clock.advance(wait_ms)
        assert await desk.states() == ["dead", "dead", "ready", "ready"]
        await desk.write(who, chat, "third")

        assert await desk.broker.requeue(OPERATOR, sent.delivery_ids[0]) == "ready"

        (lease,) = [await desk.take("agent:concierge")]
        assert [(e.body, e.attempt) for e in lease.envelopes] == [("third", 1), ("first", 1)]
        await desk.broker.nack(
            lease.lease_id, fence=lease.fence, delivery_ids=[lease.envelopes[0].delivery_id]
        )
        started = await desk.broker.started(lease.lease_id, fence=lease.fence, turn_id="t")
        assert started.reply_key == f"r:{sent.id}:2"


async def test_requeue_of_what_is_alive_is_refused(desk: Desk) -> None:
    """Only dead and expired deliveries come back."""
    sent = await desk.send("scribe")

    with pytest.raises(ClosedError):
        await desk.broker.requeue(OPERATOR, sent.delivery_ids[0])


async def _dead(desk: Desk, *, by: Actor = WORKER, to: str = "scribe") -> int:
    sent = await desk.send(to, by=by, deadline_at=desk.clock.now_ms() + 1)
    desk.clock.advance(1)
    await desk.broker.sweep()
    return sent.delivery_ids[0]


async def _alive(desk: Desk, *, by: Actor = WORKER, to: str = "scribe") -> int:
    return (await desk.send(to, by=by)).delivery_ids[0]


RIGHTS = {
    "cancel: operator, any": ("cancel", _alive, OPERATOR, True),
    "cancel: sender, own": ("cancel", _alive, WORKER, True),
    "cancel: recipient": ("cancel", _alive, OTHER, False),
    "cancel: manager, between workers": ("cancel", _alive, MANAGER, True),
    "requeue: operator": ("requeue", _dead, OPERATOR, True),
    "requeue: manager, between workers": ("requeue", _dead, MANAGER, True),
    "requeue: sender": ("requeue", _dead, WORKER, False),
    "drop: operator": ("drop", _dead, OPERATOR, True),
    "drop: manager, between workers": ("drop", _dead, MANAGER, True),
    "drop: recipient": ("drop", _dead, OTHER, False),
}


@pytest.mark.parametrize(("act", "make", "actor", "allowed"), RIGHTS.values(), ids=RIGHTS.keys())
async def test_ri_01_rights_over_deliveries(
    desk: Desk, act: str, make: Callable[[Desk], Awaitable[int]], actor: Actor, *, allowed: bool
) -> None:
    """Each cell of hive, section 9.2; a denial looks like a missing id."""
    delivery_id = await make(desk)

    async def told(number: int) -> str:
        try:
            return await getattr(desk.broker, act)(actor, number)
        except SkepError as error:
            return error.problem

    if allowed:
        assert await told(delivery_id) in ("cancelled", "ready")
    else:
        assert await told(delivery_id) == await told(999_999)


async def test_ri_01_manager_may_not_touch_what_is_its_own(desk: Desk) -> None:
    """Dead letters between workers only."""
    delivery_id = await _dead(desk, by=WORKER, to="concierge")

    with pytest.raises(NotFoundError):
        await desk.broker.requeue(MANAGER, delivery_id)


async def test_cancel_of_what_is_leased_is_too_late(desk: Desk) -> None:
    """Own sent, not yet leased."""
    sent = await desk.send("scribe", by=WORKER)
    await desk.take()

    with pytest.raises(ClosedError):
        await desk.broker.cancel(WORKER, sent.delivery_ids[0])


async def test_thread_shows_each_what_they_may_read(desk: Desk) -> None:
    """The operator all of it, an agent what it wrote and what was written to it."""
    root = await desk.send("scribe", "one", by=WORKER)
    await desk.turn(reply="recorded")
    await desk.send("concierge", "two", by=OTHER, in_reply_to=root.id)

    async def bodies(actor: Actor, **page: object) -> list[str]:
        return [row["body"] for row in await desk.broker.thread(actor, root.id, **page)]  # type: ignore[arg-type]

    assert await bodies(OPERATOR) == ["one", "recorded", "two"]
    assert await bodies(OPERATOR, limit=2) == ["recorded", "two"]
    assert await bodies(WORKER) == ["one", "recorded"]
    assert await bodies(OTHER) == ["one", "recorded", "two"]
    with pytest.raises(NotFoundError):
        await desk.broker.thread(MANAGER, root.id)


async def test_queues_count_what_waits(desk: Desk) -> None:
    """By mailbox, with the age of the oldest and the running turns."""
    at = desk.clock.now_ms()
    await desk.send("scribe", session="a")
    desk.clock.advance(5)
    await desk.send("scribe", session="b")
    await desk.begin(await desk.take())
    await desk.rows("SELECT 1")

    queue = (await desk.broker.queues())["agent:scribe"]

    assert (queue.ready, queue.running, queue.oldest_at) == (1, 1, at + 5)


async def test_facts_of_the_supervisor_are_kept(tmp_path: Path) -> None:
    """What is named changes, the rest stays, a start later too."""
    async with open_desk(tmp_path) as first:
        await first.broker.set_agent_facts("scribe", pid=7, pid_start=9)
        await first.broker.set_agent_facts("scribe", note="hm")
        with pytest.raises(ValueError, match="no such fact"):
            await first.broker.set_agent_facts("scribe", password=1)
    async with open_desk(tmp_path) as second:
        facts = (await second.broker.agent_facts())["scribe"]
        assert (facts["pid"], facts["pid_start"], facts["note"], facts["uid"]) == (7, 9, "hm", None)
        await second.broker.audit("operator:local", "test", about="x")
        assert await second.rows("SELECT actor, act, object FROM audit") == [("operator:local", "test", "x")]
