"""skep.hive.processes with real processes, against hive, section 5.3."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skep.hive.processes import (
    AdoptedProcess,
    ChildProcess,
    is_alive,
    spawn,
    start_time,
)
from support.waiting import MS, eventually

SLEEP = "import time; time.sleep(60)"
FAMILY = "import os, time; os.fork(); time.sleep(60)"
"""A leader and one more process in its group."""


@asynccontextmanager
async def started(
    script: str, tmp_path: Path, *, life: int | None = None, environment: dict[str, str] | None = None
) -> AsyncIterator[ChildProcess]:
    """A Python process, killed at the end."""
    process = await spawn(
        (sys.executable, "-c", script), environment=environment or {}, log=tmp_path / "log", life=life
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_a_process_is_known_by_pid_and_start_time(tmp_path: Path) -> None:
    """The same pid with another start time is somebody else."""
    async with started(SLEEP, tmp_path) as process:
        assert process.started == start_time(process.pid)
        assert is_alive(process.pid, process.started)
        assert not is_alive(process.pid, process.started + 1)
        assert AdoptedProcess(process.pid, process.started + 1).is_gone()
        process.kill()
        assert await process.wait() == -9
        assert start_time(process.pid) is None
        assert process.is_gone()


async def test_a_group_is_gone_when_its_last_member_is(tmp_path: Path) -> None:
    """What the leader started may still hold its files: killing takes all of it."""
    async with started(FAMILY, tmp_path) as process:
        await eventually(lambda: len(_members(process.pid)) == 2, within=5_000 * MS)
        os.kill(process.pid, 9)
        await process.wait()
        assert not process.is_gone()
        process.kill()
        await eventually(process.is_gone)


async def test_an_adopted_process_is_waited_for(tmp_path: Path) -> None:
    """It is no child of the new daemon, and its end is seen all the same."""
    async with started(SLEEP, tmp_path) as process:
        adopted = AdoptedProcess(process.pid, process.started)
        waiting = asyncio.get_running_loop().create_task(adopted.wait())
        await asyncio.sleep(20 * MS)
        assert not waiting.done()
        adopted.terminate()
        assert await asyncio.wait_for(waiting, 5_000 * MS) is None
        await eventually(adopted.is_gone)
        assert await adopted.wait() is None


async def test_killing_what_is_gone_hurts_nobody(tmp_path: Path) -> None:
    """A pid and a group that somebody else has by now are left alone."""
    stranger = AdoptedProcess(os.getpid(), (start_time(os.getpid()) or 0) + 1)
    stranger.terminate()
    stranger.kill()

    assert stranger.is_gone()


async def test_the_environment_is_the_one_that_is_given(tmp_path: Path) -> None:
    """Nothing else is inherited; the life pipe is handed on by number."""
    read_end, write_end = os.pipe()
    script = "import os; print(sorted(os.environ), os.read(int(os.environ['SKEP_LIFE_FD']), 1))"
    async with started(script, tmp_path, life=read_end, environment={"A": "1", "LC_CTYPE": "C"}) as process:
        os.close(write_end)
        assert await process.wait() == 0
    os.close(read_end)

    assert (tmp_path / "log").read_text() == "['A', 'LC_CTYPE', 'SKEP_LIFE_FD'] b''\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


async def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It is told, and no process is left."""
    with pytest.raises(FileNotFoundError):
        await spawn((str(tmp_path / "nothing"),), environment={}, log=tmp_path / "log", life=None)


def _members(group: int) -> list[int]:
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(name))
    return found
