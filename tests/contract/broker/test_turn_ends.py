"""skep.broker: how turns end and where answers go, against control protocol, sections 5 and 6.2."""

from __future__ import annotations

import pytest

from skep.broker.errors import TooLargeError
from support.broker import Desk, agent


async def test_answer_and_done_are_one_transaction(desk: Desk) -> None:
    """One answer: the reply is stored and its turn is over in one commit."""
    who, chat = await desk.someone()
    asked = await desk.write(who, chat, "hi", platform_id="m_1")
    lease = await desk.take("agent:concierge")
    turn = await desk.begin(lease)
    before = desk.broker.commits

    ended = await desk.end(lease, turn, reply="hello")

    assert desk.broker.commits == before + 1
    assert (ended.reply_to, ended.duplicate) == (f"chat:{chat}", False)
    (envelope,) = (await desk.take("door:local")).envelopes
    assert (envelope.body, envelope.to, envelope.from_) == ("hello", f"person:{who}", "agent:concierge")
    assert envelope.agent == "concierge"
    assert envelope.in_reply_to == asked.id
    assert envelope.thread == asked.thread
    assert envelope.reply_key == f"r:{asked.id}"
    route = envelope.route
    assert route is not None
    assert (route.relay, route.platform, route.chat_id) == ("local", "web", "c1")
    assert (route.reply_to, route.answers, route.repeat) == ("m_1", ("m_1",), False)


async def test_reply_of_a_turn_that_could_not_be_closed_is_not_stored(desk: Desk) -> None:
    """Cut between the reply and `done`, neither is there, and the turn can end again."""
    who, chat = await desk.someone()
    await desk.write(who, chat)
    lease = await desk.take("agent:concierge")
    turn = await desk.begin(lease)
    await desk.sql(
        "CREATE TEMP TRIGGER cut BEFORE UPDATE ON main.delivery WHEN NEW.state = 'done' "
        "BEGIN SELECT RAISE(ABORT, 'cut'); END"
    )
    with pytest.raises(Exception, match="cut"):
        await desk.end(lease, turn, reply="hello")
    await desk.sql("DROP TRIGGER cut")
    assert await desk.rows("SELECT count(*) FROM message") == [(1,)]

    await desk.end(lease, turn, reply="hello")

    assert await desk.rows("SELECT count(*) FROM message") == [(2,)]


async def test_started_says_where_the_answer_will_go(desk: Desk) -> None:
    """Progress finds its chat, under the key of the answer."""
    who, chat = await desk.someone()
    asked = await desk.write(who, chat, "1", platform_id="m_1")
    await desk.write(who, chat, "2", platform_id="m_2")
    lease = await desk.take("agent:concierge")

    started = await desk.broker.started(lease.lease_id, fence=lease.fence, turn_id="t")

    assert started.reply_key == f"r:{asked.id}"
    assert started.shown == ("m_1", "m_2")
    assert started.route is not None
    assert (started.route.chat_id, started.route.reply_to) == ("c1", "m_2")


async def test_burst_gets_one_answer_that_names_all_of_it(desk: Desk) -> None:
    """Every message is named by exactly one `answers`."""
    who, chat = await desk.someone()
    for number in range(3):
        await desk.write(who, chat, platform_id=f"m_{number}")

    await desk.turn("agent:concierge", reply="all of it")

    (envelope,) = (await desk.take("door:local")).envelopes
    assert envelope.route is not None
    assert envelope.route.answers == ("m_0", "m_1", "m_2")
    assert envelope.route.reply_to == "m_2"
    assert not await desk.waits("door:local")


async def test_rp_01_repeated_end_is_known(desk: Desk) -> None:
    """After a lost connection the same `turn_id` gives the same, also when others ran since."""
    who, chat = await desk.someone()
    await desk.write(who, chat)
    lease = await desk.take("agent:concierge")
    turn = await desk.begin(lease)
    first = await desk.end(lease, turn, reply="hello")

    again = await desk.end(lease, turn, reply="hello")
    await desk.write(who, chat)
    await desk.turn("agent:concierge")
    later = await desk.end(lease, turn, reply="hello")

    assert (again.message_id, again.duplicate) == (first.message_id, True)
    assert (later.message_id, later.duplicate) == (first.message_id, True)
    assert await desk.rows("SELECT count(*) FROM message WHERE sender = 'agent:concierge'") == [(1,)]


async def test_turn_without_words_only_ends(desk: Desk) -> None:
    """No reply, or an empty one, says nothing to anybody."""
    who, chat = await desk.someone()
    await desk.write(who, chat)

    await desk.turn("agent:concierge", reply="  ")

    assert not await desk.waits("door:local")


async def test_stopped_turn_keeps_what_it_said(desk: Desk) -> None:
    """`cancelled` ends the partial text with `(stopped)`, and the message is done."""
    who, chat = await desk.someone()
    sent = await desk.write(who, chat)

    await desk.turn("agent:concierge", outcome="cancelled", reply="half of")

    assert (await desk.take("door:local")).envelopes[0].body == "half of\n(stopped)"
    assert await desk.state(sent.delivery_ids[0]) == "done"


async def test_cancelled_before_it_began_is_ready_again(desk: Desk) -> None:
    """What was never shown was never handled."""
    await desk.send("scribe")
    lease = await desk.take()

    await desk.end(lease, "never-begun", "cancelled")

    assert (await desk.take()).envelopes[0].attempt == 1


async def test_reply_to_the_operator_goes_to_the_inbox(desk: Desk) -> None:
    """Head from the operator: the operator's inbox."""
    await desk.send("scribe")
    ended = await desk.turn(reply="done, operator")

    rows = await desk.rows(
        "SELECT l.recipient, l.session FROM delivery d JOIN lane l ON l.id = d.lane WHERE d.id = 2"
    )
    assert rows == [("operator:local", "inbox")]
    assert ended.session == "dm:operator:local"


async def test_reply_to_another_agent_is_only_recorded(desk: Desk) -> None:
    """Words of a turn that an agent's mail began go nowhere by themselves; the thread keeps them."""
    sent = await desk.send("scribe", by=agent("tester"))
    await desk.turn(reply="just thinking")

    assert await desk.rows("SELECT count(*) FROM delivery") == [(1,)]
    rows = await desk.rows(f"SELECT body FROM message WHERE thread = '{sent.thread}' ORDER BY id")
    assert rows == [("hello",), ("just thinking",)]


async def test_reply_over_64_kib_is_refused_and_the_turn_goes_on(desk: Desk) -> None:
    """Nothing is stored, nothing is done."""
    await desk.send("scribe")
    lease = await desk.take()
    turn = await desk.begin(lease)
    with pytest.raises(TooLargeError):
        await desk.end(lease, turn, reply="x" * 65_537)

    assert await desk.states() == ["shown"]
    await desk.end(lease, turn, reply="shorter")


async def test_failed_turn_is_tried_after_2_10_s_then_given_up(desk: Desk) -> None:
    """Three errors: the message is dead, and the person is told under the key of the answer (rp-03)."""
    who, chat = await desk.someone()
    sent = await desk.write(who, chat, platform_id="m_1")
    for wait_ms in (2_000, 10_000):
        await desk.turn("agent:concierge", outcome="error")
        assert not await desk.waits("agent:concierge")
        desk.clock.advance(wait_ms)

    lease = await desk.take("agent:concierge")
    assert lease.envelopes[0].attempt == 3
    ended = await desk.end(lease, await desk.begin(lease), "error")

    assert ended.dead == 1
    assert await desk.state(sent.delivery_ids[0]) == "dead"
    (notice,) = (await desk.take("door:local")).envelopes
    assert (notice.kind, notice.from_, notice.reply_key) == ("system", "system", f"r:{sent.id}")
    assert notice.route is not None
    assert notice.route.answers == ("m_1",)
    assert not await desk.waits("door:local")


async def test_platform_ids_are_kept_so_that_a_reply_finds_its_message(desk: Desk) -> None:
    """Table `said`: what the platform calls our message."""
    who, chat = await desk.someone()
    await desk.write(who, chat)
    ended = await desk.turn("agent:concierge", reply="hi")
    sent = await desk.turn("door:local", ids=("p1", "p2"))

    rows = await desk.rows("SELECT chat, platform_id, message FROM said ORDER BY platform_id")
    assert rows == [(chat, "p1", sent.envelopes[0].id), (chat, "p2", sent.envelopes[0].id)]
    assert ended.lane != sent.lane


async def test_refused_by_the_platform_is_dead_at_once_with_a_receipt(desk: Desk) -> None:
    """A definite refusal is not tried again; the agent that sent it learns of it in its session."""
    who, chat = await desk.someone()
    await desk.write(who, chat)
    await desk.turn("agent:concierge", reply="hi")

    await desk.turn("door:local", outcome="refused", code="blocked")

    (receipt,) = (await desk.take("agent:concierge")).envelopes
    assert receipt.kind == "receipt"
    assert await desk.rows("SELECT state, reason FROM delivery WHERE id = 2") == [
        ("dead", "refused: blocked")
    ]


async def test_tu_06_unknown_outcome_is_tried_once_more_with_its_mark(desk: Desk) -> None:
    """The platform may have it: again once with `repeat`, under the same key, then dead."""
    who, chat = await desk.someone()
    asked = await desk.write(who, chat)
    await desk.turn("agent:concierge", reply="hi")
    await desk.turn("door:local", outcome="unknown")
    desk.clock.advance(2_000)

    second = await desk.take("door:local")

    (envelope,) = second.envelopes
    assert envelope.route is not None
    assert envelope.route.repeat
    assert envelope.reply_key == f"r:{asked.id}"
    assert (await desk.end(second, await desk.begin(second), "unknown")).dead == 1


@pytest.mark.parametrize(("begun", "repeat"), [(False, False), (True, True)])
async def test_tu_06_gateway_lost_before_and_during_the_call(
    desk: Desk, *, begun: bool, repeat: bool
) -> None:
    """Only a call that may have reached the platform carries the mark."""
    who, chat = await desk.someone()
    await desk.write(who, chat)
    await desk.turn("agent:concierge", reply="hi")
    lease = await desk.take("door:local")
    for _ in range(int(begun)):
        await desk.begin(lease)

    await desk.broker.end_leases(holder="h")

    (envelope,) = (await desk.take("door:local")).envelopes
    assert envelope.route is not None
    assert envelope.route.repeat is repeat


async def test_order_holds_per_chat_and_a_blocked_chat_blocks_itself(desk: Desk) -> None:
    """One lane per chat (section 5.3)."""
    ann, first = await desk.someone("Ann", chat="c1")
    bob, second = await desk.someone("Bob", chat="c2")
    for who, chat in ((ann, first), (ann, first), (bob, second)):
        await desk.write(who, chat, session=f"s{chat}")
        await desk.turn("agent:concierge", reply=f"to {chat}")
        desk.clock.advance(1)

    one = await desk.take("door:local")
    other = await desk.take("door:local")

    assert (one.envelopes[0].body, other.envelopes[0].body) == (f"to {first}", f"to {second}")
    assert not await desk.waits("door:local")


async def test_st_07_always_written_never_confirmed_ends_in_dead(desk: Desk) -> None:
    """Five attempts, each cut off: dead, and the sender has a receipt."""
    sent = await desk.send("scribe", by=agent("tester"))
    for _ in range(5):
        await desk.begin(await desk.take())
        await desk.broker.end_leases(mailbox="agent:scribe")

    assert await desk.state(sent.delivery_ids[0]) == "dead"
    (receipt,) = (await desk.take("agent:tester")).envelopes
    assert (receipt.kind, receipt.in_reply_to) == ("receipt", sent.id)
    assert not await desk.waits()


async def test_restarts_of_the_daemon_alone_never_make_a_dead_letter(desk: Desk) -> None:
    """What the daemon cut off itself is not the message's fault."""
    from skep.broker import sweeps

    sent = await desk.send("scribe")
    for _ in range(8):
        await desk.begin(await desk.take())
        await desk.broker.transact(lambda tx: sweeps.boot(tx, desk.broker.rules))

    assert await desk.state(sent.delivery_ids[0]) == "ready"
    assert (await desk.take()).envelopes[0].redelivered
