"""The gateway's transport beside Hermes 0.19.0's own: processor time per frame, against the same server."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.measure import Effort, Row, ratio_of
from bench.processes import ROOT, clean_environment, python, scratch, started

__all__ = ["rows"]

HERMES: Final = ROOT / ".venv-hermes" / "bin" / "python"
COUNT: Final = 6_000
_MARKS: Final = (3.0, 5.0, 8.0)


class _End:
    """One transport in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process: Final = process

    async def ready(self) -> None:
        """Wait until it is connected."""
        if await asyncio.to_thread(self._answer) != "ready":
            raise RuntimeError("a transport did not start")

    async def cpu_us(self, what: str, count: int) -> float:
        """Return processor time per frame, in microseconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {count}\n")
        self._process.stdin.flush()
        return json.loads(await asyncio.to_thread(self._answer))["cpu_s"] / count * 1e6

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


async def rows(effort: Effort) -> list[Row]:
    """Measure both directions."""
    if not HERMES.exists():
        return [_row(what, None, None, "no .venv-hermes: `make .venv-hermes/.stamp`") for what in _WHAT]
    ours: dict[str, list[float]] = {what: [] for what in _WHAT}
    theirs: dict[str, list[float]] = {what: [] for what in _WHAT}
    count = int(COUNT * effort.scale)
    with scratch() as where, _server(where) as port:
        url = f"http://127.0.0.1:{port}"
        env = {"HERMES_HOME": str(where), "HOME": str(where)}
        hermes_end = [str(HERMES), str(ROOT / "bench" / "hermes_end.py"), url]
        with _end(python("bench.skep_end", url, str(where))) as skep, _end(hermes_end, env) as hermes:
            await skep.ready()
            await hermes.ready()
            for what in _WHAT:
                await skep.cpu_us(what, count // 4)
                await hermes.cpu_us(what, count // 4)
            for _ in range(effort.rounds):
                for what in _WHAT:
                    ours[what].append(await skep.cpu_us(what, count))
                    theirs[what].append(await hermes.cpu_us(what, count))
    return [_row(what, ours[what], theirs[what], "") for what in _WHAT]


_WHAT: Final = {
    "outbound": "gateway transport: CPU per outbound request, 64 in flight",
    "inbound": "gateway transport: CPU per inbound event with its acknowledgement",
}


def _row(what: str, ours: list[float] | None, theirs: list[float] | None, note: str) -> Row:
    own, peer = (ratio_of(each).median if each else 0.0 for each in (ours, theirs))
    bar, goal, moonshot = _MARKS
    return Row(
        name="transport",
        what=_WHAT[what],
        beside=f"Hermes 0.19.0, {peer:.1f} µs" if peer else "Hermes 0.19.0",
        ratio=ratio_of(theirs, ours) if ours and theirs else None,
        bar=bar,
        goal=goal,
        moonshot=moonshot,
        rate="",
        cpu=f"{own:.1f} µs" if own else "",
        note=note,
        details={"skep_us": own, "hermes_us": peer},
    )


@contextmanager
def _server(where: Path) -> Iterator[int]:
    with started(python("bench.relay_stub"), log=where / "stub.log", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextmanager
def _end(command: list[str], env: dict[str, str] | None = None) -> Iterator[_End]:
    process = subprocess.Popen(
        command,
        env=clean_environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield _End(process)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
