"""skep.hive.supervisor, against hive, sections 5.3, 5.4 and 10; no process is started here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from skep import __version__
from skep.foundation.clock import SYSTEM_CLOCK
from skep.hive.agents import DEFAULT_AGENTS, AgentsFile, Roster
from skep.hive.ports import PumpInfo
from skep.hive.processes import Process
from skep.hive.supervisor import Policy, Supervisor
from skep.wire.control.operator import AgentState
from support.waiting import MS, eventually

QUICK = Policy(
    backoff=(0.001,),
    jitter=0,
    failures=100,
    grace=200 * MS,
    suspect=60 * MS,
    silent=150 * MS,
    adopt=100 * MS,
    term=50 * MS,
    gone=50 * MS,
    look=2 * MS,
)


class FakeProcess:
    """A process that ends when it is told, or never."""

    def __init__(self, pid: int, *, is_immortal: bool = False) -> None:
        self.pid = pid
        self.started = 1
        self.kills = 0
        self.is_immortal = is_immortal
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def end(self, code: int) -> None:
        if not self._code.done():
            self._code.set_result(code)

    def terminate(self) -> None:
        if not self.is_immortal:
            self.end(0)

    def kill(self) -> None:
        self.kills += 1
        if not self.is_immortal:
            self.end(-9)

    def is_gone(self) -> bool:
        return self._code.done()


class FakePumps:
    """The message half, as the supervisor sees it."""

    def __init__(self) -> None:
        self.granting: dict[str, bool] = {}
        self.heard: dict[str, int] = {}
        self.ended: list[str] = []
        self.busy: set[str] = set()
        self.asked = 0

    async def add_agent(self, name: str, *, uid: int | None = None, granting: bool = True) -> None:
        self.granting[name] = granting

    def set_granting(self, name: str, *, granting: bool) -> None:
        self.granting[name] = granting

    def is_busy(self, name: str) -> bool:
        self.asked += 1
        return name in self.busy

    async def end_leases(self, name: str) -> int:
        self.ended.append(name)
        return 0

    def pump_at(self, name: str) -> int | None:
        return self.heard.get(name)


class FakeJournal:
    """Keeps in memory what the daemon keeps on disk."""

    def __init__(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        self.facts: dict[str, dict[str, Any]] = {name: dict(facts) for name, facts in known.items()}
        self.states: list[tuple[str, AgentState]] = []
        self.rows: list[tuple[str, str, str]] = []
        self.told: list[tuple[str, str]] = []
        self.held: set[str] = set()

    async def known(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: dict(facts) for name, facts in self.facts.items()}

    async def keep(self, agent: str, **facts: Any) -> None:
        self.facts.setdefault(agent, {}).update(facts)

    async def set_state(self, agent: str, state: AgentState) -> None:
        self.states.append((agent, state))

    def record(self, agent: str, kind: str, detail: str) -> None:
        self.rows.append((agent, kind, detail))

    async def tell_manager(self, manager: str, body: str) -> None:
        self.told.append((manager, body))

    async def hold(self, agent: str, reason: str) -> None:
        self.held.add(agent)

    async def release(self, agent: str, reason: str) -> None:
        self.held.discard(agent)

    def kinds(self, agent: str) -> list[str]:
        return [kind for name, kind, _ in self.rows if name == agent]


@dataclass
class World:
    """A supervisor under test, and everything around it."""

    supervisor: Supervisor
    roster: Roster
    pumps: FakePumps
    journal: FakeJournal
    started: dict[str, list[FakeProcess]] = field(default_factory=dict[str, list[FakeProcess]])
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])

    def last(self, name: str) -> FakeProcess:
        processes = self.started.get(name, [])
        assert processes, f"{name} was not started"
        return processes[-1]

    def pump_up(self, name: str, *, pid: int | None = None, version: str = __version__) -> None:
        info = PumpInfo(harness_id="h", harness_version=version, pid=pid or self.last(name).pid)
        self.pumps.heard[name] = SYSTEM_CLOCK.now_ms()
        self.supervisor.on_pump_up(name, info)

    def count(self, name: str) -> int:
        return len(self.started.get(name, []))

    def is_state(self, name: str, state: str) -> bool:
        return self.roster.state(name) == state


Starts = Callable[[World, str], Awaitable[Process]]


async def _start(world: World, name: str) -> Process:
    process = FakeProcess(1_000_000 + 100 * len(name) + world.count(name))
    world.started.setdefault(name, []).append(process)
    return process


@asynccontextmanager
async def running(
    *,
    policy: Policy = QUICK,
    agents: AgentsFile = DEFAULT_AGENTS,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    start: Starts = _start,
) -> AsyncIterator[World]:
    """A supervisor that runs, and is stopped at the end."""
    roster, pumps, journal = Roster(agents), FakePumps(), FakeJournal(known or {})
    events: list[tuple[str, dict[str, Any]]] = []

    async def begin(name: str) -> Process:
        return await start(world, name)

    supervisor = Supervisor(
        roster=roster,
        pumps=pumps,
        journal=journal,
        start=begin,
        command_of=lambda name: ("harness", name),
        clock=SYSTEM_CLOCK,
        emit=lambda kind, data: events.append((kind, data)),
        policy=policy,
    )
    world = World(supervisor=supervisor, roster=roster, pumps=pumps, journal=journal, events=events)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        try:
            yield world
        finally:
            supervisor.stop()


async def test_each_agent_gets_one_harness_the_manager_first() -> None:
    """All are started, up when their pump is, and stopped with the daemon."""
    order: list[str] = []

    async def start(world: World, name: str) -> Process:
        order.append(name)
        return await _start(world, name)

    async with running(start=start) as world:
        await eventually(lambda: len(order) == 2)
        assert order == ["concierge", "scribe"]
        assert world.pumps.granting == {"concierge": False, "scribe": False}
        world.pump_up("scribe")
        await eventually(lambda: world.is_state("scribe", "up"))
        assert world.is_state("concierge", "starting")
        assert world.pumps.granting == {"concierge": False, "scribe": True}
        assert world.journal.facts["scribe"]["pid"] == world.last("scribe").pid

    assert world.last("scribe").is_gone()
    assert world.journal.facts["scribe"]["pid"] is None
    assert ("scribe", "stopped") in world.journal.states
    assert "exit" not in world.journal.kinds("scribe")


@pytest.mark.parametrize("name", ["concierge", "scribe"])
async def test_le_05_an_ended_harness_is_started_again(name: str) -> None:
    """Manager and worker alike: an exit makes a row, its leases end, and another harness starts."""
    async with running() as world:
        await eventually(lambda: world.count(name) == 1)
        world.pump_up(name)
        await eventually(lambda: world.is_state(name, "up"))
        world.last(name).end(1)
        await eventually(lambda: world.count(name) == 2)

        assert world.journal.kinds(name)[:4] == ["start", "up", "exit", "start"]
        assert name in world.pumps.ended


@pytest.mark.parametrize("name", ["concierge", "scribe"])
async def test_le_02_two_missed_starts_restart_the_harness(name: str) -> None:
    """One missed start is forgiven, a second within the window is not."""
    async with running() as world:
        await eventually(lambda: world.count(name) == 1)
        world.pump_up(name)
        world.supervisor.on_missed_start(name)
        await eventually(lambda: world.is_state(name, "up"))
        assert world.count(name) == 1
        world.supervisor.on_missed_start(name)
        await eventually(lambda: world.count(name) == 2)

        assert world.started[name][0].kills > 0
        assert world.journal.kinds(name).count("missed_start") == 2


async def test_a_silent_pump_is_doubted_then_given_up() -> None:
    """Health is the pump's heartbeat, however alive the process looks."""
    async with running() as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.pump_up("scribe")
        await eventually(lambda: ("scribe", "suspect") in world.journal.states)
        await eventually(lambda: world.count("scribe") == 2)

        exits = [detail for name, kind, detail in world.journal.rows if (name, kind) == ("scribe", "exit")]
        assert "silent" in exits[0]


async def test_a_doubted_pump_that_is_heard_again_is_up() -> None:
    """A pump that was slow is not given up."""
    async with running() as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.pump_up("scribe")
        await eventually(lambda: world.is_state("scribe", "suspect"))
        before = len(world.journal.states)
        world.pumps.heard["scribe"] += 1
        await eventually(lambda: len(world.journal.states) > before)

        assert world.journal.states[before] == ("scribe", "up")


async def test_a_pump_that_never_comes_up_is_given_up_after_the_grace() -> None:
    """A process that runs but has no pump takes no mail."""
    async with running() as world:
        await eventually(lambda: world.count("scribe") == 2)

        assert "not up after" in next(
            detail for name, kind, detail in world.journal.rows if (name, kind) == ("scribe", "exit")
        )


async def test_rs_05_an_old_heartbeat_counts_for_nothing() -> None:
    """What an earlier incarnation said does not make this one up, nor kill it."""
    async with running() as world:
        world.pumps.heard["scribe"] = 1
        await eventually(lambda: world.count("scribe") == 1)
        assert world.is_state("scribe", "starting")
        world.pump_up("scribe")
        await eventually(lambda: world.is_state("scribe", "up"))
        assert world.count("scribe") == 1


async def test_le_10_ten_exits_make_ten_rows_and_one_envelope() -> None:
    """The manager is not flooded by a worker that falls over and over."""
    async with running() as world:
        for number in range(1, 11):
            await eventually(lambda number=number: world.count("scribe") == number)
            world.last("scribe").end(1)
        await eventually(lambda: world.count("scribe") == 11)

        assert world.journal.kinds("scribe").count("exit") == 10
        assert [manager for manager, _ in world.journal.told] == ["concierge"]


async def test_the_next_notice_says_how_many_were_left_out() -> None:
    """Nothing is hidden from the manager, only joined."""
    async with running(policy=Policy(backoff=(0.001,), failures=100, look=2 * MS, tell=80 * MS)) as world:
        for number in range(1, 4):
            await eventually(lambda number=number: world.count("scribe") == number)
            world.last("scribe").end(1)
        await asyncio.sleep(80 * MS)
        await eventually(lambda: world.count("scribe") == 4)
        world.last("scribe").end(1)
        await eventually(lambda: len(world.journal.told) == 2)

        assert "and 2 more" in world.journal.told[1][1]


async def test_the_managers_own_trouble_is_the_operators() -> None:
    """It gets rows, and the manager no envelope about itself."""
    async with running() as world:
        await eventually(lambda: world.count("concierge") == 1)
        world.last("concierge").end(1)
        await eventually(lambda: world.count("concierge") == 2)

        assert "exit" in world.journal.kinds("concierge")
        assert world.journal.told == []


async def test_five_failures_in_ten_minutes_are_enough() -> None:
    """Then it is `failed`: one more row, no more tries."""
    async with running(policy=Policy(backoff=(0.001,), failures=5, look=2 * MS)) as world:
        for number in range(1, 6):
            await eventually(lambda number=number: world.count("scribe") == number)
            world.last("scribe").end(3)
        await eventually(lambda: world.is_state("scribe", "failed"))

        assert world.count("scribe") == 5
        assert world.journal.kinds("scribe").count("failed") == 1
        assert world.supervisor.view("scribe").note == "exit code 3"
        assert len(world.journal.facts["scribe"]["restarts"]) == 5


async def test_le_07_lanes_are_held_while_the_old_process_does_not_die() -> None:
    """No second harness runs beside it, and its lanes stay held until it is gone."""
    async with running() as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.pump_up("scribe")
        world.last("scribe").is_immortal = True
        world.supervisor.on_missed_start("scribe")
        world.supervisor.on_missed_start("scribe")
        await eventually(lambda: world.journal.held == {"scribe"})
        assert world.is_state("scribe", "held")
        assert world.count("scribe") == 1
        assert world.pumps.ended == []
        world.last("scribe").end(-9)
        await eventually(lambda: world.count("scribe") == 2)

        assert world.journal.held == set()
        assert world.pumps.ended == ["scribe"]


async def test_a_pump_of_another_process_is_granted_nothing() -> None:
    """Only the harness that was started takes the agent's mail."""
    async with running() as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.pump_up("scribe", pid=4_000_000)
        assert world.pumps.granting["scribe"] is False
        world.pump_up("scribe")
        assert world.pumps.granting["scribe"] is True
        world.supervisor.on_pump_lost("scribe")
        assert world.pumps.granting["scribe"] is False


async def test_a_harness_that_cannot_be_started_is_tried_again() -> None:
    """A missing program is a failure like any other, told in the note."""
    tries: list[str] = []

    async def start(world: World, name: str) -> Process:
        tries.append(name)
        if tries.count(name) < 3:
            raise FileNotFoundError(2, "No such file or directory")
        return await _start(world, name)

    async with running(start=start) as world:
        await eventually(lambda: world.count("scribe") == 1)

        assert "cannot be started: No such file or directory" in [row[2] for row in world.journal.rows]


async def test_failures_are_remembered_over_a_restart_of_the_daemon() -> None:
    """A crash loop is not made endless by restarting what watches it."""
    now = SYSTEM_CLOCK.now_ms()
    known = {"scribe": {"restarts": [now - 4_000, now - 3_000, now - 2_000, now - 1_000, now - 700_000]}}
    async with running(policy=Policy(backoff=(0.001,), look=2 * MS), known=known) as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.last("scribe").end(1)
        await eventually(lambda: world.is_state("scribe", "failed"))


async def wanted() -> bool:
    """A restart still makes sense."""
    return True


async def test_a8_8_a_restart_waits_for_the_turns_and_is_done_once() -> None:
    """Nothing new is granted meanwhile, not even when the pump comes back; it is no failure."""
    async with running(policy=replace(QUICK, silent=60)) as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.pump_up("scribe")
        await eventually(lambda: world.is_state("scribe", "up"))
        world.pumps.busy = {"scribe"}
        world.supervisor.restart("scribe", wanted)
        world.supervisor.restart("scribe", wanted)
        await eventually(lambda: world.is_state("scribe", "draining"))
        assert world.pumps.granting["scribe"] is False
        await eventually(lambda: world.pumps.asked > 2)
        world.supervisor.on_pump_lost("scribe")
        world.pump_up("scribe")
        assert world.pumps.granting["scribe"] is False
        assert world.count("scribe") == 1
        world.pumps.busy = set()
        await eventually(lambda: world.count("scribe") == 2)
        world.pump_up("scribe")
        await eventually(lambda: world.is_state("scribe", "up"))

        assert world.pumps.granting["scribe"] is True
        assert world.started["scribe"][0].is_gone()
        assert world.journal.kinds("scribe") == ["start", "up", "restart", "start", "up"]
        assert world.journal.told == []
        assert not world.journal.facts["scribe"].get("restarts")


async def test_a_turn_that_does_not_end_holds_a_restart_up_for_so_long_only() -> None:
    """Then it is cut off, and what it took waits again."""
    async with running(policy=replace(QUICK, drain=20 * MS, silent=60)) as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.pump_up("scribe")
        world.pumps.busy = {"scribe"}
        world.supervisor.restart("scribe", wanted)
        await eventually(lambda: world.count("scribe") == 2)

        assert world.pumps.ended == ["scribe"]


async def test_a_restart_that_is_no_longer_wanted_is_not_done() -> None:
    """The harness takes mail again, and may be asked another time."""
    answers = [False, True]

    async def still_wanted() -> bool:
        return answers.pop(0)

    async with running(policy=replace(QUICK, silent=60)) as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.pump_up("scribe")
        world.supervisor.restart("scribe", still_wanted)
        await eventually(lambda: len(answers) == 1 and world.pumps.granting["scribe"])
        await eventually(lambda: world.is_state("scribe", "up"))
        assert world.count("scribe") == 1
        world.supervisor.restart("scribe", still_wanted)
        await eventually(lambda: world.count("scribe") == 2)


async def test_a_harness_that_dies_while_it_drains_is_a_failure_like_any_other() -> None:
    """It is started again, once."""
    async with running(policy=replace(QUICK, silent=60)) as world:
        await eventually(lambda: world.count("scribe") == 1)
        world.pump_up("scribe")
        world.pumps.busy = {"scribe"}
        world.supervisor.restart("scribe", wanted)
        await eventually(lambda: world.is_state("scribe", "draining"))
        world.last("scribe").end(3)
        await eventually(lambda: world.count("scribe") == 2)
        world.pump_up("scribe")
        await eventually(lambda: world.is_state("scribe", "up"))

        assert world.journal.kinds("scribe") == ["start", "up", "exit", "start", "up"]
