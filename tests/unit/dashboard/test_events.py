"""skep.dashboard.events and positions, without a socket."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from skep.dashboard.daemon import Daemon, Position, Subscription
from skep.dashboard.events import MAX_WAITING, EventStream
from skep.foundation.rpc import CallError, ConnectionLostError
from support.waiting import MS, eventually

NO_POSITION = ["", "7", "7.", ".7", "a.b", "-1.2", "1.2.3", "1.1e3", "1." + "9" * 40, "1.²"]


class FakeCaller:
    """A connection that lives until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return not self.closed.is_set()

    async def wait_closed(self) -> None:
        await self.closed.wait()

    def close(self) -> None:
        self.closed.set()


class FakeDaemon:
    """Gives what the test put in `turns`: a subscription, or an error."""

    def __init__(self, *turns: FakeCaller | Exception) -> None:
        self.turns = list(turns)
        self.after: list[Position | None] = []
        self.take: Any = None

    async def subscribe(self, *, session: str, after: Position | None, take: Any) -> Subscription:
        self.after.append(after)
        self.take = take
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        position = after or Position(epoch=3, cursor=10)
        return Subscription(caller=cast("Any", turn), position=position)

    def tell(self, cursor: int, kind: str = "agent") -> None:
        self.take(msgspec.Raw(msgspec.json.encode({"cursor": cursor, "kind": kind, "data": {}})))


class Lines:
    """Keeps what was written; `gate` holds the browser back."""

    def __init__(self) -> None:
        self.text = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, data: bytes, /) -> None:
        await self.gate.wait()
        self.text += data.decode()

    @property
    def events(self) -> list[str]:
        return [line[7:] for line in self.text.splitlines() if line.startswith("event: ")]


def stream_of(daemon: FakeDaemon, after: Position | None = None) -> EventStream:
    """Return a stream over `daemon`."""
    return EventStream(cast("Daemon", daemon), session="s", after=after)


@pytest.mark.parametrize("text", NO_POSITION)
def test_position_that_is_none_is_ignored(text: str) -> None:
    """What a browser sends back is a position of ours or nothing."""
    assert Position.parse(text) is None


def test_position_is_read_as_it_is_written() -> None:
    """Boot and cursor, so that a cursor of an earlier boot counts for nothing."""
    position = Position(epoch=3, cursor=12_884_901_889)

    assert str(position) == "3.12884901889"
    assert Position.parse(str(position)) == position


async def test_each_event_carries_where_it_stands() -> None:
    """A tab that reconnects says where it was."""
    daemon, lines = FakeDaemon(FakeCaller()), Lines()
    stream = stream_of(daemon)
    first = await stream.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.run(lines, first))
        await eventually(lambda: lines.events == ["ready"])
        daemon.tell(11)
        await eventually(lambda: lines.events == ["ready", "hive"])
        stream.end()

    assert lines.text == (
        'id: 3.10\nevent: ready\ndata: {"epoch":3,"cursor":10}\n\n'
        'id: 3.11\nevent: hive\ndata: {"cursor":11,"kind":"agent","data":{}}\n\n'
    )


async def test_lost_daemon_is_told_and_the_stream_goes_on_where_it_was() -> None:
    """Away is said with each try; afterwards nothing that came in between is missing."""
    first_caller = FakeCaller()
    daemon, lines = FakeDaemon(first_caller, ConnectionLostError("away"), FakeCaller()), Lines()
    stream = stream_of(daemon)
    first = await stream.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.run(lines, first))
        await eventually(lambda: lines.events == ["ready"])
        daemon.tell(11)
        await eventually(lambda: lines.events[-1] == "hive")
        first_caller.close()
        await eventually(lambda: lines.events == ["ready", "hive", "away", "ready"])
        stream.end()

    assert daemon.after == [None, Position(epoch=3, cursor=11), Position(epoch=3, cursor=11)]


async def test_tab_that_does_not_read_gets_one_resync_and_costs_no_more() -> None:
    """Over the limit all that waits becomes one event that says: ask again."""
    daemon, lines = FakeDaemon(FakeCaller()), Lines()
    stream = stream_of(daemon)
    first = await stream.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.run(lines, first))
        await eventually(lambda: lines.events == ["ready"])
        lines.gate.clear()
        daemon.tell(11)
        await asyncio.sleep(5 * MS)  # the writer waits in its write of 11
        for cursor in range(12, 12 + MAX_WAITING + 5):
            daemon.tell(cursor)
        lines.gate.set()
        await eventually(lambda: lines.text.count('"resync"') == 1)
        stream.end()

    assert lines.events.count("hive") == 1 + 5  # 11, the resync, and the four after it


async def test_session_that_has_ended_ends_the_stream() -> None:
    """The page is told why, and nothing more comes."""
    caller = FakeCaller()
    daemon, lines = FakeDaemon(caller, CallError("sign_in", "the session has ended")), Lines()
    stream = stream_of(daemon)
    first = await stream.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.run(lines, first))
        await eventually(lambda: lines.events == ["ready"])
        caller.close()

    assert lines.events == ["ready", "sign_in"]


async def test_no_session_opens_no_stream() -> None:
    """A refused subscription is an error before anything is written."""
    with pytest.raises(CallError) as raised:
        await stream_of(FakeDaemon(CallError("sign_in", "not signed in"))).open()

    assert raised.value.wire_code == "sign_in"
