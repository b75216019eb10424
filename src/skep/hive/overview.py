"""How the hive is, put together from all who know: agents, relays, queues, figures, findings.

Source: hive, section 14; control protocol, section 9. Reads only. When a store does not answer, the
rest is told all the same, and the finding says so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from skep import __version__
from skep.foundation.clock import Clock
from skep.foundation.errors import RefusedError, SkepError
from skep.foundation.health import Finding
from skep.foundation.paths import Home
from skep.hive.agents import Roster
from skep.hive.auth import HiveStore
from skep.hive.health import AgentFacts, Facts, find
from skep.hive.ports import RunningTurn
from skep.hive.supervisor import View
from skep.hive.telemetry import HOUR_MS, Figures, Telemetry
from skep.store.ports import HiveTx
from skep.wire.control.operator import AgentRow, Findings, RelayRow, Status

__all__ = ["Live", "Overview"]

_HOURS: Final = 24


class Live(Protocol):
    """What only runs, and is on no disk (`skep.hive.messages.Messages`)."""

    def running_turns(self, name: str | None = None) -> tuple[RunningTurn, ...]:
        """Return what runs now, oldest first."""
        ...

    def relays(self) -> tuple[RelayRow, ...]:
        """Return each relay as the gateway said last."""
        ...

    def gateway_attached(self) -> bool:
        """Return whether a gateway is attached."""
        ...


class Views(Protocol):
    """How the supervisor sees its agents."""

    def view(self, name: str) -> View:
        """Return how the agent is."""
        ...


@dataclass(slots=True, kw_only=True)
class _Counts:
    """What `hive.db` says, by principal; empty when it does not answer."""

    waiting: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    asks: dict[str, int] = field(default_factory=dict[str, int])
    reminders: dict[str, int] = field(default_factory=dict[str, int])
    sent: dict[str, int] = field(default_factory=dict[str, int])
    hours: dict[str, list[tuple[int, int]]] = field(default_factory=dict[str, list[tuple[int, int]]])
    dead: dict[str, int] = field(default_factory=dict[str, int])
    held: dict[str, int] = field(default_factory=dict[str, int])
    problem: str | None = None


class Overview:
    """Answers `status.get`, `health.list`, `agent.list` and `agent.get`.

    Args:
        secrets: Returns what was found of secret files.
    """

    def __init__(
        self,
        *,
        store: HiveStore,
        telemetry: Telemetry,
        roster: Roster,
        live: Live,
        views: Views,
        home: Home,
        clock: Clock,
        epoch: int,
        secrets: Callable[[], tuple[Finding, ...]] = tuple,
    ) -> None:
        self._store: Final = store
        self._telemetry: Final = telemetry
        self._roster: Final = roster
        self._live: Final = live
        self._views: Final = views
        self._home: Final = home
        self._clock: Final = clock
        self._epoch: Final = epoch
        self._secrets: Final = secrets
        self._started_at: Final = clock.now_ms()

    async def status(self) -> Status:
        """Return how the hive is."""
        counts = await self._counts()
        return Status(
            build=__version__,
            pid=os.getpid(),
            boot_epoch=self._epoch,
            started_at=self._started_at,
            gateway_attached=self._live.gateway_attached(),
            relays=self._live.relays(),
            agents=await self._agents(counts),
            store="ok" if counts.problem is None else "down",
            findings=self._find(counts).findings,
            now=self._clock.now_ms(),
        )

    async def findings(self) -> Findings:
        """Return what is wrong."""
        return self._find(await self._counts())

    async def agents(self) -> tuple[AgentRow, ...]:
        """Return all agents, in the order of `agents.toml`."""
        return await self._agents(await self._counts())

    async def agent(self, name: str) -> AgentRow:
        """Return one agent.

        Raises:
            RefusedError: There is none of this name.
        """
        for row in await self.agents():
            if row.name == name:
                return row
        raise RefusedError(
            f"no agent `{name[:64]}`", hint="list them: `skep agent list`", code="hive.not_found"
        )

    async def _agents(self, counts: _Counts) -> tuple[AgentRow, ...]:
        names = self._roster.names()
        today: Mapping[str, int] = {}
        figures: Mapping[str, Figures] = {}
        missed: Mapping[str, int] = {}
        try:
            today = await self._telemetry.turns_today(
                {name: self._roster.settings(name).zone for name in names}
            )
            figures = await self._telemetry.figures(names, hours=_HOURS)
            missed = await self._telemetry.missed_starts(names, hours=_HOURS)
        except SkepError as error:
            counts.problem = counts.problem or error.problem
        return tuple(
            self._row(name, counts, turns_today=today.get(name, 0), figures=figures.get(name), missed=missed)
            for name in names
        )

    def _row(
        self,
        name: str,
        counts: _Counts,
        *,
        turns_today: int,
        figures: Figures | None,
        missed: Mapping[str, int],
    ) -> AgentRow:
        settings, view = self._roster.settings(name), self._views.view(name)
        turns = self._live.running_turns(name)
        who = f"agent:{name}"
        queue, oldest_at = counts.waiting.get(who, (0, None))
        hours = counts.hours.get(who, [])
        return AgentRow(
            name=name,
            role=settings.role,
            runtime=settings.runtime,
            state=view.state,
            note=view.note,
            up_since=view.up_since,
            busy=len(turns),
            turn_started_at=turns[0].started_at if turns else None,
            queue=queue,
            oldest_at=oldest_at,
            turns_today=turns_today,
            turn_p50_ms=figures.p50_ms if figures else None,
            turn_p95_ms=figures.p95_ms if figures else None,
            reminders_sent=counts.sent.get(who, 0),
            reminders_tried=sum(tried for tried, _ in hours),
            reminder_hours=tuple(hours),
            open_asks=counts.asks.get(who, 0),
            open_reminders=counts.reminders.get(who, 0),
            dead=counts.dead.get(who, 0),
            missed_starts=missed.get(name, 0),
            is_default=name == self._roster.default,
        )

    async def _counts(self) -> _Counts:
        since = self._clock.now_ms() - _HOURS * HOUR_MS
        owners = json.dumps([f"agent:{name}" for name in self._roster.names()])
        try:
            return await self._store.view(lambda tx: _count(tx, owners, since))
        except SkepError as error:
            return _Counts(problem=error.problem)

    def _find(self, counts: _Counts) -> Findings:
        agents: list[AgentFacts] = []
        for name in self._roster.names():
            settings, view = self._roster.settings(name), self._views.view(name)
            agents.append(
                AgentFacts(
                    name=name,
                    state=view.state,
                    note=view.note,
                    log=str(self._home.log_file(f"harness-{name}")),
                    is_sandboxed=settings.sandbox != "none",
                    runs_tools=settings.runtime != "rehearsal",
                )
            )
        return find(
            Facts(
                agents=tuple(agents),
                gateway_attached=self._live.gateway_attached(),
                relays=self._live.relays(),
                dead=sum(counts.dead.values()),
                held=counts.held,
                has_bubblewrap=shutil.which("bwrap") is not None,
                is_one_user=True,  # until processes get users of their own
                store_problem=counts.problem,
                secrets=self._secrets(),
            )
        )


def _count(tx: HiveTx, owners: str, since: int) -> _Counts:
    counts = _Counts(
        waiting={who: (count, oldest_at) for who, count, oldest_at in tx.all("op_waiting")},
        asks=dict(tx.all("op_open_asks")),
        reminders=dict(tx.all("op_open_reminders")),
        sent=dict(tx.all("op_reminders_sent", owners, since)),
        dead=dict(tx.all("op_dead_letters")),
        held=dict(tx.all("op_held")),
    )
    for owner, hour, tried, sent in tx.all("op_reminder_hours", owners, since):
        hours = counts.hours.setdefault(owner, [(0, 0)] * _HOURS)
        hour = min(hour, _HOURS - 1)
        hours[hour] = (hours[hour][0] + tried, hours[hour][1] + sent)
    return counts
