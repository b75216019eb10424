"""The message half of the daemon in a process of its own, with an agent that never comes to read.

So that a bench of the way in measures the way in: no harness competes for the processors. The time (seconds of
the monotonic clock, which all processes share) at which messages were synced, and how many,
go to stdout as `STAMP`.
Run as `python -m bench.hive_half` with `SKEP_HOME` set.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Mapping
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

STAMP: Final = struct.Struct("dq")
STDOUT: Final = 1
_TELL_AGAIN_S: Final = 0.01


class _OneAgent:
    """Which agents there are: one."""

    default = "concierge"
    _card = AgentCard(name="concierge", role="manager")

    def names(self) -> tuple[str, ...]:
        return (self.default,)

    def get(self, name: str) -> AgentCard | None:
        return self._card if name == self.default else None

    def state(self, name: str) -> AgentState:
        return "up"


class _Stamps:
    """Tells how many messages were synced, and when: once for all of a turn of the loop."""

    def __init__(self) -> None:
        self._at_s = 0.0
        self._count = 0

    def synced(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take a change of the broker."""
        if kind != "delivery":
            return
        if not self._count:
            self._at_s = time.monotonic()
            asyncio.get_running_loop().call_soon(self._tell)
        self._count += 1

    def _tell(self) -> None:
        try:
            os.write(STDOUT, STAMP.pack(self._at_s, self._count))
        except BlockingIOError:  # nobody reads just now
            asyncio.get_running_loop().call_later(_TELL_AGAIN_S, self._tell)
        else:
            self._count = 0


def _ignore(kind: str, data: dict[str, Any]) -> None:
    """Nobody has subscribed."""


async def _main(stop: asyncio.Event) -> int | None:
    home = default_home()
    settings = load(home)
    agents = _OneAgent()
    broker = await Broker.open(home.hive_db, clock=SYSTEM_CLOCK, on_change=_Stamps().synced)
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
