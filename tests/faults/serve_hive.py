"""A daemon in a process of its own, with quick harnesses, to be killed: `python serve_hive.py DIRECTORY`.

It is the real one, but that it starts its harnesses again at once and never gives one up.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skep.broker.types import BrokerSettings
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.paths import Home
from skep.foundation.settings import Settings
from skep.hive.daemon import run_daemon
from support.daemon import QUICK, fake_harness

__all__: list[str] = []


async def main(root: Path) -> None:
    """Serve until killed."""
    await run_daemon(
        Settings(),
        Home(root),
        SYSTEM_CLOCK,
        asyncio.Event(),
        command=fake_harness(root / "modes"),
        policy=replace(QUICK, failures=1 << 30),
        limits=BrokerSettings(attempts_max=1 << 30),
    )


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
