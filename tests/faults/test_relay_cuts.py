"""The line between connector and gateway fails in every way; reliability, R1.

Connector, gateway and hive run here on real sockets, with a proxy in the relay's line. A person writes all the time,
an agent reads and answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from contextlib import suppress

import pytest

from faults.lengths import at_length, new_seed, record
from faults.relay_site import hurry, running
from support.chat_client import ChatClient, History
from support.waiting import MS, eventually

CUTS = int(os.environ.get("SKEP_TEST_CUTS") or at_length(merge=100, release=1_000))
WAYS = {"cut": 40, "inside a frame": 35, "stall": 8, "half-open": 9, "gateway": 5, "connector": 3}
"""How the line fails, and how often."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again, and miss a dead line, in milliseconds in place of seconds."""
    hurry(monkeypatch)


@pytest.mark.timeout(900)
async def test_r1_nothing_is_lost_and_nothing_is_shown_twice() -> None:
    """Cuts between and inside frames, stalls, half-open lines, restarts of either side."""
    seed = new_seed("relay_cuts")
    chance = random.Random(seed)
    history = History()
    sent: list[str] = []
    async with running() as site:
        person = ChatClient(f"http://127.0.0.1:{site.port}", name="p", history=history)
        await person.sign_in(await site.code())
        conversation = await person.conversation("r1")

        async def write() -> None:
            while True:
                text = f"number {len(sent)}"
                message = await person.send(conversation, text)
                sent.append(text)
                history.add("p", "text", message=message, text=text)
                await asyncio.sleep(chance.uniform(0, 10) * MS)

        reading = site.group.create_task(site.read())
        writing = site.group.create_task(write())
        for number in range(CUTS):
            before, way = site.shown.total(), chance.choices(list(WAYS), list(WAYS.values()))[0]
            history.add("chaos", "fault", way=way, number=number)
            await site.fail(way, chance)
            await eventually(lambda seen=before: site.shown.total() > seen, within=20_000 * MS)
            await asyncio.sleep(chance.uniform(0, 30) * MS)
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        stored = [event.facts["message"] for event in history.events if event.what == "stored"]
        answered = -1
        while len(person.answers) > answered:  # as long as anything still comes
            answered = len(person.answers)
            with suppress(AssertionError):
                await eventually(lambda: len(person.answers) >= len(stored), within=2_000 * MS)
        reading.cancel()
        await person.close()
        shown = dict(site.shown)
        repeats = list(site.repeats)
    path = record(
        "relay_cuts", seed, history.dump() + json.dumps({"shown": shown, "dials": site.proxy.dials})
    )

    problems = [f"{text} is lost" for text in sent if text not in shown]
    problems += [f"{text} was shown twice" for text, times in shown.items() if times != 1]
    problems += [f"{text} was shown again" for text in repeats]
    problems += [
        f"{message} has {len(person.answers.get(message, ()))} answers"
        for message in stored
        if len(person.answers.get(message, ())) != 1
    ]
    assert problems == [], path
    assert site.proxy.dials > CUTS // 2
