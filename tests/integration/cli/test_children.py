"""skep.cli.children: processes that die, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from skep.cli.children import DEATHS_WINDOW_MS, Child, ChildDiedError, LifePipe
from skep.foundation.clock import SYSTEM_CLOCK, Clock, ManualClock
from skep.foundation.paths import Home
from support.waiting import MS, eventually


class Told:
    """What the operator was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []


def child_of(home: Home, told: Told, *words: str, clock: Clock = SYSTEM_CLOCK) -> Child:
    """Return a child that runs `skep` with `words`."""
    return Child(
        "thing", words, home=home, life=LifePipe(), clock=clock, extra_env={}, tell=told.lines.append
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return an empty installation."""
    home = Home(tmp_path)
    home.prepare()
    return home


async def test_a_child_that_ends_while_starting_tells_why(home: Home) -> None:
    """Its own error is what the operator reads, with hint and code."""
    child = child_of(home, Told(), "nonsense")
    await child.start()
    with pytest.raises(ChildDiedError) as raised:
        await child.wait_until(lambda: False)

    assert "no command `nonsense`" in raised.value.problem
    assert raised.value.code == "cli.unknown_command"


async def test_a_child_that_dies_is_started_again(home: Home) -> None:
    """After a moment, and the operator is told."""
    told, stop = Told(), asyncio.Event()
    child = child_of(home, told, "connector", "serve")
    os.environ["SKEP_CONNECTOR_LISTEN"] = "127.0.0.1:0"
    try:
        await child.start()
        await child.wait_until(home.connector_socket.exists)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(child.keep(stop))
            first = child.pid
            child.kill()
            await eventually(lambda: child.pid not in {first, None}, within=5_000 * MS)
            stop.set()
            keeping.cancel()
        await child.stop(limit_s=5)
    finally:
        del os.environ["SKEP_CONNECTOR_LISTEN"]

    assert told.lines == ["thing ended with -9; starting it again in 1 s"]
    assert child.pid is None


async def test_a_death_long_after_the_last_one_waits_as_the_first_did(home: Home) -> None:
    """Who dies once in a while is started again at once, and is never given up."""
    told, stop, clock = Told(), asyncio.Event(), ManualClock()
    child = child_of(home, told, "nonsense", clock=clock)
    await child.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(child.keep(stop))
        for deaths in range(1, 4):
            await eventually(lambda seen=deaths: len(told.lines) >= seen, within=8_000 * MS)
            clock.advance(DEATHS_WINDOW_MS)
        stop.set()

    assert told.lines[:3] == ["thing ended with 2; starting it again in 1 s"] * 3


async def test_a_child_that_cannot_be_started_is_tried_again(home: Home) -> None:
    """A directory that is gone for a while ends neither this child nor the others."""
    told, stop = Told(), asyncio.Event()
    child = child_of(home, told, "--version")
    await child.start()
    home.logs.rename(home.root / "elsewhere")
    keeping = asyncio.ensure_future(child.keep(stop))
    await eventually(lambda: len(told.lines) == 3, within=5_000 * MS)
    stop.set()
    await keeping

    assert told.lines[1] == "thing cannot be started: No such file or directory"
