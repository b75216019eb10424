"""skep.hive.subscriptions, against the control protocol, sections 7 and 9."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from skep.foundation.rpc import Event
from skep.hive.subscriptions import MAX_WAITING, Subscriptions
from skep.wire.control.operator import HiveEvent
from support.waiting import eventually


class FakeConnection:
    """A subscriber that reads when it wants to."""

    def __init__(self, *, is_stalled: bool = False) -> None:
        self.got: list[HiveEvent] = []
        self.is_open = True
        self._reads = asyncio.Event()
        if not is_stalled:
            self._reads.set()

    @property
    def is_writable(self) -> bool:
        return self._reads.is_set()

    async def writable(self) -> None:
        await self._reads.wait()

    def emit(self, event: Event[Any], data: object) -> None:
        assert event.name == "hive"
        assert isinstance(data, HiveEvent)
        self.got.append(data)

    def close(self) -> None:
        self.is_open = False

    def stall(self) -> None:
        self._reads.clear()

    def read(self) -> None:
        self._reads.set()

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.got]


@asynccontextmanager
async def opened(epoch: int = 1) -> AsyncIterator[Subscriptions]:
    """Subscriptions that are closed at the end."""
    subscriptions = Subscriptions(epoch=epoch)
    try:
        yield subscriptions
    finally:
        await subscriptions.close()


async def test_a_subscriber_gets_what_happens_from_now_on() -> None:
    """Cursors rise, and what was before is not sent."""
    async with opened() as subscriptions:
        subscriptions.emit("agent", {"name": "before"})
        connection = FakeConnection()
        start = subscriptions.subscribe(connection, cursor=None)
        subscriptions.emit("agent", {"name": "a"})
        subscriptions.emit("ask", {"id": "b"})

        assert [(event.kind, event.cursor) for event in connection.got] == [
            ("agent", start + 1),
            ("ask", start + 2),
        ]


async def test_a_cursor_resumes_exactly() -> None:
    """Nothing is missed and nothing comes twice, in order, before what is new."""
    async with opened() as subscriptions:
        for number in range(5):
            subscriptions.emit("agent", {"name": str(number)})
        connection = FakeConnection()
        start = subscriptions.subscribe(connection, cursor=subscriptions.cursor - 2)
        subscriptions.emit("agent", {"name": "5"})
        await eventually(lambda: len(connection.got) == 3)

        assert [event.data["name"] for event in connection.got] == ["3", "4", "5"]
        assert connection.got[0].cursor == start + 1


@pytest.mark.parametrize("cursor", [0, 1 << 32, (3 << 32) + 99], ids=["none", "other epoch", "ahead"])
async def test_a_cursor_that_is_not_known_asks_to_look_again(cursor: int) -> None:
    """Of an earlier daemon, too old, or from the future: one `resync`."""
    async with opened(epoch=3) as subscriptions:
        subscriptions.emit("agent", {"name": "a"})
        connection = FakeConnection()
        subscriptions.subscribe(connection, cursor=cursor)
        await eventually(lambda: connection.kinds == ["resync"])

        assert connection.got[0].cursor == subscriptions.cursor


async def test_a_cursor_from_before_what_is_kept_asks_to_look_again() -> None:
    """Only so many past events are kept."""
    async with opened() as subscriptions:
        for number in range(MAX_WAITING + 1):
            subscriptions.emit("agent", {"name": str(number)})
        connection = FakeConnection()
        subscriptions.subscribe(connection, cursor=1 << 32)
        await eventually(lambda: connection.kinds == ["resync"])


async def test_one_that_does_not_read_gets_one_resync() -> None:
    """1 000 may wait; one more makes them a single `resync`, and then it goes on."""
    async with opened() as subscriptions:
        slow, quick = FakeConnection(), FakeConnection()
        subscriptions.subscribe(slow, cursor=None)
        subscriptions.subscribe(quick, cursor=None)
        slow.stall()
        for number in range(3 * MAX_WAITING):
            subscriptions.emit("agent", {"name": str(number)})
        assert len(quick.got) == 3 * MAX_WAITING
        slow.read()
        await eventually(lambda: slow.kinds == ["resync"])
        assert slow.got[0].cursor == subscriptions.cursor
        subscriptions.emit("agent", {"name": "after"})
        assert slow.kinds == ["resync", "agent"]


async def test_as_many_as_may_wait_are_all_kept() -> None:
    """At the limit itself nothing is dropped."""
    async with opened() as subscriptions:
        slow = FakeConnection(is_stalled=True)
        subscriptions.subscribe(slow, cursor=None)
        for number in range(MAX_WAITING):
            subscriptions.emit("agent", {"name": str(number)})
        slow.read()
        await eventually(lambda: len(slow.got) == MAX_WAITING)

        assert [event.data["name"] for event in slow.got] == [str(n) for n in range(MAX_WAITING)]


async def test_pg_02_only_the_newest_state_of_a_turn_waits() -> None:
    """However long it does not read, one state per turn is kept for it."""
    async with opened() as subscriptions:
        slow = FakeConnection(is_stalled=True)
        subscriptions.subscribe(slow, cursor=None)
        for seq in range(10_000):
            subscriptions.emit("turn", {"turn_id": "t-1", "seq": seq})
            subscriptions.emit("turn", {"turn_id": "t-2", "seq": -seq})
        slow.read()
        await eventually(lambda: len(slow.got) == 2)

        assert [event.data["seq"] for event in slow.got] == [9_999, -9_999]


async def test_a_new_subscriber_sees_each_running_turn_once() -> None:
    """So that a page that is opened in the middle of a turn shows it."""
    async with opened() as subscriptions:
        subscriptions.turns = lambda: ({"turn_id": "t-1", "text": "so far"},)
        connection = FakeConnection()
        subscriptions.subscribe(connection, cursor=None)
        await eventually(lambda: connection.kinds == ["turn"])


async def test_a_subscriber_that_left_gets_nothing() -> None:
    """Its place is free at once."""
    async with opened() as subscriptions:
        connection = FakeConnection()
        subscriptions.subscribe(connection, cursor=None)
        subscriptions.drop(connection)
        subscriptions.emit("agent", {"name": "a"})

        assert connection.got == []
