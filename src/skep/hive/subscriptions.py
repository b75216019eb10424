"""Events of the hive, to whoever subscribed.

Source: control protocol, sections 7 and 9. A subscriber that does not keep up is told once to ask
again (`resync`) and slows nobody. The state of a running turn is never queued: the newest replaces
the one that waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.rpc import Event
from skep.foundation.tasks import TaskSet
from skep.wire.control.operator import HIVE, HiveEvent

__all__ = ["Listening", "Subscriptions"]

MAX_WAITING: Final = 1_000
"""Events that wait for one subscriber; one more makes them a single `resync`."""
KEPT: Final = 1_000
"""Past events that a subscriber who comes back can still get."""
RECHECK_S: Final = 60.0
TURN: Final = "turn"
RESYNC: Final = "resync"

_log = get_logger(part="subscriptions")


class Listening(Protocol):
    """A connection that takes events (`skep.foundation.rpc.Connection`)."""

    @property
    def is_open(self) -> bool:
        """Whether the subscriber is there."""
        ...

    @property
    def is_writable(self) -> bool:
        """Whether it reads what it gets."""
        ...

    async def writable(self) -> None:
        """Wait until it does."""
        ...

    def emit(self, event: Event[Any], data: object) -> None:
        """Send an event."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


IsValid = Callable[[], Awaitable[object]]
"""Raises when the subscriber may not listen any more."""


class Subscriptions:
    """Numbers events and passes them on.

    Args:
        epoch: Boot epoch; cursors of an earlier one are answered by `resync`.

    Attributes:
        turns: Gives the newest state of each running turn, for a new subscriber.
    """

    def __init__(self, *, epoch: int) -> None:
        self.turns: Callable[[], Sequence[Mapping[str, Any]]] = tuple
        self._first: Final = epoch << 32
        self._cursor = self._first
        self._past: Final[deque[HiveEvent]] = deque(maxlen=KEPT)
        self._subscribers: Final[dict[Listening, _Subscriber]] = {}
        self._tasks: Final = TaskSet(on_error=_log_fault)

    @property
    def cursor(self) -> int:
        """Where the stream stands."""
        return self._cursor

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Pass an event on; it never waits."""
        if kind != TURN:
            self._cursor += 1
        event = HiveEvent(cursor=self._cursor, kind=kind, data=dict(data))
        if kind != TURN:
            self._past.append(event)
        for subscriber in self._subscribers.values():
            subscriber.push(event)

    def subscribe(self, connection: Listening, *, cursor: int | None, is_valid: IsValid | None = None) -> int:
        """Send events to `connection` from `cursor` on (`None`: from now); return where it stands.

        Args:
            is_valid: Asked every minute; when it raises, the connection is closed.
        """
        self.drop(connection)
        subscriber = self._subscribers[connection] = _Subscriber(connection)
        subscriber.tasks.append(self._tasks.spawn(subscriber.run()))
        if is_valid is not None:
            subscriber.tasks.append(self._tasks.spawn(subscriber.check(is_valid)))
        start = self._cursor
        if cursor is not None:
            oldest = self._past[0].cursor - 1 if self._past else self._first
            if oldest <= cursor <= self._cursor:
                start = cursor
                for event in self._past:
                    if event.cursor > cursor:
                        subscriber.push(event, is_new=True)
            else:
                subscriber.push(HiveEvent(cursor=self._cursor, kind=RESYNC), is_new=True)
        for state in self.turns():
            subscriber.push(HiveEvent(cursor=self._cursor, kind=TURN, data=dict(state)), is_new=True)
        return start

    def drop(self, connection: Listening) -> None:
        """Forget a connection that is gone."""
        subscriber = self._subscribers.pop(connection, None)
        for task in subscriber.tasks if subscriber is not None else ():
            task.cancel()

    async def close(self) -> None:
        """Forget everybody."""
        self._subscribers.clear()
        await self._tasks.close()


class _Subscriber:
    def __init__(self, connection: Listening) -> None:
        self.tasks: Final[list[asyncio.Task[None]]] = []
        self._connection: Final = connection
        self._waiting: Final[deque[HiveEvent]] = deque()
        self._turns: Final[dict[str, HiveEvent]] = {}
        self._is_lost = False
        self._cursor = 0
        self._wake: Final = asyncio.Event()

    def push(self, event: HiveEvent, *, is_new: bool = False) -> None:
        """Send `event`, or let it wait; one of `is_new` waits until the answer to the call has left."""
        self._cursor = event.cursor
        is_idle = not (self._waiting or self._turns or self._is_lost or is_new)
        if is_idle and self._connection.is_writable:
            self._connection.emit(HIVE, event)
            return
        if event.kind == TURN:
            self._turns[event.data["turn_id"]] = event
        elif not self._is_lost:
            self._waiting.append(event)
            if len(self._waiting) > MAX_WAITING:
                self._waiting.clear()
                self._is_lost = True
        self._wake.set()

    async def run(self) -> None:
        """Send what waits, as fast as it is read."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._is_lost or self._waiting or self._turns:
                await self._connection.writable()
                if not self._connection.is_open:
                    return
                self._connection.emit(HIVE, self._take())
                await asyncio.sleep(0)  # it leaves at the end of the loop's turn; then see if it is read

    async def check(self, is_valid: IsValid) -> None:
        """Hang up when the subscriber may not listen any more."""
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                await is_valid()
            except SkepError:
                self._connection.close()
                return

    def _take(self) -> HiveEvent:
        if self._is_lost:
            self._is_lost = False
            return HiveEvent(cursor=self._cursor, kind=RESYNC)
        if self._waiting:
            return self._waiting.popleft()
        return self._turns.pop(next(iter(self._turns)))


def _log_fault(error: BaseException) -> None:
    _log.error("subscriber_failed", exc_info=error)
