"""Deliveries: every event waits here until its gateway says that it is on disk.

Source: relay contract, sections 11 and 16. One lane per (tenant, instance). The table is the truth; what is
held in memory is only the newest part of it, so that an event that arrives while its gateway keeps up
needs no read. A row is forgotten after `inbound_ack` and not before; a gateway that comes back gets
everything again that it did not acknowledge, in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import msgspec

from skep.connector.platform import Platform
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.tasks import TaskSet
from skep.store.sqlite.connector import BufferedRow, ConnectorStore, ConnectorTx, TakenRow

__all__ = ["DEAD_READER_MS", "Bounds", "Deliveries", "Receiver", "Sent"]

DEAD_READER_MS: Final = 30_000
"""A stock gateway that answers pings but acknowledges nothing for so long has lost its reader."""
HELD_MAX: Final = 2_048
"""Events of one lane that are held in memory while the window is full."""
_RETRY_S: Final = 1.0
_SHED_STEP: Final = 256

_log = get_logger(part="deliveries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may wait for one gateway."""

    events: int = 10_000
    size: int = 256 << 20
    age_ms: int = 7 * 86_400_000


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way: handed to a socket, not acknowledged."""

    delivery_id: int
    at_ms: int


class Receiver(Protocol):
    """One socket of a gateway, as deliveries see it.

    Attributes:
        in_flight: What it was given and has not acknowledged, by buffer id, oldest first.
    """

    @property
    def in_flight(self) -> dict[str, Sent]: ...
    @property
    def is_skep(self) -> bool: ...
    @property
    def room(self) -> int:
        """How many events it may be given now."""
        ...

    def send(self, line: bytes) -> None:
        """Queue one frame; it leaves at the end of the loop's turn."""
        ...

    def abandon(self, reason: str) -> None:
        """Close the socket: nothing more goes over it."""
        ...


@dataclass(slots=True, eq=False)
class _Lane:
    """What waits for one instance.

    Attributes:
        cursor: Newest delivery that the receiver was given.
        is_behind: Rows after the cursor are in the store that are not held.
        events, size: All that waits, held or not; size is in bytes.
    """

    tenant: str
    instance: str
    receiver: Receiver | None = None
    cursor: int = 0
    held: deque[tuple[int, bytes]] = field(default_factory=deque[tuple[int, bytes]])
    is_behind: bool = True
    is_loading: bool = False
    is_shedding: bool = False
    has_missed: bool = False
    events: int = 0
    size: int = 0


class Deliveries:
    """The durable buffer in front of every gateway.

    Attributes:
        dropped: Events given up since the start, by (tenant, instance).
    """

    def __init__(
        self,
        store: ConnectorStore,
        *,
        clock: Clock,
        mark: str,
        bounds: Bounds,
        platforms: Mapping[str, Platform],
    ) -> None:
        """Make the buffer.

        Args:
            mark: Part of each buffer id: another database never repeats an id of this one.
            platforms: Who is told what became of an event; may be filled later.
        """
        self.dropped: Final[dict[tuple[str, str], int]] = {}
        self._store: Final = store
        self._clock: Final = clock
        self._mark: Final = mark
        self._bounds: Final = bounds
        self._platforms: Final = platforms
        self._lanes: Final[dict[tuple[str, str], _Lane]] = {}
        self._acked: list[int] = []
        self._forgetting: Final[set[int]] = set()  # acknowledged, and still in the table
        self._moved: set[_Lane] = set()
        self._is_flush_due = False
        self._tasks: Final = TaskSet(on_error=_unexpected)

    def resume(self, waiting: list[BufferedRow]) -> None:
        """Take over what was waiting when this process started."""
        for row in waiting:
            lane = self._lane(row.tenant, row.instance)
            lane.events, lane.size = row.events, row.size

    async def close(self) -> None:
        """Write down what was acknowledged, and stop."""
        self._flush()
        await self._tasks.close()

    def buffered(self, tenant: str, instance: str) -> int:
        """Return how many events wait for an instance."""
        return self._lane(tenant, instance).events

    def receiver(self, tenant: str, instance: str) -> Receiver | None:
        """Return the socket that gets what is new, if there is one."""
        return self._lane(tenant, instance).receiver

    # What arrives.

    def offer(self, tenant: str, instance: str, delivery_id: int, event: bytes) -> None:
        """Pass on an event that was just committed. Events of a lane come in the order of their ids."""
        lane = self._lane(tenant, instance)
        lane.events += 1
        lane.size += len(event)
        if lane.events > self._bounds.events or lane.size > self._bounds.size:
            self._shed(lane)
        if delivery_id <= lane.cursor:
            return  # a load has found it first
        if lane.receiver is None or lane.is_behind:
            lane.is_behind = lane.has_missed = True
            return
        lane.held.append((delivery_id, event))
        if len(lane.held) > HELD_MAX:
            lane.held.clear()
            lane.is_behind = True
        self._flow(lane)

    # The gateway's side.

    def attach(self, receiver: Receiver, *, tenant: str, instance: str) -> Receiver | None:
        """Make `receiver` the one that gets everything; return the one that it supersedes."""
        lane = self._lane(tenant, instance)
        before, lane.receiver = lane.receiver, receiver
        lane.cursor = 0
        lane.held.clear()
        lane.is_behind = True
        self._flow(lane)
        return before

    def detach(self, receiver: Receiver, *, tenant: str, instance: str) -> None:
        """Keep what `receiver` would have got: it is gone."""
        lane = self._lane(tenant, instance)
        if lane.receiver is receiver:
            lane.receiver = None
            lane.held.clear()
            lane.is_behind = True

    def resume_flow(self, *, tenant: str, instance: str) -> None:
        """Look again whether the receiver has room."""
        self._flow(self._lane(tenant, instance))

    def ack(self, receiver: Receiver, buffer_id: str, *, tenant: str, instance: str) -> bool:
        """Forget what `receiver` has taken; return whether it had been given that."""
        sent = receiver.in_flight.pop(buffer_id, None)
        if sent is None:
            return False
        lane = self._lane(tenant, instance)
        if lane.receiver is not None and lane.receiver is not receiver:
            lane.receiver.in_flight.pop(buffer_id, None)
        self._acked.append(sent.delivery_id)
        self._forgetting.add(sent.delivery_id)
        self._moved.add(lane)
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)
        return True

    def forget(self, tenant: str, instance: str) -> None:
        """Start afresh: everything that waited for this instance was deleted."""
        self._lanes.pop((tenant, instance), None)

    def check_readers(self) -> None:
        """Stop using sockets of stock gateways whose reader died behind a live connection."""
        now_ms = self._clock.monotonic_ms()
        for lane in self._lanes.values():
            receiver = lane.receiver
            if receiver is None or receiver.is_skep or not receiver.in_flight:
                continue
            oldest = next(iter(receiver.in_flight.values()))
            if now_ms - oldest.at_ms > DEAD_READER_MS:
                self.detach(receiver, tenant=lane.tenant, instance=lane.instance)
                receiver.abandon("no acknowledgement")

    async def expire(self) -> None:
        """Give up what has waited too long."""
        before_ms = self._clock.now_ms() - self._bounds.age_ms
        while await self._store.write(partial(self._expire, before_ms)):
            pass

    # Inside.

    def _lane(self, tenant: str, instance: str) -> _Lane:
        lane = self._lanes.get((tenant, instance))
        if lane is None:
            lane = self._lanes[tenant, instance] = _Lane(tenant, instance)
        return lane

    def _flow(self, lane: _Lane) -> None:
        """Give the receiver what it has room for."""
        receiver = lane.receiver
        if receiver is None or lane.is_shedding:
            return
        held = lane.held
        if held:
            now_ms = self._clock.monotonic_ms()
            for _ in range(min(len(held), receiver.room)):
                self._hand_over(lane, receiver, *held.popleft(), now_ms=now_ms)
        if lane.is_behind and not held and not lane.is_loading and receiver.room > 0:
            lane.is_loading = True
            self._tasks.spawn(self._load(lane, receiver))

    def _hand_over(
        self, lane: _Lane, receiver: Receiver, delivery_id: int, event: bytes, *, now_ms: int
    ) -> None:
        buffer_id = f"{self._mark}-{delivery_id}"
        lane.cursor = delivery_id
        receiver.in_flight[buffer_id] = Sent(delivery_id=delivery_id, at_ms=now_ms)
        receiver.send(b'{"type":"inbound","bufferId":"%b","event":%b}\n' % (buffer_id.encode(), event))

    async def _load(self, lane: _Lane, receiver: Receiver) -> None:
        """Read what waits in the store until the receiver is full or nothing is left."""
        try:
            while lane.receiver is receiver and not lane.is_shedding and (room := receiver.room) > 0:
                lane.has_missed = False
                rows = await self._store.read(self._next_of(lane, room))
                if lane.receiver is not receiver or lane.is_shedding:
                    break
                now_ms = self._clock.monotonic_ms()
                for delivery_id, event in rows:
                    if delivery_id in self._forgetting:
                        lane.cursor = delivery_id
                    else:
                        self._hand_over(lane, receiver, delivery_id, event, now_ms=now_ms)
                if len(rows) < room and not lane.has_missed:
                    lane.is_behind = False
                    break
        except SkepError as error:
            _log.warning("deliveries_not_read", code=error.code)
            asyncio.get_running_loop().call_later(_RETRY_S, self._flow, lane)
        finally:
            lane.is_loading = False
        if lane.receiver is not receiver:
            self._flow(lane)

    def _next_of(self, lane: _Lane, room: int) -> Callable[[ConnectorTx], list[tuple[int, bytes]]]:
        tenant, instance, after = lane.tenant, lane.instance, lane.cursor
        return lambda tx: tx.deliveries(tenant, instance, after=after, limit=room)

    def _flush(self) -> None:
        """Write down all acknowledgements of this turn of the loop, and use the room they made."""
        self._is_flush_due = False
        if self._acked:
            self._write_acks(self._acked)
            self._acked = []
        for lane in self._moved:
            self._flow(lane)
        self._moved.clear()

    def _write_acks(self, acked: list[int]) -> None:
        try:
            self._store.write(partial(self._take_acked, acked)).add_done_callback(
                partial(self._acks_written, acked)
            )
        except SkepError:  # closed: the gateway gets them again from the next process
            _log.warning("acknowledgements_not_written", count=len(acked))

    def _take_acked(self, acked: list[int], tx: ConnectorTx) -> None:
        gone: dict[str, list[TakenRow]] = {}
        for delivery_id in acked:
            taken = tx.take_delivery(delivery_id)
            if taken is not None:
                gone.setdefault(taken.platform, []).append(taken)
        for platform, rows in gone.items():
            self._platforms[platform].delivered(tx, rows)
            tx.signals.append(partial(self._all_gone, rows))

    def _acks_written(self, acked: list[int], future: asyncio.Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.warning("acknowledgements_not_written", count=len(acked), problem=type(error).__name__)
            asyncio.get_running_loop().call_later(_RETRY_S, self._write_acks, acked)
        else:
            self._forgetting.difference_update(acked)

    def _all_gone(self, rows: list[TakenRow]) -> None:
        for taken in rows:
            self._gone(taken)

    def _gone(self, taken: TakenRow) -> None:
        lane = self._lanes.get((taken.tenant, taken.instance))
        if lane is not None:
            lane.events = max(0, lane.events - 1)
            lane.size = max(0, lane.size - taken.size)

    def _shed(self, lane: _Lane) -> None:
        """Give up the oldest events that no socket has, until the lane is inside its bounds again."""
        if lane.is_shedding:
            return
        lane.is_shedding = True
        lane.held.clear()
        lane.is_behind = True
        after = lane.cursor if lane.receiver is not None else 0
        self._tasks.spawn(self._drop_oldest(lane, after))

    async def _drop_oldest(self, lane: _Lane, after: int) -> None:
        try:
            while lane.events > self._bounds.events or lane.size > self._bounds.size:
                over = max(1, min(_SHED_STEP, lane.events - self._bounds.events))
                if not await self._store.write(partial(self._drop, lane.tenant, lane.instance, after, over)):
                    break  # all that is left is on its way
        except SkepError as error:
            _log.warning("buffer_not_shed", code=error.code)
        finally:
            lane.is_shedding = False
        self._flow(lane)

    def _drop(self, tenant: str, instance: str, after: int, limit: int, tx: ConnectorTx) -> int:
        oldest = tx.oldest_deliveries(tenant, instance, after=after, limit=limit)
        self._give_up([delivery_id for delivery_id, _ in oldest], tx)
        return len(oldest)

    def _expire(self, before_ms: int, tx: ConnectorTx) -> int:
        old = tx.expired_deliveries(before_ms=before_ms, limit=_SHED_STEP)
        self._give_up(old, tx)
        return len(old)

    def _give_up(self, delivery_ids: list[int], tx: ConnectorTx) -> None:
        for delivery_id in delivery_ids:
            taken = tx.take_delivery(delivery_id)
            if taken is not None:
                self._platforms[taken.platform].given_up(tx, taken)
                tx.signals.append(partial(self._dropped, taken))

    def _dropped(self, taken: TakenRow) -> None:
        self._gone(taken)
        key = (taken.tenant, taken.instance)
        self.dropped[key] = self.dropped.get(key, 0) + 1
        if self.dropped[key] == 1:
            _log.warning("event_given_up", tenant=taken.tenant, instance=taken.instance)


def _unexpected(error: BaseException) -> None:
    _log.error("task_failed", exc_info=error)
