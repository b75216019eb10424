"""The web chat's API, against the control protocol, sections 11 and 13, and reliability, section 3.2."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from skep.foundation.clock import ManualClock
from skep.foundation.errors import SkepError
from skep.foundation.paths import Home
from skep.store.sqlite.connector import open_connector
from support.edge import CONTROL, Edge, running_edge
from support.waiting import eventually

LIMIT = 64 * 1024
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


async def _problem(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    """Return status and code; the body must have the one shape of an error."""
    body = await answer.json()
    assert set(body) == {"ok", "code", "problem", "hint"}
    assert body["ok"] is False
    return answer.status, body["code"]


# Sign-in.


async def test_browser_signs_in_once_with_a_hard_cookie(edge: Edge) -> None:
    """HttpOnly, SameSite=Strict, Path=/, no Domain; the name has no prefix on plain http."""
    body = {"once": await edge.code()}
    async with edge.http.post(f"{edge.url}/api/session", json=body, headers=SAME_ORIGIN) as answer:
        assert answer.status == 204
        cookie = answer.headers["Set-Cookie"]
    name, *attributes = [part.strip() for part in cookie.split(";")]
    assert name.startswith("skep_chat=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=2592000"} <= set(attributes)
    assert not any(part.startswith(("Domain", "Secure")) for part in attributes)
    async with edge.http.get(f"{edge.url}/api/me", headers={"Cookie": name}) as answer:
        assert await answer.json() == {"account": "owner", "name": "owner"}


async def test_public_https_url_gives_the_host_prefix(tmp_path: Path) -> None:
    """Secure and `__Host-` whenever people come over https; and its own name is answered."""
    async with running_edge(tmp_path / "home", public_url="https://chat.example") as edge:
        made = await edge.call(CONTROL.WEB_CODE, CONTROL.WebCodeArgs())
        assert made.url == f"https://chat.example/#once={made.code}"
        headers = {"Host": "chat.example", "Origin": "https://chat.example"}
        async with edge.http.post(
            f"{edge.url}/api/session", json={"once": made.code}, headers=headers
        ) as answer:
            assert answer.headers["Set-Cookie"].startswith("__Host-skep_chat=")
            assert "Secure" in answer.headers["Set-Cookie"]
            assert "max-age" in answer.headers["Strict-Transport-Security"]


async def test_bo_07_code_works_once(edge: Edge) -> None:
    """Used, wrong and expired say which they are; none of them signs anybody in."""
    used = await edge.code()
    codes = [used, used, "AAAAAAAAAAAAAAAAAAAAAA"]
    told: list[tuple[int, str | None]] = []
    for once in codes:
        async with edge.http.post(f"{edge.url}/api/session", json={"once": once, "bearer": True}) as answer:
            told.append((answer.status, (await answer.json()).get("code")))
    assert told == [(200, None), (401, "web.code_used"), (401, "web.code_wrong")]


async def test_bo_07_code_expires(tmp_path: Path) -> None:
    """At the end of its life, not after it."""
    clock = ManualClock()
    async with running_edge(tmp_path / "home", clock=clock) as edge:
        codes = [await edge.code(ttl_s=60) for _ in range(2)]
        told: list[int] = []
        for once, wait_ms in zip(codes, (59_999, 1), strict=True):
            clock.advance(wait_ms)
            body = {"once": once, "bearer": True}
            async with edge.http.post(f"{edge.url}/api/session", json=body) as answer:
                told.append(answer.status)
        assert told == [200, 401]


async def test_bo_07_code_in_a_query_string_signs_nobody_in(edge: Edge) -> None:
    """It is read from a body only, and stays usable."""
    once = await edge.code()
    async with edge.http.get(f"{edge.url}/?once={once}") as answer:
        assert "Set-Cookie" not in answer.headers
    async with edge.http.post(f"{edge.url}/api/session?once={once}", headers=SAME_ORIGIN) as answer:
        assert answer.status == 415
    async with edge.http.post(f"{edge.url}/api/session", json={"once": once, "bearer": True}) as answer:
        assert answer.status == 200


async def test_bo_07_foreign_host_is_421(edge: Edge) -> None:
    """Its own name and port, and no other: not `localhost`, not another port."""
    for host in ("evil.example", f"localhost:{edge.port}", "127.0.0.1", "127.0.0.1:1"):
        async with edge.http.get(f"{edge.url}/", headers={"Host": host}) as answer:
            assert await _problem(answer) == (421, "web.host")


async def test_bo_07_dashboards_cookie_is_not_a_session_here(edge: Edge) -> None:
    """A cookie of another name means nothing."""
    headers = {"Cookie": "skep_dashboard=AAAAAAAAAAAAAAAAAAAAAA"}
    async with edge.http.get(f"{edge.url}/api/me", headers=headers) as answer:
        assert await _problem(answer) == (401, "web.sign_in")


async def test_signing_out_ends_the_session_and_its_tabs(edge: Edge, who: dict[str, str]) -> None:
    """Server-side, at once; another session of the account goes on."""
    other = await edge.bearer()
    tab, kept = await edge.ready_tab(who), await edge.ready_tab(other)
    async with edge.http.delete(f"{edge.url}/api/session", headers=who) as answer:
        assert answer.status == 204
    assert (await tab.socket.receive(timeout=5)).data == 4401
    assert await kept.hears_nothing()
    async with edge.http.get(f"{edge.url}/api/me", headers=who) as answer:
        assert answer.status == 401


async def test_session_ends_after_thirty_idle_days(tmp_path: Path) -> None:
    """Each use keeps it alive."""
    clock = ManualClock()
    day_ms = 86_400_000
    async with running_edge(tmp_path / "home", clock=clock) as edge:
        who = await edge.bearer()
        told: list[int] = []
        for days in (29, 29, 31):
            clock.advance(days * day_ms)
            async with edge.http.get(f"{edge.url}/api/me", headers=who) as answer:
                told.append(answer.status)
        assert told == [200, 200, 401]


async def test_codes_and_sessions_are_kept_as_hashes_only(edge: Edge, who: dict[str, str]) -> None:
    """Neither is anywhere in the data directory, nor is the gateway's secret in the clear."""
    code = await edge.code()
    secrets = [code, who["Authorization"].split()[1], edge.secrets["gw-local"]]
    written = b"".join(path.read_bytes() for path in edge.home.root.rglob("*") if path.is_file())
    assert b"owner" in written
    assert [secret for secret in secrets if secret.encode() in written] == []


# Cross-site.

CROSS_SITE: dict[str, dict[str, str]] = {
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "another port": {"Sec-Fetch-Site": "same-site"},
    "typed": {"Sec-Fetch-Site": "none"},
    "foreign origin": {"Origin": "https://evil.example"},
    "other port's origin": {"Origin": "http://127.0.0.1:1"},
    "opaque origin": {"Origin": "null"},
    "says nothing": {},
}


@pytest.mark.parametrize("headers", CROSS_SITE.values(), ids=CROSS_SITE.keys())
async def test_wc_05_cross_site_requests_change_nothing(edge: Edge, headers: dict[str, str]) -> None:
    """Every route that changes something, and the socket, refuse a cookie that comes from elsewhere."""
    body = {"once": await edge.code()}
    async with edge.http.post(f"{edge.url}/api/session", json=body, headers=SAME_ORIGIN) as answer:
        cookie = {"Cookie": answer.headers["Set-Cookie"].split(";")[0]}
    async with edge.http.post(
        f"{edge.url}/api/conversations", json={"title": "mine"}, headers={**cookie, **SAME_ORIGIN}
    ) as answer:
        conversation = (await answer.json())["id"]
    attack = {**cookie, **headers}
    attempts = [
        ("POST", "/api/session"),
        ("DELETE", "/api/session"),
        ("POST", "/api/conversations"),
        ("PATCH", f"/api/conversations/{conversation}"),
    ]
    for method, path in attempts:
        body = {"title": "theirs", "once": "x"}
        async with edge.http.request(method, edge.url + path, json=body, headers=attack) as answer:
            assert await _problem(answer) == (403, "web.cross_site")
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await edge.http.ws_connect(f"{edge.url}/api/socket", headers=attack)
    assert raised.value.status == 403
    async with edge.http.get(f"{edge.url}/api/conversations", headers=cookie) as answer:
        assert [row["title"] for row in await answer.json()] == ["mine"]


async def test_wc_05_own_page_is_let_through_by_either_header(edge: Edge) -> None:
    """The same requests, so that the refusals above are for the right reason."""
    for headers in (SAME_ORIGIN, {"Origin": edge.url}):
        body = {"once": await edge.code()}
        async with edge.http.post(f"{edge.url}/api/session", json=body, headers=headers) as answer:
            cookie = {"Cookie": answer.headers["Set-Cookie"].split(";")[0]}
        async with edge.http.post(
            f"{edge.url}/api/conversations", json={}, headers={**cookie, **headers}
        ) as answer:
            assert answer.status == 200
        socket = await edge.http.ws_connect(f"{edge.url}/api/socket", headers={**cookie, **headers})
        assert not socket.closed


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_simple_form_bodies_are_refused(edge: Edge, who: dict[str, str], kind: str) -> None:
    """Only `application/json` changes something."""
    async with edge.http.post(
        f"{edge.url}/api/conversations", data=b"{}", headers={**who, "Content-Type": kind}
    ) as answer:
        assert await _problem(answer) == (415, "web.unsupported_media")


# Conversations and messages.


async def test_conversations_are_listed_newest_first_and_named_by_their_first_words(
    edge: Edge, who: dict[str, str]
) -> None:
    """Unread counts what others wrote since the person last looked."""
    first, second = await edge.conversation(who), await edge.conversation(who)
    gateway = await edge.gateway()
    tab = await edge.ready_tab(who)
    await tab.send(second, "  what is\nthis", client_id="a")
    await tab.send(first, "x" * 100, client_id="b")
    action = {"op": "send", "chat_id": second, "content": "hi", "metadata": {"scope_id": "local"}}
    await gateway.do(action)
    assert await _list(edge, who) == [(second, "what is", 1), (first, "x" * 59 + "…", 0)]

    await tab.say(t="read", conversation=second)
    change = {"title": "Named"}
    async with edge.http.patch(f"{edge.url}/api/conversations/{first}", json=change, headers=who) as answer:
        assert answer.status == 204
    expected = [(second, "what is", 0), (first, "Named", 0)]

    async def listed() -> None:  # the socket and the requests are two ways in: neither waits for the other
        assert await _list(edge, who) == expected

    await eventually(listed)
    async with edge.http.get(f"{edge.url}/api/conversations?before={second}", headers=who) as answer:
        assert [row["id"] for row in await answer.json()] == [first]


async def test_messages_are_paged_back(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """Newest last, from before a message."""
    tab = await edge.ready_tab(who)
    for i in range(5):
        await tab.send(conversation, f"text {i}", client_id=f"w-{i}")
    path = f"{edge.url}/api/conversations/{conversation}/messages"
    async with edge.http.get(f"{path}?limit=2", headers=who) as answer:
        page = await answer.json()
    assert [message["text"] for message in page] == ["text 3", "text 4"]
    async with edge.http.get(f"{path}?limit=100&before={page[0]['id']}", headers=who) as answer:
        assert [message["text"] for message in await answer.json()] == ["text 0", "text 1", "text 2"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1e2", "²"])
async def test_bad_limit_is_refused(edge: Edge, who: dict[str, str], conversation: str, limit: str) -> None:
    """Only 1 to 100, in plain digits."""
    path = f"{edge.url}/api/conversations/{conversation}/messages"
    async with edge.http.get(path, params={"limit": limit}, headers=who) as answer:
        assert await _problem(answer) == (400, "web.bad_request")


async def test_conversation_that_does_not_exist_is_404(edge: Edge, who: dict[str, str]) -> None:
    """As is one of somebody else."""
    async with edge.http.get(f"{edge.url}/api/conversations/c_x/messages", headers=who) as answer:
        assert await _problem(answer) == (404, "web.not_found")
    async with edge.http.patch(f"{edge.url}/api/conversations/c_x", json={}, headers=who) as answer:
        assert await _problem(answer) == (404, "web.not_found")


async def test_body_over_the_limit_is_413(edge: Edge, who: dict[str, str]) -> None:
    """Before any JSON work."""
    body = {"title": "x" * 300_000}
    async with edge.http.post(f"{edge.url}/api/conversations", json=body, headers=who) as answer:
        assert await _problem(answer) == (413, "web.too_large")


async def test_conversation_of_somebody_else_does_not_exist(tmp_path: Path) -> None:
    """Every way in answers as if it were not there, and nothing changes."""
    home = Home(tmp_path / "home")
    async with running_edge(home.root):
        pass
    store = await open_connector(home.connector_db)
    await store.write(
        lambda tx: tx.add_web_account("ben", tenant="local", name="Ben", is_owner=False, now_ms=0)
    )
    await store.close()
    async with running_edge(home.root) as edge:
        gateway = await edge.gateway()
        ada, ben = await edge.bearer(), await edge.bearer("ben")
        conversation = await edge.conversation(ada)
        await (await edge.ready_tab(ada)).send(conversation, "private")
        await gateway.hear("inbound")
        tab = await edge.ready_tab(ben)
        told = [(await tab.send(conversation, "mine now"))["code"]]
        for kind in ("stop", "read"):
            await tab.say(t=kind, conversation=conversation)
            told.append((await tab.hear("error"))["code"])
        assert told == ["web.not_found"] * 3
        path = f"{edge.url}/api/conversations/{conversation}"
        async with edge.http.get(f"{path}/messages", headers=ben) as answer:
            assert await _problem(answer) == (404, "web.not_found")
        async with edge.http.patch(path, json={"title": "x"}, headers=ben) as answer:
            assert await _problem(answer) == (404, "web.not_found")
        async with edge.http.get(f"{edge.url}/api/conversations", headers=ben) as answer:
            assert await answer.json() == []
        assert await gateway.hears_nothing()
        assert await _list(edge, ada) == [(conversation, "private", 0)]


# The socket.


async def test_wc_01_resend_is_harmless(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """The same id again, also at the same time from two tabs: one message, the same answer, one delivery."""
    gateway = await edge.gateway()
    tabs = [await edge.ready_tab(who) for _ in range(2)]
    first = await tabs[0].send(conversation, "hello")
    assert await tabs[0].send(conversation, "hello") == first
    assert await tabs[1].send(conversation, "hello") == first
    assert len(await edge.messages(who, conversation)) == 1
    await gateway.hear("inbound")
    assert await gateway.hears_nothing()


async def test_wc_02_each_tab_resumes_exactly(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """Three tabs, cut after each event and resumed: all events, each once, in order."""
    gateway = await edge.gateway()
    writer = await edge.ready_tab(who)
    for i in range(4):
        await writer.send(conversation, f"text {i}", client_id=f"w-{i}")
        await gateway.ack(await gateway.hear("inbound"))
        await writer.hear("state")
    whole = await edge.tab(who)
    events: list[dict[str, Any]] = []
    while (told := await whole.hear())["t"] != "ready":
        events.append(told)
    assert [event["n"] for event in events] == list(range(1, 9))
    for cut in range(9):
        tabs = [await edge.tab(who, n=cut) for _ in range(3)]
        for tab in tabs:
            rest: list[dict[str, Any]] = []
            while (told := await tab.hear())["t"] != "ready":
                rest.append(told)
            assert rest == events[cut:]
            assert told["n"] == 8
        for tab in tabs:
            await tab.socket.close()


async def test_wc_02_nothing_is_lost_while_events_flow(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """Tabs that come and go while messages are written see each event once."""
    writer = await edge.ready_tab(who)
    seen: list[list[int]] = [[], [], []]

    async def write() -> None:
        for i in range(25):
            await writer.send(conversation, f"text {i}", client_id=f"w-{i}")

    async def watch(numbers: list[int]) -> None:
        while len(numbers) < 25:
            tab = await edge.tab(who, n=numbers[-1] if numbers else 0)
            for _ in range(4):
                told = await tab.hear()
                if told["t"] == "message":
                    numbers.append(told["n"])
                if len(numbers) == 25:
                    break
            await tab.socket.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        for numbers in seen:
            group.create_task(watch(numbers))
    assert seen == [list(range(1, 26))] * 3


async def test_other_tabs_see_the_message_where_the_sender_sees_stored(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """One event, two forms, one number."""
    sender, other = await edge.ready_tab(who), await edge.ready_tab(who)
    stored = await sender.send(conversation, "hello", client_id="w-7")
    told = await other.hear()
    assert (told["t"], told["n"], told["message"]["id"]) == ("message", stored["n"], stored["message"])
    assert told["message"]["from"] == {"kind": "person", "name": "owner"}
    assert (told["message"]["client_id"], told["message"]["state"]) == ("w-7", "stored")


async def test_wc_03_ticks_are_never_ahead_of_the_truth(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """`delivered` only after the gateway's ack, `seen` only after its `seen`; nothing goes back."""
    gateway = await edge.gateway()
    tab = await edge.ready_tab(who)
    stored = await tab.send(conversation, "hello")
    inbound = await gateway.hear("inbound")
    assert await tab.hears_nothing()
    assert (await edge.messages(who, conversation))[0]["state"] == "stored"

    await gateway.ack(inbound)
    assert (await tab.hear())["state"] == "delivered"
    assert await tab.hears_nothing()

    seen = {
        "op": "seen",
        "chat_id": conversation,
        "message_ids": [stored["message"]],
        "metadata": {"scope_id": "local"},
    }
    await gateway.do(seen)
    assert (await tab.hear())["state"] == "seen"
    await gateway.ack(inbound)
    assert await tab.hears_nothing()
    assert (await edge.messages(who, conversation))[0]["state"] == "seen"


async def test_wc_04_stop_reaches_the_gateway_with_its_own_key(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """The key is the one that the gateway builds for the chat's last source, in its own form."""
    tab = await edge.ready_tab(who)
    await tab.send(conversation, "hello")
    keys: list[str] = []
    for is_skep in (True, False):
        gateway = await edge.gateway(is_skep=is_skep)
        await tab.say(t="stop", conversation=conversation)
        interrupt = await gateway.hear("interrupt_inbound", within=1.0)
        assert interrupt["chat_id"] == conversation
        keys.append(interrupt["session_key"])
    assert keys == [f"agent:main:web:dm:local:{conversation}", f"agent:main:relay:dm:{conversation}"]


STOPS: dict[str, tuple[dict[str, str | None], list[str]]] = {
    "the thread": ({"thread": "first"}, ["first"]),
    "outside of threads": ({"thread": None}, []),
    "where was written last": ({}, ["other"]),
}


@pytest.mark.parametrize(("where", "named"), STOPS.values(), ids=STOPS.keys())
async def test_stop_names_the_session_of_the_thread_that_is_meant(
    edge: Edge, who: dict[str, str], conversation: str, where: dict[str, str | None], named: list[str]
) -> None:
    """A thread is a session of its own; whoever does not say where means the one that was written in last."""
    gateway, tab = await edge.gateway(), await edge.ready_tab(who)
    threads: dict[str | None, str | None] = {None: None}
    for name in ("first", "other"):
        threads[name] = (await tab.send(conversation, "hello", client_id=name))["message"]
    for name in ("first", "other"):
        await tab.send(conversation, "hello", client_id=f"in {name}", thread=threads[name])
    for thread in threads.values():
        await gateway.do(action_in(conversation, "typing", thread))
    assert {(await tab.hear("typing")).get("thread") for _ in range(3)} == set(threads.values())

    await tab.say(t="stop", conversation=conversation, **{key: threads[name] for key, name in where.items()})
    interrupt = await gateway.hear("interrupt_inbound", within=1.0)
    key = ["agent:main:web:dm:local", conversation, *(threads[name] or "" for name in named)]
    assert interrupt["session_key"] == ":".join(key)
    gone = [await tab.hear("typing") for _ in range(1 if where else 3)]
    assert [told["on"] for told in gone] == [False] * len(gone)
    assert [told.get("thread") for told in gone if where] == [threads[name] for name in where.values()]
    assert await tab.hears_nothing()


async def test_first_reply_in_a_thread_says_what_it_is_about(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """Whoever answers in a thread has a session of its own there, and knows nothing else of the conversation."""
    gateway, tab = await edge.gateway(), await edge.ready_tab(who)
    first = (await tab.send(conversation, "who has bearings?", client_id="a"))["message"]
    contexts: list[list[tuple[str, str]]] = []
    for client_id, thread in (("b", first), ("c", first), ("d", None)):
        await tab.send(conversation, "a reply", client_id=client_id, thread=thread)
    for _ in range(4):
        event = (await gateway.hear("inbound"))["event"]
        around = event.get("context", [])
        contexts.append([(item["source"]["user_name"], item["text"]) for item in around])
    assert contexts == [[], [("owner", "who has bearings?")], [], []]


async def test_thread_of_nothing_is_refused(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """Of a message that is not there, of another conversation, or of a thread: nobody would see it."""
    gateway, tab = await edge.gateway(), await edge.ready_tab(who)
    elsewhere = (await tab.send(await edge.conversation(who), "elsewhere", client_id="a"))["message"]
    first = (await tab.send(conversation, "first", client_id="b"))["message"]
    reply = (await tab.send(conversation, "reply", client_id="c", thread=first))["message"]
    for number, thread in enumerate(("m_gone", elsewhere, reply)):
        refused = await tab.send(conversation, "lost?", client_id=f"d{number}", thread=thread)
        assert (refused["code"], refused["id"]) == ("web.not_found", f"d{number}")
    await gateway.do(action_in(conversation, "send", "m_gone", content="an answer"))
    said = (await tab.hear("message"))["message"]
    assert (said["text"], said.get("thread")) == ("an answer", None)


def action_in(conversation: str, op: str, thread: str | None, **fields: Any) -> dict[str, Any]:
    """Return an action in a thread, or outside of all."""
    hints = {"scope_id": "local", "agent": "scout", "idem": f"r:{thread}"}
    metadata = hints if thread is None else {**hints, "thread_id": thread}
    return {"op": op, "chat_id": conversation, "metadata": metadata, **fields}


async def test_what_is_said_in_a_thread_says_so_from_the_first_word(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """The words, who is at work, the draft and the answer; outside of threads none of them names one."""
    gateway, tab, other = await edge.gateway(), await edge.ready_tab(who), await edge.ready_tab(who)
    first = await tab.send(conversation, "the first", client_id="a")
    for client_id, thread in (("b", first["message"]), ("c", None)):
        sent = await tab.send(conversation, "a reply", client_id=client_id, thread=thread)
        told = await other.hear("message")
        while told["message"]["id"] != sent["message"]:
            told = await other.hear("message")
        assert told["message"].get("thread") == thread
        await gateway.do(action_in(conversation, "typing", thread))
        assert (await other.hear("typing")).get("thread") == thread
        await gateway.do(action_in(conversation, "draft", thread, draft_id=1, content="I be", final=False))
        assert (await other.hear("draft")).get("thread") == thread
        await gateway.do(action_in(conversation, "draft", thread, draft_id=1, content="I begin", final=True))
        assert (await other.hear("message"))["message"].get("thread") == thread
        await gateway.do(action_in(conversation, "typing", thread, content=""))
        assert (await other.hear("typing")).get("thread") == thread
    kept = await edge.messages(who, conversation)
    assert [message.get("thread") for message in kept] == [
        None,
        first["message"],
        first["message"],
        None,
        None,
    ]


async def test_an_agent_at_work_in_two_threads_is_at_work_in_both(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """The end in one is not the end in the other."""
    gateway, tab = await edge.gateway(), await edge.ready_tab(who)
    await tab.send(conversation, "hello")
    for thread in ("m_1", "m_2"):
        await gateway.do(action_in(conversation, "typing", thread))
        assert (await tab.hear("typing"))["thread"] == thread
    await gateway.do(action_in(conversation, "typing", "m_1", content=""))
    told = await tab.hear("typing")
    assert (told["thread"], told["on"]) == ("m_1", False)
    late = await edge.tab(who, n=-1)
    told = await late.hear("typing")
    assert (told["thread"], told["on"]) == ("m_2", True)


async def test_stop_without_a_gateway_says_so(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """And of a conversation that is not one's own, nothing."""
    tab = await edge.ready_tab(who)
    await tab.send(conversation, "hello")
    told: list[str] = []
    for target in (conversation, "c_x"):
        await tab.say(t="stop", conversation=target)
        told.append((await tab.hear("error"))["code"])
    assert told == ["connector.away", "web.not_found"]


SIZES = {"ascii": "x", "two bytes": "é", "four bytes": "🐝"}


@pytest.mark.parametrize("letter", SIZES.values(), ids=SIZES.keys())
async def test_text_of_64_kib_is_taken_and_one_byte_more_is_not(
    edge: Edge, who: dict[str, str], conversation: str, letter: str
) -> None:
    """Counted in bytes of UTF-8."""
    gateway = await edge.gateway()
    tab = await edge.ready_tab(who)
    text = letter * (LIMIT // len(letter.encode()))
    assert (await tab.send(conversation, text, client_id="a"))["t"] == "stored"
    assert (await gateway.hear("inbound"))["event"]["text"] == text
    refused = await tab.send(conversation, text + "x", client_id="b")
    assert (refused["t"], refused["ok"], refused["code"], refused["id"]) == (
        "error",
        False,
        "web.too_large",
        "b",
    )
    assert len(await edge.messages(who, conversation)) == 1


BAD_MESSAGES = {
    "not JSON": "{nope",
    "a list": "[]",
    "null": "null",
    "unknown kind": '{"t":"surprise"}',
    "no kind": "{}",
    "field of a wrong type": '{"t":"send","id":1,"conversation":"c","text":"x"}',
    "no id": '{"t":"send","id":"","conversation":"c","text":"x"}',
    "id too long": json.dumps({"t": "send", "id": "x" * 65, "conversation": "c", "text": "x"}),
    "lone surrogate": '{"t":"send","id":"a","conversation":"c","text":"\\ud800"}',
    "nested deep": "[" * 100_000,
}


@pytest.mark.parametrize("data", BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
async def test_bad_message_is_answered_and_ends_nothing(
    edge: Edge, who: dict[str, str], conversation: str, data: str
) -> None:
    """The socket goes on."""
    tab = await edge.ready_tab(who)
    await tab.socket.send_str(data)
    assert (await tab.hear())["code"] == "web.bad_message"
    assert (await tab.send(conversation, "hello"))["t"] == "stored"


@pytest.mark.parametrize(
    ("text", "target", "code"), [(" \n", None, "web.empty"), ("x", "c_x", "web.not_found")]
)
async def test_refused_words_are_not_kept(
    edge: Edge, who: dict[str, str], conversation: str, text: str, target: str | None, code: str
) -> None:
    """And the answer says why."""
    tab = await edge.ready_tab(who)
    assert (await tab.send(target or conversation, text))["code"] == code
    assert await edge.messages(who, conversation) == []


async def test_message_over_256_kib_closes_this_socket_only(edge: Edge, who: dict[str, str]) -> None:
    """1009, and the other tab goes on."""
    tab, other = await edge.ready_tab(who), await edge.ready_tab(who)
    await tab.socket.send_str("x" * (256 * 1024 + 1))
    assert (await tab.socket.receive(timeout=5)).data == 1009
    assert await other.hears_nothing()


async def test_first_message_must_be_resume(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """And a second one is refused."""
    socket = await edge.http.ws_connect(f"{edge.url}/api/socket", headers=who)
    await socket.send_json({"t": "send", "id": "a", "conversation": conversation, "text": "x"})
    assert (await socket.receive_json(timeout=5))["code"] == "web.resume_first"
    tab = await edge.ready_tab(who)
    await tab.say(t="resume", n=0)
    assert (await tab.hear())["code"] == "web.resume_first"


async def test_tab_of_another_database_starts_afresh(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """A number that was never given means that the tab knows another past."""
    await (await edge.ready_tab(who)).send(conversation, "hello")
    tab = await edge.tab(who, n=900)
    assert [(await tab.hear())["t"] for _ in range(2)] == ["reset", "ready"]
    assert tab.n == 1


async def test_tab_that_does_not_read_slows_nobody_and_misses_nothing(tmp_path: Path) -> None:
    """While it stands still the others go on; when it reads again, everything is there, in order."""
    async with running_edge(tmp_path / "home", web_per_minute=1_000) as edge:
        who = await edge.bearer()
        conversation = await edge.conversation(who)
        writer, stalled = await edge.ready_tab(who), await edge.ready_tab(who)
        count = 200
        for i in range(count):
            await writer.send(conversation, f"{i} " + "x" * 60_000, client_id=f"w-{i}")
        texts = [(await stalled.hear("message"))["message"]["text"] for _ in range(count)]
        assert [text.split()[0] for text in texts] == [str(i) for i in range(count)]


async def test_thirty_messages_a_minute(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """One more is refused with the time to wait, and can be sent again."""
    tab = await edge.ready_tab(who)
    told = [await tab.send(conversation, "x", client_id=f"w-{i}") for i in range(31)]
    assert [event["t"] for event in told[:30]] == ["stored"] * 30
    assert told[30]["code"] == "web.rate_limited"
    assert 0 < told[30]["retry_after_ms"] <= 2_000


async def test_account_that_is_bound_to_nobody_is_told(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """Nothing is stored that no gateway would ever get."""
    await edge.call(CONTROL.GATEWAY_REVOKE, CONTROL.GatewayRevokeArgs(gateway_id="gw-local"))
    tab = await edge.ready_tab(who)
    assert (await tab.send(conversation, "hello"))["code"] == "web.not_bound"
    assert await edge.messages(who, conversation) == []
    await edge.ensure()
    assert (await tab.send(conversation, "hello"))["t"] == "stored"


async def test_message_that_was_given_up_says_so(tmp_path: Path) -> None:
    """A mark where it stands, and words."""
    async with running_edge(tmp_path / "home", buffer_events=1) as edge:
        who = await edge.bearer()
        conversation = await edge.conversation(who)
        tab = await edge.ready_tab(who)
        first = await tab.send(conversation, "one", client_id="a")
        await tab.send(conversation, "two", client_id="b")
        state = await tab.hear("state")
        assert (state["message"], state["state"]) == (first["message"], "failed")
        notice = (await tab.hear("message"))["message"]
        assert (notice["from"]["kind"], notice["reply_to"]) == ("system", first["message"])
        assert "thread" not in notice

        await tab.send(conversation, "a reply", client_id="c", thread=first["message"])
        await tab.send(conversation, "four", client_id="d")

        async def notices() -> list[str | None]:
            said = await edge.messages(who, conversation)
            return [message.get("thread") for message in said if message["from"]["kind"] == "system"]

        async def are_all_told() -> bool:
            return await notices() == [None, None, first["message"]]

        await eventually(are_all_told)


async def test_unknown_account_gets_no_code(edge: Edge) -> None:
    """Accounts are made by invitation, not by asking for a code."""
    with pytest.raises(SkepError) as raised:
        await edge.call(CONTROL.WEB_CODE, CONTROL.WebCodeArgs(account="nobody"))
    assert raised.value.code == "control.not_found"


async def _list(edge: Edge, who: dict[str, str]) -> list[tuple[str, str, int]]:
    async with edge.http.get(f"{edge.url}/api/conversations", headers=who) as answer:
        return [(row["id"], row["title"], row["unread"]) for row in await answer.json()]


TEAM = [
    {"name": "concierge", "role": "manager", "state": "idle", "waiting": 0},
    {"name": "scribe", "role": "agent", "state": "busy", "waiting": 2},
]


async def test_tabs_are_told_whom_they_can_write_to(edge: Edge, who: dict[str, str]) -> None:
    """Those that are open at once, others after `ready`; when the gateway goes, its agents are away."""
    gateway, early = await edge.gateway(), await edge.ready_tab(who)
    await gateway.say({"type": "agents", "agents": TEAM})
    assert await early.hear() == {"t": "agents", "agents": TEAM}
    late = await edge.ready_tab(who)
    assert (await late.hear())["agents"] == TEAM
    await gateway.say({"type": "agents", "agents": []})
    assert (await late.hear())["agents"] == []
    await gateway.say({"type": "agents", "agents": TEAM})
    assert (await late.hear())["agents"] == TEAM
    await gateway.socket.close()
    assert {agent["state"] for agent in (await late.hear())["agents"]} == {"away"}


BAD_TEAMS: dict[str, Any] = {
    "not a list": "concierge",
    "no name": [{**TEAM[0], "name": ""}],
    "a name without end": [{**TEAM[0], "name": "x" * 65}],
    "too many": [TEAM[0]] * 257,
    "less than none": [{**TEAM[0], "waiting": -1}],
}


@pytest.mark.parametrize("agents", BAD_TEAMS.values(), ids=BAD_TEAMS.keys())
async def test_agents_that_cannot_be_are_told_to_nobody(edge: Edge, who: dict[str, str], agents: Any) -> None:
    """And the connection goes on."""
    gateway, tab = await edge.gateway(), await edge.ready_tab(who)
    await gateway.say({"type": "agents", "agents": agents}, {"type": "agents", "agents": TEAM})
    assert (await tab.hear())["agents"] == TEAM


async def test_agents_of_others_are_told_to_nobody(edge: Edge, who: dict[str, str]) -> None:
    """Of a gateway that does not serve this account, and of one that is none of ours."""
    await edge.ensure("gw-other")
    stranger, stock = await edge.gateway("gw-other"), await edge.gateway(is_skep=False)
    tab = await edge.ready_tab(who)
    for gateway in (stranger, stock):
        await gateway.say({"type": "agents", "agents": TEAM})
    assert await tab.hears_nothing()
