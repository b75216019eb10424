"""What becomes of a turn that dies or hangs, at each step of it, and of what it had shown so far.

Reliability, M4; control protocol, rp-02 and rp-03; hive, le-01 and le-06.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from faults.relay_site import hurry, running
from skep.broker.types import BrokerSettings
from skep.foundation.clock import SYSTEM_CLOCK
from skep.harness.pump import Pump as Harness
from skep.wire.control.envelope import Lease
from support.chat_client import ChatClient, History
from support.hive import Hive, Pump, open_hive, person_event
from support.waiting import MS, eventually

QUICK = BrokerSettings(
    lease_ttl_ms=int(400 * MS * 1_000), start_timeout_ms=int(250 * MS * 1_000), error_backoff_ms=(20, 20, 20)
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again in milliseconds in place of seconds."""
    hurry(monkeypatch)


async def _before_the_start(pump: Pump, lease: Lease) -> None:
    pass


async def _after_the_start(pump: Pump, lease: Lease) -> None:
    await pump.start(lease)


async def _in_a_tool(pump: Pump, lease: Lease) -> None:
    turn = await pump.start(lease)
    await pump.tool(turn, "whoami")
    pump.progress(turn, 1, kind="tool", name="whoami", state="begun")


async def _before_the_end(pump: Pump, lease: Lease) -> None:
    turn = await pump.start(lease)
    pump.progress(turn, 1, kind="text", at=0, add="I was about to")


STEPS: dict[str, Callable[[Pump, Lease], Awaitable[None]]] = {
    "before the start": _before_the_start,
    "after the start": _after_the_start,
    "in a tool": _in_a_tool,
    "before the end": _before_the_end,
}


async def _state(hive: Hive, delivery: int) -> str:
    def read(tx: Any) -> str:
        return tx._execute("SELECT state FROM delivery WHERE id = ?1", (delivery,)).fetchall()[0][0]

    await hive.broker.transact(lambda tx: None)
    return await hive.broker.view(read)


@pytest.mark.parametrize("agent", ["concierge", "scribe"])
@pytest.mark.parametrize("is_hung", [False, True], ids=["dies", "hangs"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
async def test_m4_le_01_popped_is_not_delivered(
    agent: str,
    step: Callable[[Pump, Lease], Awaitable[None]],
    is_hung: bool,  # noqa: FBT001
) -> None:
    """A loop that dies or hangs after it took a message: no turn, no delivery; then another turn runs for it."""
    async with open_hive(settings=QUICK) as hive:
        gateway = await hive.gateway()
        first = await hive.pump(agent)
        await gateway.accept(person_event(f"@{agent} hello"))
        (lease,) = await first.take()
        (envelope,) = lease.envelopes
        assert await _state(hive, envelope.delivery_id) == "leased"
        await step(first, lease)
        begun = step is not _before_the_start
        seen = await _state(hive, envelope.delivery_id)
        if not is_hung:
            first.caller.close()
        await eventually(lambda: _is_ready(hive, envelope.delivery_id), within=5_000 * MS)

        assert seen == ("shown" if begun else "leased")
        second = await hive.pump(agent, takeover=True)
        again, _ = await second.begin()
        await second.end(again, reply="hello yourself")
        assert again.envelopes[0].delivery_id == envelope.delivery_id
        assert again.envelopes[0].redelivered == (begun or is_hung)
        assert await _state(hive, envelope.delivery_id) == "done"
        said = await gateway.heard()
        assert said.envelopes[0].body == "hello yourself"


async def _is_ready(hive: Hive, delivery: int) -> bool:
    return await _state(hive, delivery) == "ready"


async def test_le_06_a_turn_that_outlives_its_lease_is_kept_by_renewals() -> None:
    """The harness renews while the answer streams: the turn is many leases long, and runs once."""
    lease_ttl_ms = int(120 * MS * 1_000)
    async with open_hive(settings=BrokerSettings(lease_ttl_ms=lease_ttl_ms)) as hive:
        gateway, stop = await hive.gateway(), asyncio.Event()
        harness = Harness(agent="concierge", home=hive.home, clock=SYSTEM_CLOCK, stop=stop)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(harness.run())
            for number in range(3):
                await gateway.accept(person_event("hello", message_id=f"m-{number}"))
                said = await gateway.heard(wait_ms=10_000)
                assert "interrupted" not in said.envelopes[0].body
            stop.set()

        turns = hive.watched.turns
        assert [turn.outcome for turn in turns] == ["ok"] * 3
        assert min(turn.ended_at - turn.started_at for turn in turns) > lease_ttl_ms


async def _begin_and_show(pump: Pump, person: ChatClient, text: str) -> tuple[Lease, str]:
    """Begin a turn, and let the person see the first words of it; return the id of what they see."""
    lease, turn = await pump.begin(wait_ms=10_000)
    pump.progress(turn, 1, kind="text", at=0, add=text)
    await person.until(lambda: text in person.drafts.values(), limit_s=10)
    return lease, next(message for message, draft in person.drafts.items() if draft == text)


async def test_rp_02_a_retried_turn_replaces_the_draft_of_the_dead_one(quick: None) -> None:
    """The harness dies while its words are seen; the next turn's answer stands in the same place, once."""
    async with running() as site:
        person = ChatClient(f"http://127.0.0.1:{site.port}", name="p", history=History())
        await person.sign_in(await site.code())
        asked = await person.send(await person.conversation("rp-02"), "hello")
        first = await site.hive.pump()
        _, shown = await _begin_and_show(first, person, "half of an ans")
        first.caller.close()

        second = await site.hive.pump()
        await second.answer("the whole answer")

        answer = await person.answered(asked, limit_s=10)
        assert (answer["id"], answer["text"]) == (shown, "the whole answer")
        await asyncio.sleep(200 * MS)
        assert person.answers[asked] == [shown]
        assert person.drafts == {}
        await person.close()


async def test_rp_03_a_turn_that_is_given_up_replaces_its_draft_by_a_notice(quick: None) -> None:
    """After the last try the person reads that it failed, where the first words were."""
    async with running(QUICK) as site:
        person = ChatClient(f"http://127.0.0.1:{site.port}", name="p", history=History())
        await person.sign_in(await site.code())
        asked = await person.send(await person.conversation("rp-03"), "hello")
        pump = await site.hive.pump()
        shown = ""
        for number in range(3):
            lease, shown = await _begin_and_show(pump, person, f"try {number}")
            await pump.end(lease, "error")

        answer = await person.answered(asked, limit_s=10)
        assert answer["id"] == shown
        assert answer["text"].startswith("I could not finish this")
        await asyncio.sleep(200 * MS)
        assert person.answers[asked] == [shown]
        assert await pump.take(wait_ms=50) == []
        await person.close()
