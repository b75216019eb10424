"""The daemon and its harnesses, as real processes, against hive, section 5."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from skep.broker.broker import Broker
from skep.broker.types import AgentEntry, BrokerSettings
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.paths import Home
from skep.hive.processes import spawn, start_time
from skep.hive.supervisor import Policy
from skep.wire.control import operator
from skep.wire.control.base import NoArgs
from support.daemon import QUICK, fake_harness, open_daemon, short_home
from support.hive import person_event
from support.waiting import MS, eventually

IMPATIENT = BrokerSettings(start_timeout_ms=300, error_backoff_ms=(10,))
BOTH = ["concierge", "scribe"]


@pytest.mark.parametrize("agent", BOTH)
async def test_le_02_a_message_that_was_popped_and_not_begun_gets_its_turn(agent: str) -> None:
    """The pump takes mail and begins nothing: the mail waits again, the harness is replaced, a turn runs.

    Before that turn began, the message was never shown as delivered.
    """
    async with open_daemon(modes={agent: "deaf"}, limits=IMPATIENT) as daemon:
        await daemon.all_up()
        gateway = await daemon.gateway()
        daemon.set_mode(agent, "good")
        said = await gateway.say(f"@{agent} are you there?")
        heard = await gateway.heard(wait_ms=10_000)

        assert "are you there?" in heard.envelopes[0].body
        assert len(daemon.starts(agent)) == 2
        assert (await daemon.kinds(agent)).count("missed_start") == 2
        states = [
            event.data["state"]
            for event in daemon.events
            if event.kind == "delivery" and event.data["message"] == said.message_id
        ]
        assert states[-2:] == ["shown", "done"]
        assert states.count("shown") == 1
        assert set(states[:-2]) == {"ready", "leased"}


@pytest.mark.parametrize("agent", BOTH)
async def test_le_05_a_killed_harness_loses_nothing(agent: str) -> None:
    """SIGKILL in a turn: another harness starts and answers, for manager and worker alike."""
    async with open_daemon(modes={agent: "slow"}) as daemon:
        await daemon.all_up()
        gateway = await daemon.gateway()
        await gateway.say(f"@{agent} hello")

        async def is_busy() -> bool:
            return (await daemon.agent(agent)).busy == 1

        await eventually(is_busy, within=4_000 * MS)
        daemon.set_mode(agent, "good")
        os.kill(daemon.starts(agent)[-1], signal.SIGKILL)
        heard = await gateway.heard(wait_ms=10_000)

        assert heard.envelopes[0].body == "echo: hello"
        assert "exit" in await daemon.kinds(agent)


async def test_le_10_ten_exits_of_a_worker_make_one_envelope_and_ten_rows() -> None:
    """The manager hears of it once in a minute; the operator sees each."""
    async with open_daemon(modes={"scribe": "exits", "concierge": "deaf"}) as daemon:

        async def has_ten_rows() -> bool:
            return (await daemon.kinds("scribe")).count("exit") >= 10

        await eventually(has_ten_rows, within=20_000 * MS)
        daemon.set_mode("scribe", "good")
        threads = await daemon.query("threads")
        told = [row for row in threads if row["kind"] == "system" and row["to"] == "agent:concierge"]

        assert len(told) == 1
        assert told[0]["from"] == "system"
        assert "`scribe` stopped: exit code 3" in told[0]["opening"]


async def test_a_worker_that_falls_over_and_over_is_given_up() -> None:
    """Five times, then it is `failed`: a finding says so, with where to look."""
    policy = Policy(backoff=(0.01,), failures=5, look=20 * MS, term=500 * MS)
    async with open_daemon(modes={"scribe": "exits"}, policy=policy) as daemon:
        await eventually(lambda: daemon.is_state("scribe", "failed"), within=10_000 * MS)
        found = (await daemon.cli.call(operator.HEALTH_LIST, NoArgs())).findings

        assert len(daemon.starts("scribe")) == 5
        assert found[0].id == "agent.failed.scribe"
        assert "harness-scribe.log" in found[0].fix
        assert await daemon.is_state("concierge", "up")


async def test_a_harness_without_a_pump_is_replaced_after_its_grace() -> None:
    """A process that runs and takes no mail is no agent."""
    policy = Policy(backoff=(0.01,), failures=100, grace=300 * MS, look=20 * MS, term=500 * MS)
    async with open_daemon(modes={"scribe": "mute"}, policy=policy) as daemon:
        await eventually(lambda: len(daemon.starts("scribe")) == 2, within=10_000 * MS)
        daemon.set_mode("scribe", "good")
        await eventually(lambda: daemon.is_state("scribe", "up"), within=10_000 * MS)


async def test_stopping_ends_every_process_also_a_stubborn_one() -> None:
    """Nothing of the hive is alive when the daemon is down."""
    async with short_home() as home:
        async with open_daemon(home, modes={"scribe": "stubborn"}) as daemon:
            await daemon.all_up()
            pids = [*daemon.starts("scribe"), *daemon.starts("concierge")]
            began = asyncio.get_running_loop().time()

        assert asyncio.get_running_loop().time() - began < 5_000 * MS
        assert [start_time(pid) for pid in pids] == [None, None]
        assert list(home.run.rglob("*.sock")) == []


async def test_rs_08_a_turn_that_is_cut_off_by_a_stop_is_redelivered() -> None:
    """Stopped in the middle of a turn, the next daemon hands the message out again."""
    async with short_home() as home:
        async with open_daemon(home, modes={"concierge": "slow"}) as daemon:
            await daemon.all_up()
            gateway = await daemon.gateway()
            await gateway.accept(person_event("hello"))

            async def is_busy() -> bool:
                return (await daemon.agent("concierge")).busy == 1

            await eventually(is_busy, within=4_000 * MS)
            daemon.set_mode("concierge", "good")
        async with open_daemon(home) as daemon:
            gateway = await daemon.gateway()
            heard = await gateway.heard(wait_ms=10_000)

            assert heard.envelopes[0].body == "echo: hello"


async def test_bo_05_a_harness_that_is_still_there_is_adopted() -> None:
    """A new daemon takes the running harness over, by pid and start time, and grants it mail."""
    async with short_home() as home, _orphan(home) as pid:
        async with open_daemon(home, policy=QUICK) as daemon:
            await daemon.all_up()
            gateway = await daemon.gateway()
            await gateway.say("@scribe hello")
            heard = await gateway.heard(wait_ms=10_000)

            assert heard.envelopes[0].body == "echo: hello"
            assert daemon.starts("scribe") == [pid]
            assert (await daemon.kinds("scribe"))[0] == "adopted"
        assert start_time(pid) is None


async def test_bo_05_a_harness_that_does_not_come_back_is_killed_then_replaced() -> None:
    """It has its time to come back; no lane is granted before it is gone."""
    async with (
        short_home() as home,
        _orphan(home, word="mute") as pid,
        open_daemon(home, policy=QUICK) as daemon,
    ):
        daemon.set_mode("scribe", "good")
        await daemon.all_up()

        assert start_time(pid) is None
        assert len(daemon.starts("scribe")) == 2
        assert "adopted" not in await daemon.kinds("scribe")


async def test_a_pid_that_was_used_again_is_left_alone() -> None:
    """Same pid, other start time: somebody else's process."""
    async with short_home() as home, _orphan(home, word="mute", skew=1) as pid:
        (home.root / "modes" / "scribe").write_text("good")
        async with open_daemon(home) as daemon:
            await daemon.all_up()

            assert start_time(pid) is not None


async def test_an_orphan_that_nobody_knows_takes_no_mail() -> None:
    """A harness whose start was never written down is killed when it dials; ours takes its place."""
    async with short_home() as home, _orphan(home, skew=1) as pid, open_daemon(home) as daemon:
        await daemon.all_up()
        gateway = await daemon.gateway()
        await gateway.say("@scribe hello")
        heard = await gateway.heard(wait_ms=10_000)

        assert heard.envelopes[0].body == "echo: hello"
        assert start_time(pid) is None


@asynccontextmanager
async def _orphan(home: Home, *, word: str = "good", skew: int = 0) -> AsyncIterator[int]:
    """A harness of `scribe` that a daemon has started which is no more; `skew` falsifies its start time."""
    modes = home.root / "modes"
    (modes / "scribe").write_text(word)
    process = await spawn(
        fake_harness(modes)("scribe"),
        environment={**os.environ, "SKEP_HOME": str(home.root)},
        log=home.log_file("harness-scribe"),
        life=None,
    )
    try:
        await eventually(lambda: len((modes / "scribe.starts").read_text().split()) == 1, within=5_000 * MS)
        broker = await Broker.open(home.hive_db, clock=SYSTEM_CLOCK)
        await broker.set_agents([AgentEntry(name="scribe")])
        await broker.set_agent_facts("scribe", pid=process.pid, pid_start=process.started + skew)
        await broker.close()
        yield process.pid
    finally:
        process.kill()
        await process.wait()
