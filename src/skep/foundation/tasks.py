"""Tasks that somebody owns, and waiting between tries.

The one place that makes bare tasks. Everything else uses `asyncio.TaskGroup` or a `TaskSet`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

__all__ = ["Backoff", "TaskSet", "sleep_or"]


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
