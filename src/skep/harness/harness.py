"""The process of one agent.

Source: hive, section 5.4. It holds no identity of its own: who the agent is follows from the
socket that it dials.
"""

from __future__ import annotations

import asyncio

from skep.foundation.clock import Clock
from skep.foundation.paths import Home
from skep.harness.pump import Pump

__all__ = ["run_harness"]


async def run_harness(agent: str, *, home: Home, clock: Clock, stop: asyncio.Event) -> int:
    """Run turns of `agent` until stopped; return the exit code.

    Whatever ends the pump ends the process: an agent whose tools answer but whose pump is gone
    would look alive and take no mail.
    """
    return await Pump(agent=agent, home=home, clock=clock, stop=stop).run()
