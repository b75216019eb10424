"""The message half of a daemon in a process of its own, to be killed: `python mail_daemon.py DIRECTORY AGENT...`.

Real sockets and the real store; no harness is started, and limits of agents are out of the way.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skep.broker.types import BrokerSettings
from skep.hive.ports import AgentCard
from support.hive import Team, open_hive

__all__: list[str] = []

PLENTY = 1 << 30


async def main(root: Path, agents: list[str]) -> None:
    """Serve until killed."""
    settings = BrokerSettings(
        attempts_max=PLENTY,
        queue_max=PLENTY,
        guard_messages=PLENTY,
        buckets={"send": (PLENTY, 0.001), "broadcast": (PLENTY, 0.001)},
    )
    team = Team({name: AgentCard(name=name, max_parallel_lanes=4) for name in agents})
    async with open_hive(settings=settings, team=team, root=root):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2:]))
