"""The daemon: opens the stores, puts all parts together, and stops them in order.

Source: control protocol, sections 2, 6.3 and 11; hive, section 10.
It listens on unix sockets alone. It never runs or imports what an agent wrote, and serves no HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from skep.broker.broker import Broker
from skep.broker.types import SYSTEM, AgentEntry, BrokerSettings, Draft
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.logfiles import rotate
from skep.foundation.paths import Home
from skep.foundation.settings import Settings, child_environment, life_fd
from skep.hive.agents import Roster, load_agents
from skep.hive.auth import Auth
from skep.hive.messages import Messages
from skep.hive.operator import Operator
from skep.hive.overview import Overview
from skep.hive.ports import PumpInfo, TurnStats
from skep.hive.processes import Process, spawn
from skep.hive.queries import Queries
from skep.hive.secret_files import SecretFiles
from skep.hive.subscriptions import Subscriptions
from skep.hive.supervisor import Policy, Supervisor
from skep.hive.telemetry import Telemetry
from skep.secrets.watching import LOOK_EVERY_S
from skep.store.sqlite.engine import OpenOptions
from skep.wire.control.operator import AgentState

__all__ = ["DRAIN_S", "harness_command", "run_daemon"]

DRAIN_S: Final = 5.0
"""Running turns have so long to end when everything stops; what is cut off is redelivered."""
_ROTATE_EVERY_S: Final = 60.0

_log = get_logger(part="daemon")

Command = Callable[[str], tuple[str, ...]]
"""The command line of the harness of an agent."""


def harness_command(agent: str) -> tuple[str, ...]:
    """Return the command line that starts the harness of `agent`."""
    return (sys.executable, "-m", "skep", "harness", "run", agent)


async def run_daemon(
    settings: Settings,
    home: Home,
    clock: Clock,
    stop: asyncio.Event,
    *,
    command: Command = harness_command,
    policy: Policy | None = None,
    limits: BrokerSettings | None = None,
    look_every_s: float = LOOK_EVERY_S,
) -> None:
    """Run the daemon until `stop` is set; return when all of it is down.

    Args:
        command: How a harness is started; with all after it, for tests that cannot wait.

    Raises:
        SettingError: `agents.toml` or a store cannot be used; says why and what to do.
        StoreUnavailableError: The disk is full or cannot be written.
    """
    roster = Roster(load_agents(home.agents_config))
    async with AsyncExitStack() as parts:
        broker = await Broker.open(
            home.hive_db,
            clock=clock,
            settings=limits,
            options=OpenOptions(allow_old_library=settings.hive.allow_old_sqlite),
        )
        parts.push_async_callback(broker.close)
        telemetry = await Telemetry.open(home.telemetry_db, boot_epoch=broker.epoch, clock=clock)
        parts.push_async_callback(telemetry.close)
        await _Daemon(
            settings=settings,
            home=home,
            clock=clock,
            stop=stop,
            command=command,
            policy=policy or Policy(term=1),
            roster=roster,
            secret_files=SecretFiles(
                roster=roster, providers=settings.provider, home=home, every_s=look_every_s
            ),
            broker=broker,
            telemetry=telemetry,
        ).run()


class _Daemon:
    def __init__(
        self,
        *,
        settings: Settings,
        home: Home,
        clock: Clock,
        stop: asyncio.Event,
        command: Command,
        policy: Policy,
        roster: Roster,
        secret_files: SecretFiles,
        broker: Broker,
        telemetry: Telemetry,
    ) -> None:
        self._home: Final = home
        self._stop: Final = stop
        self._command: Final = command
        self._roster: Final = roster
        self._secret_files: Final = secret_files
        self._broker: Final = broker
        self._environment: Final = _harness_environment(home)
        self._life: Final = life_fd()
        self._subscriptions: Final = Subscriptions(epoch=broker.epoch)
        emit = self._subscriptions.emit
        broker.on_change = emit
        self._messages = messages = Messages(
            broker=broker, home=home, clock=clock, agents=roster, emit=emit, settings=settings.hive
        )
        self._subscriptions.turns = messages.turn_states
        self._supervisor: Final = Supervisor(
            roster=roster,
            pumps=messages,
            journal=_Journal(broker, telemetry),
            start=self._start_harness,
            command_of=command,
            clock=clock,
            emit=emit,
            policy=policy,
        )
        messages.watch = _Watch(self._supervisor, telemetry)
        overview = Overview(
            store=broker,
            telemetry=telemetry,
            roster=roster,
            live=messages,
            views=self._supervisor,
            home=home,
            clock=clock,
            epoch=broker.epoch,
            secrets=secret_files.findings,
        )
        self._operator: Final = Operator(
            auth=Auth(broker, clock=clock),
            overview=overview,
            queries=Queries(broker, telemetry, roster=roster),
            subscriptions=self._subscriptions,
            steering=broker,
            clock=clock,
            stop=stop,
        )

    async def run(self) -> None:
        """Start everything, wait for `stop`, stop everything."""
        await self._broker.set_agents([self._entry(name) for name in self._roster.names()])
        for name in self._roster.names():
            self._home.agent_state(name).mkdir(mode=0o755, parents=True, exist_ok=True)
            self._home.agent_harness(name).mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._secret_files.recall()
        async with AsyncExitStack() as parts:
            parts.push_async_callback(self._subscriptions.close)
            parts.push_async_callback(self._messages.close)
            await self._messages.start()
            web = self._operator.web_listener(epoch=self._broker.epoch)
            parts.push_async_callback(web.close)
            await web.start(self._home.web_socket)
            cli = self._operator.cli_listener(epoch=self._broker.epoch, uids=frozenset({os.getuid(), 0}))
            parts.push_async_callback(cli.close)
            await cli.start(self._home.cli_socket)
            _log.info("daemon_started", epoch=self._broker.epoch, agents=len(self._roster.names()))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._supervisor.run(), name="supervisor")
                logs = tasks.create_task(self._rotate_logs(), name="logs")
                secrets = tasks.create_task(
                    self._secret_files.run(self._supervisor.restart), name="secret files"
                )
                await self._stop.wait()
                _log.info("daemon_stopping")
                secrets.cancel()
                await self._messages.drain(DRAIN_S)
                self._supervisor.stop()
                logs.cancel()
        _log.info("daemon_stopped")

    def _entry(self, name: str) -> AgentEntry:
        agent = self._roster.settings(name)
        return AgentEntry(
            name=name, role=agent.role, state="defined", people=agent.people, talks_to=agent.talks_to
        )

    async def _start_harness(self, agent: str) -> Process:
        await self._secret_files.began(agent)
        return await spawn(
            self._command(agent),
            environment=self._environment,
            log=self._home.log_file(f"harness-{agent}"),
            life=self._life,
        )

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_EVERY_S)
            for name in self._roster.names():
                rotate(self._home.log_file(f"harness-{name}"))


class _Watch:
    """Passes on what the message half tells: pumps to the supervisor, turns to the figures."""

    def __init__(self, supervisor: Supervisor, telemetry: Telemetry) -> None:
        self._supervisor: Final = supervisor
        self._telemetry: Final = telemetry

    def on_pump_up(self, agent: str, pump: PumpInfo) -> None:
        self._supervisor.on_pump_up(agent, pump)

    def on_pump_lost(self, agent: str) -> None:
        self._supervisor.on_pump_lost(agent)

    def on_missed_start(self, agent: str) -> None:
        self._supervisor.on_missed_start(agent)

    def on_turn_ended(self, agent: str, turn: TurnStats) -> None:
        self._telemetry.add_turn(agent, turn)


class _Journal:
    """Keeps what the supervisor must know again. A disk that refuses does not stop supervision."""

    def __init__(self, broker: Broker, telemetry: Telemetry) -> None:
        self._broker: Final = broker
        self._telemetry: Final = telemetry

    async def known(self) -> Mapping[str, Mapping[str, Any]]:
        facts = await self._broker.agent_facts()
        return {
            name: {**known, "restarts": json.loads(known["restarts"] or "[]")}
            for name, known in facts.items()
        }

    async def keep(self, agent: str, **facts: Any) -> None:
        if "restarts" in facts:
            facts["restarts"] = json.dumps(facts["restarts"])
        await _tried(self._broker.set_agent_facts(agent, **facts))

    async def set_state(self, agent: str, state: AgentState) -> None:
        await _tried(self._broker.set_agent_state(agent, state))

    def record(self, agent: str, kind: str, detail: str) -> None:
        self._telemetry.add_event(agent, kind, detail)

    async def tell_manager(self, manager: str, body: str) -> None:
        await _tried(self._broker.send(SYSTEM, Draft(to=f"agent:{manager}", kind="system", body=body)))

    async def hold(self, agent: str, reason: str) -> None:
        await _tried(self._broker.hold(mailbox=f"agent:{agent}", reason=reason))

    async def release(self, agent: str, reason: str) -> None:
        await _tried(self._broker.resume(mailbox=f"agent:{agent}", reason=reason))


async def _tried(act: Awaitable[object]) -> None:
    try:
        await act
    except SkepError as error:
        _log.warning("supervisor_note_lost", code=error.code)


def _harness_environment(home: Home) -> dict[str, str]:
    """Return what a harness gets: of Skep's own settings only where home is, and how to log."""
    return {
        name: value
        for name, value in child_environment(home).items()
        if not name.startswith("SKEP_") or name == "SKEP_HOME" or name.startswith("SKEP_LOG_")
    }
