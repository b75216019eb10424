"""skep.hive.telemetry over a real file, against hive, section 14."""

from __future__ import annotations

import random
import statistics
import zoneinfo
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from skep.foundation.clock import ManualClock
from skep.hive.ports import TurnStats
from skep.hive.telemetry import HOUR_MS, Telemetry, midnight_ms
from skep.store.sqlite.engine import OpenOptions

TOKYO = zoneinfo.ZoneInfo("Asia/Tokyo")
HONOLULU = zoneinfo.ZoneInfo("Pacific/Honolulu")


@pytest.fixture
def clock() -> ManualClock:
    """2026-01-01 00:00 UTC: another day in Tokyo than in Honolulu."""
    return ManualClock()


@pytest.fixture
async def telemetry(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Telemetry]:
    """An empty `telemetry.db`."""
    options = OpenOptions(synchronous="OFF", log_bytes=0)
    opened = await Telemetry.open(tmp_path / "telemetry.db", boot_epoch=1, clock=clock, options=options)
    yield opened
    await opened.close()


def turn(number: int, *, started: int, ms: int = 10, outcome: str = "ok", **stats: Any) -> TurnStats:
    """A turn that has ended."""
    return TurnStats(
        turn_id=f"t-{number}",
        lane=1,
        outcome=outcome,
        started_at=started,
        ended_at=started + ms,
        envelopes=1,
        stats=stats,
    )


async def test_te_03_turns_today_equal_a_recount_in_each_zone(
    telemetry: Telemetry, clock: ManualClock
) -> None:
    """Each agent's day is its own; a repeat of a turn counts once."""
    rng, now = random.Random(7), clock.now_ms()
    zones = {"a": TOKYO, "b": HONOLULU, "idle": None}
    starts: dict[str, list[int]] = {name: [] for name in zones}
    for number in range(300):
        agent, started = rng.choice("ab"), now - rng.randrange(48 * HOUR_MS)
        starts[agent].append(started)
        telemetry.add_turn(agent, turn(number, started=started))
        telemetry.add_turn(agent, turn(number, started=started))

    await telemetry.flush()
    expected = {
        name: sum(started >= midnight_ms(now, zone) for started in starts[name])
        for name, zone in zones.items()
    }

    assert await telemetry.turns_today(zones) == expected
    assert expected["a"] != expected["b"] > 0


async def test_figures_equal_a_recount(telemetry: Telemetry, clock: ManualClock) -> None:
    """Turns, errors, tokens, percentiles and hours of the last day, and nothing older."""
    rng, now = random.Random(11), clock.now_ms()
    spans: list[int] = []
    errors = tokens = 0
    for number in range(200):
        age, ms = rng.randrange(1, 30 * HOUR_MS), rng.randrange(5_000)
        outcome = rng.choice(["ok", "ok", "error"])
        telemetry.add_turn(
            "a", turn(number, started=now - age, ms=ms, outcome=outcome, in_tokens=3, model="m")
        )
        if age <= 24 * HOUR_MS:
            spans.append(ms)
            errors += outcome == "error"
            tokens += 3
    await telemetry.flush()
    figures = (await telemetry.figures(["a", "idle"]))["a"]

    assert (figures.turns, figures.errors, figures.in_tokens) == (len(spans), errors, tokens)
    assert figures.p50_ms == statistics.median_low(spans)
    assert len(figures.by_hour) == 24
    assert sum(count for count, _ in figures.by_hour) == len(spans)
    assert sum(bad for _, bad in figures.by_hour) == errors


async def test_an_idle_agent_has_no_percentiles(telemetry: Telemetry) -> None:
    """Unknown is not zero."""
    figures = (await telemetry.figures(["idle"]))["idle"]

    assert (figures.turns, figures.p50_ms, figures.p95_ms) == (0, None, None)


async def test_what_a_harness_says_is_taken_with_care(telemetry: Telemetry, clock: ManualClock) -> None:
    """Nonsense in its figures is left out, and disturbs nothing."""
    stats: dict[str, Any] = {"in_tokens": -5, "out_tokens": "many", "tool_calls": True, "model": 3}
    telemetry.add_turn("a", turn(1, started=clock.now_ms(), error="x" * 10_000, **stats))
    await telemetry.flush()
    figures = (await telemetry.figures(["a"]))["a"]

    assert (figures.turns, figures.in_tokens, figures.out_tokens) == (1, 0, 0)


async def test_missed_starts_and_the_timeline(telemetry: Telemetry, clock: ManualClock) -> None:
    """Events are counted by kind and age, and listed newest first."""
    telemetry.add_event("a", "missed_start")
    clock.advance(25 * HOUR_MS)
    telemetry.add_event("a", "missed_start")
    telemetry.add_event("a", "exit", "exit code 1")
    telemetry.add_turn("a", turn(1, started=clock.now_ms()))
    await telemetry.flush()
    turns, events = await telemetry.last("a", before=clock.now_ms() + 1, limit=2)

    assert await telemetry.missed_starts(["a", "b"]) == {"a": 1, "b": 0}
    assert [(event.kind, event.data) for event in events] == [("exit", "exit code 1"), ("missed_start", "")]
    assert [row.id for row in turns] == ["t-1"]


async def test_te_01_a_turn_row_is_small(telemetry: Telemetry, clock: ManualClock, tmp_path: Path) -> None:
    """At most 256 bytes in the mean, indexes included."""
    for number in range(5_000):
        telemetry.add_turn("concierge", turn(number + 10**9, started=clock.now_ms() + number, tool_calls=2))
    await telemetry.close()

    assert (tmp_path / "telemetry.db").stat().st_size / 5_000 <= 256
