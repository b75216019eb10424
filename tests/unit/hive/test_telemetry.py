"""skep.hive.telemetry: days and percentiles, against hive, section 14."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime

import pytest

from skep.hive.telemetry import midnight_ms, percentile


def utc_ms(text: str) -> int:
    """Return UTC milliseconds of an ISO time."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)


MIDNIGHTS = {
    "UTC": ("2026-03-01T13:00:00+00:00", "UTC", "2026-03-01T00:00:00+00:00"),
    "east: already tomorrow": ("2026-03-01T20:00:00+00:00", "Asia/Tokyo", "2026-03-02T00:00:00+09:00"),
    "west: still yesterday": ("2026-03-01T03:00:00+00:00", "America/New_York", "2026-02-28T00:00:00-05:00"),
    "clocks went forward at 2": ("2026-03-29T12:00:00+00:00", "Europe/Berlin", "2026-03-29T00:00:00+01:00"),
    "clocks went back at 3": ("2026-10-25T12:00:00+00:00", "Europe/Berlin", "2026-10-25T00:00:00+02:00"),
    "midnight itself": ("2026-03-01T00:00:00+00:00", "UTC", "2026-03-01T00:00:00+00:00"),
}


@pytest.mark.parametrize(("now", "zone", "midnight"), MIDNIGHTS.values(), ids=MIDNIGHTS.keys())
def test_te_03_a_day_begins_at_midnight_in_its_zone(now: str, zone: str, midnight: str) -> None:
    """Also on days that have 23 or 25 hours."""
    assert midnight_ms(utc_ms(now), zoneinfo.ZoneInfo(zone)) == utc_ms(midnight)


def test_without_a_zone_the_systems_counts() -> None:
    """Its midnight is at most a day ago."""
    now = utc_ms("2026-03-01T13:00:00+00:00")

    assert 0 <= now - midnight_ms(now, None) <= 25 * 3_600_000


@pytest.mark.parametrize(
    ("values", "p50", "p95"),
    [([], None, None), ([7], 7, 7), ([1, 2], 1, 2), (list(range(1, 101)), 50, 95), ([1, 2, 3], 2, 3)],
)
def test_percentiles_are_nearest_rank(values: list[int], p50: int | None, p95: int | None) -> None:
    """A percentile is one of the values, never between two."""
    assert (percentile(values, 0.5), percentile(values, 0.95)) == (p50, p95)
