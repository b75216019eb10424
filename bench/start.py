"""What Skep costs when nothing happens: the time of a help text, and the memory of an idle installation."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.measure import Effort, Row, ratio_of, timed
from bench.processes import (
    ROOT,
    clean_environment,
    cpu_s,
    descendants,
    pss_mb,
    python,
    scratch,
    started,
    wake_ups,
)

__all__ = ["help_rows", "memory_rows"]

REPEATS: Final = 6
SETTLE_S: Final = 5.0
AGENTS: Final = 'default = "concierge"\n\n[agent.concierge]\nrole = "manager"\n'


async def help_rows(effort: Effort) -> list[Row]:
    """Measure `skep --help` beside a python that does nothing."""
    program = str(Path(sys.executable).with_name("skep"))
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(effort.rounds * REPEATS):
        bare.append(_took([sys.executable, "-c", "pass"]))
        ours.append(_took([program, "--help"]))
    own, peer = ratio_of(ours).median, ratio_of(bare).median
    return [
        Row(
            name="help",
            what="`skep --help`",
            beside=f"bare python, {peer * 1e3:.0f} ms",
            ratio=ratio_of(ours, bare),
            bar=5,
            goal=2.5,
            moonshot=1.5,
            is_less_better=True,
            rate=f"{own * 1e3:.0f} ms",
            details={"help_s": own, "python_s": peer},
        )
    ]


async def memory_rows(effort: Effort) -> list[Row]:
    """Measure all processes of `skep up` with one agent, some seconds after its banner."""
    with scratch() as where:
        (where / "agents.toml").write_text(AGENTS)
        command = python("skep", "up", "--chat-port", "0", "--dashboard-port", "0")
        env = {"SKEP_HOME": str(where)}
        with started(command, log=where / "up.log", env=env, stdout=subprocess.PIPE) as up:
            assert up.stdout is not None
            while (line := await asyncio.to_thread(up.stdout.readline)) and not line.startswith(b"Stop:"):
                pass
            if not line:
                why = (where / "up.log").read_text().strip().splitlines()[-1:]
                return [_memory_row([], [], 0.0, " ".join(why))]
            await asyncio.sleep(SETTLE_S)
            found = {pid: _name(command) for pid, command in descendants(up.pid).items()}
            before = sum(wake_ups(pid) for pid in found)
            used_s = sum(cpu_s(pid) for pid in found)
            span_s = 2 * effort.span_s
            await asyncio.sleep(span_s)
            wakes = (sum(wake_ups(pid) for pid in found) - before) / span_s
            cpu = (sum(cpu_s(pid) for pid in found) - used_s) / span_s
            each = [(name, pss_mb(pid)) for pid, name in found.items()]
    note = f"idle: {wakes:.0f} wake-ups/s, {cpu * 100:.1f} % of a processor"
    return [_memory_row(each, [sum(mb for _, mb in each)], wakes, note)]


def _memory_row(each: list[tuple[str, float]], total: list[float], wakes: float, note: str) -> Row:
    return Row(
        name="memory",
        what="idle memory of all of `skep up`, one agent, in MB",
        beside="",
        ratio=ratio_of(total) if total else None,
        bar=300,
        goal=200,
        moonshot=120,
        is_less_better=True,
        rate=" ".join(f"{name} {mb:.0f}" for name, mb in each),
        note=note,
        details={**{f"{name}_mb": mb for name, mb in each}, "wake_ups_per_s": wakes},
    )


def _took(command: list[str]) -> float:
    with timed() as took:
        subprocess.run(
            command, env=clean_environment(), stdout=subprocess.DEVNULL, check=True, cwd=ROOT, timeout=20
        )
    return took.s


def _name(command: list[str]) -> str:
    """Return the word after `skep` in a command line."""
    return command[command.index("skep") + 1] if "skep" in command[:-1] else Path(command[0]).name
