"""skep.broker: reminders, against hive, sections 7.7 and 8.2 to 8.5."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from skep.broker.errors import (
    AlreadySentError,
    IdempotencyConflictError,
    InvalidArgumentError,
    NotFoundError,
    TooFarError,
    TooLargeError,
    TooManyOpenError,
    TooSoonError,
)
from skep.broker.types import BrokerSettings
from skep.foundation.clock import ManualClock
from skep.foundation.errors import SkepError
from support.broker import OPERATOR, Desk, agent, open_desk

ME = agent("scribe")


async def test_fires_once_and_not_before_its_time(desk: Desk) -> None:
    """One envelope of kind `reminder`, in the session where it was made."""
    await desk.send("scribe", session="talk")
    lease = await desk.take()
    armed = await desk.broker.remind(agent("scribe", lease), body="tea", in_ms=10_000)
    assert armed.due_at == desk.clock.now_ms() + 10_000
    await desk.end(lease, await desk.begin(lease))
    desk.clock.advance(9_999)
    assert (await desk.broker.fire_due()).sent == 0

    desk.clock.advance(1)
    fired = [await desk.broker.fire_due() for _ in range(3)]

    assert [batch.sent for batch in fired] == [1, 0, 0]
    lease = await desk.take()
    assert (lease.session, lease.envelopes[0].kind, lease.envelopes[0].from_) == (
        "talk",
        "reminder",
        "reminder",
    )
    assert lease.envelopes[0].body == "tea"


async def test_re_05_clock_that_jumps_fires_none_early_and_none_twice(desk: Desk) -> None:
    """Due is what the wall clock says; the key stands for one due time."""
    await desk.broker.remind(ME, body="tea", in_ms=3_600_000)
    desk.clock.jump(-3_600_000)
    assert (await desk.broker.fire_due()).sent == 0
    desk.clock.jump(2 * 3_600_000)
    assert (await desk.broker.fire_due()).sent == 1
    desk.clock.jump(-3_600_000)
    assert (await desk.broker.fire_due()).sent == 0
    desk.clock.jump(7_200_000)
    assert (await desk.broker.fire_due()).sent == 0


async def test_batches_are_bounded_and_say_whether_there_is_more(tmp_path: Path) -> None:
    """A burst leaves room for others: 256 in one transaction, then the next."""
    settings = BrokerSettings(reminders_max=1_000, buckets={"remind": (1_000, 1.0)})
    async with open_desk(tmp_path, settings=settings) as desk:
        for number in range(300):
            await desk.broker.remind(ME, body=str(number), in_ms=10_000)
        desk.clock.advance(10_000)

        first, second = await desk.broker.fire_due(), await desk.broker.fire_due()

        assert (first.sent, first.more) == (256, True)
        assert (second.sent, second.more, second.next_due_at) == (44, False, None)
        assert await desk.rows("SELECT count(*), sum(ok) FROM reminder_attempt") == [(300, 300)]


@pytest.mark.parametrize(("missed", "state"), [("once", "sent"), ("skip", "skipped"), ("all", "sent")])
async def test_re_06_down_at_its_time(tmp_path: Path, missed: str, state: str) -> None:
    """After a start each `missed` policy does what it says; the text says how late it is."""
    clock = ManualClock()
    async with open_desk(tmp_path, clock=clock) as first:
        armed = await first.broker.remind(ME, body="tea", in_ms=10_000, missed=missed)
    clock.advance(3_600_000 + 10_000)
    async with open_desk(tmp_path, clock=clock) as second:
        await second.broker.fire_due()

        assert await second.rows(f"SELECT state FROM reminder WHERE id = '{armed.id}'") == [(state,)]
        bodies = await second.rows("SELECT body FROM message")
        assert bodies == ([] if state == "skipped" else [("tea\n(due 60 min ago)",)])


async def test_reminder_of_a_retired_agent_fails_and_stops_no_other(desk: Desk) -> None:
    """One bad row does not stop the rest."""
    from support.broker import TEAM

    await desk.broker.remind(agent("tester"), body="gone", in_ms=10_000)
    await desk.broker.remind(ME, body="tea", in_ms=10_000)
    await desk.broker.set_agents([entry for entry in TEAM if entry.name != "tester"])
    desk.clock.advance(10_000)

    fired = await desk.broker.fire_due()

    assert (fired.sent, fired.failed) == (1, 1)


async def test_cancel_and_list_are_for_the_owner_and_operators(desk: Desk) -> None:
    """ts-02: another agent's reminder looks like a missing one."""
    armed = await desk.broker.remind(ME, body="tea", in_ms=60_000)
    assert await desk.broker.list_reminders(agent("tester")) == ()
    with pytest.raises(NotFoundError) as foreign:
        await desk.broker.cancel_reminder(agent("tester"), armed.id)
    with pytest.raises(NotFoundError) as missing:
        await desk.broker.cancel_reminder(agent("tester"), "no-such-id")
    assert foreign.value.problem == missing.value.problem

    assert [row.id for row in await desk.broker.list_reminders(OPERATOR)] == [armed.id]
    assert await desk.broker.cancel_reminder(ME, armed.id) == "cancelled"
    assert await desk.broker.list_reminders(ME) == ()


async def test_re_07_cancel_and_fire_have_exactly_one_winner(desk: Desk) -> None:
    """Both are conditional on `armed`; who lost is told."""
    for number in range(100):
        armed = await desk.broker.remind(OPERATOR, body="x", in_ms=10_000, session="s")
        desk.clock.advance(10_000)

        async def cancel(reminder_id: str = armed.id) -> bool:
            try:
                await desk.broker.cancel_reminder(OPERATOR, reminder_id)
            except AlreadySentError:
                return False
            return True

        async def fire() -> bool:
            return (await desk.broker.fire_due()).sent == 1

        acts = [cancel, fire] if number % 2 else [fire, cancel]
        assert sum(await asyncio.gather(*(act() for act in acts))) == 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"in_ms": 9_999}, TooSoonError),
        ({"in_ms": 400 * 86_400_000 + 1}, TooFarError),
        ({"in_ms": 60_000, "body": "x" * 4_097}, TooLargeError),
        ({"in_ms": 60_000, "missed": "never"}, InvalidArgumentError),
        ({"in_ms": 60_000, "due_at": 1}, InvalidArgumentError),
        ({}, InvalidArgumentError),
    ],
)
async def test_re_01_bounds_of_a_reminder(
    desk: Desk, fields: dict[str, object], error: type[SkepError]
) -> None:
    """Each bound of hive, section 7.7, with nothing stored."""
    with pytest.raises(error):
        await desk.broker.remind(ME, **{"body": "x", **fields})  # type: ignore[arg-type]

    assert await desk.rows("SELECT count(*) FROM reminder") == [(0,)]


async def test_re_01_at_most_50_are_armed(desk: Desk) -> None:
    """The next is refused, and one that ends makes room."""
    armed = None
    for _ in range(50):
        armed = await desk.broker.remind(ME, body="x", in_ms=86_400_000)
        desk.clock.advance(30_000)
    assert armed is not None
    assert (armed.open, armed.limit) == (50, 50)
    with pytest.raises(TooManyOpenError):
        await desk.broker.remind(ME, body="x", in_ms=86_400_000)

    await desk.broker.cancel_reminder(ME, armed.id)
    await desk.broker.remind(ME, body="x", in_ms=86_400_000)


async def test_same_key_is_the_same_reminder(desk: Desk) -> None:
    """A repeat arms nothing; other words under the key are a conflict."""
    first = await desk.broker.remind(ME, body="tea", in_ms=60_000, idem="k")
    again = await desk.broker.remind(ME, body="tea", in_ms=60_000, idem="k")

    assert (again.id, again.duplicate) == (first.id, True)
    with pytest.raises(IdempotencyConflictError):
        await desk.broker.remind(ME, body="coffee", in_ms=60_000, idem="k")
