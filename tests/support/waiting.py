"""Waiting for something to become true, without a sleep in a test.

`MS` is one millisecond in seconds, stretched by `SKEP_TEST_TIME_FACTOR` on a slow or busy machine.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

__all__ = ["MS", "eventually", "eventually_sync"]

T = TypeVar("T")

TIME_FACTOR: Final = float(os.environ.get("SKEP_TEST_TIME_FACTOR", "1"))

MS: Final = 0.001 * TIME_FACTOR
"""One millisecond, in seconds, as long as this machine needs it to be."""

RETRIED: Final = (AssertionError, OSError)
"""What a check may raise while it is not true yet; anything else is a mistake and ends the wait."""


async def eventually(check: Callable[[], T | Awaitable[T]], *, within: float = 2_000 * MS) -> T:
    """Return what `check` returns once it neither raises nor returns `False`; at most `within` seconds.

    `check` may be async.

    Raises:
        AssertionError: The time is over; says why the last try was not enough.
    """
    deadline = time.monotonic() + within
    pause = 0.001
    while True:
        try:
            result = check()
            if inspect.isawaitable(result):
                async with asyncio.timeout(max(0.05, deadline - time.monotonic())):
                    result = await cast("Awaitable[T]", result)
        except RETRIED as exc:  # TimeoutError is an OSError
            reason = _told(exc)
        else:
            if result is not False:
                return cast("T", result)
            reason = "it returned False"
        if time.monotonic() >= deadline:
            raise AssertionError(_late(check, within, reason))
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def eventually_sync(check: Callable[[], T], *, within: float = 5_000 * MS) -> T:
    """Return what `check` returns once it neither raises nor returns `False`, as `eventually` does.

    Raises:
        AssertionError: The time is over; says why the last try was not enough.
    """
    deadline = time.monotonic() + within
    pause = 0.002
    while True:
        try:
            result = check()
        except RETRIED as exc:
            reason = _told(exc)
        else:
            if result is not False:
                return result
            reason = "it returned False"
        if time.monotonic() >= deadline:
            raise AssertionError(_late(check, within, reason))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _told(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _late(check: Callable[..., Any], within: float, reason: str) -> str:
    name = getattr(check, "__name__", repr(check))
    return f"`{name}` did not come true within {within:.3g} s: {reason}"
