"""skep.foundation.tasks."""

from __future__ import annotations

import asyncio

import pytest

from skep.foundation.tasks import TaskSet

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
