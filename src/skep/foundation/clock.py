"""Time as a parameter: wall clock in UTC milliseconds, and a monotonic one.

Never read the clock elsewhere: a test hands in its own.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """What time it is."""

    def now_ms(self) -> int:
        """Return the wall clock as UTC milliseconds since 1970."""
        ...

    def monotonic_ms(self) -> int:
        """Return milliseconds that never go back; only differences mean something."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return the machine's UTC time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return the machine's monotonic clock in milliseconds."""
        return time.monotonic_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, *, now_ms: int = 1_767_225_600_000, monotonic_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms

    def now_ms(self) -> int:
        """Return the time that was set last."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Return the sum of all `advance` calls."""
        return self._monotonic_ms

    def advance(self, by_ms: int) -> None:
        """Move both clocks on, as time does."""
        self._now_ms += by_ms
        self._monotonic_ms += by_ms

    def jump(self, by_ms: int) -> None:
        """Move the wall clock alone, as an operator or NTP does."""
        self._now_ms += by_ms


SYSTEM_CLOCK: Clock = SystemClock()
