"""Buffering, windows, order and redelivery, against the relay contract, sections 5 and 11."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skep.connector.deliveries import DEAD_READER_MS, Bounds
from skep.connector.intake import Taken
from skep.connector.sessions import SKEP_WINDOW, STOCK_WINDOW
from support.buffer import INSTANCE, TENANT, FakeReceiver, Rig
from support.edge import CONTROL, Edge, FakeGateway, running_edge
from support.waiting import MS, eventually


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
    await rig.store.write(lambda tx: tx.deliver([(7, TENANT, INSTANCE, "web", "m", event, 0)]))
    receiver = FakeReceiver()
    rig.attach(receiver)
    await eventually(lambda: receiver.texts == ["one"])
    rig.deliveries.offer(TENANT, INSTANCE, [(7, event)])
    await rig.accept("two")
    await eventually(lambda: receiver.texts == ["one", "two"])


async def test_acknowledgements_in_any_order_forget_what_they_name(rig: Rig) -> None:
    """Runs of ids, single ones, and one that was given up meanwhile."""
    receiver = FakeReceiver()
    rig.attach(receiver)
    for i in range(9):
        await rig.accept(f"n{i}")
    await eventually(lambda: len(receiver.lines) == 9)
    ids = list(receiver.in_flight)
    gone = receiver.in_flight[ids[5]].delivery_id
    await rig.store.write(lambda tx: tx.take_deliveries([gone]))

    assert rig.ack(receiver, *(ids[i] for i in (7, 1, 5, 2, 4, 0)), "m-999") == 6
    await asyncio.sleep(0)
    assert await rig.waiting() == 3
    again = FakeReceiver()
    rig.attach(again)
    await eventually(lambda: again.texts == ["n3", "n6", "n8"])


async def test_acknowledgement_of_a_platform_that_is_gone_is_taken(rig: Rig) -> None:
    """It was switched off while its events waited."""
    await rig.store.write(lambda tx: tx.deliver([(7, TENANT, INSTANCE, "gone", "m", b'{"text":"one"}', 0)]))
    receiver = FakeReceiver()
    rig.attach(receiver)
    await eventually(lambda: receiver.texts == ["one"])
    rig.ack(receiver, *receiver.in_flight)
    await asyncio.sleep(0)
    assert await rig.waiting() == 0


async def test_what_waited_survives_a_restart(rig: Rig) -> None:
    """The table is the truth: a new process hands it over, and counts it."""
    await rig.accept("one")
    again = Rig(rig.store, Bounds(), start=2)
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
