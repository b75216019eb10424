"""skep.gateway: progress of turns, against control protocol, section 7."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from skep.gateway import streaming
from skep.wire.control.door import Turn
from skep.wire.control.envelope import Route
from support.relay import web_descriptor
from support.waiting import MS, eventually

if TYPE_CHECKING:
    from integration.gateway.conftest import Site

pytestmark = pytest.mark.anyio

ROUTE = Route(relay="local", platform="web", bot_id="", chat_id="c1", answers=("m1",), scope_id="local")


def a_turn(seq: int, state: str, text: str | None = None, **changes: Any) -> Turn:
    """Return a state of the turn that answers m1."""
    fields: dict[str, Any] = {
        "turn_id": "t1",
        "seq": seq,
        "state": state,
        "agent": "concierge",
        "route": ROUTE,
        "reply_key": "r:in-1",
        "text": text,
        "shown": ("m1",),
    }
    return Turn(**{**fields, **changes})


async def test_turn_is_seen_typed_drafted_and_cleared(site: Site) -> None:
    """Ticks, then typing, then the whole text so far under the answer's key; at the end typing is cleared."""
    await site.start()
    site.door.tell(a_turn(1, "started"))
    await eventually(lambda: len(site.relay.actions("typing")) == 1)
    site.door.tell(a_turn(2, "text", "Hel"))
    await eventually(lambda: len(site.relay.actions("draft")) == 1)
    site.door.tell(a_turn(3, "text", "Hello"))
    await eventually(lambda: len(site.relay.actions("draft")) == 2)
    site.door.tell(a_turn(4, "ended", "Hello"))
    await eventually(lambda: len(site.relay.actions("typing")) == 2)

    said = site.relay.actions()
    assert [action["op"] for action in said] == ["seen", "typing", "draft", "draft", "typing"]
    assert said[0] == {
        "op": "seen",
        "chat_id": "c1",
        "message_ids": ["m1"],
        "metadata": {"scope_id": "local"},
    }
    assert (said[3]["content"], said[3]["final"], said[3]["metadata"]["idem"]) == ("Hello", False, "r:in-1")
    assert "content" not in said[1]
    assert said[4]["content"] == ""


async def test_all_that_a_turn_shows_names_its_thread(site: Site) -> None:
    """From the first tick to the end of typing."""
    await site.start()
    route = replace(ROUTE, thread_id="t1")
    site.door.tell(a_turn(1, "started", route=route))
    await eventually(lambda: len(site.relay.actions()) == 2)
    site.door.tell(a_turn(2, "text", "Hel", route=route))
    await eventually(lambda: len(site.relay.actions()) == 3)
    site.door.tell(a_turn(3, "ended", "Hel", route=route))
    await eventually(lambda: len(site.relay.actions()) == 4)

    said = site.relay.actions()
    assert [action["op"] for action in said] == ["seen", "typing", "draft", "typing"]
    assert {action["metadata"]["thread_id"] for action in said} == {"t1"}


async def test_newest_state_alone_waits(site: Site) -> None:
    """While a draft is on its way, hundreds of states become one."""
    go_on = asyncio.Event()
    site.relay.answer = lambda action: (
        None if action["op"] == "draft" and not go_on.is_set() else {"success": True}
    )
    gateway = await site.start()
    site.door.tell(a_turn(1, "text", "0"))
    await eventually(lambda: len(site.relay.actions("draft")) == 1)
    for number in range(2, 300):
        site.door.tell(a_turn(number, "text", "x" * number))
    await asyncio.sleep(50 * MS)
    held = len(site.relay.actions("draft"))
    go_on.set()
    await site.relay.drop()
    await site.state("connecting")
    await site.state("connected")

    await eventually(lambda: site.relay.actions("draft")[-1]["content"] == "x" * 299, within=8_000 * MS)
    assert (held, len(site.relay.actions("draft")), len(gateway.streaming)) == (1, 2, 1)


async def test_typing_is_said_again_until_the_turn_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every 4 s (here 20 ms), and not after the end."""
    monkeypatch.setattr(streaming, "TYPING_EVERY_S", 0.02)
    gateway = await site.start()
    site.door.tell(a_turn(1, "started"))
    await eventually(lambda: len(site.relay.actions("typing")) >= 4)
    site.door.tell(a_turn(2, "dropped"))
    await eventually(lambda: len(gateway.streaming) == 0)
    await eventually(lambda: site.relay.actions("typing")[-1].get("content") == "")
    count = len(site.relay.actions("typing"))
    await asyncio.sleep(60 * MS)

    assert len(site.relay.actions("typing")) == count


async def test_other_connectors_get_only_what_they_list(site: Site) -> None:
    """Not Skep: typing, because every connector knows it, never a draft, a tick or a clearing."""
    site.relay.descriptors = (web_descriptor(skep=0, supported_ops=("send", "typing", "draft", "seen")),)
    gateway = await site.start()
    site.door.tell(a_turn(1, "text", "Hel"))
    await eventually(lambda: len(site.relay.actions()) == 1)
    site.door.tell(a_turn(2, "ended", "Hello"))
    await eventually(lambda: len(gateway.streaming) == 0)

    assert [action["op"] for action in site.relay.actions()] == ["typing"]


async def test_pg_progress_is_dropped_while_the_relay_is_down(site: Site) -> None:
    """No state is kept for later but the newest; nothing fails."""
    gateway = await site.start()
    await site.relay.stop()
    await site.state("connecting")
    for number in range(1, 50):
        site.door.tell(a_turn(number, "text", "x" * number))
    site.door.tell(a_turn(50, "ended"))

    await eventually(lambda: len(gateway.streaming) == 0)


async def test_turns_end_when_the_daemon_goes_away(site: Site) -> None:
    """Nobody would say that they ended: typing is cleared now."""
    gateway = await site.start()
    site.door.tell(a_turn(1, "started"))
    await eventually(lambda: len(site.relay.actions("typing")) == 1)
    await site.door.stop()

    await eventually(lambda: len(gateway.streaming) == 0)
    await eventually(lambda: site.relay.actions("typing")[-1].get("content") == "")
