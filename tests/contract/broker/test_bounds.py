"""skep.broker: what a store of any size may cost; hive, st-05, wp-01 and re-02."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from skep.store.queries import load_queries
from support.broker import OPERATOR, Desk, open_desk
from support.waiting import MS

PICKING = (
    "lane_pick",
    "lane_next_at",
    "mailbox_waiting",
    "envelopes_ready",
    "deliveries_of_lease",
    "lane_release",
)


async def test_st_05_picking_a_lane_is_index_probes(desk: Desk) -> None:
    """No statement on the way of a lease reads a table from end to end or sorts one."""
    for name in PICKING:
        statement = load_queries("hive")[name]
        parameters = max(number for number in range(1, 20) if f"?{number}" in statement)

        def explain(tx: Any, sql: str = statement, count: int = parameters) -> list[tuple[Any, ...]]:
            return tx._execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * count).fetchall()

        plan = [row[3] for row in await desk.broker.view(explain)]
        scans = [
            step
            for step in plan
            if step.startswith("SCAN")
            and step != "SCAN l"
            and "subquery" not in step
            and "CONSTANT" not in step
        ]
        assert scans == [], name
        assert [step for step in plan if step.startswith("SEARCH")], name


async def test_st_05_picking_among_many_lanes_costs_what_picking_among_few_does(desk: Desk) -> None:
    """5 000 lanes wait: taking one reads as few pages as if ten waited."""
    for start in range(0, 5_000, 500):
        await asyncio.gather(*(desk.send("scribe", session=f"s{n}") for n in range(start, start + 500)))
    took: list[float] = []
    for _ in range(50):
        begun = time.perf_counter()
        lease = await desk.take()
        took.append(time.perf_counter() - begun)
        await desk.end(lease, await desk.begin(lease))

    assert sorted(took)[25] < 20 * MS


async def test_wp_01_a_turn_costs_four_commits_alone_and_shares_them_in_company(desk: Desk) -> None:
    """Send, lease, start and end are one commit each; twenty at once are not twenty times as many."""
    before = desk.broker.commits
    await desk.send("scribe", session="s")
    await desk.turn()
    assert desk.broker.commits - before == 4

    async def one(number: int) -> None:
        await desk.send("scribe", session=f"s{number}")
        await desk.turn()

    before = desk.broker.commits
    await asyncio.gather(*(one(number) for number in range(20)))
    assert desk.broker.commits - before < 40


@pytest.mark.timeout(120)
async def test_re_02_opened_and_closed_a_hundred_times_leaves_nothing(tmp_path: Path) -> None:
    """Also while reminders are due: no thread is left, and no close takes long."""
    threads = threading.active_count()
    for number in range(100):
        async with open_desk(tmp_path) as desk:
            await desk.broker.remind(OPERATOR, body="x", in_ms=10_000, idem=f"{number}")
            desk.clock.advance(10_000)
            firing = desk.broker.fire_due()
            begun = time.monotonic()
            await desk.broker.close()
            assert time.monotonic() - begun < 2_000 * MS
            assert (await firing).sent == 1

    assert threading.active_count() == threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hive-")]
