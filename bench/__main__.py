"""`python -m bench`: every case, or those named, in one table."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop

from bench import broker, events, start, transport
from bench.measure import Effort, Row
from bench.processes import ROOT
from bench.report import as_json, as_text, write_readme
from skep.foundation.process import collect_rarely

__all__ = ["CASES", "main"]

CASES: Final[dict[str, Callable[[Effort], Awaitable[list[Row]]]]] = {
    "events": events.rows,
    "transport": transport.rows,
    "hive": broker.rows,
    "lanes": broker.lane_rows,
    "help": start.help_rows,
    "memory": start.memory_rows,
}
LIMIT_S: Final = 120.0
"""How long one case may take."""
FULL: Final = Effort()
QUICK: Final = Effort(rounds=2, span_s=0.5, scale=0.2)


def main(words: list[str] | None = None) -> int:
    """Run the cases and print the table; nothing is asserted."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", choices=CASES, help="|".join(CASES))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a smoke test")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    chosen = parser.parse_args(words)
    if not sys.platform.startswith("linux"):
        parser.error("the figures come from /proc: Linux only")
    effort = QUICK if chosen.quick else FULL
    rows: list[Row] = []
    for name in chosen.only or CASES:
        begun = time.monotonic()
        try:
            rows += uvloop.run(_run(name, effort))
        except asyncio.CancelledError:
            return 130
        sys.stderr.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
    sys.stdout.write(as_json(rows) if chosen.json else as_text(rows))
    if chosen.readme:
        write_readme(ROOT / "README.md", rows)
    return 0


async def _run(name: str, effort: Effort) -> list[Row]:
    """Run one case within its limit, set up as the daemon is; whoever ends the bench ends what it has started."""
    collect_rarely()
    measuring = asyncio.current_task()
    assert measuring is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)
    async with asyncio.timeout(LIMIT_S):
        return await CASES[name](effort)


if __name__ == "__main__":
    sys.exit(main())
