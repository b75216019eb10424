"""How often something may be done."""

from __future__ import annotations

from typing import Final

from skep.foundation.clock import Clock

__all__ = ["Bucket"]


class Bucket:
    """A token bucket: `burst` at once, `per_minute` in the long run."""

    def __init__(self, *, per_minute: float, burst: float, clock: Clock) -> None:
        self._per_ms: Final = per_minute / 60_000
        self._burst: Final = burst
        self._clock: Final = clock
        self._tokens = burst
        self._at_ms = clock.monotonic_ms()

    def spend(self) -> float:
        """Take one; return 0, or the seconds until there is one, and take nothing."""
        now_ms = self._clock.monotonic_ms()
        self._tokens = min(self._burst, self._tokens + (now_ms - self._at_ms) * self._per_ms)
        self._at_ms = now_ms
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_ms / 1000
