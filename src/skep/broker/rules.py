"""Time and bounds: what every act of the broker is measured by.

Source: hive, sections 3.3, 5.2, 6 and 7.7.

Three readings of time, so that a wall clock that jumps neither stalls nor doubles anything:

- `wall` is what people mean by a time: reminders, deadlines, `not_before`.
- `stamp` is the wall clock that never goes back: when a message was made, and its id.
- `steady` runs with the monotonic clock from the start of the daemon: leases, back-off, quiet windows.
"""

from __future__ import annotations

import os
from typing import Final

from skep.broker.errors import RateLimitedError
from skep.broker.types import BrokerSettings
from skep.foundation.clock import Clock
from skep.store.ports import HiveTx

__all__ = ["Rules", "Time", "charge"]


_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class Time:
    """The three readings, and ids made from them. `stamp` and `new_id` belong to the writer thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._start_ms: Final = clock.now_ms() - clock.monotonic_ms()
        self._stamp_ms = 0
        self._id_ms = 0
        self._id_seq = 0
        self._id_head = ""
        self._entropy = ""
        self._entropy_at = 0

    def wall(self) -> int:
        """Return UTC milliseconds as the machine says them now."""
        return self._clock.now_ms()

    def steady(self) -> int:
        """Return milliseconds that run on, whatever happens to the wall clock."""
        return self._start_ms + self._clock.monotonic_ms()

    def stamp(self) -> int:
        """Return the wall clock, or the last stamp where the clock was set back."""
        now = self._clock.now_ms()
        if now > self._stamp_ms:
            self._stamp_ms = now
        return self._stamp_ms

    def new_id(self) -> str:
        """Return a UUIDv7 that sorts after every one before it (RFC 9562, section 6.2, method 1)."""
        now = self.stamp()
        if now > self._id_ms:
            self._begin_ids(now)
        else:
            self._id_seq += 1
            if self._id_seq > 0xFFF:
                self._begin_ids(self._id_ms + 1)
        tail = self.token()
        return f"{self._id_head}{self._id_seq:03x}-{_VARIANT[tail[0]]}{tail[1:4]}-{tail[4:]}"

    def _begin_ids(self, at_ms: int) -> None:
        self._id_ms, self._id_seq = at_ms, 0
        self._id_head = f"{at_ms >> 16:08x}-{at_ms & 0xFFFF:04x}-7"

    def token(self) -> str:
        """Return 64 random bits as 16 hex digits. The system is asked for many at once."""
        at = self._entropy_at
        if at == len(self._entropy):
            self._entropy, at = os.urandom(2_048).hex(), 0
        self._entropy_at = at + 16
        return self._entropy[at : at + 16]


class Rules:
    """What an act needs besides its transaction."""

    def __init__(self, *, clock: Clock, settings: BrokerSettings) -> None:
        self.time: Final = Time(clock)
        self.settings: Final = settings


def charge(tx: HiveTx, rules: Rules, *, owner: str, what: str) -> None:
    """Take one token of `owner` for `what`; a refusal undoes the transaction, and so costs nothing.

    Raises:
        RateLimitedError: None is left; it says when the next one is.
    """
    burst, per_ms = rules.settings.buckets[what]
    row = tx.one("bucket_take", owner, what, float(burst), per_ms, rules.time.steady())
    if row is not None and row[0] < 0:
        raise RateLimitedError(f"too many `{what}` in a short time", retry_after_s=-row[0] * per_ms / 1000)
