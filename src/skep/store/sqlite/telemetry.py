"""What can be done in one transaction of `telemetry.db`.

Source: hive, section 14.1. Apart from the hive's own store, so that its volume never delays mail;
after a power failure the last second may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from skep.store.migrations import load_migrations
from skep.store.queries import load_queries
from skep.store.sqlite.driver import Db
from skep.store.sqlite.engine import OpenOptions, SqliteEngine

__all__ = ["EventRow", "LastTurn", "NewTurn", "TelemetryStore", "TelemetryTx", "TurnRow", "open_telemetry"]

_SQL: Final = load_queries("telemetry")
_MIGRATIONS: Final = Path(__file__).with_name("migrations") / "telemetry"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """A turn that has ended. What its harness did not say is `None`."""

    id: str
    agent: str
    boot_epoch: int
    started: int
    ended: int
    outcome: str
    envelopes: int
    tool_calls: int = 0
    session: str | None = None
    model: str | None = None
    wake_kind: str | None = None
    in_tokens: int | None = None
    out_tokens: int | None = None
    cache_tokens: int | None = None
    cost_microusd: int | None = None
    wait_ms: int | None = None
    error: str | None = None


class TurnRow(NamedTuple):
    """A turn, as far as figures are made of it."""

    agent: str
    started: int
    ended: int
    outcome: str
    in_tokens: int | None
    out_tokens: int | None


class LastTurn(NamedTuple):
    """A turn of one agent."""

    id: str
    started: int
    ended: int
    outcome: str


class EventRow(NamedTuple):
    """One thing that happened to an agent."""

    id: int
    at: int
    kind: str
    data: str


class TelemetryTx:
    """The statements of `telemetry.db`; it has nothing to signal."""

    def __init__(self, db: Db) -> None:
        self._execute: Final = db.execute
        self.signals: list[Any] = []

    def forget(self) -> None:
        """Drop what was remembered: nothing is."""

    def add_turn(self, turn: NewTurn) -> None:
        """Keep a turn; a repeat by its id changes nothing."""
        self._execute(
            _SQL["turn_add"],
            (
                turn.id,
                turn.agent,
                turn.session,
                turn.boot_epoch,
                turn.started,
                turn.ended,
                turn.outcome,
                turn.model,
                turn.wake_kind,
                turn.envelopes,
                turn.in_tokens,
                turn.out_tokens,
                turn.cache_tokens,
                turn.cost_microusd,
                turn.tool_calls,
                turn.wait_ms,
                turn.error,
            ),
        )

    def add_event(self, agent: str, *, at: int, kind: str, data: str) -> None:
        """Keep one thing that happened to `agent`."""
        self._execute(_SQL["event_add"], (agent, at, kind, data))

    def turns_since(self, since: Mapping[str, int]) -> dict[str, int]:
        """Return how many turns each agent has begun since its own time."""
        return dict(self._execute(_SQL["turns_since"], (json.dumps(list(since.items())),)).fetchall())

    def turns_of(self, agents: Sequence[str], *, since: int) -> list[TurnRow]:
        """Return the turns of `agents` that began since then, oldest first."""
        rows = self._execute(_SQL["turns_of"], (json.dumps(list(agents)), since)).fetchall()
        return [TurnRow(*row) for row in rows]

    def last_turns(self, agent: str, *, before: int, limit: int) -> list[LastTurn]:
        """Return the newest turns of `agent` that began before then."""
        return [
            LastTurn(*row) for row in self._execute(_SQL["last_turns"], (agent, before, limit)).fetchall()
        ]

    def last_events(self, agent: str, *, before: int, limit: int) -> list[EventRow]:
        """Return the newest events of `agent` before then."""
        return [
            EventRow(*row) for row in self._execute(_SQL["last_events"], (agent, before, limit)).fetchall()
        ]

    def events_since(self, agents: Sequence[str], *, kind: str, since: int) -> dict[str, int]:
        """Return how many events of a kind each agent has had since then."""
        return dict(self._execute(_SQL["events_since"], (json.dumps(list(agents)), kind, since)).fetchall())


TelemetryStore = SqliteEngine[TelemetryTx]


async def open_telemetry(path: Path, *, options: OpenOptions | None = None) -> TelemetryStore:
    """Open `telemetry.db`, made and migrated as needed.

    Raises:
        SettingError: Damaged, of a newer version, foreign, or on a network filesystem.
        StoreUnavailableError: The disk is full or cannot be written.
    """
    return await TelemetryStore.open(
        path,
        migrations=load_migrations(_MIGRATIONS),
        tx=TelemetryTx,
        options=options or OpenOptions(synchronous="NORMAL", log_bytes=0),
    )
