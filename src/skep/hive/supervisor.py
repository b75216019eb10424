"""Keeps one harness running per agent.

Source: hive, sections 5.3, 5.4 and 10; control protocol, sections 6.3 and 11.
An agent is judged by its pump alone: that its process runs, or that its tools answer, counts for
nothing. A lane is free for another turn only when the process that ran the last one is gone, with
its whole group. What a person or an agent wrote never comes here.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from skep import __version__
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.tasks import TaskSet
from skep.hive.agents import Roster
from skep.hive.ports import Emit, PumpInfo
from skep.hive.processes import AdoptedProcess, Process, is_alive, start_time
from skep.wire.control.operator import AgentState

__all__ = ["Journal", "Policy", "Pumps", "Start", "Supervisor", "View"]

ZOMBIE: Final = "zombie"
"""Reason for which the lanes of an agent are held while its old process does not die."""

_RESTART: Final = "restart"
"""Why a harness is started again that did nothing wrong."""

_log = get_logger(part="supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Times in seconds. Hive, sections 5.3, 5.4, 10.1 and 10.2.

    Attributes:
        backoff: Waits before the next start, by failures in a row; each with `jitter`.
        failures: So many in `window` and the agent is given up.
        missed_starts: So many in `window` and its harness is started again.
        grace: A process may take so long until its pump is up.
        suspect, silent: A pump that was not heard for so long is doubted, is given up.
        adopt: An old harness has so long to come back after a start of the daemon.
        drain: Running turns have so long to end before a restart that was asked for.
        term: A harness has so long to end by itself when it is told to stop.
        gone: A killed process has so long to be gone before its lanes are held.
        look: How often an agent is looked at when nothing happens.
        tell: The manager hears of one agent at most this often.
    """

    backoff: tuple[float, ...] = (1, 5, 15, 60, 300)
    jitter: float = 0.2
    failures: int = 5
    missed_starts: int = 2
    window: float = 600
    grace: float = 60
    suspect: float = 25
    silent: float = 60
    adopt: float = 5
    drain: float = 90
    term: float = 2
    gone: float = 10
    look: float = 1
    tell: float = 60


class Pumps(Protocol):
    """What the supervisor asks of the message half (`skep.hive.messages.Messages`)."""

    async def add_agent(self, name: str, *, uid: int | None = None, granting: bool = True) -> None:
        """Listen on the sockets of `name`."""
        ...

    def set_granting(self, name: str, *, granting: bool) -> None:
        """Grant leases to the pump of `name`, or stop."""
        ...

    def is_busy(self, name: str) -> bool:
        """Return whether `name` holds a lease."""
        ...

    async def end_leases(self, name: str) -> int:
        """End all leases of `name`, whose process is gone."""
        ...

    def pump_at(self, name: str) -> int | None:
        """Return when its pump was last heard, in this boot epoch."""
        ...


class Journal(Protocol):
    """Where the supervisor keeps what it must know again, and whom it tells."""

    async def known(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what was kept of each agent."""
        ...

    async def keep(self, agent: str, **facts: Any) -> None:
        """Keep `facts` of `agent`."""
        ...

    async def set_state(self, agent: str, state: AgentState) -> None:
        """Keep how it is: senders are told."""
        ...

    def record(self, agent: str, kind: str, detail: str) -> None:
        """Add one row to what happened to `agent`."""
        ...

    async def tell_manager(self, manager: str, body: str) -> None:
        """Send the manager one `system` envelope."""
        ...

    async def hold(self, agent: str, reason: str) -> None:
        """Grant no lease of any lane of `agent`."""
        ...

    async def release(self, agent: str, reason: str) -> None:
        """Free the lanes of `agent` that are held for `reason`."""
        ...


Start = Callable[[str], Awaitable[Process]]
"""Starts the harness of the agent of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one agent is; `up_since` is in UTC milliseconds."""

    state: AgentState
    note: str | None = None
    up_since: int | None = None


@dataclass(slots=True)
class _Agent:
    """One agent under supervision. Times are monotonic milliseconds but for `up_since`.

    Attributes:
        heard: What `pump_at` last gave, and when that changed.
        is_ours: The pump that is connected is that of `process`.
        wanted: A restart was asked for: says, when it can be done, whether it still is.
        drained_by: Until then, turns may run on before that restart; nothing new is granted.
        streak: Failures without a long good time between them.
        untold: Failures that the manager has not heard of.
    """

    name: str
    process: Process | None = None
    note: str | None = None
    up_since: int | None = None
    began: int = 0
    heard: tuple[int | None, int] = (None, 0)
    is_ours: bool = False
    wanted: Callable[[], Awaitable[bool]] | None = None
    drained_by: int | None = None
    streak: int = 0
    failures: deque[int] = field(default_factory=deque[int])
    missed: deque[int] = field(default_factory=deque[int])
    told: int | None = None
    untold: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Starts, watches, adopts and stops the harnesses (a `Watch` of the message half).

    Args:
        start: Starts a harness; a test hands in its own.
        command_of: The command line of a harness, to know an orphan of ours by.
    """

    def __init__(
        self,
        *,
        roster: Roster,
        pumps: Pumps,
        journal: Journal,
        start: Start,
        command_of: Callable[[str], tuple[str, ...]],
        clock: Clock,
        emit: Emit,
        policy: Policy | None = None,
    ) -> None:
        self._roster: Final = roster
        self._pumps: Final = pumps
        self._journal: Final = journal
        self._start_harness: Final = start
        self._command_of: Final = command_of
        self._clock: Final = clock
        self._emit: Final = emit
        self._policy: Final = policy or Policy()
        self._stop: Final = asyncio.Event()
        self._agents: Final = {name: _Agent(name) for name in roster.names()}
        self._telling: Final = TaskSet(on_error=_log_fault)

    async def run(self) -> None:
        """Keep every agent running until `stop`; return when all harnesses are gone."""
        known = await self._journal.known()
        for name in self._agents:
            await self._pumps.add_agent(name, granting=False)
        manager = self._roster.agents.manager
        first = sorted(self._agents.values(), key=lambda agent: agent.name != manager)
        try:
            async with asyncio.TaskGroup() as tasks:
                for agent in first:
                    tasks.create_task(self._keep(agent, known.get(agent.name, {})), name=agent.name)
        finally:
            await self._telling.close()

    def stop(self) -> None:
        """Stop every harness; `run` returns when they are gone."""
        self._stop.set()
        for agent in self._agents.values():
            agent.changed.set()

    def restart(self, name: str, still_wanted: Callable[[], Awaitable[bool]]) -> None:
        """Start its harness again when its running turns have ended; asked twice, that is done once.

        Args:
            still_wanted: Asked when they have; if not, the harness goes on.
        """
        agent = self._agents[name]
        if agent.process is not None and agent.wanted is None:
            agent.wanted = still_wanted
            agent.changed.set()

    def view(self, name: str) -> View:
        """Return how the agent is."""
        agent = self._agents[name]
        return View(state=self._roster.state(name), note=agent.note, up_since=agent.up_since)

    # Told by the message half.

    def on_pump_up(self, agent: str, pump: PumpInfo) -> None:
        """Take the pump of the process that we know; kill an orphan of ours that another daemon left."""
        known = self._agents[agent]
        process = known.process
        if process is not None and pump.pid in {process.pid, 0} and pump.harness_version == __version__:
            known.is_ours = True
            self._pumps.set_granting(agent, granting=known.drained_by is None)
            known.changed.set()
            return
        self._pumps.set_granting(agent, granting=False)
        _log.warning("foreign_pump", agent=agent, pid=pump.pid)
        started = start_time(pump.pid)
        if started is not None and _command_line(pump.pid) == self._command_of(agent):
            AdoptedProcess(pump.pid, started).kill()

    def on_pump_lost(self, agent: str) -> None:
        """Grant nothing until the pump of its process is back."""
        self._agents[agent].is_ours = False
        self._pumps.set_granting(agent, granting=False)

    def on_missed_start(self, agent: str) -> None:
        """Count it; the manager hears of it."""
        known = self._agents[agent]
        known.missed.append(self._clock.monotonic_ms())
        _log.warning("start_missed", agent=agent)
        self._journal.record(agent, "missed_start", "")
        self._tell(known, f"`{agent}` took a message and began no turn; the message waits again")
        known.changed.set()

    # One agent.

    async def _keep(self, agent: _Agent, known: Mapping[str, Any]) -> None:
        self._recall(agent, known)
        if not await self._adopted(agent, known) and not self._stop.is_set():
            await self._begin(agent)
        while not self._stop.is_set():
            why = await self._watch(agent) if agent.process is not None else agent.note or ""
            if self._stop.is_set():
                break
            if why == _RESTART:
                await self._restart(agent)
                continue
            await self._reap(agent)
            if not self._stop.is_set() and await self._may_try_again(agent, why):
                await self._begin(agent)
        await self._end(agent)

    def _recall(self, agent: _Agent, known: Mapping[str, Any]) -> None:
        now = self._clock.now_ms()
        restarts: list[int] = known.get("restarts") or []
        agent.failures.extend(at for at in restarts if 0 <= now - at < self._policy.window * 1000)
        agent.streak = len(agent.failures)

    async def _adopted(self, agent: _Agent, known: Mapping[str, Any]) -> bool:
        """Wait for the harness that an earlier daemon has started; kill it if it does not come back."""
        pid, started = known.get("pid") or 0, known.get("pid_start") or 0
        if not is_alive(pid, started):
            return False
        agent.process = AdoptedProcess(pid, started)
        self._began(agent)
        await self._set_state(agent, "starting")
        deadline = self._policy.adopt
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while not agent.is_ours and not self._stop.is_set() and not agent.process.is_gone():
                    agent.changed.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(agent.changed.wait(), self._policy.look)
        if agent.is_ours or self._stop.is_set():
            self._journal.record(agent.name, "adopted", "")
            _log.info("harness_adopted", agent=agent.name, pid=pid)
            return True
        await self._reap(agent)
        return False

    async def _begin(self, agent: _Agent) -> None:
        await self._set_state(agent, "starting")
        self._began(agent)
        try:
            process = await self._start_harness(agent.name)
        except OSError as error:
            agent.note = f"cannot be started: {error.strerror}"
            return
        agent.process = process
        self._journal.record(agent.name, "start", "")
        await self._journal.keep(agent.name, pid=process.pid, pid_start=process.started)

    def _began(self, agent: _Agent) -> None:
        now = self._clock.monotonic_ms()
        agent.began, agent.heard = now, (self._pumps.pump_at(agent.name), now)
        agent.up_since = None
        agent.wanted = agent.drained_by = None
        agent.missed.clear()

    async def _watch(self, agent: _Agent) -> str:
        """Wait until the process has ended or must be; return why. Empty when all is to stop."""
        process = agent.process
        assert process is not None
        tasks = TaskSet(on_error=_log_fault)
        ended = tasks.spawn(process.wait())
        try:
            while not self._stop.is_set():
                agent.changed.clear()
                if why := await self._judged(agent):
                    return why
                poked = tasks.spawn(agent.changed.wait())
                await asyncio.wait(
                    {ended, poked}, timeout=self._policy.look, return_when=asyncio.FIRST_COMPLETED
                )
                poked.cancel()
                if ended.done():
                    return _told_exit(ended.result())
        finally:
            await tasks.close()
        return ""

    async def _judged(self, agent: _Agent) -> str:
        """Return why the agent must be started again; by its pump alone."""
        now = self._clock.monotonic_ms()
        policy = self._policy
        pump_at = self._pumps.pump_at(agent.name)
        if agent.is_ours and pump_at != agent.heard[0]:
            agent.heard = (pump_at, now)
        while agent.missed and now - agent.missed[0] > policy.window * 1000:
            agent.missed.popleft()
        if len(agent.missed) >= policy.missed_starts:
            return f"missed {len(agent.missed)} starts"
        if agent.up_since is None:
            if agent.is_ours:
                await self._up(agent)
            elif now - agent.began > policy.grace * 1000:
                return f"its pump was not up after {policy.grace:g} s"
            return ""
        silent = now - agent.heard[1]
        if silent > policy.silent * 1000:
            return f"its pump was silent for {policy.silent:g} s"
        if agent.wanted is not None and self._is_drained(agent, now):
            return _RESTART
        calm = "up" if agent.drained_by is None else "draining"
        await self._set_state(agent, "suspect" if silent > policy.suspect * 1000 else calm)
        if agent.streak and now - agent.began > policy.window * 1000:
            agent.streak = 0
        return ""

    def _is_drained(self, agent: _Agent, now: int) -> bool:
        """Grant nothing more; return whether its turns have ended, or had their time."""
        if agent.drained_by is None:  # what is being granted at this moment shows at the next look
            agent.drained_by = now + int(self._policy.drain * 1000)
            self._pumps.set_granting(agent.name, granting=False)
            return False
        return not self._pumps.is_busy(agent.name) or now >= agent.drained_by

    async def _restart(self, agent: _Agent) -> None:
        """End the drained process, asked first, and start another; that is no failure."""
        wanted, process = agent.wanted, agent.process
        assert wanted is not None
        assert process is not None
        if not await wanted():
            agent.wanted = agent.drained_by = None
            self._pumps.set_granting(agent.name, granting=agent.is_ours)
            return
        self._journal.record(agent.name, "restart", "")
        _log.info("harness_restarted", agent=agent.name)
        process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), self._policy.term)
        await self._reap(agent)
        if not self._stop.is_set():
            await self._begin(agent)

    async def _up(self, agent: _Agent) -> None:
        agent.heard = (agent.heard[0], self._clock.monotonic_ms())
        agent.up_since = self._clock.now_ms()
        agent.note = None
        await self._set_state(agent, "up")
        self._journal.record(agent.name, "up", "")
        _log.info("agent_up", agent=agent.name)

    async def _reap(self, agent: _Agent) -> None:
        """Kill the group and wait until nothing of it runs; its lanes are held as long as it does."""
        process = agent.process
        if process is None:
            return
        process.kill()
        if not await self._gone(process, self._policy.gone):
            agent.note = f"process {process.pid} does not die"
            _log.error("process_does_not_die", agent=agent.name, pid=process.pid)
            await self._journal.hold(agent.name, ZOMBIE)
            await self._set_state(agent, "held")
            self._journal.record(agent.name, ZOMBIE, str(process.pid))
            while not await self._gone(process, self._policy.look):
                if self._stop.is_set():
                    return
                process.kill()
            await self._journal.release(agent.name, ZOMBIE)
            agent.note = None
        agent.process = None
        agent.is_ours = False
        agent.up_since = None
        await self._journal.keep(agent.name, pid=None, pid_start=None)
        with suppress(SkepError):  # a disk that refuses: they run out by themselves
            await self._pumps.end_leases(agent.name)

    async def _gone(self, process: Process, within_s: float) -> bool:
        deadline = self._clock.monotonic_ms() + within_s * 1000
        pause = 0.005
        while not process.is_gone():
            if self._clock.monotonic_ms() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.1)
        return True

    async def _may_try_again(self, agent: _Agent, why: str) -> bool:
        """Count a failure; wait as the policy says. False: no more tries, or all is to stop."""
        policy = self._policy
        now = self._clock.now_ms()
        while agent.failures and not 0 <= now - agent.failures[0] < policy.window * 1000:
            agent.failures.popleft()
        agent.failures.append(now)
        agent.streak += 1
        is_given_up = len(agent.failures) >= policy.failures
        wait = policy.backoff[min(agent.streak, len(policy.backoff)) - 1]
        agent.note = why
        _log.warning("harness_ended", agent=agent.name, why=why, failures=len(agent.failures))
        self._journal.record(agent.name, "exit", why)
        await self._journal.keep(agent.name, restarts=list(agent.failures), note=why)
        if is_given_up:
            self._journal.record(agent.name, "failed", why)
            await self._set_state(agent, "failed")
            self._tell(
                agent, f"`{agent.name}` failed {len(agent.failures)} times and is not started again: {why}"
            )
            await self._stop.wait()
            return False
        await self._set_state(agent, "starting")
        self._tell(agent, f"`{agent.name}` stopped: {why}; it is started again")
        wait *= 1 + random.uniform(-policy.jitter, policy.jitter)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), wait)
        return not self._stop.is_set()

    async def _end(self, agent: _Agent) -> None:
        """Stop the process: asked first, then killed."""
        process = agent.process
        if process is not None:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._policy.term)
            process.kill()
            if not await self._gone(process, min(self._policy.gone, self._policy.term)):
                _log.error("process_does_not_die", agent=agent.name, pid=process.pid)
                return  # the next daemon finds it in the store, and waits for it
            agent.process = None
            await self._journal.keep(agent.name, pid=None, pid_start=None)
        await self._set_state(agent, "stopped")

    async def _set_state(self, agent: _Agent, state: AgentState) -> None:
        if self._roster.state(agent.name) == state:
            return
        self._roster.set_state(agent.name, state)
        self._emit("agent", {"name": agent.name, "state": state, "note": agent.note})
        await self._journal.set_state(agent.name, state)

    def _tell(self, agent: _Agent, body: str) -> None:
        """Tell the manager, at most once a while for one agent; its own trouble is the operator's."""
        manager = self._roster.agents.manager
        if manager is None or manager == agent.name or self._stop.is_set():
            return
        now = self._clock.monotonic_ms()
        if agent.told is not None and now - agent.told < self._policy.tell * 1000:
            agent.untold += 1
            return
        if agent.untold:
            body += f" (and {agent.untold} more since the last notice)"
        agent.told, agent.untold = now, 0
        self._telling.spawn(self._journal.tell_manager(manager, body))


def _told_exit(code: int | None) -> str:
    if code is None:
        return "its process ended"
    if code < 0:
        return f"killed by signal {-code}"
    return f"exit code {code}"


def _command_line(pid: int) -> tuple[str, ...]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return tuple(part.decode(errors="replace") for part in file.read().split(b"\0")[:-1])
    except OSError:
        return ()


def _log_fault(error: BaseException) -> None:
    if isinstance(error, SkepError):
        _log.warning("manager_not_told", code=error.code)
    else:
        _log.error("supervisor_task_failed", exc_info=error)
