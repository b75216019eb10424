"""Processes of harnesses: started in a group of their own, watched, and killed as a group.

Source: hive, section 5.3; control protocol, sections 6.3 and 11. A process is known by its pid and
by when the kernel started it, so that a pid which was used again is never taken for the old one.
It decides nothing: the supervisor does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from skep.foundation.logfiles import rotate
from skep.foundation.settings import LIFE_FD

__all__ = ["AdoptedProcess", "ChildProcess", "Process", "is_alive", "spawn", "start_time"]

_LOOK_S: Final = 0.05
_PROC: Final = Path("/proc")
_DEAD: Final = frozenset({"Z", "X"})


class Process(Protocol):
    """The leader of a process group.

    Attributes:
        pid: Of the leader, and number of the group.
        started: When the kernel started it, in ticks since boot; 0 where that is not known.
    """

    @property
    def pid(self) -> int: ...

    @property
    def started(self) -> int: ...

    async def wait(self) -> int | None:
        """Wait until the leader has ended; return its exit code, `None` when it is not our child."""
        ...

    def terminate(self) -> None:
        """Ask the leader to stop."""
        ...

    def kill(self) -> None:
        """Kill the whole group."""
        ...

    def is_gone(self) -> bool:
        """Return whether nothing of the group runs any more."""
        ...


class _Group:
    def __init__(self, pid: int, started: int) -> None:
        self.pid: Final = pid
        self.started: Final = started

    def terminate(self) -> None:
        """Ask the leader to stop."""
        if is_alive(self.pid, self.started):
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole group."""
        # A group outlives its leader; while it has a member, nobody else can get its number.
        if self._has_members():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def is_gone(self) -> bool:
        """Return whether nothing of the group runs any more."""
        return not is_alive(self.pid, self.started) and not self._has_members()

    def _has_members(self) -> bool:
        """Return whether a process of the group runs; one that only waits to be reaped does not."""
        if self.started and (now := start_time(self.pid)) is not None and now != self.started:
            return False  # the number belongs to somebody else now
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        if not _PROC.joinpath("self/stat").exists():
            return True
        return any(
            group == self.pid and state not in _DEAD for state, group, _ in map(_stat, _pids()) if group
        )


class ChildProcess(_Group):
    """A process that this one has started."""

    def __init__(self, child: asyncio.subprocess.Process, started: int) -> None:
        super().__init__(child.pid, started)
        self._child: Final = child

    async def wait(self) -> int | None:
        """Wait until it has ended; return its exit code, negative for a signal."""
        return await self._child.wait()


class AdoptedProcess(_Group):
    """A process that an earlier daemon has started."""

    async def wait(self) -> int | None:
        """Wait until it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            while is_alive(self.pid, self.started):
                await asyncio.sleep(_LOOK_S)
            return None
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            if is_alive(self.pid, self.started):
                await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return None


async def spawn(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, life: int | None
) -> ChildProcess:
    """Start `command` in a session of its own; what it writes goes to `log`.

    Args:
        life: Read end of the pipe whose end means that `skep up` is gone; handed on, so that the
            process outlives this one and not `skep up`.

    Raises:
        OSError: It cannot be started.
    """
    rotate(log)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**environment, LIFE_FD: str(life)} if life is not None else dict(environment),
            pass_fds=() if life is None else (life,),
            start_new_session=True,
        )
    finally:
        os.close(output)
    return ChildProcess(child, start_time(child.pid) or 0)


def start_time(pid: int) -> int | None:
    """Return when the kernel started `pid`, in ticks since boot; `None` when it is not there.

    Where the kernel does not say (not Linux), 0 for a process that is there.
    """
    if not sys.platform.startswith("linux"):
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return 0
    state, _, started = _stat(pid)
    return started if state and state not in _DEAD else None


def is_alive(pid: int, started: int) -> bool:
    """Return whether the process that was started then still runs under this pid."""
    return pid > 0 and start_time(pid) == started


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdecimal()]


def _stat(pid: int) -> tuple[str, int, int]:
    """Return (state, process group, start time) of `pid`; an empty state when it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0, 0
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], int(fields[2]), int(fields[19])
