"""A process that works on a broker until it is killed, and writes down what was acknowledged.

Run by `test_kills.py`: `python killed.py DIRECTORY`. Each line of the journal is one acknowledged act.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

import uvloop

from skep.broker.broker import Broker
from skep.broker.types import Actor, AgentEntry, Draft, Reply
from skep.foundation.clock import SYSTEM_CLOCK
from skep.store.sqlite.engine import OpenOptions

OPERATOR = Actor(principal="operator:local", role="operator")


async def work(directory: Path) -> None:
    """Send and handle messages for ever, over a few lanes at once."""
    journal = os.open(directory / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(act: str, what: object) -> None:
        os.write(journal, f"{act} {what}\n".encode())

    broker = await Broker.open(
        directory / "hive.db", clock=SYSTEM_CLOCK, options=OpenOptions(log_bytes=1 << 20)
    )
    await broker.set_agents([AgentEntry(name=f"a{n}", state="up") for n in range(4)])
    note("up", broker.epoch)

    async def send(name: str) -> None:
        for number in itertools.count():
            sent = await broker.send(OPERATOR, Draft(to=name, body=f"{number}", session=f"s{number % 3}"))
            note("sent", sent.delivery_ids[0])

    async def handle(name: str) -> None:
        for number in itertools.count():
            (lease,) = await broker.next(lambda: (f"agent:{name}",), holder=name, wait_ms=30_000)
            turn = f"{broker.epoch}-{name}-{number}"
            await broker.started(lease.lease_id, fence=lease.fence, turn_id=turn)
            await broker.ended(
                lease.lease_id, fence=lease.fence, turn_id=turn, outcome="ok", reply=Reply(body="done")
            )
            note("done", lease.envelopes[0].delivery_id)

    async with asyncio.TaskGroup() as tasks:
        for n in range(4):
            tasks.create_task(send(f"a{n}"))
            tasks.create_task(handle(f"a{n}"))


if __name__ == "__main__":
    uvloop.run(work(Path(sys.argv[1])))
