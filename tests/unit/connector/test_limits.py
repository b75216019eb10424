"""skep.connector.limits: how often something may be done."""

from __future__ import annotations

from skep.connector.limits import Bucket
from skep.foundation.clock import ManualClock


def test_burst_then_one_each_interval() -> None:
    """Thirty a minute, burst thirty: the next one two seconds later."""
    clock = ManualClock()
    bucket = Bucket(per_minute=30, burst=30, clock=clock)
    assert [bucket.spend() for _ in range(31)] == [0.0] * 30 + [2.0]
    clock.advance(1_999)
    assert bucket.spend() > 0
    clock.advance(2)
    assert bucket.spend() == 0.0


def test_wall_clock_does_not_matter() -> None:
    """A clock set back or ahead gives nothing and takes nothing."""
    clock = ManualClock()
    bucket = Bucket(per_minute=60, burst=1, clock=clock)
    bucket.spend()
    clock.jump(-3_600_000)
    assert bucket.spend() == 1.0
    clock.jump(7_200_000)
    assert bucket.spend() == 1.0


def test_pause_saves_no_more_than_the_burst() -> None:
    """However long it was."""
    clock = ManualClock()
    bucket = Bucket(per_minute=60, burst=2, clock=clock)
    clock.advance(3_600_000)
    assert [bucket.spend() == 0 for _ in range(3)] == [True, True, False]
