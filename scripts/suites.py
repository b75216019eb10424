"""Every suite, one after the other, each with its result and its time; ends as pytest does.

What a suite says is kept in test-results/NAME.log, and printed when it fails.
Arguments name the suites to run; with none, all that exist.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

__all__ = ["Suite", "count", "main", "run"]

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "test-results"
WEB: Final = ROOT / "web"
BIN: Final = ROOT / ".venv" / "bin"

COUNT: Final = re.compile(r"(\d+) (passed|failed|skipped|error|errors|xfailed)\b")
SKIPPED: Final = re.compile(r"^SKIPPED \[\d+\] (.+)$", re.MULTILINE)
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Commands that are run in order, up to the first that fails.

    Attributes:
        counts: The last line says how many passed; otherwise the suite counts as one.
        limit_s: Stopped after this many seconds, and failed.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    counts: bool = False
    limit_s: float = 600
    cwd: Path = ROOT


def main(wanted: list[str]) -> int:
    """Run the suites and print their results; return the exit code."""
    RESULTS.mkdir(exist_ok=True)
    suites = [suite for suite in _suites() if not wanted or suite.name in wanted]
    unknown = set(wanted) - {suite.name for suite in suites}
    if unknown:
        print(f"error: no suite is named {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    total: Counter[str] = Counter()
    skips: list[str] = []
    start = time.monotonic()
    for suite in suites:
        counts, output = run(suite)
        total += counts
        skips += SKIPPED.findall(output)
    for reason in skips:
        print(f"  skipped: {reason}")
    took = time.monotonic() - start
    print(f"=== {_told(total)} in {took:.0f} s ===")
    return 1 if total["failed"] or not total["passed"] else 0


def _suites() -> list[Suite]:
    return [
        Suite(
            name="lint",
            commands=(("ruff", "check", "--quiet", "."), ("ruff", "format", "--quiet", "--check", ".")),
        ),
        Suite(name="types", commands=(("pyright",),)),
        Suite(name="imports", commands=(("lint-imports", "--no-logo"),)),
        *_web_suites(),
        *_pytest("unit", "tests/unit", "tests/contract", workers=2),
        *_pytest("integration", "tests/integration", workers=2),
        *_pytest("conformance", "tests/conformance"),
        *_pytest("acceptance", "tests/acceptance"),
        *_pytest("browser", "tests/browser"),
        *_pytest("faults", "tests/faults", limit_s=900),
        *_pytest("docs", "tests/docs"),
    ]


def _pytest(name: str, *folders: str, workers: int = 0, limit_s: float = 600) -> list[Suite]:
    """Return the suite of `folders`; none while they hold no test."""
    there = [folder for folder in folders if any((ROOT / folder).rglob("test_*.py"))]
    if not there:
        return []
    command = ("pytest", "-q", "-n", str(workers), *there)
    return [Suite(name=name, commands=(command,), counts=True, limit_s=limit_s)]


def _web_suites() -> list[Suite]:
    """Return the checks of the web pages, by the names that web/package.json gives them."""
    file = WEB / "package.json"
    if not file.is_file():
        return []
    scripts = cast("dict[str, str]", json.loads(file.read_text()).get("scripts", {}))
    return [
        Suite(
            name=f"web {name}", commands=(("npm", "run", "--silent", name),), cwd=WEB, counts=name == "test"
        )
        for name in ("test", "check", "lint")
        if name in scripts
    ]


def run(suite: Suite) -> tuple[Counter[str], str]:
    """Run one suite and print its line; return what it counted and what it said."""
    if sys.stdout.isatty():
        print(f"  {suite.name:<20} …", end="\r", flush=True)
    log = RESULTS / f"{suite.name.replace(' ', '-')}.log"
    start = time.monotonic()
    with log.open("wb") as out:
        code = 0
        for command in suite.commands:
            left_s = suite.limit_s - (time.monotonic() - start)
            code = code or _run_command(command, cwd=suite.cwd, out=out.fileno(), limit_s=left_s)
    took = time.monotonic() - start
    output = COLOUR.sub("", log.read_text(errors="replace"))
    counts = count(output) if suite.counts else Counter[str]()
    if code and not counts["failed"]:
        counts["failed"] = 1
    if not code and not suite.counts:
        counts["passed"] = 1
    print(
        f"  {suite.name:<20} {_told(counts) if suite.counts or code else 'passed':<32} {took:6.1f} s",
        flush=True,
    )
    if code:
        print(output.rstrip(), flush=True)
    return counts, output


def _run_command(command: tuple[str, ...], *, cwd: Path, out: int, limit_s: float) -> int:
    """Return the exit code; 124 where `command`, with all that it started, had to be stopped."""
    environ = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    child = subprocess.Popen(command, cwd=cwd, env=environ, stdout=out, stderr=out, start_new_session=True)
    try:
        return child.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.write(out, f"\nstopped after {limit_s:.0f} s\n".encode())
        return 124
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def count(output: str) -> Counter[str]:
    """Return what the last line that counts tests says: pytest's and vitest's look alike."""
    for line in reversed(output.splitlines()):
        found = COUNT.findall(line)
        if found:
            counts = Counter({word: int(number) for number, word in found})
            counts["failed"] += counts.pop("error", 0) + counts.pop("errors", 0)
            return counts
    return Counter()


def _told(counts: Counter[str]) -> str:
    words = [f"{counts['passed']} passed", f"{counts['failed']} failed"]
    words += [f"{counts[word]} {word}" for word in ("skipped", "xfailed") if counts[word]]
    return ", ".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
