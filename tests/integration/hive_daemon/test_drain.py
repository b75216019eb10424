"""A daemon that stops, with the agents that ship and a gateway; control protocol, sections 6.3 and 11."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from skep.foundation.rpc import CallError
from skep.hive.daemon import DRAIN_S, harness_command
from support.daemon import RunningDaemon, open_daemon, short_home
from support.hive import person_event
from support.waiting import MS, eventually

LIMIT_S = 10.0
"""All is down by then. control.md, section 11."""


async def test_what_ends_within_a_drain_is_stored_and_what_does_not_is_redelivered() -> None:
    """The gateway hears at once that the daemon stops. Each message is answered once, by this daemon or the next."""
    loop = asyncio.get_running_loop()
    async with short_home() as home:
        async with open_daemon(home, command=harness_command) as daemon:
            await daemon.all_up()
            gateway = await daemon.gateway()
            await gateway.say("slow", message_id="m-slow", chat_id="c-slow")
            await gateway.say("hello", message_id="m-short")
            await eventually(lambda: _busy(daemon, 2), within=4_000 * MS)
            began = loop.time()
            daemon.stop.set()
            with pytest.raises(CallError) as raised:
                await gateway.take(wait_ms=30_000)
            told_s = loop.time() - began
            late = await gateway.say("hello", message_id="m-late", chat_id="c-late")
        stopped_s = loop.time() - began
        async with open_daemon(home, command=harness_command) as daemon:
            gateway = await daemon.gateway()
            stored = (await gateway.heard()).envelopes[0]
            await daemon.all_up()
            answered = (await gateway.heard(wait_ms=10_000)).envelopes[0]
            await eventually(lambda: _busy(daemon, 1), within=10_000 * MS)
            await gateway.accept(person_event("/stop", message_id="m-stop", chat_id="c-slow"))
            rest = [(await gateway.heard(wait_ms=5_000)).envelopes[0] for _ in range(2)]

            assert raised.value.wire_code == "shutting_down"
            assert told_s < 1
            assert DRAIN_S - 0.5 < stopped_s < LIMIT_S
            assert late.outcome == "stored"
            assert [_answers(one) for one in (stored, answered, *rest)] == [
                ("m-short",),
                ("m-late",),
                ("m-stop",),
                ("m-slow",),
            ]
            assert "interrupted" not in stored.body
            assert rest[1].body.endswith("(stopped)")
            assert await gateway.take(wait_ms=300) == []


async def _busy(daemon: RunningDaemon, turns: int) -> bool:
    return (await daemon.agent("concierge")).busy == turns


def _answers(envelope: Any) -> tuple[str, ...]:
    assert envelope.route is not None
    return envelope.route.answers
