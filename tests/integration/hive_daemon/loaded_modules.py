"""Run a daemon for a moment; print what it has imported, and `INET` if it has a network socket."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.paths import Home
from skep.foundation.rpc import connect
from skep.foundation.settings import Settings
from skep.hive.daemon import run_daemon
from skep.wire.control import operator
from skep.wire.control.base import NoArgs


async def main(root: Path) -> None:
    """Start it, wait until an agent is up, look, stop it."""
    stop = asyncio.Event()
    home = Home(root)
    home.prepare()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run_daemon(Settings(), home, SYSTEM_CLOCK, stop))
        while not home.cli_socket.exists() and not running.done():
            await asyncio.sleep(0.02)
        caller = await connect(home.cli_socket, role="cli")
        while not any(
            agent.state == "up" for agent in (await caller.call(operator.AGENT_LIST, NoArgs())).agents
        ):
            await asyncio.sleep(0.02)
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        sockets = {str(link.readlink())[8:-1] for link in links if "socket:" in _target(link)}
        for table in ("tcp", "tcp6", "udp", "udp6"):
            rows = Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
            if any(row.split()[9] in sockets for row in rows):
                sys.stdout.write("INET\n")
        caller.close()
        stop.set()
    sys.stdout.write("\n".join(sys.modules))


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


asyncio.run(main(Path(sys.argv[1])))
