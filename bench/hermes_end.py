"""Hermes 0.19.0's own transport, driven by commands on standard input; see `bench.transport`.

Runs in the environment of Hermes, alone: it imports nothing of Skep and nothing of the bench.
"""

# pyright: basic

from __future__ import annotations

import asyncio
import json
import sys
import time

from gateway.relay.ws_transport import WebSocketRelayTransport  # type: ignore[import-not-found]

IN_FLIGHT = 64


async def main(url: str) -> None:
    """Do what standard input says until it ends."""
    transport = WebSocketRelayTransport(url, "web", "")

    async def inbound(event: object) -> None:
        """Take it: the transport acknowledges."""

    transport.set_inbound_handler(inbound)
    await transport.connect()
    await transport.handshake()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, count = line.split()
        begun = time.process_time()
        if what == "inbound":
            await transport.get_chat_info(f"inbound:{count}")
        else:
            await outbound(transport, int(count))
        sys.stdout.write(json.dumps({"cpu_s": time.process_time() - begun}) + "\n")
        sys.stdout.flush()


async def outbound(transport: WebSocketRelayTransport, count: int) -> None:
    """Ask for `count` sends, a number of them at a time."""
    left = count

    async def worker(number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            action = {"op": "send", "chat_id": f"c{number}", "content": "hello there", "metadata": {}}
            result = await transport.send_outbound(action, platform="web")
            assert result["success"], result

    await asyncio.gather(*(worker(number) for number in range(IN_FLIGHT)))


asyncio.run(main(sys.argv[1]))
