"""The scheduler: one task, one timer, set to the next time that something is due.

Source: hive, sections 8.3 and 8.4. It decides when, never what: `fire` takes one bounded batch in
one transaction and says what is left. It ends when told to, between two batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.tasks import Backoff, TaskSet

__all__ = ["MAX_SLEEP_MS", "Batch", "Scheduler"]

MAX_SLEEP_MS: Final = 30_000
"""Longest sleep: after it the store is asked again, whatever was told."""
_LOOK_MS: Final = 1_000
"""How often the two clocks are compared while something is due later."""
_JUMP_MS: Final = 2_000
_CLOSE_S: Final = 1.5

_log = get_logger(part="scheduler")


class Batch(Protocol):
    """What one batch left behind."""

    @property
    def more(self) -> bool:
        """Whether others are due now."""
        ...

    @property
    def next_due_at(self) -> int | None:
        """When the next is due, UTC milliseconds."""
        ...


class Scheduler:
    """Wakes when something is due.

    Args:
        fire: Takes one batch of what is due.
        changed: Set by anybody when something was added, moved or cancelled.
    """

    def __init__(
        self, *, clock: Clock, fire: Callable[[], Awaitable[Batch]], changed: asyncio.Event, name: str
    ) -> None:
        self._clock: Final = clock
        self._fire: Final = fire
        self._changed: Final = changed
        self._name: Final = name
        self._stopping = False
        self._tasks: Final = TaskSet(on_error=self._failed)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what fell due before is fired at once."""
        self._task = self._tasks.spawn(self._run(), name=self._name)

    async def close(self) -> None:
        """Stop after the current batch; no task and no timer is left."""
        self._stopping = True
        self._changed.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_CLOSE_S)
        await self._tasks.close()

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping:
            self._changed.clear()
            try:
                batch = await self._fire()
            except SkepError as error:  # the disk is full, or the store is being closed
                _log.warning("schedule_delayed", name=self._name, code=error.wire_code)
                await self._sleep(int(backoff.next_s() * 1000))
                continue
            backoff.reset()
            if batch.more:
                await asyncio.sleep(0)  # whoever waits for the store goes between two batches
            elif not self._stopping:
                await self._sleep_until(batch.next_due_at)

    async def _sleep_until(self, due_at: int | None) -> None:
        if due_at is None:
            await self._sleep(MAX_SLEEP_MS)
            return
        apart = self._apart()
        slept_ms = 0
        while slept_ms < MAX_SLEEP_MS and not self._changed.is_set():
            left_ms = due_at - self._clock.now_ms()
            if left_ms <= 0 or abs(self._apart() - apart) > _JUMP_MS:
                return
            nap_ms = min(left_ms, _LOOK_MS)
            await self._sleep(nap_ms)
            slept_ms += nap_ms

    def _apart(self) -> int:
        return self._clock.now_ms() - self._clock.monotonic_ms()

    async def _sleep(self, ms: int) -> None:
        try:
            async with asyncio.timeout(max(ms, 1) / 1000):
                await self._changed.wait()
        except TimeoutError:
            return

    def _failed(self, error: BaseException) -> None:
        _log.error("scheduler_failed", name=self._name, exc_info=error)
