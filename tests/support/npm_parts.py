"""Programs of others that come from npm: tests/npm names them and locks their versions.

Fetched when the first test asks for one, unless set-up has done so; skipped, or failed in CI, where it cannot.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import Final

from support.parts import missing

__all__ = ["NODE", "npm_part"]

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "tests" / "npm"
NODE: Final = ROOT / ".venv" / "bin" / "node"


def npm_part(name: str) -> Path:
    """Return the folder of the package `name`."""
    package = FOLDER / "node_modules" / name
    if not package.is_dir():
        _fetch(package)
    if not package.is_dir():
        missing(f"{name} is not here; get it: npm ci --prefix tests/npm")
    return package


def _fetch(package: Path) -> None:
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one run ask at the same time
        if package.is_dir():
            return
        environ = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}", "NODE_USE_SYSTEM_CA": "1"}
        try:
            subprocess.run(
                [NODE.parent / "npm", "ci", "--no-update-notifier"],
                cwd=FOLDER,
                env=environ,
                capture_output=True,
                timeout=120,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return
