"""A secret file that changes under a running agent, with real harnesses: secrets and providers, A5.9 and A8.8."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from skep.broker.broker import Broker
from skep.broker.types import AgentEntry
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.paths import Home
from skep.foundation.settings import ProviderSettings, Settings
from skep.hive.agents import Roster, load_agents
from skep.hive.daemon import harness_command
from skep.hive.processes import spawn
from skep.hive.secret_files import SecretFiles
from skep.hive.supervisor import Policy
from skep.wire.control import operator
from skep.wire.control.base import NoArgs
from support.daemon import QUICK, RunningDaemon, fake_harness, open_daemon, short_home
from support.waiting import MS, eventually

LOOK_EVERY_S: Final = 20 * MS
PROVIDERS: Final = {
    "local": ProviderSettings(),
    "cloud": ProviderSettings(key="file:keys/cloud"),
    "other": ProviderSettings(key="file:keys/other"),
}
AGENTS: Final = """
[agent.concierge]
provider = "other"
[agent.scribe]
provider = "local"
fallback = ["cloud"]
on_change = "{on_change}"
"""


class Desk:
    """A daemon of which `scribe` uses the file `key`, and `concierge` the file `other`."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.daemon: Final = daemon
        self.key: Final = daemon.home.keys / "cloud"
        self.other: Final = daemon.home.keys / "other"

    async def problems(self) -> list[str]:
        """What the health item says, of both agents."""
        found = (await self.daemon.cli.call(operator.HEALTH_LIST, NoArgs())).findings
        return [finding.problem for finding in found if finding.id == "secret.changed"]

    async def is_found(self, path: Path) -> bool:
        """Return whether the health item names `path`."""
        return any(f"`{path}`" in problem for problem in await self.problems())

    async def starts(self) -> int:
        """Return how often the harness of `scribe` was started."""
        return (await self.daemon.kinds("scribe")).count("start")

    def times_shown(self, message_id: str | None) -> int:
        """Return how many turns began with that message."""
        states = [
            event.data["state"] for event in self.daemon.events if event.data.get("message") == message_id
        ]
        return states.count("shown")

    async def look_again(self) -> None:
        """Return when the files have been looked at after this call, and after that once more."""
        for _ in range(2):
            write(self.other, self.other.read_text() + "+")
            await eventually(lambda: self.is_found(self.other), within=5_000 * MS)
            self.other.unlink()
            await eventually(self._is_gone, within=5_000 * MS)
            write(self.other, "+")

    async def _is_gone(self) -> bool:
        return any(f"`{self.other}` is gone" in problem for problem in await self.problems())


def write(path: Path, text: str) -> None:
    """Write as a renderer does: the old file or the new one."""
    new = path.with_suffix(".tmp")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)


@asynccontextmanager
async def open_desk(
    on_change: str,
    *,
    word: str = "good",
    policy: Policy = QUICK,
    command: Callable[[str], tuple[str, ...]] | None = None,
) -> AsyncIterator[Desk]:
    """Run a daemon over two key files until all agents are up."""
    async with short_home() as home:
        set_up(home, on_change)
        async with open_daemon(
            home,
            modes={"scribe": word},
            policy=policy,
            settings=Settings(provider=PROVIDERS),
            look_every_s=LOOK_EVERY_S,
            command=command,
        ) as daemon:
            await daemon.all_up()
            yield Desk(daemon)


def set_up(home: Home, on_change: str) -> None:
    """Write `agents.toml` and both key files."""
    home.agents_config.write_text(AGENTS.format(on_change=on_change))
    for name in ("cloud", "other"):
        write(home.keys / name, "a-made-up-key")


async def is_busy(desk: Desk) -> bool:
    """Return whether a turn of `scribe` runs."""
    return (await desk.daemon.agent("scribe")).busy == 1


async def is_up_again(desk: Desk) -> bool:
    """Return whether another harness runs, and nothing is found any more."""
    return await desk.starts() == 2 and await desk.daemon.is_state("scribe", "up")


@pytest.mark.parametrize("command", [None, harness_command], ids=["fake", "rehearsal"])
async def test_a8_8_a_changed_secret_is_a_finding_and_no_new_process(
    command: Callable[[str], tuple[str, ...]] | None,
) -> None:
    """It says who uses the file and what restarts that agent; nobody is restarted."""
    async with open_desk("note", command=command) as desk:
        assert await desk.problems() == []
        write(desk.key, "another-made-up-key")
        await eventually(lambda: desk.is_found(desk.key), within=5_000 * MS)
        (finding,) = [
            found
            for found in (await desk.daemon.cli.call(operator.HEALTH_LIST, NoArgs())).findings
            if found.id == "secret.changed"
        ]
        await desk.look_again()

        assert "agent `scribe`" in finding.problem
        assert "`skep up`" in finding.fix
        assert await desk.daemon.kinds("scribe") == ["start", "up"]


async def test_a8_8_on_change_restart_gives_one_drained_restart() -> None:
    """The turn that runs is answered once by who began it, what comes meanwhile by who starts after it."""
    async with open_desk("restart", word="until") as desk:
        daemon = desk.daemon
        gateway = await daemon.gateway()
        said = await gateway.say("@scribe one")
        await eventually(lambda: is_busy(desk), within=4_000 * MS)
        write(desk.key, "another-made-up-key")
        await eventually(lambda: daemon.is_state("scribe", "draining"), within=4_000 * MS)
        await desk.look_again()
        assert await desk.is_found(desk.key)
        daemon.set_mode("scribe", "good")
        await gateway.say("@scribe two", message_id="m-2", chat_id="c-2")
        assert len(daemon.starts("scribe")) == 1
        (daemon.modes / "scribe.go").touch()
        answers = [(await gateway.heard(wait_ms=8_000)).envelopes[0].body for _ in range(2)]
        await eventually(lambda: is_up_again(desk), within=8_000 * MS)
        await desk.look_again()

        assert answers == ["echo: one", "echo: two"]
        assert await gateway.take(wait_ms=100) == []
        assert desk.times_shown(said.message_id) == 1
        assert not await desk.is_found(desk.key)
        assert len(daemon.starts("scribe")) == 2
        assert await daemon.kinds("scribe") == ["start", "up", "restart", "start", "up"]
        write(desk.key, "a-third-made-up-key")
        await eventually(lambda: len(daemon.starts("scribe")) == 3, within=8_000 * MS)


async def test_a8_8_the_rehearsal_is_restarted_between_turns() -> None:
    """The harness that people have: its answer comes whole, once, and not from a second try."""
    async with open_desk("restart", command=harness_command) as desk:
        gateway = await desk.daemon.gateway()
        said = await gateway.say("@scribe are you there?")
        await eventually(lambda: is_busy(desk), within=4_000 * MS)
        write(desk.key, "another-made-up-key")
        heard = await gateway.heard(wait_ms=10_000)
        await eventually(lambda: is_up_again(desk), within=10_000 * MS)
        await desk.look_again()

        assert "I am **scribe**" in heard.envelopes[0].body
        assert "interrupted" not in heard.envelopes[0].body
        assert desk.times_shown(said.message_id) == 1
        assert await gateway.take(wait_ms=100) == []
        assert await desk.daemon.kinds("scribe") == ["start", "up", "restart", "start", "up"]


async def test_a8_8_a_turn_that_outlives_the_drain_is_answered_by_the_next_harness() -> None:
    """It is cut off, its message waits again, and is answered once."""
    async with open_desk("restart", word="slow", policy=replace(QUICK, drain=100 * MS)) as desk:
        gateway = await desk.daemon.gateway()
        await gateway.say("@scribe hello")
        await eventually(lambda: is_busy(desk), within=4_000 * MS)
        desk.daemon.set_mode("scribe", "good")
        write(desk.key, "another-made-up-key")

        assert (await gateway.heard(wait_ms=10_000)).envelopes[0].body == "echo: hello"
        assert await gateway.take(wait_ms=100) == []
        assert len(desk.daemon.starts("scribe")) == 2


async def test_a8_8_nothing_is_restarted_into_a_missing_file() -> None:
    """A file that is gone is a finding; when it is back, the restart follows."""
    async with open_desk("restart") as desk:
        desk.key.unlink()
        await eventually(lambda: desk.is_found(desk.key), within=5_000 * MS)
        await desk.look_again()
        assert len(desk.daemon.starts("scribe")) == 1
        write(desk.key, "another-made-up-key")
        await eventually(lambda: is_up_again(desk), within=8_000 * MS)
        assert not await desk.is_found(desk.key)


async def test_a8_8_a_file_that_goes_while_turns_end_stops_the_restart() -> None:
    """The harness goes on and takes mail again."""
    async with open_desk("restart", word="until") as desk:
        daemon = desk.daemon
        gateway = await daemon.gateway()
        await gateway.say("@scribe one")
        await eventually(lambda: is_busy(desk), within=4_000 * MS)
        write(desk.key, "another-made-up-key")
        await eventually(lambda: daemon.is_state("scribe", "draining"), within=4_000 * MS)
        desk.key.unlink()
        (daemon.modes / "scribe.go").touch()
        await gateway.say("@scribe two", message_id="m-2")
        answers = [(await gateway.heard(wait_ms=8_000)).envelopes[0].body for _ in range(2)]

        assert answers == ["echo: one", "echo: two"]
        assert len(daemon.starts("scribe")) == 1
        assert await desk.is_found(desk.key)


async def test_a8_8_a_change_while_no_daemon_ran_is_found_of_an_adopted_harness() -> None:
    """The harness went on with the old content; the daemon that adopts it knows what that was."""
    async with short_home() as home, _orphan(home):
        write(home.keys / "cloud", "another-made-up-key")
        async with open_daemon(
            home, settings=Settings(provider=PROVIDERS), look_every_s=LOOK_EVERY_S
        ) as daemon:
            desk = Desk(daemon)
            await daemon.all_up()
            await eventually(lambda: desk.is_found(desk.key), within=5_000 * MS)

            assert await daemon.kinds("scribe") == ["adopted", "up"]


@asynccontextmanager
async def _orphan(home: Home) -> AsyncIterator[None]:
    """A harness of `scribe` that a daemon has started which is no more."""
    set_up(home, "note")
    roster = Roster(load_agents(home.agents_config))
    home.pump_socket("scribe").parent.mkdir(parents=True, exist_ok=True)
    await SecretFiles(roster=roster, providers=PROVIDERS, home=home).began("scribe")
    process = await spawn(
        fake_harness(home.root / "modes")("scribe"),
        environment={**os.environ, "SKEP_HOME": str(home.root)},
        log=home.log_file("harness-scribe"),
        life=None,
    )
    try:
        broker = await Broker.open(home.hive_db, clock=SYSTEM_CLOCK)
        await broker.set_agents([AgentEntry(name="scribe")])
        await broker.set_agent_facts("scribe", pid=process.pid, pid_start=process.started)
        await broker.close()
        yield
    finally:
        process.kill()
        await process.wait()
