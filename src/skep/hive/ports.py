"""What the message half of the daemon asks of the other half, and what it tells it.

Source: hive, sections 5.4, 7.5 and 9; control protocol, sections 6.3 and 12.
The message half (`skep.hive.messages`) owns sockets of agents and of the door; the other half knows
which agents there are and runs their processes. They meet in these protocols alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from skep.wire.control.operator import AgentState

__all__ = [
    "AgentCard",
    "Agents",
    "Emit",
    "NoWatch",
    "PumpInfo",
    "RunningTurn",
    "TurnStats",
    "Watch",
]

Emit = Callable[[str, dict[str, Any]], None]
"""Takes (kind, data) of a hive event (`HiveEvent` without its cursor); never blocks, never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCard:
    """One agent as `agents.toml` describes it, as far as messages need it.

    Attributes:
        people: Who may write to it: `all`, `none`, or principals such as `person:7`.
        talks_to: Agents it may send to: `all`, or names.
        max_parallel_lanes: Turns that may run at once.
        turn_limit_s: Longest turn.
    """

    name: str
    role: Literal["agent", "manager"] = "agent"
    runtime: str = "rehearsal"
    people: Literal["all", "none"] | tuple[str, ...] = "all"
    talks_to: Literal["all"] | tuple[str, ...] = "all"
    max_parallel_lanes: int = 4
    turn_limit_s: int = 7_200


class Agents(Protocol):
    """Which agents there are, and how they are. Read on every use: it changes while Skep runs."""

    @property
    def default(self) -> str:
        """Name of the agent that answers where no other is named."""
        ...

    def names(self) -> tuple[str, ...]:
        """Return the names of all agents, stopped ones included."""
        ...

    def get(self, name: str) -> AgentCard | None:
        """Return the agent of this name."""
        ...

    def state(self, name: str) -> AgentState:
        """Return how the supervisor sees it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpInfo:
    """A pump that said `pump.hello`.

    Attributes:
        pid: Of the peer, from the kernel.
    """

    harness_id: str
    harness_version: str
    pid: int
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTurn:
    """A turn between `pump.started` and its end."""

    turn_id: str
    agent: str
    lane: int
    session: str
    started_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStats:
    """How a turn ended; `stats` is what the harness said of it (never what was written)."""

    turn_id: str
    lane: int
    outcome: str
    started_at: int
    ended_at: int
    envelopes: int
    stats: dict[str, Any] = field(default_factory=dict[str, Any])


class Watch(Protocol):
    """Told by the message half; each call is made in the loop and must not block or raise."""

    def on_pump_up(self, agent: str, pump: PumpInfo) -> None:
        """A pump of `agent` said hello: it is up in this boot epoch."""
        ...

    def on_pump_lost(self, agent: str) -> None:
        """The pump's connection is gone; its leases are being ended."""
        ...

    def on_missed_start(self, agent: str) -> None:
        """A lease was not started within the start time-out (hive, section 5.4)."""
        ...

    def on_turn_ended(self, agent: str, turn: TurnStats) -> None:
        """A turn ended, well or not."""
        ...


class NoWatch:
    """Nobody watches."""

    def on_pump_up(self, agent: str, pump: PumpInfo) -> None:
        """Ignore it."""

    def on_pump_lost(self, agent: str) -> None:
        """Ignore it."""

    def on_missed_start(self, agent: str) -> None:
        """Ignore it."""

    def on_turn_ended(self, agent: str, turn: TurnStats) -> None:
        """Ignore it."""
