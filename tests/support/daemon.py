"""A whole daemon in this process, with harnesses that do as they are told, and its callers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from skep.broker.types import BrokerSettings
from skep.foundation.clock import SYSTEM_CLOCK, Clock
from skep.foundation.paths import Home
from skep.foundation.rpc import Caller, connect
from skep.foundation.settings import Settings
from skep.hive.daemon import run_daemon
from skep.hive.supervisor import Policy
from skep.secrets.watching import LOOK_EVERY_S
from skep.wire.control import door, operator
from skep.wire.control.base import NoArgs
from support.hive import Gateway
from support.waiting import MS, eventually

__all__ = ["QUICK", "RunningDaemon", "fake_harness", "open_daemon", "short_home"]

QUICK: Final = Policy(
    backoff=(0.01,),
    jitter=0,
    failures=100,
    grace=5_000 * MS,
    adopt=2_000 * MS,
    term=500 * MS,
    gone=2_000 * MS,
    look=20 * MS,
)
_HARNESS: Final = Path(__file__).with_name("fake_harness.py")


class RunningDaemon:
    """A daemon that runs, and who talks to it.

    Attributes:
        modes: Directory with one word per agent (see `fake_harness.py`).
        events: What `cli.sock` was told since the start.
    """

    def __init__(self, home: Home, modes: Path, stop: asyncio.Event) -> None:
        self.home: Final = home
        self.modes: Final = modes
        self.stop: Final = stop
        self.events: Final[list[operator.HiveEvent]] = []
        self.callers: Final[list[Caller]] = []
        self.cli: Caller

    async def dial(self, path: Path, *, role: str = "cli") -> Caller:
        """Open one more connection; closed at the end."""
        caller = await connect(path, role=role)
        self.callers.append(caller)
        return caller

    async def gateway(self) -> Gateway:
        """Attach as the gateway."""
        turns: list[door.Turn] = []
        gateway = Gateway(await self.dial(self.home.door_socket, role="gateway"), relay="local", turns=turns)
        await gateway.attach()
        return gateway

    async def query(self, name: operator.QueryName, **params: Any) -> list[dict[str, Any]]:
        """Return all rows of a named query, page by page."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            args = operator.QueryArgs(name=name, params=params, cursor=cursor)
            page = await self.cli.call(operator.HIVE_QUERY, args)
            rows += page.rows
            cursor = page.cursor
            if cursor is None:
                return rows

    async def agent(self, name: str) -> operator.AgentRow:
        """Return how one agent is."""
        return await self.cli.call(operator.AGENT_GET, operator.AgentGetArgs(agent=name))

    async def is_state(self, name: str, state: str) -> bool:
        """Return whether the agent is in that state."""
        return (await self.agent(name)).state == state

    async def all_up(self) -> None:
        """Wait until every agent is up."""

        async def are_up() -> bool:
            agents = (await self.cli.call(operator.AGENT_LIST, NoArgs())).agents
            return all(agent.state == "up" for agent in agents)

        await eventually(are_up, within=8_000 * MS)

    def starts(self, agent: str) -> list[int]:
        """Return the pids of all harnesses that were started for `agent`."""
        path = self.modes / f"{agent}.starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def set_mode(self, agent: str, word: str) -> None:
        """Say how the next harness of `agent` behaves."""
        (self.modes / agent).write_text(word)

    async def kinds(self, agent: str) -> list[str]:
        """Return what happened to the processes of `agent`, oldest first."""
        rows = await self.query("timeline", agents=[agent])
        return [row["what"] for row in reversed(rows) if "id" not in row]

    def take(self, raw: msgspec.Raw) -> None:
        """Keep an event."""
        self.events.append(msgspec.json.decode(raw, type=operator.HiveEvent))


def fake_harness(modes: Path) -> Callable[[str], tuple[str, ...]]:
    """Return the command line of a fake harness."""
    return lambda agent: (sys.executable, str(_HARNESS), agent, str(modes))


@asynccontextmanager
async def short_home() -> AsyncIterator[Home]:
    """A data directory with a short path; what still runs in it is killed at the end."""
    root = Path(tempfile.mkdtemp(prefix="skep-"))
    home = Home(root)
    home.prepare()
    (root / "modes").mkdir()
    try:
        yield home
    finally:
        for path in (root / "modes").glob("*.starts"):
            for pid in path.read_text().split():
                if _is_ours(int(pid), root):
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)


@asynccontextmanager
async def open_daemon(
    home: Home | None = None,
    *,
    modes: dict[str, str] | None = None,
    policy: Policy = QUICK,
    limits: BrokerSettings | None = None,
    clock: Clock = SYSTEM_CLOCK,
    settings: Settings | None = None,
    look_every_s: float = LOOK_EVERY_S,
    command: Callable[[str], tuple[str, ...]] | None = None,
) -> AsyncIterator[RunningDaemon]:
    """Run a daemon in this process until the block ends; in `home`, which is kept, or in a new one.

    Args:
        command: How a harness is started, if not a fake one.
    """
    if home is None:
        async with (
            short_home() as own,
            open_daemon(
                own,
                modes=modes,
                policy=policy,
                limits=limits,
                clock=clock,
                settings=settings,
                look_every_s=look_every_s,
                command=command,
            ) as it,
        ):
            yield it
        return
    stop = asyncio.Event()
    daemon = RunningDaemon(home, home.root / "modes", stop)
    for agent, word in (modes or {}).items():
        daemon.set_mode(agent, word)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(
            run_daemon(
                settings or Settings(),
                home,
                clock,
                stop,
                command=command or fake_harness(daemon.modes),
                policy=policy,
                limits=limits,
                look_every_s=look_every_s,
            )
        )
        try:
            await eventually(lambda: running.done() or home.cli_socket.exists(), within=5_000 * MS)
            daemon.cli = await connect(home.cli_socket, role="cli", events={"hive": daemon.take})
            daemon.callers.append(daemon.cli)
            await daemon.cli.call(operator.HIVE_SUBSCRIBE, operator.SubscribeArgs())
            yield daemon
        finally:
            for caller in daemon.callers:
                caller.close()
            stop.set()


def _is_ours(pid: int, root: Path) -> bool:
    try:
        return str(root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
