"""`kill -9` of the daemon as its own process, with the agents that ship; control protocol, sections 6.3 and 11."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.errors import SkepError
from skep.foundation.paths import Home
from skep.foundation.rpc import Caller, connect
from skep.foundation.settings import LIFE_FD
from skep.hive.processes import start_time
from skep.wire.control import operator
from skep.wire.control.base import NoArgs
from support.daemon import short_home
from support.hive import Gateway, person_event
from support.waiting import MS, eventually


class Installed:
    """A `skep hive serve` that is started again and again in one directory, under one `skep up`."""

    def __init__(self, home: Home, life: int) -> None:
        self.home = home
        self._life = life
        self.process: asyncio.subprocess.Process

    async def start(self) -> Caller:
        """Start a daemon; return its operator's connection, once all agents are up."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "skep",
            "hive",
            "serve",
            env={**os.environ, "SKEP_HOME": str(self.home.root), LIFE_FD: str(self._life)},
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(self._life,),
            start_new_session=True,
        )
        cli: list[Caller] = []

        async def is_up() -> bool:
            try:
                caller = await connect(self.home.cli_socket, role="cli")
                agents = (await caller.call(operator.AGENT_LIST, NoArgs())).agents
            except SkepError:
                return False
            if any(agent.state != "up" for agent in agents):
                caller.close()
                return False
            cli.append(caller)
            return True

        await eventually(is_up, within=20_000 * MS)
        return cli[0]

    async def gateway(self) -> Gateway:
        """Attach as the gateway."""
        gateway = Gateway(await connect(self.home.door_socket, role="gateway"), relay="local", turns=[])
        await gateway.attach()
        return gateway

    async def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        await self.process.wait()


async def _rows(cli: Caller, name: operator.QueryName, **params: Any) -> tuple[dict[str, Any], ...]:
    return (await cli.call(operator.HIVE_QUERY, operator.QueryArgs(name=name, params=params))).rows


@asynccontextmanager
async def installed() -> AsyncIterator[tuple[Installed, int]]:
    """An empty installation, and the write end of its life pipe."""
    read_end, write_end = os.pipe()
    async with short_home() as home:
        daemon = Installed(home, read_end)
        try:
            yield daemon, write_end
        finally:
            os.close(write_end)
            os.close(read_end)
            await asyncio.wait_for(daemon.process.wait(), 15_000 * MS)


async def _harnesses(home: Home) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and start_time(int(name)) is not None:
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    is_here = f"SKEP_HOME={home.root}".encode() in file.read().split(b"\0")
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().decode().split("\0")
            except OSError:
                continue
            if is_here and "harness" in words:
                found[words[words.index("run") + 1]] = int(name)
    return found


async def test_bo_05_harnesses_outlive_the_daemon_and_no_lane_runs_two_turns() -> None:
    """Killed in the middle of a turn, three times: the same harnesses go on, each message is answered once.

    No two turns of one lane overlap, as the store has them.
    """
    async with installed() as (daemon, _):
        cli = await daemon.start()
        before = await _harnesses(daemon.home)
        assert set(before) == {"concierge", "scribe"}
        for number in range(3):
            gateway = await daemon.gateway()
            await gateway.accept(_said(f"hello {number}", number))
            await daemon.kill()
            cli.close()
            gateway.caller.close()
            cli = await daemon.start()
        gateway = await daemon.gateway()
        answered: list[str] = []
        while len(answered) < 3:
            lease = await gateway.heard(wait_ms=10_000)
            route = lease.envelopes[0].route
            assert route is not None
            answered += route.answers
        rest = await gateway.take(wait_ms=300)

        assert sorted(answered) == ["m-0", "m-1", "m-2"]
        assert rest == []
        assert await _harnesses(daemon.home) == before
        steps = await _rows(cli, "timeline", limit=500)
        assert sum(step["what"] == "adopted" for step in steps) == 6
        turns = sorted((step["at"], step.get("ms", 0)) for step in steps if step["what"] == "turn")
        assert all(began + ms <= following for (began, ms), (following, _) in pairwise(turns))
        cli.close()
        gateway.caller.close()


async def test_bo_04_nothing_outlives_skep_up() -> None:
    """The end of its pipe ends the daemon and the harnesses, also those that a daemon has adopted."""
    async with installed() as (daemon, write_end):
        (await daemon.start()).close()
        await daemon.kill()
        (await daemon.start()).close()
        pids = [daemon.process.pid, *(await _harnesses(daemon.home)).values()]
        assert len(pids) == 3
        began = SYSTEM_CLOCK.monotonic_ms()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, write_end)  # closes the pipe, keeps the number
        os.close(null)
        await eventually(lambda: [start_time(pid) for pid in pids] == [None] * 3, within=10_000 * MS)

        assert SYSTEM_CLOCK.monotonic_ms() - began < 10_000


def _said(text: str, number: int) -> dict[str, Any]:
    return person_event(text, message_id=f"m-{number}")
