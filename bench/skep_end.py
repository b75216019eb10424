"""Skep's own transport, driven by commands on standard input; see `bench.transport`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Final

import uvloop

from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.paths import Home
from skep.foundation.settings import GatewaySettings
from skep.gateway.dialer import RelayLink
from skep.gateway.identity import RelayIdentity
from skep.wire.relay.actions import GetChatInfo, Send
from skep.wire.relay.frames import Inbound, InterruptInbound

__all__: list[str] = []

IN_FLIGHT: Final = 64


class _Handler:
    """Acknowledges every event."""

    is_full = False
    link: RelayLink

    async def room(self) -> None:
        """There always is."""

    def on_inbound(self, frame: Inbound) -> None:
        if frame.buffer_id is not None:
            self.link.acknowledge(frame.buffer_id)

    def on_interrupt(self, frame: InterruptInbound) -> None:
        """None comes."""

    def on_state(self) -> None:
        """Nobody is told."""


async def _main(url: str, root: str) -> None:
    env = {"GATEWAY_RELAY_URL": url, "GATEWAY_RELAY_ID": "gw-bench", "GATEWAY_RELAY_SECRET": "ab" * 32}
    handler = _Handler()
    identity = RelayIdentity(GatewaySettings(), Home(Path(root)), env=env)
    link = handler.link = RelayLink(identity, handler, clock=SYSTEM_CLOCK)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(link.run())
        await link.wait_connected()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while line := await asyncio.to_thread(sys.stdin.readline):
            what, count = line.split()
            begun = time.process_time()
            if what == "inbound":
                await link.request(GetChatInfo(chat_id=f"inbound:{count}"), platform="web", bot_id="")
            else:
                await _outbound(link, int(count))
            sys.stdout.write(json.dumps({"cpu_s": time.process_time() - begun}) + "\n")
            sys.stdout.flush()
        running.cancel()


async def _outbound(link: RelayLink, count: int) -> None:
    left = count

    async def worker(number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            action = Send(chat_id=f"c{number}", content="hello there")
            result = await link.request(action, platform="web", bot_id="")
            assert result.success, result

    await asyncio.gather(*(worker(number) for number in range(IN_FLIGHT)))


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2]))
