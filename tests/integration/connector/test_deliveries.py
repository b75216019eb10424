"""Buffering, windows, order and redelivery, against the relay contract, sections 5 and 11."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skep.connector.deliveries import DEAD_READER_MS, Bounds, Deliveries, Receiver, Sent
from skep.connector.intake import Intake, Taken
from skep.connector.platform import Inbound, Platform
from skep.connector.platforms.web.accounts import seed_owner
from skep.connector.platforms.web.hub import Hub
from skep.connector.platforms.web.platform import WebPlatform
from skep.connector.sessions import SKEP_WINDOW, STOCK_WINDOW
from skep.foundation.clock import ManualClock
from skep.store.sqlite.connector import ConnectorStore, open_connector
from skep.wire.relay.event import MessageEvent, SessionSource
from support.edge import CONTROL, Edge, FakeGateway, running_edge
from support.waiting import MS, eventually

TENANT, INSTANCE = "local", "gw-local"


@dataclass
class FakeReceiver(Receiver):
    """A socket with a window; what it was given is kept."""

    window: int = 1_000
    is_skep_one: bool = True
    flight: dict[str, Sent] = field(default_factory=dict[str, Sent])
    lines: list[bytes] = field(default_factory=list[bytes])
    abandoned: str = ""

    @property
    def in_flight(self) -> dict[str, Sent]:
        return self.flight

    @property
    def is_skep(self) -> bool:
        return self.is_skep_one

    @property
    def room(self) -> int:
        return self.window - len(self.flight)

    @property
    def texts(self) -> list[str]:
        """The texts it was given, in order."""
        return [line.split(b'"text":"')[1].split(b'"')[0].decode() for line in self.lines]

    def send(self, line: bytes) -> None:
        self.lines.append(line)

    def abandon(self, reason: str) -> None:
        self.abandoned = reason


class Rig:
    """Intake and deliveries over a real database."""

    def __init__(self, store: ConnectorStore, bounds: Bounds) -> None:
        self.store = store
        self.clock = ManualClock()
        platforms: dict[str, Platform] = {"web": WebPlatform(store, Hub(), self.clock)}
        self.deliveries = Deliveries(store, clock=self.clock, mark="m", bounds=bounds, platforms=platforms)
        self.intake = Intake(store, self.deliveries, self.clock)

    async def accept(
        self, text: str, *, user: str = "owner", chat: str = "c", key: str | None = None
    ) -> Taken:
        """Take one event in."""
        source = SessionSource(platform="web", chat_id=chat, user_id=user, user_ns="local", scope_id="local")
        event = MessageEvent(text=text, message_id=f"m-{text}", source=source)
        return await self.intake.accept(Inbound.of(event, dedupe_key=key or text))

    def attach(self, receiver: Receiver) -> None:
        """Make it the newest socket."""
        self.deliveries.attach(receiver, tenant=TENANT, instance=INSTANCE)

    def ack(self, receiver: Receiver, buffer_id: str) -> bool:
        """Acknowledge."""
        return self.deliveries.ack(receiver, buffer_id, tenant=TENANT, instance=INSTANCE)

    async def waiting(self) -> int:
        """Return how many rows there are, once all is written."""
        rows = await self.store.write(lambda tx: tx.buffered())
        return sum(row.events for row in rows)


@pytest.fixture
def bounds() -> Bounds:
    """What a test does not set."""
    return Bounds()


@pytest.fixture
async def rig(tmp_path: Path, bounds: Bounds) -> AsyncIterator[Rig]:
    """Intake and deliveries, the owner bound."""
    store = await open_connector(tmp_path / "connector.db")
    await store.write(lambda tx: seed_owner(tx, instance=INSTANCE, now_ms=0))
    rig = Rig(store, bounds)
    yield rig
    await rig.deliveries.close()
    await store.close()


async def test_event_waits_for_its_gateway_and_is_forgotten_after_the_ack(rig: Rig) -> None:
    """Nothing is forgotten before `inbound_ack`."""
    await rig.accept("one")
    receiver = FakeReceiver()
    rig.attach(receiver)
    await eventually(lambda: receiver.texts == ["one"])
    assert await rig.waiting() == 1

    assert rig.ack(receiver, next(iter(receiver.in_flight)))
    await asyncio.sleep(0)
    assert await rig.waiting() == 0


async def test_duplicate_goes_nowhere(rig: Rig) -> None:
    """The same key again ends there, also at the same instant."""
    receiver = FakeReceiver()
    rig.attach(receiver)
    outcomes = await asyncio.gather(rig.accept("one"), rig.accept("one"))
    assert outcomes == [Taken.STORED, Taken.DUPLICATE]
    await rig.accept("two")
    await eventually(lambda: receiver.texts == ["one", "two"])


async def test_unbound_author_reaches_nobody_while_a_bound_one_does(rig: Rig) -> None:
    """Invariant 2, with both in the same chat."""
    receiver = FakeReceiver()
    rig.attach(receiver)
    assert await rig.accept("foreign", user="stranger") is Taken.UNBOUND
    assert await rig.accept("own") is Taken.STORED
    await eventually(lambda: receiver.texts == ["own"])
    assert await rig.waiting() == 1


async def test_unacknowledged_events_come_again_in_order(rig: Rig) -> None:
    """Cut at any point: what was not acknowledged is redelivered, what was is not."""
    first = FakeReceiver()
    rig.attach(first)
    for name in ("a", "b", "c", "d"):
        await rig.accept(name)
    await eventually(lambda: first.texts == ["a", "b", "c", "d"])
    rig.ack(first, list(first.in_flight)[1])
    await asyncio.sleep(0)
    rig.deliveries.detach(first, tenant=TENANT, instance=INSTANCE)
    await rig.accept("e")
    await rig.waiting()

    second = FakeReceiver()
    rig.attach(second)
    await eventually(lambda: second.texts == ["a", "c", "d", "e"])


async def test_window_holds_and_the_rest_follows_in_order(rig: Rig) -> None:
    """More than a window waits behind it, in the store or held, and keeps its order."""
    receiver = FakeReceiver(window=4)
    names = [f"n{i:03}" for i in range(60)]
    for name in names[:20]:
        await rig.accept(name)
    rig.attach(receiver)
    for name in names[20:]:
        await rig.accept(name)
        assert len(receiver.in_flight) <= 4
    while len(receiver.lines) < 60:
        await eventually(lambda: len(receiver.in_flight) > 0)
        rig.ack(receiver, next(iter(receiver.in_flight)))
        await asyncio.sleep(0)
    assert receiver.texts == names


async def test_ack_for_an_unknown_id_changes_nothing(rig: Rig) -> None:
    """Invariant 15: an id that this socket was not given is ignored."""
    await rig.accept("one")
    receiver, other = FakeReceiver(), FakeReceiver()
    rig.attach(receiver)
    await eventually(lambda: receiver.texts == ["one"])
    assert not rig.ack(other, next(iter(receiver.in_flight)))
    assert not rig.ack(receiver, "m-999")
    assert await rig.waiting() == 1


async def test_late_ack_on_a_superseded_socket_counts(rig: Rig) -> None:
    """The gateway has it, over whichever socket it says so."""
    await rig.accept("one")
    first, second = FakeReceiver(), FakeReceiver()
    rig.attach(first)
    await eventually(lambda: first.texts == ["one"])
    rig.attach(second)
    await eventually(lambda: second.texts == ["one"])
    assert rig.ack(first, next(iter(first.in_flight)))
    await asyncio.sleep(0)
    assert await rig.waiting() == 0
    assert not second.in_flight


async def test_event_that_a_load_found_first_is_not_given_twice(rig: Rig) -> None:
    """It is in the table a moment before its commit is told."""
    event = b'{"text":"one"}'
    delivery_id = await rig.store.write(
        lambda tx: tx.deliver(TENANT, INSTANCE, platform="web", message_id="m", event=event, now_ms=0)
    )
    receiver = FakeReceiver()
    rig.attach(receiver)
    await eventually(lambda: receiver.texts == ["one"])
    rig.deliveries.offer(TENANT, INSTANCE, delivery_id, event)
    await rig.accept("two")
    await eventually(lambda: receiver.texts == ["one", "two"])


async def test_what_waited_survives_a_restart(rig: Rig) -> None:
    """The table is the truth: a new process hands it over, and counts it."""
    await rig.accept("one")
    again = Rig(rig.store, Bounds())
    again.deliveries.resume(await rig.store.read(lambda tx: tx.buffered()))
    assert again.deliveries.buffered(TENANT, INSTANCE) == 1
    receiver = FakeReceiver()
    again.attach(receiver)
    await eventually(lambda: receiver.texts == ["one"])
    await again.deliveries.close()


@pytest.mark.parametrize("bounds", [Bounds(events=5)])
async def test_buffer_over_its_bounds_gives_up_the_oldest(rig: Rig) -> None:
    """And counts them."""
    for i in range(12):
        await rig.accept(f"n{i:02}")
    await eventually(lambda: rig.deliveries.buffered(TENANT, INSTANCE) == 5)
    assert rig.deliveries.dropped == {(TENANT, INSTANCE): 7}
    receiver = FakeReceiver()
    rig.attach(receiver)
    await eventually(lambda: receiver.texts == [f"n{i:02}" for i in range(7, 12)])


@pytest.mark.parametrize("bounds", [Bounds(age_ms=1_000)])
async def test_event_that_waited_too_long_is_given_up(rig: Rig) -> None:
    """And a younger one is not."""
    await rig.accept("old")
    rig.clock.advance(1_500)
    await rig.accept("young")
    await rig.deliveries.expire()
    receiver = FakeReceiver()
    rig.attach(receiver)
    await eventually(lambda: receiver.texts == ["young"])


async def test_stock_gateway_that_acknowledges_nothing_is_abandoned(rig: Rig) -> None:
    """Its reader is dead behind a live socket; ours only waits for its hive."""
    stock, skep = FakeReceiver(is_skep_one=False), FakeReceiver()
    await rig.accept("one")
    for receiver in (skep, stock):
        rig.attach(receiver)
        await eventually(lambda one=receiver: one.texts == ["one"])
        rig.clock.advance(DEAD_READER_MS + 1)
        rig.deliveries.check_readers()
    assert (skep.abandoned, stock.abandoned) == ("", "no acknowledgement")
    assert rig.deliveries.receiver(TENANT, INSTANCE) is None


# Over real sockets.


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A connector whose stock gateways settle quickly."""
    async with running_edge(tmp_path / "home", stock_settle_s=250 * MS, web_per_minute=10_000) as edge:
        await edge.ensure()
        yield edge


async def _write(edge: Edge, count: int) -> None:
    who = await edge.bearer()
    conversation = await edge.conversation(who)
    tab = await edge.ready_tab(who)
    for i in range(count):
        await tab.send(conversation, f"text {i}", client_id=f"w-{i}")


async def test_nothing_is_delivered_before_hello(edge: Edge) -> None:
    """The buffer is drained only after the first descriptor."""
    await _write(edge, 1)
    gateway = await edge.dial(edge.token())
    assert await gateway.hears_nothing()
    await gateway.hello()
    assert (await gateway.hear())["type"] == "inbound"


async def test_stock_gateway_settles_first(edge: Edge) -> None:
    """It would drop what comes too early; a Skep gateway gets it at once."""
    await _write(edge, 1)
    stock = await edge.gateway(is_skep=False)
    assert await stock.hears_nothing()
    assert (await stock.hear("inbound"))["event"]["text"] == "text 0"


@pytest.mark.parametrize(("is_skep", "window"), [(True, SKEP_WINDOW), (False, STOCK_WINDOW)])
async def test_window_of_each_kind_of_gateway(edge: Edge, *, is_skep: bool, window: int) -> None:
    """So many without an acknowledgement, and not one more until one comes."""
    assert (SKEP_WINDOW, STOCK_WINDOW) == (512, 32)
    await _write(edge, window + 1)
    gateway = await edge.gateway(is_skep=is_skep)
    given = [await gateway.hear("inbound") for _ in range(window)]
    assert await gateway.hears_nothing()
    await gateway.ack(given[0])
    assert (await gateway.hear("inbound"))["event"]["text"] == f"text {window}"


async def test_unacknowledged_event_comes_again_on_the_next_socket(edge: Edge) -> None:
    """With the same buffer id and the same message id."""
    await _write(edge, 2)
    gateway = await edge.gateway()
    first, second = [await gateway.hear("inbound") for _ in range(2)]
    await gateway.ack(first)
    await gateway.socket.close()
    again = await (await edge.gateway()).hear("inbound")
    assert again == second


async def test_newest_socket_gets_what_is_new(edge: Edge) -> None:
    """Older ones can be zombies; they are not closed at once."""
    old, new = await edge.gateway(), await edge.gateway()
    await _write(edge, 1)
    assert (await new.hear("inbound"))["event"]["text"] == "text 0"
    assert await old.hears_nothing()
    assert not old.socket.closed


async def test_socket_that_said_no_hello_supersedes_nobody(edge: Edge) -> None:
    """Only one that said hello can be the newest."""
    greeted = await edge.gateway()
    await edge.dial(edge.token())
    await _write(edge, 1)
    assert (await greeted.hear("inbound"))["event"]["text"] == "text 0"


async def test_idle_gateway_gets_its_ack_and_no_more_events(edge: Edge) -> None:
    """Going idle ends live delivery before the answer; the next hello ends it."""
    gateway = await edge.gateway()
    await gateway.say({"type": "going_idle"})
    await gateway.hear("going_idle_ack")
    await _write(edge, 1)
    assert await gateway.hears_nothing()
    assert (await (await edge.gateway()).hear("inbound"))["event"]["text"] == "text 0"


async def test_revoked_gateway_loses_its_buffer(edge: Edge) -> None:
    """Invariant 21: it is never drained to a new owner of the same id."""
    await _write(edge, 1)
    await edge.call(CONTROL.GATEWAY_REVOKE, CONTROL.GatewayRevokeArgs(gateway_id="gw-local"))
    await edge.ensure()
    gateway: FakeGateway = await edge.gateway()
    assert await gateway.hears_nothing()
