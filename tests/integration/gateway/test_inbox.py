"""skep.gateway: inbound events, against control protocol, section 4, and relay contract, section 16."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from skep.foundation.rpc import RpcError
from skep.gateway.inbox import WINDOW
from skep.wire.control.door import AcceptArgs, AcceptOutcome, AcceptResult
from skep.wire.relay.frames import InboundAck, encode_frame
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


async def test_order_of_each_chat_holds_whatever_fails_in_the_middle(site: Site) -> None:
    """Refusals, and a daemon that goes away with events in its hands: no event overtakes one of its chat."""
    refusals = {
        "a2": ["busy", "internal"],
        "b1": ["unavailable"],
        "a5": ["invalid_argument"],
        "b4": ["timeout"],
    }
    is_away = asyncio.Event()

    async def accept(args: AcceptArgs) -> AcceptResult:
        text = msgspec.json.decode(args.event)["text"]
        if text in ("a4", "b3") and not is_away.is_set():
            await asyncio.Event().wait()
        if refusals.get(text):
            raise RpcError(refusals[text].pop(), "as the test wants it", retry_after_ms=1)
        return AcceptResult(outcome="stored")

    site.door.accept = accept
    await site.start()
    for number in range(8):
        for chat in "ab":
            await site.relay.send_event(f"{chat}{number}", chat=chat, buffer_id=f"{chat}{number}")
    await eventually(lambda: {"a4", "b3"} <= set(site.door.texts))
    is_away.set()
    await site.door.stop()
    await site.door.start()

    await eventually(lambda: {"a7", "b7"} <= set(site.relay.acks()), within=5_000 * MS)
    for chat in "ab":
        handed = [text for text in site.door.texts if text[0] == chat]
        acked = [buffer_id for buffer_id in site.relay.acks() if buffer_id[0] == chat]
        assert handed == sorted(handed)
        assert acked == [f"{chat}{number}" for number in range(8) if f"{chat}{number}" != "a5"]
    assert [site.door.texts.count(text) for text in ("a2", "b1", "a4", "b3", "b4")] == [3, 2, 2, 2, 2]


@pytest.mark.parametrize("source", [{"chat_id": 5}, {"chat_id": "5", "scope_id": None}, {"chat_id": 5.0}])
async def test_a_chat_is_one_however_its_id_is_written(site: Site, source: dict[str, Any]) -> None:
    """Odd types, and null for nothing, give a chat too: its own."""
    go_on = asyncio.Event()

    async def accept(args: AcceptArgs) -> AcceptResult:
        await go_on.wait()
        return AcceptResult(outcome="stored")

    site.door.accept = accept
    await site.start()
    for buffer_id, each in (("b-1", source), ("b-2", source), ("b-3", {"chat_id": "6"})):
        event = {"text": buffer_id, "source": {"platform": "web", **each}}
        await site.relay.send({"type": "inbound", "event": event, "bufferId": buffer_id})
    await eventually(lambda: len(site.door.accepted) == 2)
    await asyncio.sleep(20 * MS)
    together = site.door.texts
    go_on.set()

    await eventually(lambda: sorted(site.relay.acks()) == ["b-1", "b-2", "b-3"])
    assert together == ["b-1", "b-3"]


async def test_acknowledgements_of_one_turn_leave_in_one_message(site: Site) -> None:
    """What the daemon settles together the connector learns together; ids are told as they came."""
    on_disk = asyncio.Event()

    async def accept(args: AcceptArgs) -> AcceptResult:
        await on_disk.wait()
        return AcceptResult(outcome="stored")

    site.door.accept = accept
    await site.start()
    ids = ["plain", 'with "quotes" and \\', "ünïcode 🐝", "tab\t", *map(str, range(40))]
    for number, buffer_id in enumerate(ids):
        await site.relay.send_event("x", chat=f"c{number}", buffer_id=buffer_id)
    await eventually(lambda: len(site.door.accepted) == len(ids))
    before = len(site.relay.messages)

    on_disk.set()

    await eventually(lambda: site.relay.acks() == ids)
    acks = b"".join(encode_frame(InboundAck(buffer_id=buffer_id)) for buffer_id in ids)
    assert site.relay.messages[before:] == [acks]


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
