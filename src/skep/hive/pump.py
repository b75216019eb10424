"""Pumps: how an agent's harness, or the gateway for chats, takes leases and ends turns.

Source: control protocol, sections 6 and 7; hive, sections 5 and 6. Who calls is the connection's
socket: an agent's pump takes from the mailbox of that agent alone, the gateway from those of the
relays it attached. A lease belongs to the connection it went to and ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Final, TypeVar

from skep.broker.broker import Broker
from skep.broker.errors import NotFoundError, StaleLeaseError
from skep.broker.types import LostLease
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.rpc import Call, Connection, Handler, RpcError
from skep.foundation.tasks import TaskSet
from skep.hive.door.text import cut_body
from skep.hive.ports import Agents, PumpInfo, TurnStats, Watch
from skep.hive.progress import ProgressHub
from skep.hive.turns import HeldLease, Leases
from skep.wire.control import pump as wire
from skep.wire.control.base import Empty, NoArgs
from skep.wire.control.envelope import Envelope

__all__ = ["AgentPump", "LeaseCalls"]

T = TypeVar("T")

_AGAIN_MS: Final = 1_000
"""When another daemon may be there, in milliseconds."""

_log = get_logger(part="pump")
_holders: Final = count(1)


class LeaseCalls:
    """The calls that an agent's pump and the gateway have in common.

    Args:
        watch: Returns who is told of turns that end.

    Attributes:
        is_stopping: Once set, `pump.next` is answered `shutting_down`, and all else as ever: turns that run can
            end and be stored. Whoever waits in it hears that when its `changed` is set.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        clock: Clock,
        hub: ProgressHub,
        leases: Leases,
        tasks: TaskSet,
        watch: Callable[[], Watch],
    ) -> None:
        self.broker: Final = broker
        self.clock: Final = clock
        self.hub: Final = hub
        self.leases: Final = leases
        self.tasks: Final = tasks
        self.watch: Final = watch
        self.is_stopping = False

    async def take(
        self,
        connection: Connection,
        args: wire.NextArgs,
        *,
        agent: str | None,
        lanes: int,
        mailboxes: Callable[[], Sequence[str]],
        changed: asyncio.Event,
    ) -> wire.NextResult:
        """Lease what is ready for `connection`, waiting as long as it wants to.

        Raises:
            RpcError: `shutting_down`.
        """

        def granting() -> Sequence[str]:
            if self.is_stopping:
                raise RpcError("shutting_down", "the daemon is stopping", retry_after_ms=_AGAIN_MS)
            return mailboxes()

        leases = await self.broker.next(
            granting,
            holder=holder_of(connection),
            wait_ms=args.wait_ms,
            burst=args.max,
            lanes=lanes,
            changed=changed,
        )
        now_ms = self.clock.now_ms()
        for lease in leases:
            self.leases.granted(lease, agent=agent, connection=connection, now_ms=now_ms)
        return wire.NextResult(leases=leases)

    async def started(self, call: Call, args: wire.StartedArgs) -> Empty:
        """`pump.started`: a turn begins."""
        held = self._held(call, args.lease_id)
        other = self.leases.of_turn(args.turn_id)
        if other is not None and other is not held:
            raise RpcError("conflict", "another turn has this `turn_id`")
        started = await self.on_lease(
            held, self.broker.started(args.lease_id, fence=args.fence, turn_id=args.turn_id)
        )
        if held.turn_id is None and self.leases.of(held.lease_id) is held:
            self.leases.started(
                held, turn_id=args.turn_id, speaks_in=started.speaks_in, now_ms=self.clock.now_ms()
            )
            if (turn := held.running) is not None:
                self.hub.started(turn, route=started.route, reply_key=started.reply_key, shown=started.shown)
        return Empty()

    async def renew(self, call: Call, args: wire.RenewArgs) -> wire.RenewResult:
        """`pump.renew`: the lease holds on; says whether the turn should stop."""
        held = self._held(call, args.lease_id)
        until = await self.on_lease(held, self.broker.renew(args.lease_id, fence=args.fence))
        return wire.RenewResult(lease_until=until, cancel=held.cancel)

    async def ended(self, call: Call, args: wire.EndedArgs) -> wire.EndedResult:
        """`pump.ended`: the reply and the end of what was shown are one transaction."""
        held = self.leases.of(args.lease_id)
        if held is not None and held.connection is not call.connection:
            raise _stale()
        reply = args.reply
        if reply is not None and (cut := cut_body(reply.body))[1]:
            reply = wire.Reply(body=cut[0], attachments=reply.attachments)
        ended = await self.on_lease(
            held,
            self.broker.ended(
                args.lease_id,
                fence=args.fence,
                turn_id=args.turn_id,
                outcome=args.outcome,
                reply=reply,
                code=args.code,
                platform_message_ids=args.platform_message_ids,
            ),
        )
        if held is not None:
            self._over(held, outcome=args.outcome, stats=args)
        return wire.EndedResult(
            released=ended.released, message_id=ended.message_id, duplicate=ended.duplicate
        )

    async def nack(self, call: Call, args: wire.NackArgs) -> Empty:
        """`pump.nack`: give back without blame."""
        held = self._held(call, args.lease_id)
        rest = {envelope.delivery_id for envelope in held.envelopes}.difference(args.delivery_ids)
        is_all = not args.delivery_ids or not rest
        await self.on_lease(
            held,
            self.broker.nack(
                args.lease_id,
                fence=args.fence,
                delivery_ids=() if is_all else args.delivery_ids,
                delay_ms=args.delay_ms,
                reason=args.reason[:200],
            ),
        )
        if is_all:
            self.lost(held)
        return Empty()

    async def on_lease(self, held: HeldLease | None, act: Awaitable[T]) -> T:
        """Return what `act` gives; when the store says that the lease has ended, forget it here too."""
        try:
            return await act
        except StaleLeaseError:
            if held is not None:
                self.lost(held)
            raise

    def lost(self, held: HeldLease) -> None:
        """Forget a lease that ended without its turn's end."""
        if held.turn_id is not None:
            self.hub.ended(held.turn_id, dropped=True)
        self._forget(held)

    def lost_by_sweep(self, lost: Sequence[LostLease]) -> None:
        """Forget what a sweep took back, and tell of turns that were never begun."""
        for lease in lost:
            held = self.leases.of(lease.lease_id)
            if held is not None:
                Leases.cancel(held, "lease_lost")
                self.lost(held)
            _log.warning("lease_lost", lane=lease.lane, missed_start=lease.missed_start)
            if lease.missed_start and lease.recipient.startswith("agent:"):
                self.watch().on_missed_start(lease.recipient.removeprefix("agent:"))

    def connection_gone(self, connection: Connection) -> None:
        """End the leases of a connection that is closed."""
        for held in self.leases.of_connection(connection):
            self.lost(held)
        if "holder" in connection.state:  # else it never took one
            self.tasks.spawn(self._end_leases(holder_of(connection)))

    async def _end_leases(self, holder: str) -> None:
        try:
            await self.broker.end_leases(holder=holder)
        except SkepError as error:  # they run out by themselves
            _log.warning("leases_kept", code=error.wire_code)

    def _held(self, call: Call, lease_id: str) -> HeldLease:
        held = self.leases.of(lease_id)
        if held is None or held.connection is not call.connection:
            raise _stale()
        return held

    def _over(self, held: HeldLease, *, outcome: str, stats: wire.EndedArgs) -> None:
        if held.turn_id is not None:
            self.hub.ended(held.turn_id, dropped=outcome == "error")
        self._forget(held)
        if held.agent is None:
            return
        now_ms = self.clock.now_ms()
        turn = TurnStats(
            turn_id=stats.turn_id,
            lane=held.lane,
            outcome=outcome,
            started_at=held.started_at or now_ms,
            ended_at=now_ms,
            envelopes=len(held.envelopes),
            stats=stats.stats,
        )
        _log.info(
            "turn_ended",
            agent=held.agent,
            turn_id=turn.turn_id,
            outcome=outcome,
            took_ms=turn.ended_at - turn.started_at,
            envelopes=turn.envelopes,
        )
        self.watch().on_turn_ended(held.agent, turn)

    def _forget(self, held: HeldLease) -> None:
        self.leases.gone(held)
        if (freed := held.connection.state.get("freed")) is not None:
            freed.set()


class AgentPump:
    """The pump socket of one agent.

    Attributes:
        pump_at: When it was last heard, UTC milliseconds; `None` before the first in this epoch.
    """

    def __init__(self, *, name: str, calls: LeaseCalls, agents: Agents, granting: bool) -> None:
        self.name: Final = name
        self.pump_at: int | None = None
        self._calls: Final = calls
        self._agents: Final = agents
        self._granting = granting
        self._changed: Final = asyncio.Event()
        self._connection: Connection | None = None

    def handlers(self) -> dict[str, Handler]:
        """Return what answers the `pump.*` methods and `memory.context` of this socket."""
        return {
            "pump.hello": self.hello,
            "pump.next": self.next,
            "pump.started": self._calls.started,
            "pump.more": self.more,
            "pump.renew": self._calls.renew,
            "pump.progress": self.progress,
            "pump.ended": self.ended,
            "pump.nack": self._calls.nack,
            "pump.alive": self.alive,
            "memory.context": self.memory_context,
        }

    def set_granting(self, *, granting: bool) -> None:
        """Grant leases from now on, or stop."""
        self._granting = granting
        self.wake()

    def wake(self) -> None:
        """Let a waiting `pump.next` look again."""
        self._changed.set()

    async def hello(self, call: Call, args: wire.HelloArgs) -> wire.HelloResult:
        """`pump.hello`: one pump per agent."""
        old = self._connection
        if old is not None and old is not call.connection and old.is_open:
            if not args.takeover:
                raise RpcError("conflict", f"a pump of `{self.name}` is connected already")
            self._calls.connection_gone(old)
            old.close()
        connection = self._connection = call.connection
        connection.state["freed"] = self._changed
        connection.state.setdefault("holder", f"agent:{self.name}:{args.harness_id[:64]}:{next(_holders)}")
        self._heard()
        card = self._agents.get(self.name)
        settings = self._calls.broker.settings
        info = PumpInfo(
            harness_id=args.harness_id,
            harness_version=args.harness_version,
            pid=connection.pid,
            capabilities=args.capabilities,
        )
        _log.info("pump_attached", agent=self.name, version=args.harness_version[:32])
        self._calls.watch().on_pump_up(self.name, info)
        return wire.HelloResult(
            boot_epoch=self._calls.broker.epoch,
            agent=self.name,
            lease_ttl_ms=settings.lease_ttl_ms,
            start_timeout_ms=settings.start_timeout_ms,
            role=card.role if card else "agent",
            runtime=card.runtime if card else "rehearsal",
            max_parallel_lanes=card.max_parallel_lanes if card else 1,
            turn_limit_s=card.turn_limit_s if card else 7_200,
        )

    async def next(self, call: Call, args: wire.NextArgs) -> wire.NextResult:
        """`pump.next`: take leases, up to the turns that this agent may run at once."""
        self._check(call)
        self._heard()
        state = call.connection.state
        if state.get("taking"):
            raise RpcError("busy", "another `pump.next` waits on this connection", retry_after_ms=50)
        state["taking"] = True
        try:
            return await self._calls.take(
                call.connection,
                args,
                agent=self.name,
                lanes=max(1, min(args.lanes, self._free())),
                mailboxes=self._mailboxes,
                changed=self._changed,
            )
        finally:
            state["taking"] = False

    async def more(self, call: Call, args: wire.MoreArgs) -> wire.MoreResult:
        """`pump.more`: further envelopes of the lane into the running turn."""
        held = self._calls.leases.of(args.lease_id)
        if held is None or held.connection is not call.connection:
            raise _stale()
        envelopes, pending = await self._calls.on_lease(
            held, self._calls.broker.more(args.lease_id, fence=args.fence, limit=args.max)
        )
        took_more(self._calls.hub, held, envelopes)
        return wire.MoreResult(envelopes=envelopes, pending=pending)

    async def ended(self, call: Call, args: wire.EndedArgs) -> wire.EndedResult:
        """`pump.ended`, with the outcomes that a turn of an agent may have."""
        if args.outcome in ("refused", "unknown"):
            raise RpcError("invalid_argument", f"`outcome` `{args.outcome}` ends only lanes of chats")
        return await self._calls.ended(call, args)

    async def progress(self, call: Call, args: wire.ProgressArgs) -> Empty:
        """`pump.progress`: never stored."""
        held = self._calls.leases.of_turn(args.turn_id)
        if held is not None and held.connection is call.connection:
            self._calls.hub.progressed(args)
        return Empty()

    async def alive(self, call: Call, args: NoArgs) -> Empty:
        """`pump.alive`: the loop that takes leases turns."""
        self._check(call)
        self._heard()
        return Empty()

    async def memory_context(self, call: Call, args: wire.MemoryContextArgs) -> wire.MemoryContextResult:
        """`memory.context`: who wrote that delivery, and what is known of them."""
        for held in self._calls.leases.of_connection(call.connection):
            for envelope in held.envelopes:
                if envelope.delivery_id == args.delivery_id:
                    person = envelope.from_ if envelope.from_.startswith("person:") else None
                    return wire.MemoryContextResult(person=person, text="")
        raise NotFoundError("no such delivery is yours now")

    def gone(self, connection: Connection) -> None:
        """The connection is closed: its leases end."""
        self._calls.connection_gone(connection)
        if connection is self._connection:
            self._connection = None
            _log.info("pump_lost", agent=self.name)
            self._calls.watch().on_pump_lost(self.name)

    def _mailboxes(self) -> Sequence[str]:
        return (f"agent:{self.name}",) if self._granting and self._free() > 0 else ()

    def _free(self) -> int:
        card = self._agents.get(self.name)
        lanes = card.max_parallel_lanes if card else 1
        return lanes - len(self._calls.leases.of_agent(self.name))

    def _check(self, call: Call) -> None:
        if call.connection is not self._connection:
            raise RpcError("conflict", "this connection has not said `pump.hello`")

    def _heard(self) -> None:
        self.pump_at = self._calls.clock.now_ms()


def holder_of(connection: Connection) -> str:
    """Return the name under which the broker knows the leases of `connection`."""
    holder: str = connection.state.setdefault("holder", f"door:{connection.pid}:{next(_holders)}")
    return holder


def took_more(hub: ProgressHub, held: HeldLease, envelopes: Sequence[Envelope]) -> None:
    """Note that `envelopes` went into the running turn: what people wrote is now seen."""
    held.envelopes.extend(envelopes)
    if held.turn_id is not None:
        hub.took_more(held.turn_id, tuple(filter(None, map(platform_id, envelopes))))


def platform_id(envelope: Envelope) -> str | None:
    """Return the platform's id of what a person wrote."""
    found = (envelope.origin or {}).get("message_id")
    return found if isinstance(found, str) else None


def _stale() -> StaleLeaseError:
    return StaleLeaseError("the lease has ended")
