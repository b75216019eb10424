"""A harness that behaves as a file says: `python fake_harness.py AGENT DIRECTORY`.

`DIRECTORY/AGENT` holds one word, read at the start of the process:

    good      takes turns and answers "echo: …"
    deaf      takes leases and begins no turn, while everything else of it goes on
    exits     is up for a moment, then ends with 3
    mute      runs, and never says hello
    stubborn  as good, but SIGTERM does nothing
    slow      as good, but a turn takes 30 s
    until     as good, but a turn takes until there is `DIRECTORY/AGENT.go`

Each start adds a line with its pid to `DIRECTORY/AGENT.starts`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from skep import __version__
from skep.foundation.errors import SkepError
from skep.foundation.rpc import Caller, connect
from skep.foundation.settings import default_home
from skep.wire.control import pump
from skep.wire.control.base import NoArgs
from skep.wire.control.envelope import Lease


async def main(agent: str, directory: Path) -> int:
    """Run until ended from outside."""
    path = directory / agent
    word = path.read_text().strip() if path.exists() else "good"
    with path.with_name(f"{agent}.starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if word == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if word == "mute":
        await asyncio.sleep(3600)
    while True:
        with suppress(SkepError):
            await serve(agent, word, directory)
            if word == "exits":
                return 3
        await asyncio.sleep(0.05)


async def serve(agent: str, word: str, directory: Path) -> None:
    """Talk to one daemon until it is gone."""
    caller = await connect(default_home().pump_socket(agent), role="harness")
    try:
        await caller.call(
            pump.HELLO, pump.HelloArgs(harness_id=f"h-{os.getpid()}", harness_version=__version__)
        )
        await caller.call(pump.ALIVE, NoArgs())
        if word == "exits":
            return
        while True:
            got = await caller.call(pump.NEXT, pump.NextArgs(wait_ms=1_000, lanes=1))
            for lease in got.leases:
                if word != "deaf":
                    go = directory / f"{agent}.go" if word == "until" else None
                    await turn(caller, lease, slow=word == "slow", go=go)
            await caller.call(pump.ALIVE, NoArgs())
    finally:
        caller.close()


async def turn(caller: Caller, lease: Lease, *, slow: bool, go: Path | None = None) -> None:
    """Answer what was said."""
    turn_id = f"t-{lease.lease_id}"
    await caller.call(
        pump.STARTED, pump.StartedArgs(lease_id=lease.lease_id, fence=lease.fence, turn_id=turn_id)
    )
    if slow:
        await asyncio.sleep(30)
    while go is not None and not go.exists():
        await asyncio.sleep(0.01)
    reply = pump.Reply(body="echo: " + " ".join(envelope.body for envelope in lease.envelopes))
    await caller.call(
        pump.ENDED,
        pump.EndedArgs(
            lease_id=lease.lease_id,
            fence=lease.fence,
            turn_id=turn_id,
            outcome="ok",
            reply=reply,
            stats={"tool_calls": 2},
        ),
    )


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))))
