"""The dashboard's server over real sockets, against control protocol 9 and 11 and reliability 3.2."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import closing
from typing import Any

import pytest

from skep.dashboard import run_dashboard
from skep.foundation.clock import ManualClock
from skep.foundation.errors import SettingError
from skep.foundation.paths import Home
from skep.foundation.rpc import RpcError
from skep.foundation.settings import Settings, WebSettings
from support.dashboard import SAME_ORIGIN, Running
from support.waiting import eventually

FOREIGN = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another port": {"Sec-Fetch-Site": "same-site"},
    "typed or from a bookmark": {"Sec-Fetch-Site": "none"},
    "an old browser, another origin": {"Origin": "http://evil.example"},
    "no page at all": {},
}
ROUTES = {
    "sign in": ("POST", "/api/session"),
    "sign out": ("DELETE", "/api/session"),
    "call": ("POST", "/api/call/ask.cancel"),
    "events": ("GET", "/api/events"),
}
REFUSED_CODES = {
    "used": ("used", "this sign-in link has been used already"),
    "unknown": ("never made", "this sign-in link is wrong"),
}


@pytest.mark.parametrize(("method", "path"), ROUTES.values(), ids=ROUTES.keys())
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN.keys())
async def test_ps_05_foreign_page_is_refused(
    running: Running, headers: dict[str, str], method: str, path: str
) -> None:
    """No page but our own can call anything, the event stream included; the daemon hears nothing."""
    await running.sign_in()
    running.daemon.calls.clear()
    body = json.dumps({"id": "a_1"}) if method == "POST" else None
    sent = {**headers, "Content-Type": "application/json"} if body else headers

    status, answer = await running.ask(method, path, headers=sent, data=body)

    assert (status, answer["code"]) == (403, "dashboard.cross_site")
    assert running.daemon.calls == []
    assert running.daemon.subscribed_after == []


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_ps_05_form_is_no_request(running: Running, media_type: str) -> None:
    """What a form of another site can send is not JSON."""
    await running.sign_in()

    status, answer = await running.ask(
        "POST",
        "/api/call/ask.cancel",
        headers={**SAME_ORIGIN, "Content-Type": media_type},
        data=b'{"id": "a_1"}',
    )

    assert (status, answer["code"]) == (415, "dashboard.not_json")


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/events", "/assets/x.js"])
@pytest.mark.parametrize("name", ["127.0.0.1", "evil.example", "[::1]"])
async def test_bo_07_foreign_host_is_421(running: Running, name: str, path: str) -> None:
    """The chat's name and a name that was bound to this address are not ours, on any route."""
    status, answer = await running.ask("GET", path, headers={**SAME_ORIGIN, "Host": f"{name}:{running.port}"})

    assert (status, answer["code"]) == (421, "dashboard.host")


async def test_bo_07_cookie_is_bound_to_our_name_and_no_script_reads_it(running: Running) -> None:
    """HttpOnly, SameSite=Strict, no Domain: the chat's name 127.0.0.1 never gets it."""
    async with running.http.post(
        f"{running.origin}/api/session", json={"once": "good"}, headers=SAME_ORIGIN
    ) as answer:
        cookie = answer.cookies["skep_dashboard"]
        body = await answer.json()

    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert cookie["path"] == "/"
    assert cookie["domain"] == ""
    assert cookie["max-age"] == str(12 * 3600)
    assert not cookie["secure"]
    assert cookie.value not in json.dumps(body)


@pytest.mark.parametrize(("kind", "problem"), REFUSED_CODES.values(), ids=REFUSED_CODES.keys())
async def test_bo_07_bad_code_is_refused(running: Running, kind: str, problem: str) -> None:
    """A code that was used, or that never was, signs nobody in, and says how to get a new one."""
    await running.sign_in()
    running.http.cookie_jar.clear()
    once = "good" if kind == "used" else "guess"

    status, answer = await running.ask("POST", "/api/session", json={"once": once})

    assert (status, answer["problem"], answer["hint"]) == (401, problem, "run `skep web link`")
    assert len(running.http.cookie_jar) == 0


@pytest.mark.parametrize("path", ["/?once=good", "/api/session?once=good"])
async def test_bo_07_code_in_a_query_string_signs_nobody_in(running: Running, path: str) -> None:
    """An address that a server, a log or a referrer sees carries no code."""
    await running.ask("GET", path)

    assert [name for name, _, _ in running.daemon.calls if name == "auth.login"] == []


async def test_call_is_made_in_the_name_of_the_cookie_alone(running: Running) -> None:
    """A session in the body is an unknown argument, not somebody else's right."""
    await running.sign_in()

    good = await running.ask("POST", "/api/call/ask.cancel", json={"id": "a_1"})
    forged = await running.ask("POST", "/api/call/ask.cancel", json={"id": "a_1", "s": "session-9"})

    assert good == (200, {"state": "cancelled"})
    assert (forged[0], forged[1]["code"]) == (400, "control.invalid_argument")
    assert [session for name, _, session in running.daemon.calls if name == "ask.cancel"] == ["session-1"]


@pytest.mark.parametrize(
    "method",
    [
        "auth.login",
        "auth.logout",
        "hive.subscribe",
        "auth.code",
        "daemon.stop",
        "agent.act",
        "pump.next",
        "x",
    ],
)
async def test_ps_06_nothing_but_the_table_is_passed_on(running: Running, method: str) -> None:
    """Methods of other sockets, of later tables and of the session itself are unknown here."""
    await running.sign_in()
    running.daemon.calls.clear()

    status, answer = await running.ask("POST", f"/api/call/{method}", json={})

    assert (status, answer["code"]) == (404, "dashboard.unknown_method")
    assert running.daemon.calls == []


REFUSALS = {
    "not signed in": ("sign_in", 401),
    "not allowed": ("not_allowed", 403),
    "not there": ("not_found", 404),
    "too late": ("conflict", 409),
    "too much": ("rate_limited", 429),
    "stopping": ("shutting_down", 503),
    "a fault": ("internal", 502),
}


@pytest.mark.parametrize(("code", "status"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_refusal_of_the_daemon_keeps_its_shape(running: Running, code: str, status: int) -> None:
    """One shape for each error, with the daemon's code, problem and hint."""
    await running.sign_in()
    refusal = RpcError(code, "the reason", hint="the way on", retry_after_ms=1200)
    running.daemon.answers["ask.cancel"] = refusal

    got = await running.ask("POST", "/api/call/ask.cancel", json={"id": "a_1"})

    expected = {"ok": False, "code": f"control.{code}", "problem": "the reason", "hint": "the way on"}
    assert got == (status, expected)


BODIES = {
    "cut short": (b'{"id":', 400, "control.invalid_argument"),
    "not an object": (b"[1]", 400, "control.invalid_argument"),
    "not UTF-8": (b'{"id":"\xff"}', 400, "control.invalid_argument"),
    "nested deep": (b"[" * 100_000, 400, "control.invalid_argument"),
    "too large": (b'{"id":"' + b"x" * 200_000 + b'"}', 413, "dashboard.too_large"),
}


@pytest.mark.parametrize(("body", "status", "code"), BODIES.values(), ids=BODIES.keys())
async def test_bad_body_is_refused_before_the_daemon(
    running: Running, body: bytes, status: int, code: str
) -> None:
    """What is not a good argument never reaches the daemon, and is not quoted."""
    await running.sign_in()
    running.daemon.calls.clear()

    got, answer = await running.ask(
        "POST",
        "/api/call/ask.cancel",
        headers={**SAME_ORIGIN, "Content-Type": "application/json"},
        data=body,
    )

    assert (got, answer["code"]) == (status, code)
    assert "xxx" not in json.dumps(answer)
    assert running.daemon.calls == []


async def test_sign_out_ends_the_session_its_streams_and_the_cookie(running: Running) -> None:
    """Nothing of the session is left, here or at the daemon."""
    await running.sign_in()
    async with running.http.get(f"{running.origin}/api/events", headers=SAME_ORIGIN) as events:
        await eventually(lambda: running.daemon.subscribed_after == [None])
        status, _ = await running.ask("DELETE", "/api/session")
        rest = await asyncio.wait_for(events.content.read(), 5)

    after = await running.ask("POST", "/api/call/agent.list", json={})
    assert status == 204
    assert rest.endswith(b"\n\n")
    assert running.daemon.sessions == set()
    assert (after[0], after[1]["code"]) == (401, "dashboard.sign_in")


async def test_events_follow_the_hive_through_a_restart_of_the_daemon(running: Running) -> None:
    """Live, away with each try, and live again on the same stream."""
    await running.sign_in()
    async with running.http.get(f"{running.origin}/api/events", headers=SAME_ORIGIN) as events:
        assert await _next_event(events) == ("ready", {"epoch": 1, "cursor": 100})
        running.daemon.emit("agent", name="scribe", state="up")
        name, event = await _next_event(events)
        assert (name, event["kind"], event["cursor"]) == ("hive", "agent", 101)

        await running.daemon.stop()
        assert (await _next_event(events))[0] == "away"

        running.daemon.epoch = 2
        await running.daemon.start(running.home.web_socket)
        name = ""
        while name != "ready":
            name, event = await _next_event(events)
        assert event["epoch"] == 2

    assert running.daemon.subscribed_after == [None, None]  # a cursor of another boot counts for nothing


async def test_events_resume_where_the_tab_was(running: Running) -> None:
    """A tab that comes back names its last event."""
    await running.sign_in()
    async with running.http.get(f"{running.origin}/api/events?after=1.77", headers=SAME_ORIGIN) as events:
        assert await _next_event(events) == ("ready", {"epoch": 1, "cursor": 77})

    assert running.daemon.subscribed_after == [77]


async def test_daemon_away_is_503_and_heals_by_itself(running: Running) -> None:
    """The page hears that nobody answers; the next call after the return goes through."""
    await running.sign_in()
    await running.daemon.stop()

    away = await running.ask("POST", "/api/call/agent.list", json={})
    health = await running.ask("GET", "/healthz")
    await running.daemon.start(running.home.web_socket)
    back = await running.ask("POST", "/api/call/agent.list", json={})

    assert (away[0], away[1]["code"]) == (503, "control.connection_lost")
    assert health == (200, {"ok": True, "daemon": False})
    assert back[0] == 200


async def test_every_answer_has_the_headers(running: Running) -> None:
    """The policy and its companions are on pages, data, errors and refusals alike."""
    for path, headers in (("/", {}), ("/healthz", {}), ("/nothing", {}), ("/", {"Host": "evil.example"})):
        async with running.http.get(running.origin + path, headers=headers) as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["Server"] == "Skep"
            assert "Cache-Control" in answer.headers
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_too_many_tabs_are_refused(running: Running) -> None:
    """One session cannot hold all streams; a tab that closes makes room."""
    await running.sign_in()
    opened: list[Any] = []
    for _ in range(12):
        answer = await running.http.get(f"{running.origin}/api/events", headers=SAME_ORIGIN)
        assert answer.status == 200
        opened.append(answer)

    refused, answer = await running.ask("GET", "/api/events")
    opened.pop().close()

    async def fits() -> bool:
        async with running.http.get(f"{running.origin}/api/events", headers=SAME_ORIGIN) as last:
            return last.status == 200

    await eventually(fits)
    for each in opened:
        each.close()
    assert (refused, answer["code"]) == (429, "dashboard.too_many")


async def test_port_is_told_while_it_listens_and_the_other_is_kept(running: Running) -> None:
    """`run/ports.json` has both ports; stopping takes away our own only."""
    path = running.home.ports
    path.write_text(json.dumps({"chat": 7433, "dashboard": running.port}))
    running.stop.set()

    await eventually(lambda: json.loads(path.read_text()) == {"chat": 7433})


async def test_taken_port_names_its_flag(home: Home) -> None:
    """The operator is told which flag chooses another."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(web=WebSettings(listen=f"localhost:{port}"))

        with pytest.raises(SettingError) as raised:
            await run_dashboard(settings, home, ManualClock(), asyncio.Event())

    assert raised.value.code == "dashboard.port_taken"
    assert "--dashboard-port" in raised.value.hint


async def _next_event(events: Any) -> tuple[str, Any]:
    name, data = "", ""
    while True:
        line = (await asyncio.wait_for(events.content.readline(), 5)).decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = line[6:]
        elif not line and name:
            return name, json.loads(data)
