"""The broker as the daemon uses it: every act is one transaction, durable when it returns.

Source: hive, sections 2 to 9; control protocol, sections 4 to 7.
Time comes in as a `Clock`. It runs no task of its own: the daemon calls `sweep` and `fire_due`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from skep.broker.types import (
    Actor,
    AgentEntry,
    AskOpened,
    AskRow,
    BrokerSettings,
    Draft,
    Ended,
    Envelope,
    Fired,
    Granted,
    Lease,
    LostLease,
    Outcome,
    Pending,
    Queue,
    ReminderRow,
    ReminderSet,
    Reply,
    Sent,
    Started,
    Swept,
)
from skep.bus.doorbells import Doorbells
from skep.foundation.clock import Clock
from skep.store.ports import HiveTx
from skep.store.sqlite.engine import OpenOptions

__all__ = ["Broker", "OnChange"]

T = TypeVar("T")

OnChange = Callable[[str, Mapping[str, Any]], None]
"""Takes (kind, data) after the commit: `delivery {id, message, lane, recipient, state}`,
`ask {id, state}`, `reminder {id, state}`. Ids and states only."""


class Broker:
    """One hive's broker, over one open store."""

    epoch: int
    """Boot epoch: raised by `open`, each time the daemon starts."""
    settings: BrokerSettings
    doorbells: Doorbells
    """Rings `agent:NAME`, `door:RELAY`, `operator:ID` when one of their lanes may be taken, `ask:ID`
    when an ask ends, and `reminders` when the next due time may have changed."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock,
        settings: BrokerSettings | None = None,
        doorbells: Doorbells | None = None,
        on_change: OnChange | None = None,
        options: OpenOptions | None = None,
    ) -> Self:
        """Open the store at `path`, raise the boot epoch and end every lease of the one before.

        Raises:
            SettingError: The store cannot be used; see `SqliteEngine.open`.
            StoreUnavailableError: The disk is full or cannot be written.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Store what is under way, then close. Safe to call twice."""
        raise NotImplementedError

    # Transactions of one's own: the door's, and whatever joins several acts.

    def transact(self, op: Callable[[HiveTx], T], *, may_refuse: bool = False) -> asyncio.Future[T]:
        """Run `op` as one transaction; the result is given when it is durable.

        `op` runs in the writer thread: it may use `tx` and the functions of `skep.broker.ops`,
        `.people`, `.asks` and `.reminders` that take a `tx`, and nothing else that changes.

        Raises:
            BusyError: `may_refuse`, and too much waits.
        """
        raise NotImplementedError

    async def view(self, op: Callable[[HiveTx], T]) -> T:
        """Return what `op` reads, from one state of the store. It cannot write."""
        raise NotImplementedError

    # Sending.

    async def send(self, actor: Actor, draft: Draft) -> Sent:
        """Store a message and its deliveries.

        Raises:
            NoSuchRecipientError, NotAllowedError, NoRouteError, TooLargeError, InvalidArgumentError,
            IdempotencyConflictError, QueueFullError, RateLimitedError: Nothing is stored.
            BusyError: From agents only: too much waits for the disk.
        """
        raise NotImplementedError

    # Leases. `mailbox` is `agent:NAME` or `door:RELAY`; `holder` names one connection.

    async def take(
        self, mailboxes: Sequence[str], *, holder: str, burst: int = 20, lanes: int = 1
    ) -> Granted:
        """Lease up to `lanes` lanes that are ready now; do not wait.

        A lane whose head is from a person gives up to `burst` of people's messages; any other head
        comes alone. May be answered before its commit: a lease that is lost so makes nothing wrong.
        """
        raise NotImplementedError

    async def next(
        self,
        mailboxes: Callable[[], Sequence[str]],
        *,
        holder: str,
        wait_ms: int,
        burst: int = 20,
        lanes: int = 1,
        changed: asyncio.Event | None = None,
    ) -> tuple[Lease, ...]:
        """Lease as `take` does, waiting up to `wait_ms` for the first; empty after that.

        Waits for the doorbells, and looks at the store at least every 5 s.

        Args:
            mailboxes: Which may be taken from now; asked at each look, none means: grant nothing.
            changed: Set (by anybody) when `mailboxes` gives something else; cleared here.
        """
        raise NotImplementedError

    async def started(self, lease_id: str, *, fence: int, turn_id: str) -> Started:
        """Mark what was leased as shown: a turn begins. Safe to repeat.

        Raises:
            StaleLeaseError: The lease has ended.
        """
        raise NotImplementedError

    async def more(
        self, lease_id: str, *, fence: int, limit: int, call_id: str | None = None
    ) -> tuple[tuple[Envelope, ...], Pending]:
        """Give further envelopes of the lane to the running turn; they are shown with it.

        Args:
            call_id: A repeat with the same id gives the same envelopes again.

        Raises:
            StaleLeaseError: The lease has ended.
            NoTurnError: The turn has not begun.
        """
        raise NotImplementedError

    async def recv(
        self,
        actor: Actor,
        *,
        limit: int = 1,
        wait_ms: int = 0,
        call_id: str | None = None,
    ) -> tuple[tuple[Envelope, ...], Pending]:
        """Do as `more` for the running turn of `actor.lane`, waiting up to `wait_ms` for the first.

        Raises:
            NoTurnError: No turn runs there.
            NotFoundError: The lane is not the actor's.
        """
        raise NotImplementedError

    async def renew(self, lease_id: str, *, fence: int) -> int:
        """Return until when the lease holds now (UTC ms).

        Raises:
            StaleLeaseError: The lease has ended.
        """
        raise NotImplementedError

    async def ended(
        self,
        lease_id: str,
        *,
        fence: int,
        turn_id: str,
        outcome: Outcome,
        reply: Reply | None = None,
        code: str | None = None,
        platform_message_ids: Sequence[str] = (),
    ) -> Ended:
        """Close a turn: its reply and the end of its deliveries are one transaction.

        Control protocol, section 6.2. Safe to repeat by `turn_id`.

        Raises:
            StaleLeaseError: The lease has ended, and not by this turn.
            TooLargeError: The reply is over 64 KiB.
        """
        raise NotImplementedError

    async def nack(
        self,
        lease_id: str,
        *,
        fence: int,
        delivery_ids: Sequence[int] = (),
        delay_ms: int = 0,
        reason: str = "",
    ) -> None:
        """Give deliveries back without blame; none named: all, and the lane is free.

        Raises:
            StaleLeaseError: The lease has ended.
        """
        raise NotImplementedError

    async def end_leases(
        self, *, holder: str | None = None, mailbox: str | None = None
    ) -> tuple[LostLease, ...]:
        """End the leases of a connection that is gone, or all of a mailbox whose process is gone."""
        raise NotImplementedError

    async def hold(self, *, lane: int | None = None, mailbox: str | None = None, reason: str) -> int:
        """Grant no lease of this lane, or of all lanes of a mailbox; return how many lanes."""
        raise NotImplementedError

    async def resume(
        self, *, lane: int | None = None, mailbox: str | None = None, reason: str | None = None
    ) -> int:
        """Free lanes that are held (for `reason` alone, if given); return how many."""
        raise NotImplementedError

    async def sweep(self) -> Swept:
        """End leases that ran out or never started, deliver what is due, expire, give up.

        The daemon calls it every `next_in_ms`, at least every 5 s.
        """
        raise NotImplementedError

    # Dead letters and deliveries.

    async def cancel(self, actor: Actor, delivery_id: int) -> str:
        """Cancel a delivery that is scheduled or ready; return its state. NotFoundError, ClosedError."""
        raise NotImplementedError

    async def requeue(self, actor: Actor, delivery_id: int) -> str:
        """Make a dead or expired delivery ready again, at the end of its lane; return its state."""
        raise NotImplementedError

    async def drop(self, actor: Actor, delivery_id: int) -> str:
        """Give up a dead delivery for good (it stays readable); return its state."""
        raise NotImplementedError

    # Asks.

    async def ask(
        self,
        actor: Actor,
        *,
        to: str,
        question: str,
        choices: Sequence[str] = (),
        deadline_ms: int | None = None,
        wait_ms: int = 0,
        idem: str | None = None,
    ) -> AskOpened:
        """Ask somebody, and wait up to `wait_ms` for the answer; later it comes as an envelope.

        Raises:
            TooManyOpenError: 20 are open. Else as `send`.
        """
        raise NotImplementedError

    async def answer(self, actor: Actor, ask_id: str, body: str) -> Sent:
        """Answer an ask that was put to `actor`. NotFoundError, ClosedError, TooLargeError."""
        raise NotImplementedError

    async def cancel_ask(self, actor: Actor, ask_id: str) -> str:
        """Cancel an open ask of one's own (operator: any); return `cancelled`. NotFoundError, ClosedError."""
        raise NotImplementedError

    async def list_asks(self, actor: Actor, *, state: str | None = "open") -> tuple[AskRow, ...]:
        """Return one's own asks (operator: all), newest first; `state` None for any."""
        raise NotImplementedError

    # Reminders.

    async def remind(
        self,
        actor: Actor,
        *,
        body: str,
        in_ms: int | None = None,
        due_at: int | None = None,
        session: str | None = None,
        missed: str = "once",
        idem: str | None = None,
    ) -> ReminderSet:
        """Arm a reminder to oneself, in the session of the turn or the one named.

        Raises:
            TooManyOpenError, TooSoonError, TooFarError, TooLargeError, RateLimitedError,
            InvalidArgumentError: Nothing is stored.
        """
        raise NotImplementedError

    async def cancel_reminder(self, actor: Actor, reminder_id: str) -> str:
        """Cancel an armed reminder of one's own (operator: any). NotFoundError, AlreadySentError."""
        raise NotImplementedError

    async def list_reminders(self, actor: Actor) -> tuple[ReminderRow, ...]:
        """Return one's own armed reminders (operator: all), soonest first."""
        raise NotImplementedError

    async def fire_due(self, *, limit: int = 256) -> Fired:
        """Send up to `limit` reminders that are due by the wall clock, in one transaction."""
        raise NotImplementedError

    # Agents, as far as messages need them.

    async def set_agents(self, agents: Sequence[AgentEntry]) -> None:
        """Make these the agents there are. One that is missing is retired: its mail becomes dead."""
        raise NotImplementedError

    async def set_agent_state(self, name: str, state: str) -> None:
        """Keep what the supervisor says of an agent."""
        raise NotImplementedError

    async def agent_facts(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what was kept by `set_agent_facts`, by agent, with `role` and `state`."""
        raise NotImplementedError

    async def set_agent_facts(self, name: str, **facts: Any) -> None:
        """Keep facts of the supervisor: `uid`, `harness`, `boot_epoch`, `pid`, `pid_start`, `pump_at`,
        `tools_at`, `restarts`, `note`."""
        raise NotImplementedError

    # Reading.

    async def queues(self) -> Mapping[str, Queue]:
        """Return what waits, by mailbox."""
        raise NotImplementedError

    async def query(
        self, name: str, params: Mapping[str, Any], *, cursor: str | None = None
    ) -> tuple[tuple[dict[str, Any], ...], str | None]:
        """Return one page of a named query and where the next begins: `threads`, `thread {id}`,
        `lane {lane}`, `dead`, `asks {state?}`, `reminders`, `stats`, `audit`.

        Raises:
            InvalidArgumentError: No such query, or a wrong parameter.
        """
        raise NotImplementedError

    async def thread(
        self, actor: Actor, message_id: str, *, limit: int = 100, before: str | None = None
    ) -> tuple[dict[str, Any], ...]:
        """Return what `actor` may read of a thread, oldest first. NotFoundError."""
        raise NotImplementedError

    async def audit(self, actor: str, act: str, *, about: str = "", detail: str = "") -> None:
        """Write one audit row."""
        raise NotImplementedError
