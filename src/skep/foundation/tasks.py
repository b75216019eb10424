"""Tasks that somebody owns, waiting between tries, and waiting for many things at once.

The one place that makes bare tasks. Everything else uses `asyncio.TaskGroup` or a `TaskSet`.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

__all__ = ["LATE_S", "Awaited", "Backoff", "TaskSet", "sleep_or"]

K = TypeVar("K")
V = TypeVar("V")

LATE_S: Final = 0.1
"""How long after its limit `Awaited` gives up on an item, at most, in seconds."""


class TaskSet:
    """Tasks of one owner: each is kept alive until it ends, and all end with `close`.

    A task that fails hands its exception to `on_error`; nothing is swallowed in silence.
    """

    def __init__(self, *, on_error: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_error = on_error

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Start `work` as a task of this set."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel what runs, and what is spawned meanwhile; wait until all of it has ended."""
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)


class Awaited(Generic[K, V]):
    """What is waited for, each up to a limit of its own; all of them share one timer.

    Args:
        on_late: Takes each item whose limit has passed: never before it, at most `LATE_S` after it.
    """

    def __init__(self, *, on_late: Callable[[V], None]) -> None:
        self._on_late: Final = on_late
        self._items: dict[K, tuple[float, V]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timed_for = math.inf

    def add(self, key: K, item: V, *, limit_s: float) -> None:
        """Wait for `item` as `key`."""
        limit = time.monotonic() + limit_s
        self._items[key] = limit, item
        if limit < self._timed_for:
            self._time(limit)

    def pop(self, key: K) -> V | None:
        """Return what was waited for as `key`; it came, or need not come any more."""
        found = self._items.pop(key, None)
        return None if found is None else found[1]

    def pop_all(self) -> list[V]:
        """Return all that is waited for, the oldest first; nothing is any more."""
        items = [item for _limit, item in self._items.values()]
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timed_for = math.inf
        return items

    def _time(self, limit: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = max(0.0, limit - time.monotonic()) + LATE_S
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._give_up)
        self._timed_for = limit

    def _give_up(self) -> None:
        now = time.monotonic()
        self._timed_for = math.inf
        for key, waiting in [each for each in self._items.items() if each[1][0] <= now]:
            if self._items.get(key) is waiting:
                del self._items[key]
                self._on_late(waiting[1])
        limit = min((limit for limit, _item in self._items.values()), default=math.inf)
        if limit < self._timed_for:
            self._time(limit)


class Backoff:
    """How long to wait before the next try: doubling from `first_s` to `last_s`, with jitter."""

    def __init__(self, *, first_s: float = 0.1, last_s: float = 5.0, jitter: float = 0.2) -> None:
        self._first_s: Final = first_s
        self._last_s: Final = last_s
        self._jitter: Final = jitter
        self._next_s = first_s

    def next_s(self) -> float:
        """Return the seconds to wait now, and double the next wait."""
        wait_s = self._next_s
        self._next_s = min(self._last_s, wait_s * 2)
        return wait_s * (1 + random.uniform(-self._jitter, self._jitter))

    def reset(self) -> None:
        """Start again from the first wait: the last try went well."""
        self._next_s = self._first_s


async def sleep_or(stop: asyncio.Event, seconds: float) -> bool:
    """Wait `seconds`, or less when `stop` is set; return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
