"""The broker as the daemon uses it: every act is one transaction, durable when it returns.

Source: hive, sections 2 to 9; control protocol, sections 4 to 7.
Time comes in as a `Clock`. It runs no task of its own: the daemon calls `sweep` and `fire_due`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from skep.broker import asks, lanes, leases, letters, ops, reminders, rights, sweeps
from skep.broker.rules import Rules
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
from skep.bus.doorbells import POLL_S, Doorbells
from skep.foundation.clock import Clock
from skep.store.ports import HiveTx, Signal
from skep.store.sqlite.engine import OpenOptions, SqliteEngine
from skep.store.sqlite.hive import HIVE_MIGRATIONS, SqliteHiveTx

__all__ = ["Broker", "OnChange"]

T = TypeVar("T")
R = TypeVar("R")

OnChange = Callable[[str, Mapping[str, Any]], None]
"""Takes (kind, data) after the commit: `delivery {id, message, lane, recipient, state}`,
`ask {id, state}`, `reminder {id, state}`, `lane {lane, recipient, hold}`, `interrupt {lane, recipient}`.
Ids and states only."""

_CHANGE_FIELDS: Final = {
    "delivery": ("id", "message", "lane", "recipient", "state"),
    "ask": ("id", "state"),
    "reminder": ("id", "state"),
    "lane": ("lane", "recipient", "hold"),
    "interrupt": ("lane", "recipient"),
}
_FACTS: Final = (
    "uid",
    "harness",
    "boot_epoch",
    "pid",
    "pid_start",
    "pump_at",
    "tools_at",
    "restarts",
    "note",
)
_OLD_EVERY_MS: Final = 600_000
"""How often mail that has waited too long is looked for."""


class Broker:
    """One hive's broker, over one open store. Make it with `open`.

    Attributes:
        epoch: Boot epoch: raised by `open`, each time the daemon starts.
        cut_off: Leases of the epoch before, that `open` has ended.
        doorbells: Rings `agent:NAME`, `door:RELAY`, `operator:ID` when one of their lanes may be taken,
            `lane:N` when something comes for a running turn, `lost:LEASE` when a lease is taken away,
            `ask:ID` when an ask ends, and `reminders` when the next due time may have changed.
        rules: Time and settings, for functions that take a transaction.
    """

    def __init__(
        self,
        *,
        rules: Rules,
        doorbells: Doorbells,
        on_change: OnChange | None,
    ) -> None:
        self.rules: Final = rules
        self.settings: Final = rules.settings
        self.doorbells: Final = doorbells
        self.epoch = 0
        self.cut_off: tuple[LostLease, ...] = ()
        self.on_change: OnChange | None = on_change
        self._send_all: Final = partial(_swapped, ops.send_all, rules)
        self._take_all: Final = partial(_swapped, leases.take_all, rules)
        self._ended_all: Final = partial(_swapped, leases.ended_all, rules)
        self._store: SqliteEngine[SqliteHiveTx]
        self._old_at = 0

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
        broker = cls(
            rules=Rules(clock=clock, settings=settings or BrokerSettings()),
            doorbells=doorbells or Doorbells(),
            on_change=on_change,
        )
        broker._store = await SqliteEngine[SqliteHiveTx].open(
            path,
            migrations=HIVE_MIGRATIONS,
            tx=SqliteHiveTx,
            on_commit=broker._committed,
            options=options,
        )
        try:
            broker.epoch, broker.cut_off = await broker.transact(partial(sweeps.boot, rules=broker.rules))
        except BaseException:
            await broker._store.close()
            raise
        return broker

    async def close(self) -> None:
        """Store what is under way, then close. Safe to call twice."""
        await self._store.close()

    # Transactions of one's own: the door's, and whatever joins several acts.

    def transact(self, op: Callable[[HiveTx], T], *, may_refuse: bool = False) -> asyncio.Future[T]:
        """Run `op` as one transaction; the result is given when it is durable.

        `op` runs in the writer thread: it may use `tx` and the functions of this package that take a
        `tx`, and nothing else that changes.

        Raises:
            BusyError: `may_refuse`, and too much waits.
        """
        return self._store.write(op, may_refuse=may_refuse)

    def transact_each(self, many: Callable[[HiveTx, Sequence[T]], Sequence[R]], item: T) -> asyncio.Future[R]:
        """Do as `transact` for one of a kind: all that wait run as one; see `SqliteEngine.write_each`."""
        return self._store.write_each(many, item)

    async def view(self, op: Callable[[HiveTx], T]) -> T:
        """Return what `op` reads, from one state of the store. It cannot write."""
        return await self._store.read(op)

    @property
    def commits(self) -> int:
        """Commits since `open`."""
        return self._store.commits

    # Sending.

    def send(self, actor: Actor, draft: Draft) -> asyncio.Future[Sent]:
        """Store a message and its deliveries.

        Raises:
            NoSuchRecipientError, NotAllowedError, NoRouteError, TooLargeError, InvalidArgumentError,
            IdempotencyConflictError, QueueFullError, RateLimitedError: Nothing is stored.
            BusyError: From agents only: too much waits for the disk.
        """
        return self._store.write_each(self._send_all, (actor, draft), may_refuse=actor.role in ops.LIMITED)

    # Leases. `mailbox` is `agent:NAME` or `door:RELAY`; `holder` names one connection.

    def take(
        self, mailboxes: Sequence[str], *, holder: str, burst: int = 20, lanes: int = 1
    ) -> asyncio.Future[Granted]:
        """Lease up to `lanes` lanes that are ready now; do not wait.

        A lane whose head is from a person gives up to `burst` of people's messages; any other head
        comes alone. May be answered before its commit: a lease that is lost so makes nothing wrong.
        """
        wanted = leases.Wanted(tuple(mailboxes), holder, burst, lanes)
        return self._store.write_each(self._take_all, wanted, early=True)

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

        Waits for the doorbells, and looks at the store at least every 5 s. A caller that goes away
        while a lease is being granted leaves it behind: `end_leases` of its holder frees it.

        Args:
            mailboxes: Which may be taken from now; asked at each look, none means: grant nothing.
            changed: Set (by anybody) when `mailboxes` gives something else; cleared here.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_ms / 1000
        while True:
            names = tuple(mailboxes())
            with self.doorbells.listen(*names, event=changed) as bell:
                bell.clear()  # before the look: a bell during it is not missed
                wait_s = POLL_S
                if names:
                    granted = await self.take(names, holder=holder, burst=burst, lanes=lanes)
                    if granted.leases:
                        return granted.leases
                    if granted.ready_in_ms is not None:
                        wait_s = min(wait_s, granted.ready_in_ms / 1000)
                left_s = until - loop.time()
                if left_s <= 0:
                    return ()
                await _wait(bell, min(wait_s, left_s))

    def started(self, lease_id: str, *, fence: int, turn_id: str) -> asyncio.Future[Started]:
        """Mark what was leased as shown: a turn begins. Safe to repeat.

        Raises:
            StaleLeaseError: The lease has ended.
        """
        return self._store.write(
            lambda tx: leases.started(tx, self.rules, lease_id, fence=fence, turn_id=turn_id)
        )

    def more(
        self, lease_id: str, *, fence: int, limit: int, call_id: str | None = None
    ) -> asyncio.Future[tuple[tuple[Envelope, ...], Pending]]:
        """Give further envelopes of the lane to the running turn; they are shown with it.

        Args:
            call_id: A repeat with the same id gives the same envelopes again.

        Raises:
            StaleLeaseError: The lease has ended.
            NoTurnError: The turn has not begun.
        """
        return self._store.write(
            lambda tx: leases.more(tx, self.rules, lease_id, fence=fence, limit=limit, call_id=call_id)
        )

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
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_ms / 1000
        while True:
            with self.doorbells.listen(f"lane:{actor.lane}") as bell:
                bell.clear()
                envelopes, pending = await self._store.write(
                    lambda tx: leases.more_of_turn(tx, self.rules, actor, limit=limit, call_id=call_id)
                )
                left_s = until - loop.time()
                if envelopes or left_s <= 0:
                    return envelopes, pending
                await _wait(bell, min(POLL_S, left_s))

    def renew(self, lease_id: str, *, fence: int) -> asyncio.Future[int]:
        """Return until when the lease holds now (UTC ms).

        Raises:
            StaleLeaseError: The lease has ended.
        """
        return self._store.write(lambda tx: leases.renew(tx, self.rules, lease_id, fence=fence))

    def ended(
        self,
        lease_id: str,
        *,
        fence: int,
        turn_id: str,
        outcome: Outcome,
        reply: Reply | None = None,
        code: str | None = None,
        platform_message_ids: Sequence[str] = (),
    ) -> asyncio.Future[Ended]:
        """Close a turn: its reply and the end of its deliveries are one transaction.

        Control protocol, section 6.2. Safe to repeat by `turn_id`.

        Raises:
            StaleLeaseError: The lease has ended, and not by this turn.
            TooLargeError: The reply is over 64 KiB.
        """
        ending = leases.Ending(lease_id, fence, turn_id, outcome, reply, code, platform_message_ids)
        return self._store.write_each(self._ended_all, ending)

    def nack(
        self,
        lease_id: str,
        *,
        fence: int,
        delivery_ids: Sequence[int] = (),
        delay_ms: int = 0,
        reason: str = "",
    ) -> asyncio.Future[None]:
        """Give deliveries back without blame; none named: all, and the lane is free.

        Raises:
            StaleLeaseError: The lease has ended.
        """
        return self._store.write(
            lambda tx: leases.nack(
                tx,
                self.rules,
                lease_id,
                fence=fence,
                delivery_ids=delivery_ids,
                delay_ms=delay_ms,
                reason=reason,
            )
        )

    def end_leases(
        self, *, holder: str | None = None, mailbox: str | None = None
    ) -> asyncio.Future[tuple[LostLease, ...]]:
        """End the leases of a connection that is gone, or all of a mailbox whose process is gone."""

        def op(tx: HiveTx) -> tuple[LostLease, ...]:
            if holder is not None:
                return leases.lose(tx, self.rules, tx.all("leases_of_holder", holder))
            return leases.lose(tx, self.rules, tx.all("leases_of_mailbox", mailbox))

        return self._store.write(op)

    def hold(
        self, *, lane: int | None = None, mailbox: str | None = None, reason: str
    ) -> asyncio.Future[int]:
        """Grant no lease of this lane, or of all lanes of a mailbox; return how many lanes."""
        return self._store.write(lambda tx: leases.hold(tx, lane=lane, mailbox=mailbox, reason=reason))

    def resume(
        self, *, lane: int | None = None, mailbox: str | None = None, reason: str | None = None
    ) -> asyncio.Future[int]:
        """Free lanes that are held (for `reason` alone, if given); return how many."""
        return self._store.write(lambda tx: leases.resume(tx, lane=lane, mailbox=mailbox, reason=reason))

    async def sweep(self) -> Swept:
        """End leases that ran out or never started, deliver what is due, expire, give up.

        The daemon calls it every `next_in_ms`, at least every 5 s.
        """
        swept = await self._store.write(lambda tx: sweeps.sweep(tx, self.rules))
        now = self.rules.time.steady()
        if now - self._old_at < _OLD_EVERY_MS:
            return swept
        self._old_at = now
        old = await self.view(lambda tx: sweeps.too_old(tx, self.rules))
        dead = await self._store.write(lambda tx: sweeps.give_up_old(tx, self.rules, old)) if old else 0
        return replace(swept, dead=dead)

    # Dead letters and deliveries.

    def cancel(self, actor: Actor, delivery_id: int) -> asyncio.Future[str]:
        """Cancel a delivery that is scheduled or ready; return its state. NotFoundError, ClosedError."""
        return self._store.write(lambda tx: letters.cancel(tx, self.rules, actor, delivery_id))

    def requeue(self, actor: Actor, delivery_id: int) -> asyncio.Future[str]:
        """Make a dead or expired delivery ready again, at the end of its lane; return its state."""
        return self._store.write(lambda tx: letters.requeue(tx, self.rules, actor, delivery_id))

    def drop(self, actor: Actor, delivery_id: int) -> asyncio.Future[str]:
        """Give up a dead delivery for good (it stays readable); return its state."""
        return self._store.write(lambda tx: letters.drop(tx, self.rules, actor, delivery_id))

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
        sent = await self._store.write(
            lambda tx: asks.open_ask(
                tx,
                self.rules,
                actor,
                to=to,
                question=question,
                choices=choices,
                deadline_ms=deadline_ms,
                idem=idem,
            ),
            may_refuse=actor.role in ops.LIMITED,
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_ms / 1000
        with self.doorbells.listen(f"ask:{sent.id}") as bell:
            while wait_ms:
                bell.clear()
                asked = await self._store.write(lambda tx: asks.claim(tx, self.rules, actor, sent.id))
                left_s = until - loop.time()
                if asked.state != "open" or left_s <= 0:
                    return replace(asked, duplicate=sent.duplicate)
                await _wait(bell, min(POLL_S, left_s))
        return AskOpened(id=sent.id, state="open", duplicate=sent.duplicate)

    def answer(self, actor: Actor, ask_id: str, body: str) -> asyncio.Future[Sent]:
        """Answer an ask that was put to `actor`. NotFoundError, ClosedError, TooLargeError."""
        return self._store.write(lambda tx: asks.answer(tx, self.rules, actor, ask_id, body))

    def cancel_ask(self, actor: Actor, ask_id: str) -> asyncio.Future[str]:
        """Cancel an open ask of one's own (operator: any); return `cancelled`. NotFoundError, ClosedError."""
        return self._store.write(lambda tx: asks.cancel(tx, self.rules, actor, ask_id))

    async def list_asks(self, actor: Actor, *, state: str | None = "open") -> tuple[AskRow, ...]:
        """Return one's own asks (operator: all), newest first; `state` None for any."""
        return await self.view(lambda tx: asks.list_of(tx, actor, state=state))

    # Reminders.

    def remind(
        self,
        actor: Actor,
        *,
        body: str,
        in_ms: int | None = None,
        due_at: int | None = None,
        session: str | None = None,
        missed: str = "once",
        idem: str | None = None,
    ) -> asyncio.Future[ReminderSet]:
        """Arm a reminder to oneself, in the session of the turn or the one named.

        Raises:
            TooManyOpenError, TooSoonError, TooFarError, TooLargeError, RateLimitedError,
            InvalidArgumentError: Nothing is stored.
        """
        return self._store.write(
            lambda tx: reminders.arm(
                tx,
                self.rules,
                actor,
                body=body,
                in_ms=in_ms,
                due_at=due_at,
                session=session,
                missed=missed,
                idem=idem,
            ),
            may_refuse=actor.role in ops.LIMITED,
        )

    def cancel_reminder(self, actor: Actor, reminder_id: str) -> asyncio.Future[str]:
        """Cancel an armed reminder of one's own (operator: any). NotFoundError, AlreadySentError."""
        return self._store.write(lambda tx: reminders.cancel(tx, actor, reminder_id))

    async def list_reminders(self, actor: Actor) -> tuple[ReminderRow, ...]:
        """Return one's own armed reminders (operator: all), soonest first."""
        return await self.view(lambda tx: reminders.list_of(tx, actor))

    def fire_due(self, *, limit: int = 256) -> asyncio.Future[Fired]:
        """Send up to `limit` reminders that are due by the wall clock, in one transaction."""
        return self._store.write(lambda tx: reminders.fire_due(tx, self.rules, limit=limit))

    # Agents, as far as messages need them.

    async def set_agents(self, agents: Sequence[AgentEntry]) -> None:
        """Make these the agents there are. One that is missing is retired: its mail becomes dead."""

        def op(tx: HiveTx) -> None:
            kept = {entry.name for entry in agents}
            for entry in agents:
                tx.run(
                    "agent_put",
                    entry.name,
                    entry.role,
                    entry.state,
                    _setting(entry.people),
                    _setting(entry.talks_to),
                )
            for name, *_ in tx.all("agents"):
                if name not in kept and tx.run("agent_retire", name):
                    for (delivery_id,) in tx.all("deliveries_waiting_of_mailbox", f"agent:{name}"):
                        letters.make_dead(tx, self.rules, delivery_id, reason="retired")
            tx.forget()

        await self._store.write(op)

    async def set_agent_state(self, name: str, state: str) -> None:
        """Keep what the supervisor says of an agent."""

        def op(tx: HiveTx) -> None:
            tx.run("agent_state", name, state)
            tx.memo.pop(("agent", name), None)

        await self._store.write(op)

    async def agent_facts(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what was kept by `set_agent_facts`, by agent, with `role` and `state`."""
        rows = await self.view(lambda tx: tx.all("agent_facts"))
        return {
            name: {"role": role, "state": state, **dict(zip(_FACTS, facts, strict=True))}
            for name, role, state, *facts in rows
        }

    async def set_agent_facts(self, name: str, **facts: Any) -> None:
        """Keep facts of the supervisor; those that are not named stay.

        Args:
            facts: Some of `uid`, `harness`, `boot_epoch`, `pid`, `pid_start`, `pump_at`, `tools_at`,
                `restarts`, `note`.
        """
        if unknown := facts.keys() - set(_FACTS):
            raise ValueError(f"no such fact: {sorted(unknown)}")

        def op(tx: HiveTx) -> None:
            known = {row[0]: row[3:] for row in tx.all("agent_facts")}
            if name in known:
                merged = {**dict(zip(_FACTS, known[name], strict=True)), **facts}
                tx.run("agent_facts_set", name, *(merged[fact] for fact in _FACTS))

        await self._store.write(op)

    # Reading.

    async def waiting(self, mailboxes: Sequence[str]) -> Mapping[str, int]:
        """Return how much waits in each mailbox and can be taken; of a long list the start is counted."""
        return await self.view(lambda tx: {mailbox: lanes.waiting(tx, mailbox) for mailbox in mailboxes})

    async def queues(self) -> Mapping[str, Queue]:
        """Return what waits, by mailbox."""
        rows = await self.view(lambda tx: tx.all("queues"))
        return {
            name: Queue(mailbox=name, ready=ready, oldest_at=oldest_at, running=running)
            for name, ready, oldest_at, running in rows
        }

    async def lane_owner(self, lane: int) -> str | None:
        """Return the recipient of a lane: `agent:NAME`, `chat:N` or `operator:ID`."""
        row = await self.view(lambda tx: tx.one("lane", lane))
        return row[1] if row else None

    async def thread(
        self, actor: Actor, message_id: str, *, limit: int = 100, before: str | None = None
    ) -> tuple[dict[str, Any], ...]:
        """Return what `actor` may read of the thread of a message, oldest first. NotFoundError.

        Operators see all of it, others what they sent and what was addressed to them.
        """

        def op(tx: HiveTx) -> tuple[dict[str, Any], ...]:
            row = tx.one("message", message_id)
            if row is None or not rights.sees_message(tx, actor, row):
                raise rights.missing()
            who = None if actor.role in ("operator", "system") else actor.principal
            rows = tx.all("thread_messages", row[4], before, who, limit)
            names = ("id", "kind", "from", "to", "body", "in_reply_to", "created_at")
            return tuple(dict(zip(names, found, strict=True)) for found in reversed(rows))

        return await self.view(op)

    async def audit(self, actor: str, act: str, *, about: str = "", detail: str = "") -> None:
        """Write one audit row."""
        await self._store.write(
            lambda tx: tx.run("audit_insert", self.rules.time.stamp(), actor, act, about, detail)
        )

    def _committed(self, signals: Sequence[Signal]) -> None:
        """Ring and tell, once what happened is durable."""
        bells: set[str] = set()
        for signal in signals:
            if isinstance(signal, str):
                bells.add(signal)
            elif self.on_change is not None:
                kind = signal[0]
                self.on_change(kind, dict(zip(_CHANGE_FIELDS[kind], signal[1:], strict=True)))
        self.doorbells.ring(bells)


def _swapped(
    many: Callable[[HiveTx, Rules, Sequence[T]], Sequence[R]], rules: Rules, tx: HiveTx, items: Sequence[T]
) -> Sequence[R]:
    """Call `many` with its rules: a function of a transaction and items is left."""
    return many(tx, rules, items)


async def _wait(bell: asyncio.Event, timeout_s: float) -> None:
    """Wait for a bell, or until the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            await bell.wait()
    except TimeoutError:
        return


def _setting(value: str | tuple[str, ...]) -> str:
    """Return `all` and `none` as they are, a list of names as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
