"""The broker: send → receive → acknowledge, every step synced, beside the disk and beside two other brokers.

Ours runs in the process of the bench as it does in the daemon's, without a socket; the others are reached
over loopback, as programs reach them. One message goes at a time in each of 64 tasks.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from bench import peers
from bench.floor import append_rate
from bench.measure import Effort, Row, percentile, ratio_of
from bench.processes import scratch
from skep.broker import leases, ops
from skep.broker.broker import Broker
from skep.broker.types import Actor, AgentEntry, Draft
from skep.foundation.clock import SYSTEM_CLOCK
from skep.store.ports import HiveTx

__all__ = ["lane_rows", "rows"]

IN_FLIGHT: Final = 64
FLOOR_APPENDS: Final = 400
LANES: Final = 100_000
PICKS: Final = 2_000
_AGENT: Final = "agent:scribe"
_ONE: Final = leases.Wanted((_AGENT,), "bench", burst=20, lanes=1)
_ACTOR: Final = Actor(principal="operator:local", role="operator")
_BODY: Final = (
    "Please look at the hives in the north field when you have a minute, and tell me how they are. " * 2
)


async def rows(effort: Effort) -> list[Row]:
    """Measure one broker after the other, round by round."""
    floors: list[float] = []
    ours: list[float] = []
    cpu_us: list[float] = []
    rates: dict[str, list[float]] = {}
    with scratch() as where:
        broker = await _open(where)
        found = await peers.start_all(where)
        try:
            for _ in range(effort.rounds):
                floors.append(append_rate(where, count=FLOOR_APPENDS))
                begun = time.process_time()
                rate, count = await _cycles(broker, span_s=effort.span_s)
                cpu_us.append((time.process_time() - begun) / count * 1e6)
                ours.append(rate)
                for peer in found.running:
                    rate = await peer.rate(body=_BODY, in_flight=IN_FLIGHT, span_s=effort.span_s)
                    rates.setdefault(peer.name, []).append(rate)
        finally:
            await found.close()
            await broker.close()
    own, floor = ratio_of(ours).median, ratio_of(floors).median
    what = "hive send → receive → ack, synced, 64 in flight"
    made = [
        Row(
            name="hive",
            what=what,
            beside=f"append + fdatasync, {floor:,.0f}/s",
            ratio=ratio_of(ours, floors),
            bar=2.5,
            goal=5,
            moonshot=8,
            rate=f"{own:,.0f}/s",
            cpu=f"{ratio_of(cpu_us).median:.0f} µs",
            details={"cycles_per_s": own, "floor_per_s": floor},
        )
    ]
    for name, why in found.named.items():
        theirs = rates.get(name)
        made.append(
            Row(
                name="hive",
                what="the same",
                beside=f"{name}, {ratio_of(theirs).median:,.0f}/s" if theirs else name,
                ratio=ratio_of(ours, theirs) if theirs else None,
                bar=4,
                goal=6,
                moonshot=10,
                rate=f"{own:,.0f}/s",
                note=why,
                details={"peer_per_s": ratio_of(theirs).median} if theirs else {},
            )
        )
    return made


async def lane_rows(effort: Effort) -> list[Row]:
    """Measure how long the next lane takes to be found and leased, out of very many."""
    count = int(LANES * effort.scale)
    with scratch() as where:
        broker = await _open(where)
        try:
            for start in range(0, count, 500):
                await broker.transact(lambda tx, at=start: _fill(tx, broker, at))
            took = [await broker.transact(lambda tx: _timed_take(tx, broker)) for _ in range(PICKS)]
        finally:
            await broker.close()
    p50, p99 = percentile(took, 50) * 1e3, percentile(took, 99) * 1e3
    return [
        Row(
            name="lanes",
            what=f"next lane out of {count:,} waiting, found and leased, p99 in ms",
            beside="",
            ratio=ratio_of([p99]),
            bar=1.0,
            goal=0.1,
            moonshot=0.05,
            is_less_better=True,
            rate=f"p50 {p50:.3f} ms",
            details={"p50_ms": p50, "p99_ms": p99},
        )
    ]


async def _open(where: Path) -> Broker:
    broker = await Broker.open(where / "hive.db", clock=SYSTEM_CLOCK)
    await broker.set_agents(
        [AgentEntry(name="scribe", role="agent", state="up", people="all", talks_to="all")]
    )
    return broker


async def _cycles(broker: Broker, *, span_s: float) -> tuple[float, int]:
    """Return messages a second that were sent, received and acknowledged, and how many."""
    count = 0
    begun = time.perf_counter()
    end = begun + span_s

    async def worker(number: int) -> None:
        nonlocal count
        turn = 0
        while time.perf_counter() < end:
            await broker.send(_ACTOR, Draft(to=_AGENT, body=_BODY, session=f"s-{number}"))
            granted = await broker.take((_AGENT,), holder="bench")
            while not granted.leases:
                await asyncio.sleep(0)
                granted = await broker.take((_AGENT,), holder="bench")
            lease = granted.leases[0]
            turn += 1
            await broker.ended(
                lease.lease_id, fence=lease.fence, turn_id=f"t-{number}-{turn}-{begun}", outcome="ok"
            )
            count += 1

    await asyncio.gather(*(worker(number) for number in range(IN_FLIGHT)))
    return count / (time.perf_counter() - begun), count


def _fill(tx: HiveTx, broker: Broker, start: int) -> None:
    for number in range(start, start + 500):
        ops.send(tx, broker.rules, _ACTOR, Draft(to=_AGENT, body="x", session=f"s-{number}"))


def _timed_take(tx: HiveTx, broker: Broker) -> float:
    begun = time.perf_counter()
    (granted,) = leases.take_all(tx, broker.rules, (_ONE,))
    took = time.perf_counter() - begun
    assert granted.leases
    return took
