"""skep.broker: asks, against hive, section 8.1."""

from __future__ import annotations

import asyncio
import random

import pytest

from skep.broker import asks, lanes
from skep.broker.errors import ClosedError, InvalidArgumentError, NotFoundError, TooManyOpenError
from skep.broker.types import Actor, AskOpened
from skep.foundation.errors import SkepError
from skep.store.ports import HiveTx
from support.broker import OPERATOR, Desk, agent, person
from support.waiting import eventually

STATES_OF_ANSWERS = (
    "SELECT d.state FROM delivery d JOIN message m ON m.id = d.message WHERE m.kind = 'answer'"
)


async def test_as_01_answer_comes_as_an_envelope_in_the_askers_session(desk: Desk) -> None:
    """Open, answered: the answer returns to the conversation that asked."""
    who, chat = await desk.someone()
    await desk.write(who, chat)
    lease = await desk.take("agent:concierge")
    turn = await desk.begin(lease)
    asked = await desk.broker.ask(agent("concierge", lease, turn), to="scribe", question="how many?")
    await desk.end(lease, turn)
    other = await desk.take()
    assert (other.envelopes[0].kind, other.envelopes[0].id) == ("ask", asked.id)

    await desk.broker.answer(agent("scribe"), asked.id, "42")

    answer = await desk.take("agent:concierge")
    assert answer.session == "chat-session"
    assert (answer.envelopes[0].kind, answer.envelopes[0].body) == ("answer", "42")
    assert answer.envelopes[0].in_reply_to == asked.id
    (row,) = await desk.broker.list_asks(agent("concierge"), state=None)
    assert (row.state, row.answer) == ("answered", "42")


async def test_as_01_answer_while_the_asker_waits_is_the_result(desk: Desk) -> None:
    """It comes once: as the result, and not as an envelope too."""
    await desk.send("tester")
    lease = await desk.take("agent:tester")
    actor = agent("tester", lease, await desk.begin(lease))

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(desk.broker.ask(actor, to="scribe", question="?", wait_ms=10_000))
        await eventually(lambda: any(n.startswith("ask:") for n in desk.broker.doorbells.names()))
        await desk.turn(reply="yes")

    assert (waiting.result().state, waiting.result().answer) == ("answered", "yes")
    taken, _ = await desk.broker.recv(actor)
    assert taken == ()


async def test_answer_that_was_waited_for_is_of_the_turn(desk: Desk) -> None:
    """It is shown there, ends with it, and leaves nothing that waits."""
    who, chat = await desk.someone()
    await desk.write(who, chat)
    lease = await desk.take("agent:concierge")
    turn = await desk.begin(lease)
    actor = agent("concierge", lease, turn)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            desk.broker.ask(actor, to=person(who).principal, question="tea?", wait_ms=10_000)
        )
        await eventually(lambda: any(n.startswith("ask:") for n in desk.broker.doorbells.names()))
        (asked,) = await desk.broker.list_asks(actor)
        await desk.broker.transact(
            lambda tx: asks.answer(
                tx, desk.broker.rules, person(who), asked.id, "yes", chat=chat, platform_id="m-2"
            )
        )

    assert (waiting.result().answer, waiting.result().platform_id) == ("yes", "m-2")
    assert [row[0] for row in await desk.rows(STATES_OF_ANSWERS)] == ["shown"]
    await desk.end(lease, turn, reply="tea it is")
    assert [row[0] for row in await desk.rows(STATES_OF_ANSWERS)] == ["done"]
    assert await desk.rows("SELECT ready_n FROM lane WHERE recipient = 'agent:concierge'") == [(0,)]
    said = await desk.take("door:local")
    while said.envelopes[0].kind == "ask":
        await desk.end(said, await desk.begin(said))
        said = await desk.take("door:local")
    assert said.envelopes[0].body == "tea it is"
    assert said.envelopes[0].route is not None
    assert said.envelopes[0].route.answers[-1] == "m-2"


async def test_answer_that_was_waited_for_elsewhere_counts_its_lane_right(desk: Desk) -> None:
    """What a lane holds is known after an answer was taken out of it."""
    await desk.send("tester")
    lease = await desk.take("agent:tester")
    actor = agent("tester", lease, await desk.begin(lease))
    elsewhere = Actor(
        principal=actor.principal, role=actor.role
    )  # no turn: the lane of answers is another one
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(desk.broker.ask(elsewhere, to="scribe", question="?", wait_ms=10_000))
        await eventually(lambda: any(n.startswith("ask:") for n in desk.broker.doorbells.names()))
        await desk.turn(reply="yes")
    assert waiting.result().answer == "yes"
    (row,) = await desk.rows(
        "SELECT l.id FROM lane l JOIN delivery d ON d.lane = l.id JOIN message m ON m.id = d.message "
        "WHERE m.kind = 'answer'"
    )

    def remembered(tx: HiveTx) -> object:
        lane = lanes.find(tx, row[0])
        return lane is not None and (lane.ready_n, lane.head_at)

    assert await desk.broker.transact(remembered) == (0, None)


async def test_rp_05_reply_of_a_turn_answers_the_ask_at_its_head(desk: Desk) -> None:
    """A runtime without tools can answer."""
    asked = await desk.broker.ask(agent("tester"), to="scribe", question="?")
    lease = await desk.take()
    ended = await desk.end(lease, await desk.begin(lease), reply="yes")

    assert ended.reply_to == "ask"
    (row,) = await desk.broker.list_asks(agent("tester"), state=None)
    assert (row.id, row.state, row.answer) == (asked.id, "answered", "yes")


async def test_as_02_deadline_ends_it_and_takes_the_question_back(desk: Desk) -> None:
    """Expired: the asker is told, the target no longer sees it."""
    asked = await desk.broker.ask(agent("tester"), to="scribe", question="?", deadline_ms=5_000)
    desk.clock.advance(5_000)

    assert (await desk.broker.sweep()).asks_expired == 1

    (receipt,) = (await desk.take("agent:tester")).envelopes
    assert (receipt.kind, receipt.in_reply_to) == ("receipt", asked.id)
    assert not await desk.waits()
    with pytest.raises(ClosedError):
        await desk.broker.answer(agent("scribe"), asked.id, "too late")


async def test_late_reply_of_a_turn_is_a_plain_message_marked_late(desk: Desk) -> None:
    """The words are not lost with the ask."""
    await desk.broker.ask(agent("tester"), to="scribe", question="?", deadline_ms=5_000)
    lease = await desk.take()
    turn = await desk.begin(lease)
    desk.clock.advance(5_000)
    await desk.broker.renew(lease.lease_id, fence=lease.fence)
    await desk.broker.sweep()
    await desk.turn("agent:tester")

    await desk.end(lease, turn, reply="here it is")

    (late,) = (await desk.take("agent:tester")).envelopes
    assert (late.kind, late.body, late.late) == ("message", "here it is", True)


async def test_as_04_seen_and_not_answered_is_told_once(desk: Desk) -> None:
    """Nobody waits for a silent peer; the ask stays open."""
    asked = await desk.broker.ask(agent("tester"), to="scribe", question="?")

    await desk.turn()

    (receipt,) = (await desk.take("agent:tester")).envelopes
    assert (receipt.kind, receipt.in_reply_to) == ("receipt", asked.id)
    (row,) = await desk.broker.list_asks(agent("tester"))
    assert (row.state, row.target_state) == ("open", "done")
    await desk.broker.answer(agent("scribe"), asked.id, "now")


async def test_cancelled_ask_is_taken_back(desk: Desk) -> None:
    """What nobody has seen, nobody will see."""
    asked = await desk.broker.ask(agent("tester"), to="scribe", question="?")

    assert await desk.broker.cancel_ask(agent("tester"), asked.id) == "cancelled"

    assert not await desk.waits()
    with pytest.raises(ClosedError):
        await desk.broker.cancel_ask(agent("tester"), asked.id)


async def test_ts_02_asks_of_others_look_like_missing_ones(desk: Desk) -> None:
    """Listing, cancelling and answering are for those whom it concerns."""
    asked = await desk.broker.ask(agent("tester"), to="scribe", question="?")

    assert await desk.broker.list_asks(agent("scribe")) == ()
    problems: list[str] = []
    for ask_id in (asked.id, "no-such-ask"):
        with pytest.raises(NotFoundError) as raised:
            await desk.broker.cancel_ask(agent("scribe"), ask_id)
        problems.append(raised.value.problem)
        with pytest.raises(NotFoundError):
            await desk.broker.answer(agent("concierge"), ask_id, "me!")
    assert problems[0] == problems[1]
    assert [row.id for row in await desk.broker.list_asks(OPERATOR)] == [asked.id]


async def test_ts_04_at_most_20_are_open(desk: Desk) -> None:
    """One that ends makes room."""
    asks: list[AskOpened] = []
    for _ in range(20):
        asks.append(await desk.broker.ask(agent("tester"), to="scribe", question="?"))
        desk.clock.advance(6_000)
    with pytest.raises(TooManyOpenError):
        await desk.broker.ask(agent("tester"), to="scribe", question="?")

    await desk.broker.cancel_ask(agent("tester"), asks[0].id)
    await desk.broker.ask(agent("tester"), to="scribe", question="?")


async def test_ask_to_a_person_is_said_in_their_chat_with_its_choices(desk: Desk) -> None:
    """A person answers in chat."""
    who, chat = await desk.someone()
    await desk.write(who, chat)
    lease = await desk.take("agent:concierge")
    turn = await desk.begin(lease)
    asked = await desk.broker.ask(
        agent("concierge", lease, turn), to=f"person:{who}", question="which?", choices=("a", "b")
    )
    await desk.end(lease, turn)
    said = await desk.turn("door:local", ids=("p1",))
    assert (said.envelopes[0].kind, said.envelopes[0].choices) == ("ask", ("a", "b"))
    assert not await desk.waits("agent:concierge"), "said is not seen-and-not-answered"

    await desk.broker.answer(person(who), asked.id, "b")

    (answer,) = (await desk.take("agent:concierge")).envelopes
    assert (answer.kind, answer.body, answer.from_) == ("answer", "b", f"person:{who}")


async def test_ask_to_all_is_refused(desk: Desk) -> None:
    """An ask has one target."""
    with pytest.raises(InvalidArgumentError):
        await desk.broker.ask(agent("concierge"), to="*", question="?")


async def test_target_that_is_gone_ends_it(desk: Desk) -> None:
    """A retired agent's asks have an end too."""
    from support.broker import TEAM

    asked = await desk.broker.ask(agent("tester"), to="scribe", question="?")

    await desk.broker.set_agents([entry for entry in TEAM if entry.name != "scribe"])

    (row,) = await desk.broker.list_asks(agent("tester"), state=None)
    assert (row.id, row.state) == (asked.id, "target_gone")
    assert (await desk.take("agent:tester")).envelopes[0].kind == "receipt"


async def test_m7_exactly_one_end_wins(desk: Desk) -> None:
    """Answer, cancel and expiry race in all orders: each ask has one end, and one winner is told so."""
    dice = random.Random(7)
    for _ in range(60):
        asked = await desk.broker.ask(OPERATOR, to="scribe", question="?", deadline_ms=1)
        desk.clock.advance(1)

        async def won(act: object) -> bool:
            try:
                await act()  # type: ignore[operator]
            except SkepError:
                return False
            return True

        async def expire() -> None:
            if not (await desk.broker.sweep()).asks_expired:
                raise SkepError("lost")

        acts = [
            lambda: desk.broker.answer(agent("scribe"), asked.id, "yes"),  # noqa: B023
            lambda: desk.broker.cancel_ask(OPERATOR, asked.id),  # noqa: B023
            expire,
        ]
        dice.shuffle(acts)
        wins = await asyncio.gather(*(won(act) for act in acts))

        assert sum(wins) == 1
    states = await desk.rows("SELECT DISTINCT state FROM ask")
    assert {state for (state,) in states} <= {"answered", "cancelled", "expired"}
