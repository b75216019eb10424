"""From a person's words at the connector to the envelope on the hive's disk, through the real processes.

The words come over one real web socket of a real connector; a real gateway carries them; the daemon's message
half stores them. Rates are of messages that came to `delivered` in the chat: that is said when the gateway has
acknowledged, which it does when the hive has synced. Times one by one end when the hive has synced.
Beside it: the echo of the frame that goes between connector and gateway, with as many in flight.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from bench.floor import Echo, append_times, echo_server
from bench.frames import TEXT, inbound_line
from bench.hive_half import STAMP
from bench.measure import Effort, Row, percentile, ratio_of
from bench.processes import cpu_s, python, scratch, started
from bench.websocket import NearSocket, dial
from skep.foundation.errors import SkepError
from skep.foundation.paths import Home
from skep.foundation.rpc import connect
from skep.wire.control import connector as control
from skep.wire.control.base import NoArgs

__all__ = ["rows"]

WARM_S: Final = 0.5
ENDS_WITHIN_S: Final = 10.0
BLOCKS: Final = 10
BLOCK: Final = 25
_RATE_MARKS: Final = {64: (0.02, 0.045, 0.07), 512: (0.04, 0.08, 0.12)}


class _Told(msgspec.Struct):
    """What of a web chat event is needed here."""

    t: str
    id: str = ""
    message: Any = None
    state: str = ""
    problem: str = ""


_told: Final = msgspec.json.Decoder(_Told)


@dataclass(slots=True)
class _Path:
    """The running processes, and a socket of the chat."""

    pids: dict[str, int]
    conversations: list[bytes]
    stamps: int
    socket: NearSocket | None = None
    count: int = 0
    is_feeding: bool = False
    problems: list[str] = field(default_factory=list[str])
    _by_id: dict[str, int] = field(default_factory=dict[str, int])
    _by_message: dict[str, int] = field(default_factory=dict[str, int])
    _early: set[str] = field(default_factory=set[str])
    _number: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, place: int) -> None:
        """Send one message in conversation `place`."""
        self._number += 1
        client_id = f"b-{self._number}"
        self._by_id[client_id] = place
        assert self.socket is not None
        self.socket.send(
            b'{"t":"send","id":"%b","conversation":"%b","reply_to":null,"text":"%b"}'
            % (client_id.encode(), self.conversations[place], TEXT.encode())
        )

    def hear(self, data: bytes) -> None:
        """Take one event; a message that is in the hive makes room for the next."""
        told = _told.decode(data)
        if told.t == "stored":
            place = self._by_id.pop(told.id)
            if told.message in self._early:
                self._early.discard(told.message)
                self._arrived(place)
            else:
                self._by_message[told.message] = place
        elif told.t == "state" and told.state == "delivered":
            place = self._by_message.pop(told.message, None)
            if place is None:
                self._early.add(told.message)
            else:
                self._arrived(place)
        elif told.t == "error" or told.state == "failed":
            self.problems.append(told.problem or told.state)

    def _arrived(self, place: int) -> None:
        self.count += 1
        if self.is_feeding:
            self.say(place)
        elif not self._by_id and not self._by_message:
            self._idle.set()

    async def rate(self, *, in_flight: int, span_s: float) -> tuple[float, dict[str, float]]:
        """Return events a second, and CPU seconds per event by process."""
        self.is_feeding = True
        for place in range(in_flight):
            self.say(place)
        await asyncio.sleep(WARM_S)
        before, begun = self.count, time.perf_counter()
        cpu = {name: cpu_s(pid) for name, pid in self.pids.items()}
        await asyncio.sleep(span_s)
        done, took = self.count - before, time.perf_counter() - begun
        used = {name: (cpu_s(pid) - cpu[name]) / max(1, done) for name, pid in self.pids.items()}
        await self._drain()
        return done / took, used

    async def times(self, *, count: int) -> tuple[list[float], list[float]]:
        """Return how long each of `count` events took, one at a time, to the hive and to its tick; in seconds."""
        to_hive: list[float] = []
        to_tick: list[float] = []
        self._read_stamps()
        for _ in range(count):
            begun = time.monotonic()
            self._idle.clear()
            self.say(0)
            async with asyncio.timeout(ENDS_WITHIN_S):
                await self._idle.wait()
            to_tick.append(time.monotonic() - begun)
            to_hive.append(self._read_stamps()[-1] - begun)
        return to_hive, to_tick

    def _read_stamps(self) -> list[float]:
        """Return when the hive synced what it has told of since the last call."""
        data = b""
        with suppress(BlockingIOError):
            while more := os.read(self.stamps, 65_536):
                data += more
        return [stamp for (stamp,) in STAMP.iter_unpack(data)]

    async def _drain(self) -> None:
        self._idle.clear()
        self.is_feeding = False
        async with asyncio.timeout(ENDS_WITHIN_S):
            await self._idle.wait()
        if self.problems:
            raise RuntimeError(f"the path refused: {self.problems[0]}")


async def rows(effort: Effort) -> list[Row]:
    """Measure the way in, at three loads."""
    echoes: dict[int, list[float]] = {64: [], 512: []}
    reading: dict[int, list[float]] = {64: [], 512: []}
    ours: dict[int, list[float]] = {64: [], 512: []}
    cpu: dict[int, list[dict[str, float]]] = {64: [], 512: []}
    floors: list[float] = []
    medians: list[float] = []
    tails: list[float] = []
    ticks: list[float] = []
    with scratch() as where:
        async with _path(where, conversations=512) as path, echo_server(where) as echo:
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
                singles = await _singles(path, echo, where, line)
                floors.append(percentile(singles.echoed, 50) + percentile(singles.appended, 50))
                medians.append(percentile(singles.to_hive, 50))
                tails.append(percentile(singles.to_hive, 99))
                ticks.append(percentile(singles.to_tick, 50))
    made = [
        _rate_row(
            in_flight, ours[in_flight], echoes[in_flight], reading[in_flight], cpu[in_flight], len(line)
        )
        for in_flight in (64, 512)
    ]
    tick = f"to its second tick in the chat: p50 {ratio_of(ticks).median * 1e3:.2f} ms"
    return [
        *made,
        _time_row("p50", medians, floors, (3, 1.8, 1.2), note=tick),
        _time_row("p99", tails, floors, (10, 4, 2.5), note=""),
    ]


@dataclass(slots=True)
class _Singles:
    """Times one by one, in seconds."""

    echoed: list[float] = field(default_factory=list[float])
    appended: list[float] = field(default_factory=list[float])
    to_hive: list[float] = field(default_factory=list[float])
    to_tick: list[float] = field(default_factory=list[float])


async def _singles(path: _Path, echo: Echo, where: Path, line: bytes) -> _Singles:
    """Measure the floor and the path in turn, a few at a time, so that both meet the same noise."""
    singles = _Singles()
    for _ in range(BLOCKS):
        singles.echoed += await echo.times(line, count=BLOCK)
        singles.appended += append_times(where, count=BLOCK)
        to_hive, to_tick = await path.times(count=BLOCK)
        singles.to_hive += to_hive
        singles.to_tick += to_tick
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


def _time_row(
    which: str, ours: list[float], floors: list[float], marks: tuple[float, float, float], *, note: str
) -> Row:
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
        note=note,
        details={f"{which}_s": own, "floor_s": floor},
    )


@asynccontextmanager
async def _path(where: Path, *, conversations: int) -> AsyncIterator[_Path]:
    """Start all processes, sign in, and open a socket."""
    home = Home(where / "home")
    home.prepare()
    env = {
        "SKEP_HOME": str(home.root),
        "SKEP_CONNECTOR_LISTEN": "127.0.0.1:0",
        "SKEP_CONNECTOR_WEB_PER_MINUTE": str(10**9),
    }
    async with AsyncExitStack() as stack:

        def run(name: str, command: list[str], stdout: int | None = None) -> int:
            process = started(command, log=where / f"{name}.log", env=env, stdout=stdout)
            return stack.enter_context(process).pid

        pids = {"connector": run("connector", python("skep", "connector", "serve"))}
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
        pids["hive"] = run("hive", python("bench.hive_half"), stdout=told)
        os.close(told)
        pids["gateway"] = run("gateway", python("skep", "gateway", "run"))
        async with asyncio.timeout(ENDS_WITHIN_S):
            while not any(g.connected for g in (await edge.call(control.STATUS_GET, NoArgs())).gateways):
                await asyncio.sleep(0.05)
        code = (await edge.call(control.WEB_CODE, control.WebCodeArgs())).code
        port = json.loads(home.ports.read_bytes())["chat"]
        token, chats = await _sign_in(f"http://127.0.0.1:{port}", code, conversations)
        path = _Path(pids=pids, conversations=chats, stamps=stamps)
        path.socket = await dial(port, "/api/socket", token=token, on_message=path.hear)
        path.socket.send(b'{"t":"resume","n":-1}')
        await asyncio.sleep(0.2)
        yield path
        path.socket.close()


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


async def _sign_in(url: str, code: str, conversations: int) -> tuple[str, list[bytes]]:
    async with aiohttp.ClientSession(url) as http:
        async with http.post("/api/session", json={"once": code, "bearer": True}) as answer:
            token: str = (await answer.json())["token"]
        http.headers["Authorization"] = f"Bearer {token}"
        made: list[bytes] = []
        for number in range(conversations):
            async with http.post("/api/conversations", json={"title": f"bench {number}"}) as answer:
                made.append((await answer.json())["id"].encode())
        return token, made
