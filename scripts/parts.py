"""The real programs that the tests run against: found, installed as root, or named with the way to get them.

One line each. Under `SKEP_CI=1` a missing one is an error: there no test may be skipped for want of a part.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PARTS", "Part", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A program of the operating system.

    Attributes:
        name: What we call it.
        commands: Names it goes by; the first one on PATH is taken.
        package: What Debian calls it.
        variable: Names another one by its path, if set.
        needed_for: What is not tested without it.
    """

    name: str
    commands: tuple[str, ...]
    package: str
    needed_for: str
    variable: str | None = None

    def find(self) -> str | None:
        """Return the path of the program, or `None`."""
        named = os.environ.get(self.variable) if self.variable else None
        if named:
            return named if Path(named).is_file() else None
        return next((path for command in self.commands if (path := shutil.which(command))), None)


PARTS = (
    Part(
        name="chromium",
        commands=("chromium", "chromium-browser", "google-chrome"),
        package="chromium",
        needed_for="the browser suite",
        variable="SKEP_TEST_CHROMIUM",
    ),
    Part(name="bubblewrap", commands=("bwrap",), package="bubblewrap", needed_for="the sandbox of agents"),
    Part(name="strace", commands=("strace",), package="strace", needed_for="failing disks"),
    Part(name="faketime", commands=("faketime",), package="faketime", needed_for="clocks set back"),
    Part(name="age", commands=("age",), package="age", needed_for="age files of other makers"),
    Part(name="redis", commands=("redis-server",), package="redis-server", needed_for="the bench peer"),
    Part(name="git", commands=("git",), package="git", needed_for="repositories of agents"),
)


def main() -> int:
    """Print a line per part, installing what can be; return the exit code."""
    missing = [part for part in PARTS if part.find() is None]
    installed = {part.name for part in missing} if _install(missing) else set[str]()
    lacking = 0
    for part in PARTS:
        path = part.find()
        if path is None:
            lacking += 1
            print(f"  {part.name:<12} missing: {part.needed_for}; get it: apt-get install -y {part.package}")
        else:
            print(f"  {part.name:<12} {'installed' if part.name in installed else 'found'}: {path}")
    if lacking and os.environ.get("SKEP_CI") == "1":
        print(
            f"error: {lacking} of {len(PARTS)} parts are missing, and SKEP_CI=1 allows none", file=sys.stderr
        )
        return 1
    return 0


def _install(missing: list[Part]) -> bool:
    apt = shutil.which("apt-get")
    if not missing or apt is None or os.geteuid() != 0:
        return False
    print("  installing " + ", ".join(part.package for part in missing), flush=True)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (
        [apt, "update", "-qq"],
        [apt, "install", "-y", "-qq", "--no-install-recommends", *(part.package for part in missing)],
    ):
        done = subprocess.run(step, env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout[-2000:] + done.stderr[-2000:], file=sys.stderr)
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
