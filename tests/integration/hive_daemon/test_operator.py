"""Operators over real sockets, against the control protocol, section 9, and reliability, section 3.4."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skep.broker.broker import Broker
from skep.broker.types import SYSTEM, Actor, AgentEntry, Draft
from skep.foundation.clock import ManualClock
from skep.foundation.paths import Home
from skep.foundation.rpc import Caller, CallError, ConnectionLostError, Listener, Method, connect
from skep.foundation.settings import Settings
from skep.hive.agents import DEFAULT_AGENTS, Roster
from skep.hive.auth import Auth
from skep.hive.daemon import run_daemon
from skep.hive.operator import Operator
from skep.hive.overview import Overview
from skep.hive.queries import Queries
from skep.hive.subscriptions import Subscriptions
from skep.hive.telemetry import Telemetry
from skep.wire.control import operator
from skep.wire.control.base import NoArgs
from support.daemon import open_daemon, short_home
from support.still import Still
from support.waiting import MS, eventually

MINUTE = 60_000
HOUR = 60 * MINUTE
SCRIBE = Actor(principal="agent:scribe", role="agent")


class Desk:
    """The operator's sockets over a real store, with a clock that is moved by hand."""

    def __init__(self, home: Home, clock: ManualClock) -> None:
        self.home = home
        self.clock = clock
        self.stop = asyncio.Event()
        self.callers: list[Caller] = []
        self.listeners: list[Listener] = []
        self.events: list[operator.HiveEvent] = []

    async def open(self) -> None:
        """Open stores and sockets."""
        self.broker = await Broker.open(self.home.hive_db, clock=self.clock)
        await self.broker.set_agents(
            [AgentEntry(name="concierge", role="manager"), AgentEntry(name="scribe")]
        )
        self.telemetry = await Telemetry.open(
            self.home.telemetry_db, boot_epoch=self.broker.epoch, clock=self.clock
        )
        self.subscriptions = Subscriptions(epoch=self.broker.epoch)
        self.broker.on_change = self.subscriptions.emit
        roster, still = Roster(DEFAULT_AGENTS), Still()
        desk = Operator(
            auth=Auth(self.broker, clock=self.clock),
            overview=Overview(
                store=self.broker,
                telemetry=self.telemetry,
                roster=roster,
                live=still,
                views=still,
                home=self.home,
                clock=self.clock,
                epoch=self.broker.epoch,
            ),
            queries=Queries(self.broker, self.telemetry, roster=roster),
            subscriptions=self.subscriptions,
            steering=self.broker,
            clock=self.clock,
            stop=self.stop,
        )
        web, cli = desk.web_listener(epoch=1), desk.cli_listener(epoch=1)
        await web.start(self.home.web_socket)
        await cli.start(self.home.cli_socket)
        self.listeners = [web, cli]
        self.web, self.cli = await self.dial(self.home.web_socket), await self.dial(self.home.cli_socket)

    async def close(self) -> None:
        """Close everything."""
        for caller in self.callers:
            caller.close()
        for listener in self.listeners:
            await listener.close()
        await self.subscriptions.close()
        await self.telemetry.close()
        await self.broker.close()

    async def dial(self, path: Path) -> Caller:
        """Open one more connection."""
        caller = await connect(
            path,
            role="web",
            events={
                "hive": lambda raw: self.events.append(msgspec.json.decode(raw, type=operator.HiveEvent))
            },
        )
        self.callers.append(caller)
        return caller

    async def code(self, ttl_s: int = 900) -> str:
        """Get a one-time code."""
        return (await self.cli.call(operator.AUTH_CODE, operator.AuthCodeArgs(ttl_s=ttl_s))).code

    async def login(self, code: str) -> str:
        """Sign in."""
        return (await self.web.call(operator.AUTH_LOGIN, operator.AuthLoginArgs(once=code))).session

    async def look(self, session: str | None) -> operator.Status:
        """Look, as an open page does."""
        return await self.web.call(operator.STATUS_GET, NoArgs(), session=session)

    async def cancel(self, session: str | None, reminder: str) -> str:
        """Act."""
        args = operator.CancelArgs(id=reminder)
        return (await self.web.call(operator.REMINDER_CANCEL, args, session=session)).state

    async def remind(self) -> str:
        """Arm a reminder."""
        return (await self.broker.remind(SCRIBE, body="tea", in_ms=10 * HOUR, session="s")).id

    async def audit(self) -> list[tuple[str, str, str | None]]:
        """Return who did what to what, oldest first."""
        page = await self.cli.call(operator.HIVE_QUERY, operator.QueryArgs(name="audit"))
        return [(row["actor"], row["act"], row.get("object")) for row in reversed(page.rows)]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A desk in a short directory."""
    async with short_home() as home:
        opened = Desk(home, ManualClock())
        await opened.open()
        try:
            yield opened
        finally:
            await opened.close()


async def refused(call: Any) -> CallError:
    """Return how `call` was refused."""
    with pytest.raises(CallError) as raised:
        await call
    return raised.value


async def test_a_code_signs_in_once(desk: Desk) -> None:
    """The right code gives a session; a second time it is said to be used."""
    code = await desk.code()
    session = await desk.login(code)

    assert (await desk.look(session)).boot_epoch == 1
    again = await refused(desk.login(code))
    assert (again.wire_code, again.problem) == ("sign_in", "this sign-in link has been used already")
    assert "skep web link" in again.hint


async def test_a_wrong_code_is_refused(desk: Desk) -> None:
    """It says so, and never repeats it."""
    await desk.code()
    error = await refused(desk.login("hunter2"))

    assert (error.wire_code, error.problem) == ("sign_in", "this sign-in link is wrong")
    assert "hunter2" not in error.hint


async def test_an_expired_code_is_refused(desk: Desk) -> None:
    """15 minutes, to the millisecond; also when the code was asked for with less."""
    code, short = await desk.code(), await desk.code(ttl_s=60)
    desk.clock.advance(60_000)
    assert (await refused(desk.login(short))).problem == "this sign-in link has expired"
    desk.clock.advance(14 * MINUTE - 1)
    late = await desk.code()
    await desk.login(code)
    desk.clock.advance(15 * MINUTE)
    assert (await refused(desk.login(late))).problem == "this sign-in link has expired"


async def test_codes_and_sessions_are_kept_as_hashes(desk: Desk) -> None:
    """Neither is in any file of the store."""
    code = await desk.code()
    session = await desk.login(code)
    await desk.broker.close()
    stored = b"".join(path.read_bytes() for path in desk.home.root.glob("hive.db*"))

    assert code.encode() not in stored
    assert session.encode() not in stored


async def test_guessing_is_slowed_down_and_locks_nobody_out(desk: Desk) -> None:
    """After five wrong codes in a minute the answer says when to come back; a right code still works."""
    codes = [await refused(desk.login(f"wrong-{number}")) for number in range(8)]

    assert [error.wire_code for error in codes] == ["sign_in"] * 5 + ["rate_limited"] * 3
    assert [error.retry_after_ms for error in codes[5:]] == [2_000, 4_000, 8_000]
    await desk.look(await desk.login(await desk.code()))
    desk.clock.advance(MINUTE)
    assert (await refused(desk.login("wrong"))).wire_code == "sign_in"


@pytest.mark.parametrize("session", [None, "", "made-up"])
async def test_without_a_session_the_web_socket_tells_nothing(desk: Desk, session: str | None) -> None:
    """Every method but `auth.login` asks for it, before anything else."""
    calls: list[tuple[Any, Any]] = [
        (operator.AUTH_LOGOUT, NoArgs()),
        (operator.STATUS_GET, NoArgs()),
        (operator.HEALTH_LIST, NoArgs()),
        (operator.AGENT_LIST, NoArgs()),
        (operator.AGENT_GET, operator.AgentGetArgs(agent="scribe")),
        (operator.HIVE_QUERY, operator.QueryArgs(name="threads")),
        (operator.HIVE_SUBSCRIBE, operator.SubscribeArgs()),
        (operator.ASK_CANCEL, operator.CancelArgs(id="x")),
        (operator.REMINDER_CANCEL, operator.CancelArgs(id="x")),
    ]
    codes = [
        (await refused(desk.web.call(method, args, session=session))).wire_code for method, args in calls
    ]

    assert codes == ["sign_in"] * len(operator.WEB.methods.keys() - {"auth.login"})
    assert await desk.audit() == []


async def test_a_session_lasts_twelve_hours(desk: Desk) -> None:
    """However much it is used."""
    session = await desk.login(await desk.code())
    desk.clock.advance(12 * HOUR - 1)
    await desk.look(session)
    desk.clock.advance(1)

    assert (await refused(desk.look(session))).wire_code == "sign_in"


async def test_a_session_at_rest_can_look_and_not_act(desk: Desk) -> None:
    """30 minutes without a hand on it; an open page that asks by itself does not count as one."""
    session, reminder = await desk.login(await desk.code()), await desk.remind()
    for _ in range(3):
        desk.clock.advance(10 * MINUTE)
        await desk.look(session)
    desk.clock.advance(1)
    error = await refused(desk.cancel(session, reminder))

    assert error.wire_code == "sign_in"
    await desk.look(session)
    assert ("operator:local", "reminder.cancel", reminder) not in await desk.audit()
    assert await desk.cancel(await desk.login(await desk.code()), reminder) == "cancelled"


async def test_a_session_in_use_can_act(desk: Desk) -> None:
    """What a person opens counts as use."""
    session, reminder = await desk.login(await desk.code()), await desk.remind()
    for _ in range(4):
        desk.clock.advance(29 * MINUTE)
        await desk.web.call(operator.AGENT_GET, operator.AgentGetArgs(agent="concierge"), session=session)

    assert await desk.cancel(session, reminder) == "cancelled"


async def test_a_page_that_is_only_open_is_not_used(desk: Desk) -> None:
    """A page asks for lists by itself; whoever left it open can look, and cannot act."""
    session, reminder = await desk.login(await desk.code()), await desk.remind()
    for _ in range(4):
        desk.clock.advance(29 * MINUTE)
        await desk.web.call(operator.HIVE_QUERY, operator.QueryArgs(name="threads"), session=session)

    assert (await refused(desk.cancel(session, reminder))).wire_code in {"sign_in", "step_up"}


async def test_sign_out_ends_the_session(desk: Desk) -> None:
    """Here, at once."""
    session = await desk.login(await desk.code())
    await desk.web.call(operator.AUTH_LOGOUT, NoArgs(), session=session)

    assert (await refused(desk.look(session))).wire_code == "sign_in"


async def test_a_session_outlives_the_daemon(desk: Desk) -> None:
    """A restart signs nobody out; a signed-out session stays out."""
    kept, ended = await desk.login(await desk.code()), await desk.login(await desk.code())
    await desk.web.call(operator.AUTH_LOGOUT, NoArgs(), session=ended)
    await desk.close()
    await desk.open()

    assert (await desk.look(kept)).boot_epoch == 2
    assert (await refused(desk.look(ended))).wire_code == "sign_in"


async def test_ri_02_an_act_leaves_one_row_before_its_effect(desk: Desk) -> None:
    """Also one that fails: that it was tried is known."""
    session, reminder = await desk.login(await desk.code()), await desk.remind()
    before = len(await desk.audit())
    assert await desk.cancel(session, reminder) == "cancelled"
    again = await refused(desk.cancel(session, reminder))
    missing = await refused(desk.cancel(session, "no-such-id"))

    assert (again.wire_code, missing.wire_code) == ("closed", "not_found")
    assert (await desk.audit())[before:] == [
        ("operator:local", "reminder.cancel", reminder),
        ("operator:local", "reminder.cancel", reminder),
        ("operator:local", "reminder.cancel", "no-such-id"),
    ]


async def test_an_ask_is_cancelled(desk: Desk) -> None:
    """The asker is told, the operator sees its new state."""
    asked = await desk.broker.ask(SCRIBE, to="concierge", question="tea?")
    session = await desk.login(await desk.code())
    args = operator.CancelArgs(id=asked.id)
    assert (await desk.web.call(operator.ASK_CANCEL, args, session=session)).state == "cancelled"
    page = await desk.cli.call(
        operator.HIVE_QUERY, operator.QueryArgs(name="asks", params={"state": "closed"})
    )

    assert [(row["id"], row["state"]) for row in page.rows] == [(asked.id, "cancelled")]


async def test_reading_a_thread_is_noted_once_an_hour(desk: Desk) -> None:
    """An operator may read everything, and that they did is on record."""
    sent = await desk.broker.send(SYSTEM, Draft(to="agent:scribe", body="x", kind="system"))
    query = operator.QueryArgs(name="thread", params={"id": sent.thread})
    for _ in range(3):
        await desk.cli.call(operator.HIVE_QUERY, query)
    desk.clock.advance(HOUR)
    await desk.cli.call(operator.HIVE_QUERY, query)

    assert [row for row in await desk.audit() if row[1] == "thread.read"] == [
        ("operator:local", "thread.read", sent.thread)
    ] * 2


async def test_subscribe_gives_what_changes_from_a_cursor_on(desk: Desk) -> None:
    """Over the socket: cursor first, then events; the same cursor again gives the same events again."""
    session = await desk.login(await desk.code())
    start = (await desk.web.call(operator.HIVE_SUBSCRIBE, operator.SubscribeArgs(), session=session)).cursor
    await desk.remind()
    await eventually(lambda: [event.kind for event in desk.events] == ["reminder"])
    first = desk.events.pop()
    other = await desk.dial(desk.home.web_socket)
    args = operator.SubscribeArgs(cursor=start)
    assert (await other.call(operator.HIVE_SUBSCRIBE, args, session=session)).cursor == start
    await eventually(lambda: desk.events == [first])


async def test_a_subscriber_of_before_a_restart_is_told_to_look_again(desk: Desk) -> None:
    """A cursor means something in one boot epoch only."""
    start = (await desk.cli.call(operator.HIVE_SUBSCRIBE, operator.SubscribeArgs())).cursor
    await desk.close()
    await desk.open()
    await desk.cli.call(operator.HIVE_SUBSCRIBE, operator.SubscribeArgs(cursor=start))
    await eventually(lambda: [event.kind for event in desk.events] == ["resync"])


@pytest.mark.parametrize(
    ("name", "params", "cursor"),
    [
        ("threads", {"limit": 0}, None),
        ("threads", {"limit": 501}, None),
        ("threads", {"agent": 5}, None),
        ("thread", {}, None),
        ("thread", {"id": "x", "sql": "1"}, None),
        ("asks", {"state": "any"}, None),
        ("lane", {}, "x"),
        ("dead", {}, "1 x"),
    ],
)
async def test_a_wrong_parameter_is_refused(
    desk: Desk, name: Any, params: dict[str, Any], cursor: str | None
) -> None:
    """By name, and nothing of the store is touched."""
    args = operator.QueryArgs(name=name, params=params, cursor=cursor)

    assert (await refused(desk.cli.call(operator.HIVE_QUERY, args))).wire_code == "invalid_argument"


async def test_what_is_not_there_is_not_found(desk: Desk) -> None:
    """An unknown thread and an unknown agent."""
    thread = operator.QueryArgs(name="thread", params={"id": "no-such-thread"})
    agent = operator.AgentGetArgs(agent="nobody")

    assert (await refused(desk.cli.call(operator.HIVE_QUERY, thread))).wire_code == "not_found"
    assert (await refused(desk.cli.call(operator.AGENT_GET, agent))).wire_code == "not_found"


@pytest.mark.parametrize("method", ["auth.code", "daemon.stop", "tool.call", "pump.next", "agent.act"])
async def test_ps_06_the_web_socket_refuses_every_other_method(desk: Desk, method: str) -> None:
    """What another socket can do does not exist on this one, session or not."""
    session = await desk.login(await desk.code())
    unknown = Method(name=method, args=NoArgs, result=NoArgs)

    assert (await refused(desk.web.call(unknown, NoArgs(), session=session))).wire_code == "unknown_method"


async def test_ps_03_another_user_is_hung_up_on(desk: Desk) -> None:
    """Who may call is the peer's user, as the kernel says; here everybody is a foreigner."""
    (web, _) = desk.listeners
    stranger = Listener(web.table, web.handlers, uids=frozenset({os.getuid() + 1}))
    path = desk.home.run / "stranger.sock"
    await stranger.start(path)
    try:
        with pytest.raises(ConnectionLostError):
            await connect(path, role="web", timeout_s=2_000 * MS)
    finally:
        await stranger.close()


async def test_daemon_stop_answers_first() -> None:
    """The caller hears that it was taken, then everything goes down."""
    async with open_daemon() as daemon:
        await daemon.cli.call(operator.DAEMON_STOP, NoArgs())
        await eventually(lambda: not daemon.home.cli_socket.exists(), within=8_000 * MS)


async def test_a_bad_agents_file_stops_the_start() -> None:
    """With its line; nothing is opened, nothing is started."""
    async with short_home() as home:
        home.agents_config.write_text("[agent.a]\nrunime = 1\n")
        with pytest.raises(Exception, match=r"line 2: no setting `agent\.a\.runime`"):
            await run_daemon(Settings(), home, ManualClock(), asyncio.Event())

        assert not home.hive_db.exists()


async def test_ps_07_the_daemon_serves_no_http() -> None:
    """A daemon that runs has imported no HTTP server and no MCP, and listens on unix sockets alone."""
    script = Path(__file__).with_name("loaded_modules.py")
    async with short_home() as home:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            str(home.root),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SKEP_HOME": str(home.root)},
        )
        output, _ = await process.communicate()
    loaded = set(output.decode().split())

    assert "skep.hive.daemon" in loaded
    assert {
        name for name in loaded if name.split(".")[0] in {"aiohttp", "starlette", "uvicorn", "mcp", "http"}
    } <= {
        "http",
        "http.HTTPStatus",
    }
    assert "INET" not in loaded
