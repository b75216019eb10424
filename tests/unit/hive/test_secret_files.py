"""skep.hive.secret_files, against secrets and providers, section A5.9, and control protocol, section 12."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from skep.foundation.paths import Home
from skep.foundation.settings import ProviderSettings
from skep.hive.agents import AgentSettings, AgentsFile, Roster
from skep.hive.secret_files import SecretFiles, files_of

PROVIDERS = {
    "cloud": ProviderSettings(key="file:keys/cloud"),
    "spare": ProviderSettings(key="file:/srv/spare"),
    "same": ProviderSettings(key="file:keys/cloud"),
    "named": ProviderSettings(key="env:CLOUD_KEY"),
    "local": ProviderSettings(),
}
FILES: dict[str, tuple[AgentSettings, tuple[str, ...]]] = {
    "no provider": (AgentSettings(), ()),
    "a provider": (AgentSettings(provider="cloud"), ("/home/skep/keys/cloud",)),
    "fallbacks too": (
        AgentSettings(provider="cloud", fallback=("named", "spare")),
        ("/home/skep/keys/cloud", "/srv/spare"),
    ),
    "fallbacks alone": (AgentSettings(fallback=("spare",)), ("/srv/spare",)),
    "one file of two providers": (
        AgentSettings(provider="cloud", fallback=("same",)),
        ("/home/skep/keys/cloud",),
    ),
    "a key in the environment": (AgentSettings(provider="named"), ()),
    "no key": (AgentSettings(provider="local"), ()),
    "a provider that is not set up": (AgentSettings(provider="elsewhere"), ()),
}


@pytest.mark.parametrize(("agent", "files"), FILES.values(), ids=FILES.keys())
def test_an_agent_uses_the_key_files_of_its_providers(agent: AgentSettings, files: tuple[str, ...]) -> None:
    """Each once, the first provider first; a key that lies in no file is nobody's file."""
    assert files_of(agent, PROVIDERS, Path("/home/skep")) == tuple(map(Path, files))


class World:
    """Two agents that run and use one key file, of which `eager` wants to be restarted."""

    def __init__(self, root: Path) -> None:
        self.key = root / "cloud.key"
        self.key.write_text("one")
        self.home = Home(root)
        for name in ("eager", "calm"):
            self.home.pump_socket(name).parent.mkdir(parents=True)
        self.roster = Roster(
            AgentsFile(
                default="calm",
                agent={
                    "calm": AgentSettings(provider="cloud"),
                    "eager": AgentSettings(provider="cloud", on_change="restart"),
                },
            )
        )
        self.files = self.new()
        self.asked: list[tuple[str, Callable[[], Awaitable[bool]]]] = []

    def new(self) -> SecretFiles:
        """What another daemon would make."""
        providers = {"cloud": ProviderSettings(key=f"file:{self.key}")}
        return SecretFiles(roster=self.roster, providers=providers, home=self.home, every_s=0)

    async def began(self, *names: str) -> None:
        """Their harnesses start."""
        for name in names:
            await self.files.began(name)
            self.roster.set_state(name, "up")

    async def problems(self) -> list[str]:
        """What is found at the next look."""
        await self.files.look()
        found = self.files.findings()
        assert {finding.id for finding in found} <= {"secret.changed"}
        return [finding.problem for finding in found]

    async def run_until_asked(self) -> None:
        """Look until a restart is asked for."""

        def ask(name: str, still_wanted: Callable[[], Awaitable[bool]]) -> None:
            self.asked.append((name, still_wanted))
            raise InterruptedError

        with pytest.raises(InterruptedError):
            await self.files.run(ask)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two agents that have not started yet."""
    return World(tmp_path)


async def test_a8_8_the_finding_says_who_uses_a_changed_file_and_what_to_do(world: World) -> None:
    """One health item for all of them; it is gone when they have started anew."""
    await world.began("eager", "calm")
    assert await world.problems() == []
    world.key.write_text("other")
    (problem,) = await world.problems()
    assert problem == "; ".join(
        f"`{world.key}` has changed; agent `{name}` still has the old content" for name in ("calm", "eager")
    )
    assert "`skep up`" in world.files.findings()[0].fix
    await world.began("calm")
    assert "nothing to do" in world.files.findings()[0].fix
    await world.began("eager")
    assert world.files.findings() == ()
    assert await world.problems() == []
    world.key.write_text("and another")
    await world.began("eager", "calm")
    assert world.files.findings() == ()  # without a look in between


async def test_a8_8_only_who_opted_in_is_asked_to_restart(world: World) -> None:
    """When its turns have ended, it is looked at once more."""
    await world.began("eager", "calm")
    world.key.write_text("other")
    await world.run_until_asked()
    ((name, still_wanted),) = world.asked

    assert name == "eager"
    assert await still_wanted()
    world.key.unlink()
    assert not await still_wanted()


async def test_a_file_that_is_gone_is_a_change_without_a_restart(world: World) -> None:
    """It is asked for when the file is back with something else in it; the same file back is no change."""
    await world.began("eager")
    away = world.key.rename(world.key.with_name("away"))
    assert await world.problems() == [f"`{world.key}` is gone; agent `eager` still has the old content"]
    assert "`skep up`" in world.files.findings()[0].fix
    away.rename(world.key)
    assert await world.problems() == []
    world.key.unlink()
    world.key.write_text("another")
    await world.run_until_asked()
    assert [name for name, _ in world.asked] == ["eager"]


async def test_a_file_that_comes_after_the_start_is_a_change(world: World) -> None:
    """A harness that started without it does not have it."""
    world.key.unlink()
    await world.began("calm")
    assert await world.problems() == []
    world.key.write_text("new")
    assert len(await world.problems()) == 1


async def test_an_agent_that_does_not_run_has_no_old_content(world: World) -> None:
    """Its next start reads what is there then."""
    await world.began("calm", "eager")
    world.key.write_text("other")
    world.roster.set_state("eager", "failed")
    world.roster.set_state("calm", "stopped")
    assert await world.problems() == []


async def test_the_next_daemon_knows_what_an_adopted_harness_has_read(world: World) -> None:
    """A change while no daemon ran is found; what was kept is no secret, and may be broken."""
    await world.began("calm")
    world.key.write_text("other")
    world.files = world.new()
    assert await world.problems() == []
    await world.files.recall()
    assert len(await world.problems()) == 1
    kept = world.home.pump_socket("calm").with_name("secret-files.json")
    assert b"one" not in kept.read_bytes()
    kept.write_text("{")
    world.files = world.new()
    await world.files.recall()
    assert await world.problems() == []


async def test_no_secret_is_opened(world: World) -> None:
    """A pipe would keep who opens it; it is looked at like anything else."""
    world.key.unlink()
    os.mkfifo(world.key)
    await world.began("calm")
    assert await world.problems() == []
    os.utime(world.key, ns=(1, 1))
    assert len(await world.problems()) == 1


async def test_nobody_looks_where_nobody_uses_a_file(tmp_path: Path) -> None:
    """Without such an agent there is nothing to do."""
    roster = Roster(AgentsFile(default="a", agent={"a": AgentSettings()}))
    files = SecretFiles(roster=roster, providers={}, home=Home(tmp_path), every_s=0)
    await files.began("a")
    await files.run(lambda name, still_wanted: None)
    assert files.findings() == ()
