"""From an event at the connector to the envelope on the hive's disk, through the real processes.

The events come to a platform of the bench's own in the real connector, as a webhook would bring them; a real
gateway carries them; the daemon's message half stores them. An event is in flight until the hive has synced it.
Beside it: the echo of the frame that goes between connector and gateway, with as many in flight.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from bench.chat_end import WARM_S, ChatEnd, chat_end
from bench.connector_half import NO, OK
from bench.floor import Echo, append_times, echo_server
from bench.frames import event_lines, inbound_line
from bench.hive_half import STAMP
from bench.measure import Effort, Row, percentile, ratio_of
from bench.processes import cpu_s, python, scratch, started
from skep.foundation.errors import SkepError
from skep.foundation.paths import Home
from skep.foundation.rpc import connect
from skep.wire.control import connector as control
from skep.wire.control.base import NoArgs

__all__ = ["rows"]

ENDS_WITHIN_S: Final = 10.0
BLOCKS: Final = 10
BLOCK: Final = 25
CHAT_IN_FLIGHT: Final = 64
MADE_PER_S: Final = 40_000
"""How many events are made ahead for each second of measuring; more are made when they run out."""
_RATE_MARKS: Final = {64: (0.02, 0.045, 0.07), 512: (0.04, 0.08, 0.12)}


class _Near(asyncio.Protocol):
    """The driver's end: sends lines that were made before, counts what comes of them, and reads nothing.

    An event is in flight until the hive has synced it. Its platform is told later, when its gateway has
    acknowledged it and the connector has forgotten it: all of that goes on while further events are sent.

    Attributes:
        synced: Events that the hive has synced.
    """

    def __init__(self) -> None:
        self.synced = 0
        self._synced_at_s = 0.0
        self._sent = 0
        self._heard_bytes = 0
        self._is_refused = False
        self._is_feeding = False
        self._lines: list[bytes] = []
        self._at = 0
        self._idle: Final = asyncio.Event()
        self._settled: Final = asyncio.Event()
        self._transport: asyncio.WriteTransport

    def feed(self, *, in_flight: int, span_s: float) -> None:
        """Keep so many events under way."""
        self._lines, self._at = event_lines(int(MADE_PER_S * span_s)), 0
        self._is_feeding = True
        self._send(in_flight)

    async def drain(self) -> None:
        """Send no more, and wait until all is done."""
        self._is_feeding = False
        await self._until_settled()

    async def send_one(self) -> float:
        """Send one event; return when the hive had synced it, in seconds of the monotonic clock."""
        if self._at == len(self._lines):
            self._lines, self._at = event_lines(BLOCKS * BLOCK), 0
        self._send(1)
        async with asyncio.timeout(ENDS_WITHIN_S):
            await self._idle.wait()
        return self._synced_at_s

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def hear_of_sync(self, at_s: float, count: int) -> None:
        """The hive has synced `count` messages; those of the web chat are not ours."""
        if self.synced + count > self._sent:
            return
        self.synced += count
        self._synced_at_s = at_s
        if self._is_feeding:
            self._send(count)
        elif self.synced == self._sent:
            self._idle.set()
        self._look()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._is_refused = self._is_refused or NO[:1] in data
        self._heard_bytes += len(data)
        self._look()

    def _look(self) -> None:
        if self._is_refused or (self.synced == self._sent and self._heard_bytes == self._sent * len(OK)):
            self._settled.set()

    def _send(self, count: int) -> None:
        if self._at + count > len(self._lines):
            self._lines, self._at = event_lines(MADE_PER_S), 0
        self._transport.write(b"".join(self._lines[self._at : self._at + count]))
        self._at += count
        self._sent += count
        self._idle.clear()
        self._settled.clear()

    async def _until_settled(self) -> None:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await self._settled.wait()
        if self._is_refused:
            raise RuntimeError("the path refused an event")


@dataclass(slots=True)
class _Path:
    """The running processes, and both ways into them."""

    pids: dict[str, int]
    near: _Near
    chat: ChatEnd

    async def rate(self, *, in_flight: int, span_s: float) -> tuple[float, dict[str, float]]:
        """Return events a second, and CPU seconds per event by process."""
        near = self.near
        near.feed(in_flight=in_flight, span_s=WARM_S + span_s)
        await asyncio.sleep(WARM_S)
        before, begun, driver = near.synced, time.perf_counter(), time.process_time()
        cpu = {name: cpu_s(pid) for name, pid in self.pids.items()}
        await asyncio.sleep(span_s)
        done, took = max(1, near.synced - before), time.perf_counter() - begun
        used = {name: (cpu_s(pid) - cpu[name]) / done for name, pid in self.pids.items()}
        used["driver"] = (time.process_time() - driver) / done
        await near.drain()
        return done / took, used

    async def times(self, *, count: int) -> list[float]:
        """Return how long each of `count` events took, one at a time, in seconds."""
        took: list[float] = []
        for _ in range(count):
            begun = time.monotonic()
            took.append(await self.near.send_one() - begun)
        await self.near.drain()
        return took


async def rows(effort: Effort) -> list[Row]:
    """Measure the way in, at three loads."""
    echoes: dict[int, list[float]] = {64: [], 512: []}
    reading: dict[int, list[float]] = {64: [], 512: []}
    ours: dict[int, list[float]] = {64: [], 512: []}
    cpu: dict[int, list[dict[str, float]]] = {64: [], 512: []}
    chats: list[float] = []
    floors: list[float] = []
    medians: list[float] = []
    tails: list[float] = []
    with scratch() as where:
        async with _path(where) as path, echo_server(where) as echo:
            line = inbound_line(1)
            for _ in range(effort.rounds):
                for in_flight in (64, 512):
                    span_s = effort.span_s
                    echoes[in_flight].append(await echo.rate(line, in_flight=in_flight, span_s=span_s / 2))
                    reading[in_flight].append(
                        await echo.rate(line, in_flight=in_flight, span_s=span_s / 4, reads_json=True)
                    )
                    rate, used = await path.rate(in_flight=in_flight, span_s=span_s)
                    ours[in_flight].append(rate)
                    cpu[in_flight].append(used)
                chats.append(await path.chat.rate(span_s=effort.span_s / 2))
                singles = await _singles(path, echo, where, line)
                floors.append(percentile(singles.echoed, 50) + percentile(singles.appended, 50))
                medians.append(percentile(singles.to_hive, 50))
                tails.append(percentile(singles.to_hive, 99))
    made = [
        _rate_row(
            in_flight, ours[in_flight], echoes[in_flight], reading[in_flight], cpu[in_flight], len(line)
        )
        for in_flight in (64, 512)
    ]
    chat = f"; through the web chat: {ratio_of(chats).median:,.0f}/s"
    return [
        replace(made[0], note=made[0].note + chat),
        *made[1:],
        _time_row("p50", medians, floors, (3, 1.8, 1.2)),
        _time_row("p99", tails, floors, (10, 4, 2.5)),
    ]


@dataclass(slots=True)
class _Singles:
    """Times one by one, in seconds."""

    echoed: list[float] = field(default_factory=list[float])
    appended: list[float] = field(default_factory=list[float])
    to_hive: list[float] = field(default_factory=list[float])


async def _singles(path: _Path, echo: Echo, where: Path, line: bytes) -> _Singles:
    """Measure the floor and the path in turn, a few at a time, so that both meet the same noise."""
    singles = _Singles()
    for _ in range(BLOCKS):
        singles.echoed += await echo.times(line, count=BLOCK)
        singles.appended += append_times(where, count=BLOCK)
        singles.to_hive += await path.times(count=BLOCK)
    return singles


def _rate_row(
    in_flight: int,
    ours: list[float],
    echoes: list[float],
    reading: list[float],
    cpu: list[dict[str, float]],
    size_bytes: int,
) -> Row:
    rate, echo = ratio_of(ours), ratio_of(echoes)
    marks = _RATE_MARKS[in_flight]
    used = {name: ratio_of([one[name] for one in cpu]).median for name in cpu[0]}
    return Row(
        name="events",
        what=f"event at the connector → synced in the hive, {in_flight} in flight",
        beside=f"echo of {size_bytes} bytes, {echo.median:,.0f}/s",
        ratio=ratio_of(ours, echoes),
        bar=marks[0],
        goal=marks[1],
        moonshot=marks[2],
        rate=f"{rate.median:,.0f}/s",
        cpu=" ".join(f"{name} {s * 1e6:.0f}" for name, s in used.items()) + " µs",
        note=f"÷ the same echo with its JSON read and written at both ends: {ratio_of(ours, reading).median:.3f}",
        details={"events_per_s": rate.median, "echo_per_s": echo.median, **used},
    )


def _time_row(which: str, ours: list[float], floors: list[float], marks: tuple[float, float, float]) -> Row:
    floor, own = ratio_of(floors).median, ratio_of(ours).median
    added = [max(0.0, one - base) for one, base in zip(ours, floors, strict=True)]
    return Row(
        name="events",
        what=f"the same, one at a time, added {which}",
        beside=f"echo + synced append, p50 {floor * 1e3:.2f} ms",
        ratio=ratio_of(added, floors),
        bar=marks[0],
        goal=marks[1],
        moonshot=marks[2],
        is_less_better=True,
        rate=f"{own * 1e3:.2f} ms",
        details={f"{which}_s": own, "floor_s": floor},
    )


@asynccontextmanager
async def _path(where: Path) -> AsyncIterator[_Path]:
    """Start all processes, and open both ways in."""
    home = Home(where / "home")
    home.prepare()
    env = {
        "SKEP_HOME": str(home.root),
        "SKEP_CONNECTOR_LISTEN": "127.0.0.1:0",
        "SKEP_CONNECTOR_WEB_PER_MINUTE": str(10**9),
    }
    async with AsyncExitStack() as stack:

        def run(name: str, command: list[str], stdout: int | None = None) -> subprocess.Popen[bytes]:
            return stack.enter_context(started(command, log=where / f"{name}.log", env=env, stdout=stdout))

        connector = run("connector", python("bench.connector_half"), stdout=subprocess.PIPE)
        assert connector.stdout is not None
        bench_port = int(await asyncio.to_thread(connector.stdout.readline))
        edge = await stack.enter_async_context(_calling(home))
        made = await edge.call(
            control.GATEWAY_ENSURE, control.GatewayEnsureArgs(gateway_id="gw-local", tenant="local")
        )
        secret = f"GATEWAY_RELAY_ID=gw-local\nGATEWAY_RELAY_SECRET={made.secret}\n"
        home.gateway_env.touch(mode=0o600)
        home.gateway_env.write_text(secret)
        stamps, told = os.pipe()
        stack.callback(os.close, stamps)
        os.set_blocking(stamps, False)
        hive = run("hive", python("bench.hive_half"), stdout=told)
        os.close(told)
        gateway = run("gateway", python("skep", "gateway", "run"))
        async with asyncio.timeout(ENDS_WITHIN_S):
            while not any(g.connected for g in (await edge.call(control.STATUS_GET, NoArgs())).gateways):
                await asyncio.sleep(0.05)
        code = (await edge.call(control.WEB_CODE, control.WebCodeArgs())).code
        chat = await chat_end(json.loads(home.ports.read_bytes())["chat"], code, conversations=CHAT_IN_FLIGHT)
        stack.callback(chat.close)
        loop = asyncio.get_running_loop()
        _, near = await loop.create_connection(_Near, "127.0.0.1", bench_port)
        stack.callback(near.close)
        loop.add_reader(stamps, _read_stamps, stamps, near)
        stack.callback(loop.remove_reader, stamps)
        pids = {"connector": connector.pid, "hive": hive.pid, "gateway": gateway.pid}
        yield _Path(pids=pids, near=near, chat=chat)


def _read_stamps(stamps: int, near: _Near) -> None:
    """Pass on what the hive has told of since the last time: whole stamps, as a pipe gives them."""
    with suppress(BlockingIOError):
        for at_s, count in STAMP.iter_unpack(os.read(stamps, STAMP.size * 4_096)):
            near.hear_of_sync(at_s, count)


@asynccontextmanager
async def _calling(home: Home) -> AsyncIterator[Any]:
    async with asyncio.timeout(ENDS_WITHIN_S):
        while True:
            try:
                caller = await connect(home.connector_socket, role="bench", timeout_s=1)
                break
            except SkepError:
                await asyncio.sleep(0.05)
    try:
        yield caller
    finally:
        caller.close()
