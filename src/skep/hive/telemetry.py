"""Figures of the hive: turns, and what happened to the harnesses.

Source: hive, section 14. Adding never waits and never fails its caller: a figure that is lost harms
nobody. It keeps outcomes, counts and times; never what somebody wrote.
"""

from __future__ import annotations

import asyncio
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.hive.ports import TurnStats
from skep.store.sqlite.engine import OpenOptions
from skep.store.sqlite.telemetry import (
    EventRow,
    LastTurn,
    NewTurn,
    TelemetryStore,
    TelemetryTx,
    TurnRow,
    open_telemetry,
)

__all__ = ["HOUR_MS", "Figures", "Telemetry", "midnight_ms", "percentile"]

HOUR_MS: Final = 3_600_000

_log = get_logger(part="telemetry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Turns of one agent over a span of whole hours, the last of which is running.

    Attributes:
        by_hour: (turns, errors), oldest first.
    """

    turns: int
    errors: int
    p50_ms: int | None
    p95_ms: int | None
    in_tokens: int
    out_tokens: int
    by_hour: tuple[tuple[int, int], ...]


class Telemetry:
    """The daemon's own `telemetry.db`. Open it with `open`."""

    def __init__(self, store: TelemetryStore, *, boot_epoch: int, clock: Clock) -> None:
        self._store: Final = store
        self._boot_epoch: Final = boot_epoch
        self._clock: Final = clock

    @classmethod
    async def open(
        cls, path: Path, *, boot_epoch: int, clock: Clock, options: OpenOptions | None = None
    ) -> Self:
        """Open the file at `path`. Raises as `open_telemetry` does."""
        return cls(await open_telemetry(path, options=options), boot_epoch=boot_epoch, clock=clock)

    async def close(self) -> None:
        """Keep what is under way, then close."""
        await self._store.close()

    async def flush(self) -> None:
        """Wait until all that was added can be read."""
        await self._store.write(_nothing)

    def add_turn(self, agent: str, turn: TurnStats, *, session: str | None = None) -> None:
        """Keep a turn that has ended."""
        stats = turn.stats
        row = NewTurn(
            id=turn.turn_id,
            agent=agent,
            session=session,
            boot_epoch=self._boot_epoch,
            started=turn.started_at,
            ended=turn.ended_at,
            outcome=turn.outcome,
            envelopes=turn.envelopes,
            tool_calls=_count(stats, "tool_calls") or 0,
            model=_word(stats, "model"),
            wake_kind=_word(stats, "wake_kind"),
            in_tokens=_count(stats, "in_tokens"),
            out_tokens=_count(stats, "out_tokens"),
            cache_tokens=_count(stats, "cache_tokens"),
            cost_microusd=_count(stats, "cost_microusd"),
            wait_ms=_count(stats, "wait_ms"),
            error=_word(stats, "error"),
        )
        self._add(lambda tx: tx.add_turn(row))

    def add_event(self, agent: str, kind: str, data: str = "") -> None:
        """Keep one thing that happened to `agent`, now."""
        at = self._clock.now_ms()
        self._add(lambda tx: tx.add_event(agent, at=at, kind=kind, data=data[:200]))

    async def turns_today(self, zones: Mapping[str, zoneinfo.ZoneInfo | None]) -> dict[str, int]:
        """Return how many turns each agent has begun since midnight in its own zone."""
        now = self._clock.now_ms()
        since = {agent: midnight_ms(now, zone) for agent, zone in zones.items()}
        counts = await self._store.read(lambda tx: tx.turns_since(since))
        return {agent: counts.get(agent, 0) for agent in zones}

    async def figures(self, agents: Sequence[str], *, hours: int = 24) -> dict[str, Figures]:
        """Return the turns of each agent over the last `hours`."""
        now = self._clock.now_ms()
        since = now - hours * HOUR_MS
        rows = await self._store.read(lambda tx: tx.turns_of(agents, since=since))
        by_agent: dict[str, list[TurnRow]] = {agent: [] for agent in agents}
        for row in rows:
            by_agent[row.agent].append(row)
        return {agent: _figures(turns, since=since, hours=hours) for agent, turns in by_agent.items()}

    async def missed_starts(self, agents: Sequence[str], *, hours: int = 24) -> dict[str, int]:
        """Return how many starts each agent has missed over the last `hours`."""
        since = self._clock.now_ms() - hours * HOUR_MS
        counts = await self._store.read(lambda tx: tx.events_since(agents, kind="missed_start", since=since))
        return {agent: counts.get(agent, 0) for agent in agents}

    async def last(self, agent: str, *, before: int, limit: int) -> tuple[list[LastTurn], list[EventRow]]:
        """Return the newest turns and events of `agent` before then, newest first."""
        return await self._store.read(
            lambda tx: (
                tx.last_turns(agent, before=before, limit=limit),
                tx.last_events(agent, before=before, limit=limit),
            )
        )

    def _add(self, op: Callable[[TelemetryTx], None]) -> None:
        try:
            self._store.write(op).add_done_callback(_log_lost)
        except SkepError as error:
            _log.warning("figure_lost", code=error.code)


def midnight_ms(now_ms: int, zone: zoneinfo.ZoneInfo | None) -> int:
    """Return when the day began in `zone` (`None`: the system's), in UTC milliseconds."""
    local = datetime.fromtimestamp(now_ms / 1000, tz=UTC).astimezone(zone)
    # Taken as that zone's own midnight: the offset may have changed since then.
    start = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=zone, fold=0)
    return int(start.timestamp() * 1000)


def percentile(values: Sequence[int], share: float) -> int | None:
    """Return the nearest-rank percentile of sorted `values`, `None` for none."""
    if not values:
        return None
    rank = -(-len(values) * round(share * 100) // 100)
    return values[max(rank, 1) - 1]


def _figures(turns: list[TurnRow], *, since: int, hours: int) -> Figures:
    spans = sorted(turn.ended - turn.started for turn in turns)
    buckets = [[0, 0] for _ in range(hours)]
    for turn in turns:
        bucket = buckets[min((turn.started - since) // HOUR_MS, hours - 1)]
        bucket[0] += 1
        bucket[1] += turn.outcome == "error"
    return Figures(
        turns=len(turns),
        errors=sum(errors for _, errors in buckets),
        p50_ms=percentile(spans, 0.5),
        p95_ms=percentile(spans, 0.95),
        in_tokens=sum(turn.in_tokens or 0 for turn in turns),
        out_tokens=sum(turn.out_tokens or 0 for turn in turns),
        by_hour=tuple((count, errors) for count, errors in buckets),
    )


def _nothing(_tx: TelemetryTx) -> None:
    """Only wait for its turn."""


def _count(stats: Mapping[str, Any], name: str) -> int | None:
    value = stats.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def _word(stats: Mapping[str, Any], name: str) -> str | None:
    value = stats.get(name)
    return value[:64] if isinstance(value, str) else None


def _log_lost(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.warning("figure_lost", code=getattr(error, "code", type(error).__name__))
