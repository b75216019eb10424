"""skep.hive.progress, against the control protocol, section 7."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from skep.foundation.clock import SYSTEM_CLOCK
from skep.hive.ports import RunningTurn
from skep.hive.progress import MAX_TEXT_BYTES, ProgressHub
from skep.wire.control.door import Turn
from skep.wire.control.envelope import Route
from skep.wire.control.pump import ProgressArgs

ROUTE = Route(relay="local", platform="web", bot_id="b", chat_id="c_1", reply_to="m_1", answers=("m_1",))


class Watcher:
    def __init__(self) -> None:
        self.is_writable = True
        self.turns: list[Turn] = []

    def show(self, turn: Turn) -> None:
        self.turns.append(turn)

    def fell_behind(self) -> None:
        pass


def make_hub() -> tuple[ProgressHub, list[dict[str, Any]]]:
    """Return a hub, and what it emits."""
    events: list[dict[str, Any]] = []
    return ProgressHub(clock=SYSTEM_CLOCK, emit=events.append), events


def start(hub: ProgressHub, turn_id: str = "t-1") -> None:
    """Begin a turn for a person's message."""
    turn = RunningTurn(turn_id=turn_id, agent="concierge", lane=1, session="s", started_at=1)
    hub.started(turn, route=ROUTE, reply_key="r:1", shown=("m_1",))


def say(hub: ProgressHub, seq: int, at: int, add: str, turn_id: str = "t-1") -> None:
    """Tell a piece of text."""
    hub.progressed(ProgressArgs(turn_id=turn_id, seq=seq, kind="text", at=at, add=add))


async def test_a_turn_is_shown_from_its_start_to_its_end() -> None:
    """Started at once, then the whole text so far, then the end, each with a higher `seq`."""
    hub, _ = make_hub()
    watcher = Watcher()
    hub.subscribe(watcher)

    start(hub)
    say(hub, 1, 0, "Hel")
    say(hub, 2, 3, "lo")
    await asyncio.sleep(0.12)
    hub.ended("t-1")
    await asyncio.sleep(0.12)

    assert [(turn.state, turn.text) for turn in watcher.turns] == [
        ("started", None),
        ("text", "Hello"),
        ("ended", None),
    ]
    assert [turn.seq for turn in watcher.turns] == [1, 2, 3]
    assert watcher.turns[0].shown == ("m_1",)


async def test_a_turn_is_shown_at_most_every_100_ms() -> None:
    """A thousand words in a moment are two states: the first, and the newest."""
    hub, events = make_hub()
    start(hub)

    for number in range(1000):
        say(hub, number, number, "x")
    await asyncio.sleep(0.15)

    assert [event["state"] for event in events] == ["started", "text"]
    assert events[-1]["text"] == "x" * 1000


async def test_pg_01_text_is_always_a_true_beginning() -> None:
    """With progress dropped at random, what is shown is a beginning of what was said."""
    hub, events = make_hub()
    start(hub)
    whole = "".join(random.choice("abc äö") for _ in range(500))
    kept = [number for number in range(500) if random.random() < 0.9]

    for number in kept:
        say(hub, number, number, whole[number])
    await asyncio.sleep(0.12)

    shown = events[-1]["text"] or ""
    assert whole.startswith(shown)


async def test_said_again_from_an_earlier_character_replaces_the_rest() -> None:
    """An offset before the end rewinds."""
    hub, events = make_hub()
    start(hub)
    say(hub, 1, 0, "good mornign")
    say(hub, 2, 9, "ing")
    await asyncio.sleep(0.12)

    assert events[-1]["text"] == "good morning"


async def test_pg_02_a_subscriber_that_does_not_read_costs_no_text() -> None:
    """It gets the newest state of each turn once it reads again, and nothing in between."""
    hub, _ = make_hub()
    stalled, reading = Watcher(), Watcher()
    hub.subscribe(stalled)
    hub.subscribe(reading)
    stalled.is_writable = False
    start(hub)
    for round_ in range(3):
        say(hub, round_, round_ * 10, "0123456789")
        await asyncio.sleep(0.11)

    assert stalled.turns == []
    assert len(reading.turns) >= 3
    assert hub.is_behind(stalled)

    stalled.is_writable = True
    hub.catch_up(stalled)

    assert [turn.text for turn in stalled.turns] == ["0123456789" * 3]
    assert not hub.is_behind(stalled)


async def test_text_over_64_kib_is_not_kept() -> None:
    """A turn costs at most 64 KiB, counted in bytes."""
    hub, events = make_hub()
    start(hub)
    for number in range(5):
        say(hub, number, number * 20_000, "ä" * 20_000)
    await asyncio.sleep(0.12)

    text = events[-1]["text"]
    assert len(text.encode()) <= MAX_TEXT_BYTES
    assert text == "ä" * len(text)


async def test_whoever_comes_later_is_told_each_running_turn_once() -> None:
    """A new subscriber knows what runs."""
    hub, _ = make_hub()
    start(hub, "t-1")
    start(hub, "t-2")
    hub.ended("t-1")
    watcher = Watcher()

    hub.subscribe(watcher)

    assert [turn.turn_id for turn in watcher.turns] == ["t-2"]
    assert [event["turn_id"] for event in hub.events()] == ["t-2"]


async def test_old_and_unknown_progress_is_ignored() -> None:
    """A repeat of a `seq`, or a turn that does not run, changes nothing."""
    hub, events = make_hub()
    start(hub)
    say(hub, 5, 0, "new")
    say(hub, 4, 0, "old")
    say(hub, 6, 0, "other", turn_id="t-9")
    await asyncio.sleep(0.12)

    assert events[-1]["text"] == "new"


async def test_after_close_no_timer_is_left() -> None:
    """Nothing is shown any more."""
    hub, events = make_hub()
    start(hub)
    say(hub, 1, 0, "a")
    hub.close()
    await asyncio.sleep(0.12)

    assert len(events) == 1
    assert len(hub) == 0
