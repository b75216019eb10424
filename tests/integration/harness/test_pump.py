"""skep.harness.pump against a made-up daemon on a real socket; hive, section 5."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from skep.foundation.clock import SYSTEM_CLOCK, Clock, ManualClock
from skep.foundation.paths import Home
from skep.foundation.rpc import Call, Connection, Listener, RpcError
from skep.harness.harness import run_harness
from skep.harness.pump import Pump
from skep.harness.turn import Runtime, Turn
from skep.wire.control import PUMP, pump, tools
from skep.wire.control.base import Empty
from skep.wire.control.envelope import Envelope, Lease, Pending
from support.waiting import MS, eventually


class Daemon:
    """Hands out leases from a list, and keeps what it is told."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.leases: asyncio.Queue[Lease | None] = asyncio.Queue()
        self.started: list[pump.StartedArgs] = []
        self.ended: list[pump.EndedArgs] = []
        self.progress: list[pump.ProgressArgs] = []
        self.hellos = 0
        self.alive = 0
        self.renewals = 0
        self.refuse_hello: str | None = None
        self.refuse_next: str | None = None
        self.refuse_renewal: str | None = None
        self.stop_at_once = False
        self.asked = 0
        self.refuse_started: str | None = None
        self.refused = 0
        self.pumps: list[Connection] = []
        self.listener = self._listener()

    async def start(self) -> None:
        """Listen where the harness of `scribe` dials."""
        path = self.home.pump_socket("scribe")
        path.parent.mkdir(parents=True, exist_ok=True)
        await self.listener.start(path)

    async def restart(self) -> None:
        """Go away and come back, as an upgrade does."""
        await self.listener.close()
        self.listener = self._listener()
        await self.start()

    def offer(self, body: str, *, kind: Any = "message", from_: str = "person:1", lane: int = 1) -> Lease:
        """Put a lease with one envelope where `pump.next` finds it."""
        number = lane * 100 + self.leases.qsize()
        envelope = Envelope(
            id=f"m{number}",
            delivery_id=number,
            kind=kind,
            from_=from_,
            to="agent:scribe",
            session="s",
            thread=f"m{number}",
            body=body,
            lane_seq=1,
            attempt=1,
            created_at=1,
            age_ms=0,
        )
        lease = Lease(
            lease_id=f"l{number}", fence=1, lane=lane, session="s", envelopes=(envelope,), pending=Pending()
        )
        self.leases.put_nowait(lease)
        return lease

    def drain(self) -> None:
        """Begin to stop: whoever asks for leases, or waits for one, is told."""
        self.refuse_next = "shutting_down"
        self.leases.put_nowait(None)

    def cancel(self, lease: Lease) -> None:
        """Ask for the turn of `lease` to stop."""
        self.pumps[-1].emit(pump.CANCEL, pump.Cancel(lease_id=lease.lease_id, reason="stop"))

    def _listener(self) -> Listener:
        async def hello(call: Call, _args: pump.HelloArgs) -> pump.HelloResult:
            self.hellos += 1
            if self.refuse_hello is not None:
                raise RpcError(self.refuse_hello, "not now")
            self.pumps.append(call.connection)
            return pump.HelloResult(
                boot_epoch=1, agent="scribe", lease_ttl_ms=300, start_timeout_ms=30_000, max_parallel_lanes=2
            )

        async def take(_call: Call, args: pump.NextArgs) -> pump.NextResult:
            self.asked += 1
            if self.refuse_next is not None:
                self.refused += 1
                raise RpcError(self.refuse_next, "not now")
            try:
                async with asyncio.timeout(args.wait_ms / 1000):
                    lease = await self.leases.get()
            except TimeoutError:
                return pump.NextResult()
            if lease is None:
                raise RpcError("shutting_down", "the daemon is stopping")
            if self.stop_at_once:  # it leaves right behind the answer, in the same write
                asyncio.get_running_loop().call_soon(self.cancel, lease)
            return pump.NextResult(leases=(lease,))

        async def started(_call: Call, args: pump.StartedArgs) -> Empty:
            if self.refuse_started is not None:
                self.refused += 1
                raise RpcError(self.refuse_started, "not now")
            self.started.append(args)
            return Empty()

        async def ended(_call: Call, args: pump.EndedArgs) -> pump.EndedResult:
            self.ended.append(args)
            return pump.EndedResult(released=True)

        async def progressed(_call: Call, args: pump.ProgressArgs) -> Empty:
            self.progress.append(args)
            return Empty()

        async def renewed(_call: Call, _args: pump.RenewArgs) -> pump.RenewResult:
            self.renewals += 1
            if self.refuse_renewal is not None:
                raise RpcError(self.refuse_renewal, "not now")
            return pump.RenewResult(lease_until=0)

        async def alive(_call: Call, _args: object) -> Empty:
            self.alive += 1
            return Empty()

        async def tool(_call: Call, _args: object) -> tools.ToolResult:
            raise RpcError("rate_limited", "too many", hint="wait", retry_after_ms=5)

        async def nothing(_call: Call, _args: object) -> Empty:
            return Empty()

        async def memory(_call: Call, _args: object) -> pump.MemoryContextResult:
            return pump.MemoryContextResult(person="person:1", text="")

        return Listener(
            PUMP,
            {
                "pump.hello": hello,
                "pump.next": take,
                "pump.started": started,
                "pump.more": nothing,
                "pump.renew": renewed,
                "pump.progress": progressed,
                "pump.ended": ended,
                "pump.nack": nothing,
                "pump.alive": alive,
                "memory.context": memory,
                "tool.list": nothing,
                "tool.call": tool,
            },
        )


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon that knows the agent `scribe`."""
    home = Home(tmp_path)
    home.prepare()
    daemon = Daemon(home)
    await daemon.start()
    yield daemon
    await daemon.listener.close()


@pytest.fixture
async def stop(daemon: Daemon) -> AsyncIterator[asyncio.Event]:
    """A running harness, stopped by this event."""
    stop = asyncio.Event()
    work = asyncio.ensure_future(run_harness("scribe", home=daemon.home, clock=SYSTEM_CLOCK, stop=stop))
    await eventually(lambda: daemon.hellos > 0, within=5_000 * MS)
    yield stop
    stop.set()
    async with asyncio.timeout(10):
        assert await work == 0


async def test_a_turn_starts_before_it_speaks_and_ends_with_its_answer(
    daemon: Daemon, stop: asyncio.Event
) -> None:
    """`started`, then progress, then `ended` with the whole text."""
    assert not stop.is_set()
    lease = daemon.offer("hello")
    await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)

    end = daemon.ended[0]
    assert daemon.started[0].turn_id == end.turn_id
    assert (end.lease_id, end.outcome) == (lease.lease_id, "ok")
    assert end.reply is not None
    text = "".join(part.add for part in daemon.progress if part.turn_id == end.turn_id)
    assert text == end.reply.body
    assert next(part.at for part in daemon.progress if part.kind == "text") == 0


async def test_a_stopped_turn_keeps_what_it_had_said(daemon: Daemon, stop: asyncio.Event) -> None:
    """The partial text is the answer, and says that it was stopped."""
    assert not stop.is_set()
    lease = daemon.offer("slow")
    await eventually(lambda: len(daemon.progress) > 2, within=5_000 * MS)
    daemon.cancel(lease)
    await eventually(lambda: len(daemon.ended) == 1, within=1_000 * MS)

    end = daemon.ended[0]
    assert end.outcome == "cancelled"
    assert end.reply is not None
    assert end.reply.body.startswith("This answer takes its time")
    assert end.reply.body.endswith("(stopped)")


async def test_two_lanes_run_side_by_side(daemon: Daemon, stop: asyncio.Event) -> None:
    """A slow conversation does not hold up another one of the same agent."""
    assert not stop.is_set()
    slow = daemon.offer("slow", lane=1)
    await eventually(lambda: len(daemon.started) == 1, within=5_000 * MS)
    quick = daemon.offer("help", lane=2)
    await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)

    assert daemon.ended[0].lease_id == quick.lease_id
    daemon.cancel(slow)
    await eventually(lambda: len(daemon.ended) == 2, within=5_000 * MS)


async def test_le_03_the_pump_survives_50_lost_sockets(daemon: Daemon, stop: asyncio.Event) -> None:
    """Each lost socket is redialled; the message after it is taken."""
    assert not stop.is_set()
    for number in range(50):
        seen = daemon.hellos
        daemon.pumps[-1].close()
        await eventually(lambda seen=seen: daemon.hellos > seen, within=5_000 * MS)
        if number % 10 == 0:
            daemon.offer("who am I")
            done = len(daemon.ended)
            await eventually(lambda done=done: len(daemon.ended) > done, within=5_000 * MS)


async def test_le_04_the_pump_finds_a_daemon_that_came_back(daemon: Daemon, stop: asyncio.Event) -> None:
    """What was sent while it was away is taken after it."""
    assert not stop.is_set()
    await daemon.restart()
    daemon.offer("hello")

    await eventually(lambda: len(daemon.ended) == 1, within=10_000 * MS)


async def test_a_stale_lease_is_dropped_without_a_word(daemon: Daemon, stop: asyncio.Event) -> None:
    """A turn that may not start says nothing and ends nothing."""
    assert not stop.is_set()
    daemon.refuse_started = "stale_lease"
    daemon.offer("hello", lane=1)
    await eventually(lambda: daemon.refused == 1, within=5_000 * MS)
    daemon.refuse_started = None
    daemon.offer("hello", lane=2)
    await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)

    assert daemon.ended[0].lease_id == "l200"


async def test_a_refused_tool_is_told_to_the_person(daemon: Daemon, stop: asyncio.Event) -> None:
    """The turn goes on; the answer carries problem, hint and code."""
    assert not stop.is_set()
    daemon.offer("tell everybody the kettle is on")
    await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)

    reply = daemon.ended[0].reply
    assert reply is not None
    assert "too many" in reply.body
    assert "`rate_limited`" in reply.body


async def test_an_ask_of_an_agent_is_answered_by_the_reply(daemon: Daemon, stop: asyncio.Event) -> None:
    """A runtime without tools can answer."""
    assert not stop.is_set()
    daemon.offer("count the words in: the bees came home", kind="ask", from_="agent:concierge")
    await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)

    reply = daemon.ended[0].reply
    assert reply is not None
    assert reply.body == "That is 4 words."


async def test_a_message_of_an_agent_is_only_taken_note_of(daemon: Daemon, stop: asyncio.Event) -> None:
    """Two agents that answer everything would never end."""
    assert not stop.is_set()
    daemon.offer("the kettle is on", from_="agent:concierge")
    await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)

    assert daemon.ended[0].reply is None


async def test_the_loop_that_takes_mail_tells_that_it_lives(daemon: Daemon, stop: asyncio.Event) -> None:
    """Health is the word of the loop that calls `pump.next`."""
    assert not stop.is_set()
    before = daemon.alive
    daemon.offer("hello")
    await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)

    assert daemon.alive > before


class Scripted:
    """A runtime that says one thing, or waits for ever."""

    def __init__(self, answer: str | None) -> None:
        self.answer = answer
        self.runs = 0

    async def run(self, turn: Turn) -> str | None:
        """Give the answer, if there is one."""
        self.runs += 1
        if self.answer is None:
            turn.beat()
            await asyncio.Event().wait()
        return self.answer


@asynccontextmanager
async def running(
    daemon: Daemon, runtime: Runtime, *, clock: Clock = SYSTEM_CLOCK
) -> AsyncIterator[asyncio.Event]:
    """A pump with this runtime, that waits for no turn when it is stopped."""
    stop = asyncio.Event()
    work = Pump(
        agent="scribe", home=daemon.home, clock=clock, stop=stop, runtimes=lambda _: runtime, grace_s=0.02
    ).run()
    task = asyncio.ensure_future(work)
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(2):
            assert await task == 0


async def test_a_stop_that_comes_with_the_lease_is_not_lost(daemon: Daemon, stop: asyncio.Event) -> None:
    """Who presses stop at once does not wait for the next renewal, and nothing is said."""
    assert not stop.is_set()
    daemon.stop_at_once = True
    daemon.offer("slow")
    await eventually(lambda: len(daemon.ended) == 1, within=1_000 * MS)

    end = daemon.ended[0]
    assert (end.outcome, end.reply) == ("cancelled", pump.Reply(body="(stopped)"))
    assert daemon.started[0].turn_id == end.turn_id


@pytest.mark.parametrize("code", ["unavailable", "busy", "timeout", "internal"])
async def test_a_renewal_that_fails_for_now_is_tried_again(
    daemon: Daemon, stop: asyncio.Event, code: str
) -> None:
    """A full disk for a second does not cost the lease, and so a second run of the turn."""
    assert not stop.is_set()
    daemon.refuse_renewal = code
    lease = daemon.offer("slow")
    await eventually(lambda: daemon.renewals >= 3, within=5_000 * MS)

    assert not daemon.ended
    daemon.cancel(lease)
    await eventually(lambda: len(daemon.ended) == 1, within=1_000 * MS)


async def test_a_turn_that_lost_its_lease_stops(daemon: Daemon, stop: asyncio.Event) -> None:
    """Another turn may run on that lane by now: two never run together."""
    assert not stop.is_set()
    daemon.refuse_renewal = "stale_lease"
    daemon.offer("slow")
    await eventually(lambda: len(daemon.ended) == 1, within=1_500 * MS)
    said = len(daemon.progress)
    await asyncio.sleep(0.6)

    assert len(daemon.progress) == said


async def test_mail_that_cannot_be_taken_now_leaves_running_turns_alone(
    daemon: Daemon, stop: asyncio.Event
) -> None:
    """The loop that takes mail waits a little and asks again, on the same connection."""
    assert not stop.is_set()
    daemon.refuse_next = "unavailable"
    slow = daemon.offer("slow")
    await eventually(lambda: daemon.refused >= 2, within=12_000 * MS)
    daemon.refuse_next = None
    await eventually(lambda: len(daemon.started) == 1, within=5_000 * MS)

    assert daemon.hellos == 1
    daemon.cancel(slow)
    await eventually(lambda: len(daemon.ended) == 1, within=1_000 * MS)


async def test_le_09_a_second_pump_waits_with_back_off(daemon: Daemon) -> None:
    """`conflict` is not a reason to dial a thousand times a second; the pump comes in when it may."""
    daemon.refuse_hello = "conflict"
    async with running(daemon, Scripted("here")):
        await asyncio.sleep(0.5)
        assert 1 <= daemon.hellos <= 5
        daemon.refuse_hello = None
        daemon.offer("hello")
        await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)


async def test_a_pump_that_may_not_be_here_ends_its_process(daemon: Daemon) -> None:
    """What only its author can mend is not tried for ever."""
    daemon.refuse_hello = "invalid_argument"
    pump_ = Pump(agent="scribe", home=daemon.home, clock=SYSTEM_CLOCK, stop=asyncio.Event())
    async with asyncio.timeout(2):
        assert await pump_.run() == 1


async def test_a_stop_is_noticed_while_all_lanes_are_busy(daemon: Daemon) -> None:
    """The time that running turns get is all that a stop waits for."""
    runtime = Scripted(None)
    async with running(daemon, runtime) as stop:
        daemon.offer("a", lane=1)
        daemon.offer("b", lane=2)
        await eventually(lambda: runtime.runs == 2)
        await asyncio.sleep(0.05)
        stop.set()  # `running` gives it two seconds


async def test_a_turn_ends_when_the_daemon_stops(daemon: Daemon, stop: asyncio.Event) -> None:
    """Told `shutting_down`, the pump asks no more, tells the end of its turn, hangs up, and finds the next daemon."""
    assert not stop.is_set()
    slow = daemon.offer("slow")
    await eventually(lambda: len(daemon.started) == 1, within=1_000 * MS)
    daemon.drain()
    await eventually(lambda: daemon.asked == 2, within=1_000 * MS)
    await asyncio.sleep(0.2)
    assert daemon.pumps[0].is_open
    daemon.cancel(slow)
    await eventually(lambda: len(daemon.ended) == 1, within=1_000 * MS)
    await eventually(lambda: not daemon.pumps[0].is_open, within=1_000 * MS)
    asked = daemon.asked
    daemon.refuse_next = None
    await daemon.restart()
    daemon.offer("hello")
    await eventually(lambda: len(daemon.ended) == 2, within=10_000 * MS)

    assert asked == 2
    assert daemon.ended[0].outcome == "cancelled"


async def test_a_turn_that_does_not_end_is_cut_off_when_the_daemon_stops(daemon: Daemon) -> None:
    """It is not said to have ended: it is redelivered. The pump hangs up when its time is over."""
    runtime = Scripted(None)
    async with running(daemon, runtime):
        daemon.offer("hang")
        await eventually(lambda: runtime.runs == 1)
        daemon.drain()
        await eventually(lambda: not daemon.pumps[0].is_open, within=1_000 * MS)

        assert daemon.ended == []


async def test_an_answer_over_the_limit_of_a_frame_is_cut(daemon: Daemon) -> None:
    """It ends its turn; the connection and what runs on it do not notice."""
    async with running(daemon, Scripted('"' * (3 << 20))):
        daemon.offer("talk")
        await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)
        end = daemon.ended[0]
        assert end.outcome == "ok"
        assert end.reply is not None
        assert len(end.reply.body) > 64 * 1024
        assert daemon.hellos == 1


async def test_a_turn_that_tells_nothing_for_ten_minutes_has_failed(daemon: Daemon) -> None:
    """A lease is renewed for a turn that lives, not for one that hangs."""
    clock = ManualClock()
    runtime = Scripted(None)
    async with running(daemon, runtime, clock=clock):
        daemon.offer("hang")
        await eventually(lambda: daemon.renewals >= 2, within=5_000 * MS)
        assert not daemon.ended
        clock.advance(601_000)
        await eventually(lambda: len(daemon.ended) == 1, within=5_000 * MS)

        assert (daemon.ended[0].outcome, daemon.ended[0].reply) == ("error", None)
