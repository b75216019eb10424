"""Which leases are out and which turns run, as this process knows it.

Source: hive, sections 5 and 6; control protocol, sections 6 and 8.1. The truth is in the store; this
is what lets a call, a cancel or a closed connection find its lane without asking it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from skep.foundation.rpc import Connection
from skep.hive.ports import RunningTurn
from skep.wire.control.envelope import Envelope, Lease
from skep.wire.control.pump import CANCEL, Cancel

__all__ = ["HeldLease", "Leases"]


@dataclass(slots=True, kw_only=True, eq=False)
class HeldLease:
    """One lease that is out.

    Attributes:
        agent: Who works on it; `None` on the lane of a chat.
        envelopes: All that was handed over with it so far.
        turn_id: Since `pump.started`.
        speaks_in: Relay and chat id of the chat that its session is of, since then.
        cancel: Why the turn should stop.
        calls: Tools called in this turn, by call id: a repeat gets the same answer.
    """

    lease_id: str
    fence: int
    lane: int
    session: str
    agent: str | None
    connection: Connection
    envelopes: list[Envelope]
    taken_at: int
    turn_id: str | None = None
    speaks_in: tuple[str, str] | None = None
    started_at: int = 0
    cancel: str | None = None
    calls: dict[str, asyncio.Task[Any]] = field(default_factory=dict[str, "asyncio.Task[Any]"])

    @property
    def running(self) -> RunningTurn | None:
        """The turn, once it has begun."""
        if self.turn_id is None or self.agent is None:
            return None
        return RunningTurn(
            turn_id=self.turn_id,
            agent=self.agent,
            lane=self.lane,
            session=self.session,
            started_at=self.started_at,
        )

    def is_of_chat(self, relay: str, chat_id: str) -> bool:
        """Return whether it speaks in this chat, as a reminder does, or something in it was written there."""
        return self.speaks_in == (relay, chat_id) or any(
            origin.get("relay") == relay and origin.get("chat_id") == chat_id
            for origin in (envelope.origin for envelope in self.envelopes)
            if origin is not None
        )


class Leases:
    """All leases that are out, found by lease, by turn, or by lane."""

    def __init__(self) -> None:
        self._by_id: Final[dict[str, HeldLease]] = {}
        self._by_turn: Final[dict[str, HeldLease]] = {}
        self._by_lane: Final[dict[int, HeldLease]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> tuple[HeldLease, ...]:
        """Return all of them, oldest first."""
        return tuple(self._by_id.values())

    def granted(self, lease: Lease, *, agent: str | None, connection: Connection, now_ms: int) -> HeldLease:
        """Note that `lease` went to the pump on `connection`."""
        held = HeldLease(
            lease_id=lease.lease_id,
            fence=lease.fence,
            lane=lease.lane,
            session=lease.session,
            agent=agent,
            connection=connection,
            envelopes=list(lease.envelopes),
            taken_at=now_ms,
        )
        self._by_id[held.lease_id] = self._by_lane[held.lane] = held
        return held

    def started(
        self, held: HeldLease, *, turn_id: str, speaks_in: tuple[str, str] | None, now_ms: int
    ) -> None:
        """Note that its turn has begun."""
        held.turn_id, held.speaks_in, held.started_at = turn_id, speaks_in, now_ms
        self._by_turn[turn_id] = held

    def gone(self, held: HeldLease) -> None:
        """Forget it: ended, given back or lost. Calls that still wait are cancelled."""
        self._by_id.pop(held.lease_id, None)
        if held.turn_id is not None:
            self._by_turn.pop(held.turn_id, None)
        if self._by_lane.get(held.lane) is held:
            del self._by_lane[held.lane]
        for call in held.calls.values():
            call.cancel()
        held.calls.clear()

    def of(self, lease_id: str) -> HeldLease | None:
        """Return the lease of this id."""
        return self._by_id.get(lease_id)

    def of_turn(self, turn_id: str) -> HeldLease | None:
        """Return the lease in which this turn runs."""
        return self._by_turn.get(turn_id)

    def of_lane(self, lane: int) -> HeldLease | None:
        """Return the lease on this lane."""
        return self._by_lane.get(lane)

    def of_agent(self, agent: str) -> Sequence[HeldLease]:
        """Return the leases of `agent`, oldest first."""
        return [held for held in self._by_id.values() if held.agent == agent]

    def of_connection(self, connection: Connection) -> Sequence[HeldLease]:
        """Return the leases that went to this connection."""
        return [held for held in self._by_id.values() if held.connection is connection]

    def of_session(self, session: str) -> Sequence[HeldLease]:
        """Return the leases of agents in this session."""
        return [held for held in self._by_id.values() if held.session == session and held.agent is not None]

    @staticmethod
    def cancel(held: HeldLease, reason: str) -> None:
        """Tell the pump to stop this turn; `pump.renew` says it again."""
        if held.cancel is None:
            held.cancel = reason
            held.connection.emit(CANCEL, Cancel(lease_id=held.lease_id, reason=reason))
