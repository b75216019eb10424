"""Processes of the bench: started with a cleaned environment, measured from outside, ended by pid.

Linux only: figures come from `/proc`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "cpu_s", "descendants", "pss_mb", "scratch", "started", "until", "wake_ups"]

ROOT: Final = Path(__file__).resolve().parent.parent
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_STOP_S: Final = 12.0


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a directory on the filesystem where temporary files lie; it is removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="skep-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a program needs, without settings of whoever runs the bench."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **(extra or {})}


@contextmanager
def started(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    cwd: Path = ROOT,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` while the body runs, then ask it to stop and wait for it."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            env=clean_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=errors if stdout is None else stdout,
            stderr=errors,
            cwd=cwd,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def python(module: str, *words: str) -> list[str]:
    """Return the command line that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *words]


def until(check: Callable[[], object], *, within_s: float, what: str) -> None:
    """Wait until `check` returns something true.

    Raises:
        TimeoutError: It did not.
    """
    end = time.monotonic() + within_s
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} within {within_s:g} s")
        time.sleep(0.02)


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds (10 ms steps)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def wake_ups(pid: int) -> int:
    """Return how often the threads of a process gave the processor up by themselves: once per sleep."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


def pss_mb(pid: int) -> float:
    """Return the memory of a process, shared pages divided among those who share them, in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def descendants(pid: int) -> dict[int, list[str]]:
    """Return pid and command line of a process and all that it started, directly or not."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: _command(one) for one in sorted(found)}


def _command(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    return []
