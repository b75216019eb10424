"""skep.gateway: inbound events, against control protocol, section 4, and relay contract, section 16."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from skep.foundation.rpc import RpcError
from skep.gateway.inbox import WINDOW
from skep.wire.control.door import AcceptArgs, AcceptOutcome, AcceptResult
from support.waiting import MS, eventually

if TYPE_CHECKING:
    from integration.gateway.conftest import Site

pytestmark = pytest.mark.anyio


async def test_do_01_ack_only_after_the_daemon_stored_it(site: Site) -> None:
    """While `door.accept` is not answered there is no `inbound_ack`; right after it there is."""
    on_disk = asyncio.Event()

    async def accept(args: AcceptArgs) -> AcceptResult:
        await on_disk.wait()
        return AcceptResult(outcome="stored")

    site.door.accept = accept
    await site.start()
    await site.relay.send_event("hello", buffer_id="b-1")
    await eventually(lambda: len(site.door.accepted) == 1)
    before = site.relay.acks()

    on_disk.set()

    await eventually(lambda: site.relay.acks() == ["b-1"])
    assert before == []


@pytest.mark.parametrize("outcome", ["stored", "duplicate", "handled", "refused"])
async def test_each_outcome_is_acknowledged(site: Site, outcome: AcceptOutcome) -> None:
    """What the daemon has settled, whichever way, is never sent again."""

    async def accept(args: AcceptArgs) -> AcceptResult:
        return AcceptResult(outcome=outcome)

    site.door.accept = accept
    await site.start()
    await site.relay.send_event("hello", buffer_id="b-1")

    await eventually(lambda: site.relay.acks() == ["b-1"])
    assert site.door.accepted[0].buffer_id == "b-1"


@pytest.mark.parametrize("code", ["busy", "timeout", "unavailable", "internal"])
async def test_unknown_outcome_is_repeated_in_order_of_the_chat(site: Site, code: str) -> None:
    """A refusal that nobody must act on is repeated, and the next event of the chat waits for it."""
    refusals = [code, code]

    async def accept(args: AcceptArgs) -> AcceptResult:
        if refusals:
            raise RpcError(refusals.pop(), "as the test wants it")
        return AcceptResult(outcome="stored")

    site.door.accept = accept
    await site.start()
    await site.relay.send_event("one", buffer_id="b-1")
    await site.relay.send_event("two", buffer_id="b-2")

    await eventually(lambda: site.relay.acks() == ["b-1", "b-2"])
    assert site.door.texts == ["one", "one", "one", "two"]


async def test_chats_do_not_wait_for_each_other(site: Site) -> None:
    """One chat's event that hangs holds up its own chat alone."""
    go_on = asyncio.Event()

    async def accept(args: AcceptArgs) -> AcceptResult:
        if b'"slow"' in bytes(args.event):
            await go_on.wait()
        return AcceptResult(outcome="stored")

    site.door.accept = accept
    await site.start()
    await site.relay.send_event("slow", chat="c1", buffer_id="b-1")
    await site.relay.send_event("behind", chat="c1", buffer_id="b-2")
    await site.relay.send_event("beside", chat="c2", buffer_id="b-3")
    await site.relay.send_event("elsewhere", chat="c1", buffer_id="b-4", scope_id="s2")
    await eventually(lambda: set(site.relay.acks()) == {"b-3", "b-4"})
    go_on.set()

    await eventually(lambda: site.relay.acks()[2:] == ["b-1", "b-2"])


async def test_event_is_passed_on_unchanged(site: Site) -> None:
    """Fields that this build does not know reach the daemon."""
    await site.start()
    event = {"text": "hi", "x_new": {"a": [1]}, "source": {"platform": "web", "chat_id": "c", "y": None}}
    await site.relay.send({"type": "inbound", "event": event})

    await eventually(lambda: len(site.door.accepted) == 1)
    assert msgspec.json.decode(site.door.accepted[0].event) == event
    assert site.relay.acks() == []


async def test_daemon_away_loses_nothing(site: Site) -> None:
    """Events that come while the daemon is away are handed over when it is back, then acknowledged."""
    await site.start()
    await site.door.stop()
    for number in range(3):
        await site.relay.send_event(f"e{number}", buffer_id=f"b-{number}")
    assert site.relay.acks() == []

    await site.door.start()

    await eventually(lambda: site.relay.acks() == ["b-0", "b-1", "b-2"])


async def test_window_is_512(site: Site) -> None:
    """With 512 events that are not on disk the gateway stops reading; all of them come in the end."""
    on_disk = asyncio.Event()

    async def accept(args: AcceptArgs) -> AcceptResult:
        await on_disk.wait()
        return AcceptResult(outcome="stored")

    site.door.accept = accept
    gateway = await site.start()
    for number in range(WINDOW + 40):
        await site.relay.send_event(f"e{number}", chat=f"c{number}", buffer_id=f"b-{number}")
    await eventually(lambda: gateway.inbox.is_full and len(site.door.accepted) >= WINDOW)
    await asyncio.sleep(50 * MS)
    held = len(site.door.accepted)

    on_disk.set()

    await eventually(lambda: len(site.relay.acks()) == WINDOW + 40, within=5_000 * MS)
    assert held == WINDOW


async def test_event_that_no_frame_holds_does_not_block_its_chat(site: Site) -> None:
    """An event over 1 MiB reaches the daemon cut, and the next of its chat behind it."""
    await site.start()
    big = {"text": "x" * 1_500_000, "source": {"platform": "web", "chat_id": "c1"}}
    line = msgspec.json.encode({"type": "inbound", "event": big, "bufferId": "b-1"}) + b"\n"
    for start in range(0, len(line), 500_000):
        await site.relay.sockets[-1].send_str(line[start : start + 500_000].decode())
    await site.relay.send_event("next", buffer_id="b-2")

    await eventually(lambda: site.relay.acks() == ["b-1", "b-2"])
    assert (set(site.door.texts[0]), site.door.texts[1]) == ({"x"}, "next")


async def test_event_that_is_refused_for_its_form_does_not_block_its_chat(site: Site) -> None:
    """A code that repeats cannot mend: no ack (the connector keeps it), and the chat goes on."""

    async def accept(args: AcceptArgs) -> AcceptResult:
        if b'"odd"' in bytes(args.event):
            raise RpcError("invalid_argument", "as the test wants it")
        return AcceptResult(outcome="stored")

    site.door.accept = accept
    await site.start()
    await site.relay.send_event("odd", buffer_id="b-1")
    await site.relay.send_event("even", buffer_id="b-2")

    await eventually(lambda: site.relay.acks() == ["b-2"])
