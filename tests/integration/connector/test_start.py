"""Starting and stopping the connector, against the control protocol, section 11, and what can be wrong with it."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skep.connector.intake import Intake, Taken
from skep.connector.platform import Inbound, Platform
from skep.connector.platforms.web.hub import Hub
from skep.connector.platforms.web.pages import Pages
from skep.connector.server import run_connector
from skep.foundation.clock import SYSTEM_CLOCK, Clock
from skep.foundation.errors import SkepError
from skep.foundation.paths import Home
from skep.foundation.settings import ConnectorSettings, Settings
from skep.store.sqlite.connector import ConnectorStore, ConnectorTx, open_connector
from skep.wire.relay.event import MessageEvent, SessionSource
from support.edge import Edge, running_edge
from support.plain_platform import FakePlatform

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "manifest-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def _start(root: Path, **settings: object) -> str:
    """Start a connector that cannot start; return the code of its error."""
    home, stop = Home(root), asyncio.Event()
    chosen = ConnectorSettings(**{"listen": "127.0.0.1:0", **settings})  # pyright: ignore[reportArgumentType]
    with pytest.raises(SkepError) as raised:
        async with asyncio.timeout(10):
            await run_connector(Settings(connector=chosen), home, SYSTEM_CLOCK, stop)
    assert raised.value.hint
    return raised.value.code


async def test_bo_01_files_and_modes(tmp_path: Path) -> None:
    """Key and database are 0600 under a 0700 home; a second start changes no key."""
    root = tmp_path / "home"
    keys: list[bytes] = []
    for _ in range(2):
        async with running_edge(root) as edge:
            home = edge.home
            keys.append(home.connector_key.read_bytes())
            for path in (home.connector_key, home.connector_db, home.connector_socket):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(root.stat().st_mode) == 0o700
            assert json.loads(home.ports.read_bytes()) == {"chat": edge.port}
        assert not home.ports.exists()
        assert not home.connector_socket.exists()
    assert keys[0] == keys[1]
    assert len(keys[0]) == 32


async def test_port_of_another_process_stays_in_the_file(tmp_path: Path) -> None:
    """Each removes its own."""
    home = Home(tmp_path / "home")
    home.prepare()
    home.ports.write_text('{"dashboard": 7434}')
    async with running_edge(home.root) as edge:
        assert json.loads(home.ports.read_bytes()) == {"dashboard": 7434, "chat": edge.port}
    assert json.loads(home.ports.read_bytes()) == {"dashboard": 7434}


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """Sessions, messages, gateways and what waits."""
    async with running_edge(tmp_path / "home") as edge:
        await edge.ensure()
        who = await edge.bearer()
        conversation = await edge.conversation(who)
        await (await edge.ready_tab(who)).send(conversation, "hello")
        secrets = edge.secrets
    async with running_edge(tmp_path / "home") as edge:
        edge.secrets = secrets
        assert [m["text"] for m in await edge.messages(who, conversation)] == ["hello"]
        assert (await (await edge.gateway()).hear("inbound"))["event"]["text"] == "hello"


async def test_further_platform_runs_as_long_as_the_connector(tmp_path: Path) -> None:
    """It takes events in, gateways may front it, and it is stopped before the store is closed."""
    told: list[str] = []

    @asynccontextmanager
    async def open_platform(intake: Intake, store: ConnectorStore, clock: Clock) -> AsyncIterator[Platform]:
        source = SessionSource(platform="fake", chat_id="c", user_id="u", scope_id="s")
        await store.write(
            lambda tx: tx.bind("fake", "", "u", tenant="local", instance="gw-local", now_ms=clock.now_ms())
        )
        event = MessageEvent(text="early", message_id="m", source=source)
        assert await intake.accept(Inbound.of(event, dedupe_key="fake:bot:m")) is Taken.STORED
        yield FakePlatform()
        waiting = await store.read(lambda tx: tx.buffered())
        told.append(f"stopped with {sum(row.events for row in waiting)}")

    async with running_edge(tmp_path / "home", others=[open_platform]) as edge:
        gateway = await edge.gateway()
        assert (await gateway.hear("descriptor"))["descriptor"]["platform"] == "fake"
        assert (await gateway.hear("inbound"))["event"]["text"] == "early"
        assert told == []
    assert told == ["stopped with 1"]


async def test_key_that_is_missing_beside_a_database_is_not_made_anew(tmp_path: Path) -> None:
    """What it sealed would be lost in silence; without both, a start heals."""
    async with running_edge(tmp_path / "home") as edge:
        home = edge.home
    home.connector_key.unlink()
    assert await _start(home.root) == "connector.key_missing"
    assert not home.connector_key.exists()
    for path in home.root.glob("connector.db*"):
        path.unlink()
    async with running_edge(home.root) as edge:
        assert await edge.ensure()


async def test_key_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    """The hint is the exact `chmod`."""
    async with running_edge(tmp_path / "home") as edge:
        home = edge.home
    home.connector_key.chmod(0o644)
    assert await _start(home.root) == "connector.key_open"


async def test_key_that_is_cut_stops_the_start(tmp_path: Path) -> None:
    """A key of another length is not a key."""
    async with running_edge(tmp_path / "home") as edge:
        home = edge.home
    home.connector_key.write_bytes(b"short")
    assert await _start(home.root) == "connector.key_damaged"


@pytest.mark.parametrize("damage", [b"", b"not a database, but some text that somebody wrote there"])
async def test_damaged_database_is_refused_and_left_alone(tmp_path: Path, damage: bytes) -> None:
    """Never recreated over."""
    async with running_edge(tmp_path / "home") as edge:
        home = edge.home
    home.connector_db.write_bytes(damage)
    assert await _start(home.root) == "store.damaged"
    assert home.connector_db.read_bytes() == damage


async def test_taken_port_names_its_flag(tmp_path: Path) -> None:
    """And nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert await _start(tmp_path / "home", listen=f"127.0.0.1:{port}") == "connector.port_taken"


async def test_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """It is not replaced."""
    (tmp_path / "home").write_text("in the way")
    assert await _start(tmp_path / "home") == "home.not_directory"


async def test_public_url_with_a_path_is_refused(tmp_path: Path) -> None:
    """Cookies and origins have no path."""
    assert await _start(tmp_path / "home", public_url="https://chat.example/skep") == "setting.invalid"


async def test_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """Words that cannot be stored are refused, and taken again when there is room."""
    async with running_edge(tmp_path / "home") as edge:
        await edge.ensure()
    home = Home(tmp_path / "home")
    store = await open_connector(home.connector_db)
    try:
        pages = await store.write(_fill)
        with pytest.raises(SkepError) as raised:
            await store.write(lambda tx: tx.put_meta("big", "x" * 1_000_000))
        assert raised.value.code == "store.unavailable"
        await store.write(lambda tx: _limit_pages(tx, pages + 10_000))
        await store.write(lambda tx: tx.put_meta("big", "x" * 1_000_000))
    finally:
        await store.close()
    async with running_edge(home.root) as edge:
        assert await edge.code()


# What every answer carries.


async def test_every_answer_carries_the_policy(tmp_path: Path) -> None:
    """Page, data, error and refusal alike; data is never cached."""
    async with running_edge(tmp_path / "home") as edge:
        for path, host in (
            ("/", None),
            ("/healthz", None),
            ("/api/me", None),
            ("/nope", None),
            ("/", "evil"),
        ):
            headers = {"Host": host} if host else {}
            async with edge.http.get(edge.url + path, headers=headers) as answer:
                assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
                assert "aiohttp" not in answer.headers["Server"]
        async with edge.http.get(f"{edge.url}/api/me") as answer:
            assert answer.headers["Cache-Control"] == "no-store"
        async with edge.http.get(f"{edge.url}/healthz") as answer:
            assert await answer.json() == {"ok": True}


@pytest.mark.parametrize(
    "path", ["/../keys/connector.key", "/%2e%2e/x", "/assets/..%2f..%2fpages.py", "/assets/", "/.git"]
)
async def test_only_files_of_the_page_are_served(tmp_path: Path, path: str) -> None:
    """No path leads out of the directory, or to a directory."""
    async with running_edge(tmp_path / "home") as edge:
        assert await _raw_status(edge, path) == 404


async def _raw_status(edge: Edge, path: str) -> int:
    """Ask for exactly this path, which a client library would tidy up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{edge.port}\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def test_missing_page_says_how_to_build_it(tmp_path: Path) -> None:
    """And the built one is served from then on, hashed files for ever."""
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    app = web.Application()
    Pages(tmp_path / "chat").add_routes(app.router)
    async with TestClient(TestServer(app)) as client:
        assert "make web" in await (await client.get("/")).text()
        (tmp_path / "chat" / "assets").mkdir(parents=True)
        (tmp_path / "chat" / "index.html").write_text("<!doctype html>built")
        (tmp_path / "chat" / "assets" / "a-1.js").write_text("1")
        assert await (await client.get("/")).text() == "<!doctype html>built"
        asset = await client.get("/assets/a-1.js")
        assert asset.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert "immutable" in asset.headers["Cache-Control"]


def _fill(tx: ConnectorTx) -> int:
    """Forbid the database to grow; return how long it is, in pages."""
    pages: int = tx._execute("PRAGMA page_count").fetchall()[0][0]  # pyright: ignore[reportPrivateUsage]
    _limit_pages(tx, pages)
    return pages


def _limit_pages(tx: ConnectorTx, pages: int) -> None:
    tx._execute(f"PRAGMA max_page_count = {pages}").fetchall()  # pyright: ignore[reportPrivateUsage]


def test_hub_forgets_an_account_that_nobody_looks_at() -> None:
    """Publishing to nobody costs nothing."""
    hub = Hub()
    hub.publish("owner", 1, {"t": "x"})
    assert hub.live("owner") is None
