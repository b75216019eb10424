"""Deliveries: every event waits here until its gateway says that it is on disk.

Source: relay contract, sections 11 and 16. One lane per (tenant, instance). The table is the truth; what is
held in memory is only the newest part of it, so that an event that arrives while its gateway keeps up
needs no read. A Skep gateway may have an event before it is on disk here, never anybody else, and the platform
is told nothing before. A row is forgotten after `inbound_ack` and not before; a gateway that comes back gets
everything again that it did not acknowledge, in order.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import msgspec

from skep.connector.platform import Inbound, Platform
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.tasks import TaskSet
from skep.store.sqlite.connector import BufferedRow, ConnectorStore, ConnectorTx, TakenRow

__all__ = ["DEAD_READER_MS", "Bounds", "Deliveries", "Receiver", "Sent", "Waiting"]

DEAD_READER_MS: Final = 30_000
"""A stock gateway that answers pings but acknowledges nothing for so long has lost its reader."""
HELD_MAX: Final = 2_048
"""Events of one lane that are held in memory while the window is full."""
_RETRY_S: Final = 1.0
_SHED_STEP: Final = 256
_START_BITS: Final = 40
"""A start of the process has so many ids for itself, as a power of two: more than it can use up."""

_log = get_logger(part="deliveries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may wait for one gateway."""

    events: int = 10_000
    size: int = 256 << 20
    age_ms: int = 7 * 86_400_000


class Sent(msgspec.Struct, frozen=True, gc=False):
    """One event on its way: handed to a socket, not acknowledged."""

    delivery_id: int
    at_ms: int


Waiting = tuple[int, bytes]
"""Id and event of a delivery."""


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

    def send(self, *lines: bytes) -> None:
        """Queue frames; they leave at the end of the loop's turn."""
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
    held: deque[Waiting] = field(default_factory=deque[Waiting])
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
        start: int,
        bounds: Bounds,
        platforms: Mapping[str, Platform],
    ) -> None:
        """Make the buffer.

        Args:
            mark: Part of each buffer id: another database never repeats an id of this one.
            start: Which start of the process on this database it is, from 1: two starts share no id.
            platforms: Who is told what became of an event; may be filled later.
        """
        self.dropped: Final[dict[tuple[str, str], int]] = {}
        self._store: Final = store
        self._clock: Final = clock
        self._mark: Final = mark
        self._bounds: Final = bounds
        self._platforms: Final = platforms
        self._ids: Final = itertools.count(start << _START_BITS)
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

    def claim(self, inbounds: Sequence[Inbound]) -> list[Waiting]:
        """Give events their ids, behind all that have one. An id that was taken is never taken again."""
        return [(next(self._ids), inbound.wire) for inbound in inbounds]

    def keep(
        self,
        tenant: str,
        instance: str,
        inbounds: Sequence[Inbound],
        waiting: Sequence[Waiting],
        tx: ConnectorTx,
        *,
        now_ms: int,
    ) -> None:
        """Write events down behind all that waits for an instance; once they are on disk, they go out."""
        tx.deliver(
            [
                (delivery_id, tenant, instance, inbound.source.platform, inbound.message_id, wire, now_ms)
                for (delivery_id, wire), inbound in zip(waiting, inbounds, strict=True)
            ]
        )
        tx.signals.append(partial(self.offer, tenant, instance, waiting))

    def may_run_ahead(self, tenant: str, instance: str, count: int) -> bool:
        """Return whether the receiver of an instance may get so many events before they are on disk.

        It must be able to tell a repeat, and must have been given all that came before.
        """
        lane = self._lane(tenant, instance)
        receiver = lane.receiver
        return (
            receiver is not None
            and receiver.is_skep
            and receiver.room >= count
            and not (lane.is_behind or lane.is_shedding or lane.held)
        )

    def run_ahead(self, tenant: str, instance: str, waiting: Sequence[Waiting]) -> None:
        """Pass on events that are on their way to the disk; asked first: `may_run_ahead`.

        Should the commit fail, their platform repeats them, and the hive finds that it has them.
        """
        lane = self._lane(tenant, instance)
        if lane.receiver is not None:
            self._hand_over(lane, lane.receiver, waiting)

    def offer(self, tenant: str, instance: str, events: Sequence[Waiting]) -> None:
        """Pass on events that were just committed. They come in the order of their ids."""
        lane = self._lane(tenant, instance)
        lane.events += len(events)
        lane.size += sum([len(event) for _, event in events])
        if lane.events > self._bounds.events or lane.size > self._bounds.size:
            self._shed(lane)
        if events[0][0] <= lane.cursor:
            events = [one for one in events if one[0] > lane.cursor]  # a load has found the others first
        if not events:
            return
        if lane.receiver is None or lane.is_behind:
            lane.is_behind = lane.has_missed = True
            return
        lane.held += events
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

    def ack(self, receiver: Receiver, *buffer_ids: str, tenant: str, instance: str) -> int:
        """Forget what `receiver` has taken; return how many of these it had been given."""
        in_flight = receiver.in_flight
        acked = [sent.delivery_id for one in buffer_ids if (sent := in_flight.pop(one, None)) is not None]
        if not acked:
            return 0
        lane = self._lane(tenant, instance)
        if lane.receiver is not None and lane.receiver is not receiver:
            for one in buffer_ids:
                lane.receiver.in_flight.pop(one, None)
        self._acked += acked
        self._forgetting.update(acked)
        self._moved.add(lane)
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)
        return len(acked)

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
        if held and (room := receiver.room) > 0:
            self._hand_over(lane, receiver, [held.popleft() for _ in range(min(len(held), room))])
        if lane.is_behind and not held and not lane.is_loading and receiver.room > 0:
            lane.is_loading = True
            self._tasks.spawn(self._load(lane, receiver))

    def _hand_over(self, lane: _Lane, receiver: Receiver, events: Sequence[Waiting]) -> None:
        mark, now_ms, in_flight = self._mark, self._clock.monotonic_ms(), receiver.in_flight
        lines: list[bytes] = []
        for delivery_id, event in events:
            buffer_id = f"{mark}-{delivery_id}"
            in_flight[buffer_id] = Sent(delivery_id, now_ms)
            lines.append(b'{"type":"inbound","bufferId":"%b","event":%b}\n' % (buffer_id.encode(), event))
        lane.cursor = events[-1][0]
        receiver.send(*lines)

    async def _load(self, lane: _Lane, receiver: Receiver) -> None:
        """Read what waits in the store until the receiver is full or nothing is left."""
        try:
            while lane.receiver is receiver and not lane.is_shedding and (room := receiver.room) > 0:
                lane.has_missed = False
                rows = await self._store.read(self._next_of(lane, room))
                if lane.receiver is not receiver or lane.is_shedding:
                    break
                if left := [row for row in rows if row[0] not in self._forgetting]:
                    self._hand_over(lane, receiver, left)
                if rows:
                    lane.cursor = rows[-1][0]
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

    def _next_of(self, lane: _Lane, room: int) -> Callable[[ConnectorTx], list[Waiting]]:
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
            # Until this is on disk a restart only gives them again: it need not have a commit of its own.
            written = self._store.write(partial(self._take_acked, acked), lazy=True)
            written.add_done_callback(partial(self._acks_written, acked))
        except SkepError:  # closed: the gateway gets them again from the next process
            _log.warning("acknowledgements_not_written", count=len(acked))

    def _take_acked(self, acked: list[int], tx: ConnectorTx) -> None:
        alike: dict[tuple[str, str, str], list[TakenRow]] = {}
        for row in tx.take_deliveries(acked):
            alike.setdefault((row.platform, row.tenant, row.instance), []).append(row)
        for (name, tenant, instance), rows in alike.items():
            if (platform := self._platforms.get(name)) is not None:
                platform.delivered(tx, rows)
            size = sum([row.size for row in rows])
            tx.signals.append(partial(self._gone, tenant, instance, events=len(rows), size=size))

    def _acks_written(self, acked: list[int], future: asyncio.Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.warning("acknowledgements_not_written", count=len(acked), problem=type(error).__name__)
            asyncio.get_running_loop().call_later(_RETRY_S, self._write_acks, acked)
        else:
            self._forgetting.difference_update(acked)

    def _gone(self, tenant: str, instance: str, *, events: int, size: int) -> None:
        lane = self._lanes.get((tenant, instance))
        if lane is not None:
            lane.events = max(0, lane.events - events)
            lane.size = max(0, lane.size - size)

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
        for taken in tx.take_deliveries(delivery_ids):
            if (platform := self._platforms.get(taken.platform)) is not None:
                platform.given_up(tx, taken)
            tx.signals.append(partial(self._dropped, taken))

    def _dropped(self, taken: TakenRow) -> None:
        key = (taken.tenant, taken.instance)
        self._gone(*key, events=1, size=taken.size)
        self.dropped[key] = self.dropped.get(key, 0) + 1
        if self.dropped[key] == 1:
            _log.warning("event_given_up", tenant=taken.tenant, instance=taken.instance)


def _unexpected(error: BaseException) -> None:
    _log.error("task_failed", exc_info=error)
