"""skep.broker.rules: three readings of time, and ids that sort."""

from __future__ import annotations

import uuid

from skep.broker.rules import Time
from skep.foundation.clock import ManualClock


def test_ids_sort_in_the_order_in_which_they_were_made() -> None:
    """Within a millisecond, over 4096 of them, and with the clock set back."""
    clock = ManualClock()
    time = Time(clock)
    ids = [time.new_id() for _ in range(10_000)]
    clock.jump(-3_600_000)
    ids += [time.new_id() for _ in range(10)]
    clock.jump(3_700_000)
    ids.append(time.new_id())

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_ids_are_uuids_of_version_7() -> None:
    """RFC 9562: version 7, variant 10, the time in front."""
    clock = ManualClock()
    for made in (Time(clock).new_id() for _ in range(50)):
        parsed = uuid.UUID(made)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert parsed.int >> 80 == clock.now_ms()
        assert str(parsed) == made


def test_stamp_never_goes_back() -> None:
    """A clock that is set back stands still until it has caught up."""
    clock = ManualClock()
    time = Time(clock)
    first = time.stamp()
    clock.jump(-10_000)
    assert time.stamp() == first
    clock.jump(10_001)
    assert time.stamp() == first + 1


def test_steady_runs_on_whatever_the_wall_clock_does() -> None:
    """Leases and back-off are measured by it."""
    clock = ManualClock()
    time = Time(clock)
    start = time.steady()
    assert start == clock.now_ms()
    clock.jump(-86_400_000)
    clock.advance(250)
    assert time.steady() == start + 250
    assert time.wall() == start - 86_400_000 + 250
