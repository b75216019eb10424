"""skep.gateway: answers on their way out, against control protocol, sections 5 to 6.2."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from skep.gateway import dialer
from skep.wire.relay.actions import Result
from skep.wire.relay.frames import Outbound, OutboundResult
from support.relay import a_lease, web_descriptor
from support.waiting import MS, eventually

if TYPE_CHECKING:
    from integration.gateway.conftest import Site

pytestmark = pytest.mark.anyio


async def test_answer_of_a_turn_is_a_final_draft_with_its_key(site: Site) -> None:
    """Started before the platform call, ended with the platform's ids after it."""
    await site.start()
    site.door.give(a_lease())

    await eventually(lambda: len(site.door.ended) == 1)
    assert site.relay.actions() == [
        {
            "op": "draft",
            "chat_id": "c1",
            "draft_id": 0xC3FB0CD054D43,  # by sha256sum
            "content": "answer 1",
            "final": True,
            "metadata": {
                "notify": True,
                "idem": "r:in-1",
                "agent": "concierge",
                "answers": ["m1"],
                "message_id": "m1",
            },
        }
    ]
    ended = site.door.ended[0]
    assert (ended.outcome, ended.platform_message_ids) == ("ok", ("p-c1",))
    assert [args.lease_id for args in site.door.started] == ["lease-1"]


async def test_other_messages_and_other_connectors_get_a_send(site: Site) -> None:
    """A message of its own is a `send`; a connector that is not Skep gets nothing that only Skep knows."""
    site.relay.descriptors = (web_descriptor(skep=0, supported_ops=()),)
    await site.start()
    site.door.give(a_lease(reply_key="r:in-1", route={"scope_id": "s", "user_id": "u", "thread_id": "t"}))

    await eventually(lambda: len(site.door.ended) == 1)
    assert site.relay.actions() == [
        {
            "op": "send",
            "chat_id": "c1",
            "content": "answer 1",
            "reply_to": "m1",
            "metadata": {"scope_id": "s", "user_id": "u", "thread_id": "t", "notify": True},
        }
    ]


async def test_ask_with_choices_is_a_prompt_or_a_numbered_list(site: Site) -> None:
    """With the op: buttons under an id that says whose they are; without it: a list."""
    await site.start()
    ask = {"kind": "ask", "choices": ("yes", "no"), "reply_key": "m:1", "body": "Go?"}
    site.door.give(a_lease(number=37, created_at=1_000, age_ms=500, deadline_at=9_000, **ask))
    await eventually(lambda: len(site.door.ended) == 1)
    site.relay.descriptors = (web_descriptor(supported_ops=("send",)),)
    await site.relay.drop()
    await eventually(lambda: len(site.relay.dials) == 2, within=4_000 * MS)
    await site.state("connected")
    site.door.give(a_lease(number=38, **ask))
    await eventually(lambda: len(site.door.ended) == 2)

    prompt, plain = site.relay.actions()
    assert (prompt["op"], prompt["prompt_id"]) == ("prompt", "25bf.11")
    assert prompt["options"] == [{"id": "1", "label": "yes"}, {"id": "2", "label": "no"}]
    assert prompt["timeout_s"] == 7.5
    assert (plain["op"], plain["content"]) == ("send", "Go?\n\n1. yes\n2. no")


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "forbidden": ({"success": False, "code": "forbidden"}, "forbidden"),
    "egress declined": ({"success": False, "code": "egress_declined", "error": "x"}, "egress_declined"),
    "unknown": ({"success": False}, "unknown"),
}
AGAIN: dict[str, dict[str, Any]] = {
    "rate limited": {"success": False, "code": "rate_limited", "retry_after_ms": 7_000},
    "transient": {"success": False, "code": "transient"},
    "account down": {"success": False, "code": "account_down"},
    "words of a stock connector": {"success": False, "error": "NetworkError: gone"},
}


@pytest.mark.parametrize(("result", "code"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_refusal_ends_the_message(site: Site, result: dict[str, Any], code: str) -> None:
    """Asked once, then `refused` with the platform's code."""
    site.relay.answer = lambda action: result
    await site.start()
    site.door.give(a_lease())

    await eventually(lambda: len(site.door.ended) == 1)
    assert (site.door.ended[0].outcome, site.door.ended[0].code) == ("refused", code)
    assert len(site.relay.actions()) == 1


@pytest.mark.parametrize("result", AGAIN.values(), ids=AGAIN.keys())
async def test_temporary_failure_gives_back_without_blame(site: Site, result: dict[str, Any]) -> None:
    """`pump.nack` with the connector's delay, else from 1 s doubling."""
    site.relay.answer = lambda action: result
    await site.start()
    for tries in (1, 2, 3):
        site.door.give(a_lease())
        await eventually(partial(_has, site.door.nacked, tries))

    delays = [args.delay_ms for args in site.door.nacked]
    wanted = [7_000] * 3 if "retry_after_ms" in result else [1_000, 2_000, 4_000]
    assert all(0.8 * want <= delay <= 1.2 * want for delay, want in zip(delays, wanted, strict=True))
    assert site.door.ended == []


@pytest.mark.parametrize("code", ["too_long", "bad_format", "media_refused", "unsupported"])
async def test_refused_form_is_tried_once_as_plain_text(site: Site, code: str) -> None:
    """The same words without marks under the same key; refused again, it is over."""
    site.relay.answer = lambda action: {"success": False, "code": code}
    await site.start()
    site.door.give(a_lease(body="**bold** `code` [here](https://x.example)"))

    await eventually(lambda: len(site.door.ended) == 1)
    first, second = site.relay.actions()
    assert (second["op"], second["content"]) == ("send", "bold code here (https://x.example)")
    assert first["metadata"]["idem"] == second["metadata"]["idem"] == "r:in-1"
    assert (site.door.ended[0].outcome, site.door.ended[0].code) == ("refused", code)


async def test_unknown_outcome_is_asked_again_with_the_same_key_then_told(site: Site) -> None:
    """The same frame once more; still unknown: the daemon decides."""
    site.relay.answer = lambda action: {"success": False, "code": "unknown_outcome"}
    await site.start()
    site.door.give(a_lease())

    await eventually(lambda: len(site.door.ended) == 1)
    first, second = site.relay.actions()
    assert first == second
    assert site.door.ended[0].outcome == "unknown"


async def test_repeat_of_the_route_reaches_the_connector(site: Site) -> None:
    """A second try that the daemon ordered says that it may be a repeat."""
    await site.start()
    site.door.give(a_lease(route={"repeat": True}))

    await eventually(lambda: len(site.door.ended) == 1)
    assert site.relay.actions()[0]["metadata"]["repeat"] is True


async def test_bug_16_socket_death_fails_a_send_at_once_and_it_is_repeated(site: Site) -> None:
    """Written, then cut: no wait of 30 s; the same frame again under the same key, one `pump.ended`."""
    site.relay.answer = lambda action: None
    await site.start()
    site.door.give(a_lease())
    await eventually(lambda: len(site.relay.actions()) == 1)
    site.relay.answer = lambda action: {"success": True, "message_id": "p"}
    await site.relay.drop()

    await eventually(lambda: len(site.door.ended) == 1, within=5_000 * MS)
    first, second = site.relay.actions()
    assert first == second
    assert [args.outcome for args in site.door.ended] == ["ok"]


async def test_bug_16_towards_another_connector_the_outcome_is_unknown(site: Site) -> None:
    """Without a key a repeat could double: told to the daemon as unknown, not sent again."""
    site.relay.descriptors = (web_descriptor(skep=0),)
    site.relay.answer = lambda action: None
    await site.start()
    site.door.give(a_lease())
    await eventually(lambda: len(site.relay.actions()) == 1)
    await site.relay.drop()

    await eventually(lambda: len(site.door.ended) == 1)
    assert site.door.ended[0].outcome == "unknown"


async def test_no_answer_in_time_is_ambiguous(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence counts as a socket that died."""
    monkeypatch.setattr(dialer, "RESULT_TIMEOUT_S", 0.05)
    answers: list[dict[str, Any] | None] = [None, {"success": True, "message_id": "p"}]
    site.relay.answer = lambda action: answers.pop(0)
    await site.start()
    site.door.give(a_lease())

    await eventually(lambda: len(site.door.ended) == 1)
    assert len(site.relay.actions()) == 2


async def test_bug_17_a_send_that_waits_holds_up_no_event(site: Site) -> None:
    """The read loop waits for no result: events are taken, and stops too, while one is open."""
    site.relay.answer = lambda action: None
    await site.start()
    site.door.give(a_lease())
    await eventually(lambda: len(site.relay.actions()) == 1)
    await site.relay.send_event("meanwhile", buffer_id="b-1")

    await eventually(lambda: site.relay.acks() == ["b-1"])
    assert site.door.ended == []
    await _succeed(site)


async def test_answers_in_any_order_find_their_message(site: Site) -> None:
    """64 lanes at once, one `pump.next`, each ended with its own id."""
    await site.start()
    site.door.give(*(a_lease(number) for number in range(1, 101)))

    await eventually(lambda: len(site.door.ended) == 100)
    by_lease = {args.lease_id: args.platform_message_ids for args in site.door.ended}
    assert by_lease == {f"lease-{n}": (f"p-c{n}",) for n in range(1, 101)}
    assert max(args.lanes for args in site.door.asked) == 64


async def test_frames_that_wait_leave_in_one_message(site: Site) -> None:
    """Corked: many answers of one moment, few messages."""
    await site.start()
    before = len(site.relay.messages)
    site.door.give(*(a_lease(number) for number in range(1, 51)))

    await eventually(lambda: len(site.door.ended) == 50)
    assert len(site.relay.messages) - before < 25


async def test_report_that_failed_is_told_when_leased_again(site: Site) -> None:
    """`stale_lease` at the end: the platform is not called a second time for the same key."""
    site.door.refuse_ended = ["stale_lease"]
    await site.start()
    site.door.give(a_lease())
    await eventually(lambda: site.door.refuse_ended == [])
    site.door.give(a_lease(lease_id="lease-again"))

    await eventually(lambda: len(site.door.ended) == 1)
    assert len(site.relay.actions()) == 1
    assert (site.door.ended[0].lease_id, site.door.ended[0].outcome) == ("lease-again", "ok")


async def test_busy_report_is_repeated(site: Site) -> None:
    """A daemon that is busy is told again."""
    site.door.refuse_ended = ["busy", "timeout"]
    await site.start()
    site.door.give(a_lease())

    await eventually(lambda: len(site.door.ended) == 1)
    assert len(site.relay.actions()) == 1


async def test_nothing_is_leased_while_the_relay_is_down(site: Site) -> None:
    """What cannot be sent stays with the daemon."""
    port = int(site.relay.url.rpartition(":")[2])
    await site.relay.stop()
    await site.start(connected=False)
    await site.state("connecting")
    site.door.give(a_lease())
    await asyncio.sleep(50 * MS)
    asked = len(site.door.asked)

    await site.relay.start(port)

    await eventually(lambda: len(site.door.ended) == 1, within=8_000 * MS)
    assert asked == 0


async def test_stop_lets_a_message_end(site: Site) -> None:
    """What was handed to the connector is reported before the gateway is gone."""
    site.relay.answer = lambda action: None
    await site.start()
    site.door.give(a_lease())
    await eventually(lambda: len(site.relay.actions()) == 1)
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(site.stop())
        await asyncio.sleep(20 * MS)
        await _succeed(site)
        await stopping

    assert [args.outcome for args in site.door.ended] == ["ok"]


def _has(items: list[Any], count: int) -> bool:
    return len(items) == count


async def _succeed(site: Site) -> None:
    """Answer the first action late."""
    frame = next(frame for frame in site.relay.frames if isinstance(frame, Outbound))
    await site.relay.send(OutboundResult(request_id=frame.request_id, result=Result(success=True)))


async def test_a_daemon_that_stops_is_left_when_what_is_on_its_way_has_ended(site: Site) -> None:
    """The gateway takes no lease more, reports the one it has, hangs up, and finds the next daemon."""
    site.relay.answer = lambda action: None
    await site.start()
    site.door.give(a_lease())
    await eventually(lambda: len(site.relay.actions()) == 1)
    site.door.drain()
    await asyncio.sleep(100 * MS)
    asked, stayed = len(site.door.asked), site.door.callers
    site.relay.answer = lambda action: {"success": True, "message_id": "p"}
    await site.relay.drop()
    await eventually(lambda: site.door.callers == 0, within=5_000 * MS)
    outcomes = [args.outcome for args in site.door.ended]
    await site.door.stop()
    await site.door.start()
    site.door.give(a_lease(number=2))
    await eventually(lambda: len(site.door.ended) == 2, within=10_000 * MS)

    assert (stayed, outcomes) == (1, ["ok"])
    assert asked == 2
    assert len(site.door.asked) >= 3
