"""The connector's process with one more platform, `bench`: what a webhook would bring, over a TCP socket.

Each line is the JSON of one event. It is decoded, normalised and handed to `Intake` as every platform does it,
and answered with one line when its gateway has acknowledged it: `ok`, or `no` when it was not taken.
One driver at a time is answered. Prints the port; run as `python -m bench.connector_half` with `SKEP_HOME` set.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, cast

from bench.frames import BENCH, CHATS, author_of
from skep.connector.intake import Intake, Taken
from skep.connector.platform import LOCAL_INSTANCE, LOCAL_TENANT, Inbound, Platform, Target
from skep.connector.server import run_connector
from skep.foundation import log
from skep.foundation.clock import SYSTEM_CLOCK, Clock
from skep.foundation.process import run_service
from skep.foundation.settings import default_home, load
from skep.store.sqlite.connector import ConnectorStore, ConnectorTx, TakenRow
from skep.wire.relay.actions import Action, Hints, Result
from skep.wire.relay.descriptor import Descriptor
from skep.wire.relay.event import decode_event
from skep.wire.relay.frames import SKEP
from skep.wire.relay.team import AgentHere

__all__ = ["NO", "OK"]

OK: Final = b"ok\n"
NO: Final = b"no\n"
_ACCOUNT: Final = "local"
"""The one account, its scope and the namespace of its people."""


class _BenchPlatform:
    """Takes lines in; nothing can be done on it."""

    name = BENCH
    bot_ids = (_ACCOUNT,)
    is_exact = True
    repeats_safely = True

    def __init__(self, intake: Intake) -> None:
        self._intake: Final = intake
        self._driver: _Driver | None = None
        self._out: list[bytes] = []

    def descriptor(self, bot_id: str, *, is_skep: bool) -> Descriptor:
        return Descriptor(
            contract_version=1,
            platform=BENCH,
            label=BENCH,
            max_message_length=4096,
            supports_draft_streaming=False,
            supports_edit=False,
            supports_threads=False,
            markdown_dialect="plain",
            len_unit="chars",
            bot_id=bot_id,
            skep=SKEP if is_skep else 0,
        )

    async def perform(self, action: Action, target: Target, hints: Hints) -> Result:
        return Result(error=f"unsupported op: {action.op}", code="unsupported")

    def delivered(self, tx: ConnectorTx, taken: Sequence[TakenRow]) -> None:
        tx.signals.append(partial(self._answer, OK * len(taken)))

    def agents_here(self, tenant: str, instance: str, agents: Sequence[AgentHere]) -> None:
        """Nobody chooses."""

    def given_up(self, tx: ConnectorTx, taken: TakenRow) -> None:
        tx.signals.append(partial(self._answer, NO))

    def connected(self, driver: _Driver) -> None:
        """Answer this one from now on."""
        self._driver = driver

    def hear(self, lines: list[bytes]) -> None:
        """Take in what one read brought."""
        self._intake.accept_all([_inbound(line) for line in lines]).add_done_callback(self._taken)

    def _taken(self, done: asyncio.Future[list[Taken]]) -> None:
        if refused := sum(taken is not Taken.STORED for taken in done.result()):
            self._answer(NO * refused)

    def _answer(self, lines: bytes) -> None:
        """Send answers; all of one turn of the loop leave in one write."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(lines)

    def _flush(self) -> None:
        if self._driver is not None:
            self._driver.send(b"".join(self._out))
        self._out.clear()


class _Driver(asyncio.Protocol):
    """Who sends events."""

    def __init__(self, platform: _BenchPlatform) -> None:
        self._platform: Final = platform
        self._rest = b""
        self._transport: asyncio.WriteTransport

    def send(self, lines: bytes) -> None:
        self._transport.write(lines)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._platform.connected(self)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._platform.hear(lines)


def _inbound(line: bytes) -> Inbound:
    event = decode_event(line)
    return Inbound.of(event, dedupe_key=f"{BENCH}:{_ACCOUNT}:{event.message_id}")


@asynccontextmanager
async def _open(intake: Intake, store: ConnectorStore, clock: Clock) -> AsyncIterator[Platform]:
    now_ms = clock.now_ms()

    def bind(tx: ConnectorTx) -> None:
        for chat in range(CHATS):
            author = author_of(chat)
            tx.bind(BENCH, _ACCOUNT, author, tenant=LOCAL_TENANT, instance=LOCAL_INSTANCE, now_ms=now_ms)

    await store.write(bind)
    platform = _BenchPlatform(intake)
    server = await asyncio.get_running_loop().create_server(lambda: _Driver(platform), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    try:
        yield platform
    finally:
        server.close()


async def _main(stop: asyncio.Event) -> int | None:
    home = default_home()
    return await run_connector(load(home), home, SYSTEM_CLOCK, stop, others=(_open,))


if __name__ == "__main__":
    log.configure(process="connector", level="info", log_format="json")
    default_home().prepare()
    run_service(_main)
