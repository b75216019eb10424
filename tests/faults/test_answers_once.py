"""Harness, daemon or gateway die around the end of a turn and around the call of the platform.

Control protocol, rp-01 and do-04; reliability, M3. All three are processes; the platform is a relay server that knows
a repeat by its key, as the connector does, and that chooses when somebody dies.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from faults.lengths import at_length, new_seed, record
from faults.mail_history import read_store
from skep.foundation.paths import Home
from support.daemon import short_home
from support.relay import GATEWAY_ID, SECRET, RelayStub
from support.waiting import MS, eventually

KILLS = int(os.environ.get("SKEP_TEST_KILLS") or at_length(merge=24, release=200))
HERE = Path(__file__).parent
LATEST_S = 0.03
"""An answer is on the platform some 10 ms after the message came: the kill falls before, between and after."""


class World:
    """The three processes, and the platform.

    Attributes:
        said: By key, the answers that the platform keeps: what each names.
        calls: Keys of all calls, repeats included.
    """

    def __init__(self, home: Home, relay: RelayStub) -> None:
        self.home = home
        self.relay = relay
        self.said: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.at_call: str | None = None
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        relay.answer = self._platform

    async def start(self, name: str) -> None:
        """Start the daemon or the gateway; the harness is the daemon's to start."""
        words = (
            [str(HERE / "serve_hive.py"), str(self.home.root)]
            if name == "hive"
            else ["-m", "skep", "gateway", "run"]
        )
        env = {
            **os.environ,
            "SKEP_HOME": str(self.home.root),
            "GATEWAY_RELAY_URL": self.relay.url,
            "GATEWAY_RELAY_ID": GATEWAY_ID,
            "GATEWAY_RELAY_SECRET": SECRET,
        }
        with (self.home.root / f"{name}.err").open("ab") as errors:
            self._processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, *words, env=env, stderr=errors
            )

    def kill(self, name: str) -> None:
        """`kill -9`; a harness that has not started yet is spared."""
        if name == "harness":
            starts = self.home.root / "modes/concierge.starts"
            if not starts.exists():
                return
            pid = int(starts.read_text().split()[-1])
        else:
            pid = self._processes[name].pid
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def heal(self) -> None:
        """Start again what is dead."""
        for name, process in list(self._processes.items()):
            if process.returncode is not None or _is_dead(process.pid):
                await process.wait()
                await self.start(name)

    async def end(self) -> None:
        """Kill all of it."""
        for name, process in self._processes.items():
            self.kill(name)
            await process.wait()

    def is_answered(self, message: str) -> bool:
        """Return whether the platform has an answer that names `message`."""
        return any(message in named for named in self.said.values())

    def _platform(self, action: dict[str, Any]) -> dict[str, Any] | None:
        if not (action["op"] == "send" or (action["op"] == "draft" and action.get("final"))):
            return {"success": True}
        metadata = action["metadata"]
        key = metadata["idem"]
        self.calls.append(key)
        self.said.setdefault(key, list(metadata.get("answers") or ()))
        if (victim := self.at_call) is not None:
            self.at_call = None
            self.kill(victim)
            if victim == "gateway":
                return None
        return {"success": True, "message_id": f"p-{key}"}


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    """Run everything."""
    relay = RelayStub()
    await relay.start()
    async with short_home() as home:
        world = World(home, relay)
        try:
            await world.start("hive")
            await world.start("gateway")
            await eventually((home.root / "modes/concierge.starts").exists, within=15_000 * MS)
            await eventually(lambda: bool(relay.sockets), within=15_000 * MS)
            yield world
        finally:
            await world.end()
            await relay.stop()


@pytest.mark.timeout(1_200)
async def test_rp_01_each_message_has_exactly_one_answer() -> None:
    """One dies at a random moment of each message's way, or exactly when the platform is called."""
    seed = new_seed("answers_once")
    chance = random.Random(seed)
    history: list[dict[str, Any]] = []
    sent: list[str] = []
    async with running() as world:
        for number in range(KILLS):
            victim = chance.choice(("harness", "hive", "gateway"))
            is_at_call = chance.random() < 0.4
            message = f"m{number}"
            history.append({"message": message, "victim": victim, "at_call": is_at_call})
            world.at_call = victim if is_at_call else None
            sent.append(message)
            await _send(world, message, number)
            if not is_at_call:
                await asyncio.sleep(chance.uniform(0, LATEST_S))
                world.kill(victim)
            await eventually(lambda m=message, n=number: _answered(world, m, n), within=30_000 * MS)
        await asyncio.sleep(300 * MS)  # what would still come twice
        said, calls = dict(world.said), Counter(world.calls)
        await world.end()
        stored = read_store(world.home.hive_db)
    record(
        "answers_once",
        seed,
        "".join(json.dumps(fact) + "\n" for fact in [*history, {"said": said, "calls": calls}]),
    )

    named = Counter(message for names in said.values() for message in names)
    assert {message: named[message] for message in sent} == dict.fromkeys(sent, 1)
    assert set(stored.answers.values()) == {1}, "an answer is stored twice"
    assert stored.is_whole


async def _send(world: World, message: str, number: int) -> None:
    """Let the connector deliver it; it does so again to each new connection until it is acknowledged."""
    with suppress(IndexError, ConnectionError):
        await world.relay.send_event(
            message, chat=f"c{number % 2}", buffer_id=f"b-{message}", user_id="u", scope_id="s"
        )


async def _answered(world: World, message: str, number: int) -> bool:
    if world.is_answered(message):
        return True
    await world.heal()
    if f"b-{message}" not in world.relay.acks() and world.relay.sockets:
        await _send(world, message, number)
        await asyncio.sleep(100 * MS)
    return False
