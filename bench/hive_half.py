"""The message half of the daemon in a process of its own, with an agent that never comes to read.

So that a bench of the way in measures the way in: no harness competes for the processors. The time (seconds of
the monotonic clock, which all processes share) at which a message was synced goes to stdout, 8 bytes each.
Run as `python -m bench.hive_half` with `SKEP_HOME` set.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from skep.broker.broker import Broker
from skep.broker.types import AgentEntry
from skep.foundation import log
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.process import run_service
from skep.foundation.settings import default_home, load
from skep.hive.messages import Messages
from skep.hive.ports import AgentCard
from skep.wire.control.operator import AgentState

__all__ = ["STAMP"]

STAMP: Final = struct.Struct("d")
STDOUT: Final = 1


class _OneAgent:
    """Which agents there are: one."""

    default = "concierge"

    def names(self) -> tuple[str, ...]:
        return (self.default,)

    def get(self, name: str) -> AgentCard | None:
        return AgentCard(name=name, role="manager") if name == self.default else None

    def state(self, name: str) -> AgentState:
        return "up"


def _synced(kind: str, data: Mapping[str, Any]) -> None:
    """Tell when a message was synced; while nobody reads, nobody is told."""
    if kind == "delivery":
        with suppress(BlockingIOError):
            os.write(STDOUT, STAMP.pack(time.monotonic()))


def _ignore(kind: str, data: dict[str, Any]) -> None:
    """Nobody has subscribed."""


async def _main(stop: asyncio.Event) -> int | None:
    home = default_home()
    settings = load(home)
    agents = _OneAgent()
    broker = await Broker.open(home.hive_db, clock=SYSTEM_CLOCK, on_change=_synced)
    messages = Messages(
        broker=broker, home=home, clock=SYSTEM_CLOCK, agents=agents, emit=_ignore, settings=settings.hive
    )
    await broker.set_agents(
        [AgentEntry(name=agents.default, role="manager", state="up", people="all", talks_to="all")]
    )
    await messages.start()
    await stop.wait()
    await messages.close()
    await broker.close()
    return None


if __name__ == "__main__":
    log.configure(process="hive", level="info", log_format="json")
    default_home().prepare()
    os.set_blocking(STDOUT, False)
    run_service(_main)
