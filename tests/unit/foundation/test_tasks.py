"""skep.foundation.tasks."""

from __future__ import annotations

import asyncio
import time

import pytest

from skep.foundation.tasks import LATE_S, Awaited, TaskSet
from support.waiting import MS, eventually

pytestmark = pytest.mark.anyio


def _fail(error: BaseException) -> None:
    raise AssertionError from error


async def test_close_ends_what_is_spawned_while_it_ends() -> None:
    """A task that begins another one on its way out leaves nobody behind."""
    tasks = TaskSet(on_error=_fail)
    ended: list[str] = []

    async def last() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("last")

    async def first() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            tasks.spawn(last())
            await asyncio.sleep(0)
            ended.append("first")

    tasks.spawn(first())
    await asyncio.sleep(0)
    await tasks.close()

    assert (ended, len(tasks)) == (["first", "last"], 0)


async def test_a_failure_is_told() -> None:
    """No exception is swallowed in silence."""
    told: list[BaseException] = []
    tasks = TaskSet(on_error=told.append)

    async def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await tasks.spawn(fail())
    await asyncio.sleep(0)

    assert [type(error) for error in told] == [ValueError]


async def test_what_does_not_come_is_late_by_its_own_limit() -> None:
    """Never before it and soon after it, whichever was added first; what came, or was let go, is not."""
    late: list[tuple[float, float]] = []
    awaited: Awaited[str, float] = Awaited(on_late=lambda limit_s: late.append((limit_s, time.monotonic())))
    begun = time.monotonic()
    for limit_s in (60, 0.25, 0.01, 0.26, 0.02):
        awaited.add(f"{limit_s}", limit_s, limit_s=limit_s)
    came = awaited.pop("0.02"), awaited.pop("0.02")
    await eventually(lambda: len(late) == 3)
    left = awaited.pop_all()

    assert (came, left) == ((0.02, None), [60])
    assert sorted(limit_s for limit_s, _at in late) == [0.01, 0.25, 0.26]
    assert all(limit_s <= at - begun <= limit_s + LATE_S + 400 * MS for limit_s, at in late)


async def test_an_item_is_late_once_and_its_place_can_be_taken_again() -> None:
    """Who is told may wait for the next thing at once, and for a shorter time."""
    late: list[int] = []

    def again(number: int) -> None:
        late.append(number)
        if number < 3:
            awaited.add("same", number + 1, limit_s=0.01)

    awaited: Awaited[str, int] = Awaited(on_late=again)
    awaited.add("same", 1, limit_s=0.02)
    await eventually(lambda: len(late) == 3)

    assert (late, awaited.pop_all()) == ([1, 2, 3], [])
