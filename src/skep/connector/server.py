"""The connector process: one port for the chat and `/relay`, one socket for its administrator.

Source: control protocol, sections 10, 11 and 13; relay contract, sections 2 and 11. Owns `connector.db` and
`keys/connector.key`. Stops in this order: no new connections, sockets closed with 1012, platforms, what was
acknowledged written down, the store closed.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

from aiohttp import web

from skep.connector.deliveries import Bounds, Deliveries
from skep.connector.egress import Egress, Identity
from skep.connector.http import MAX_BODY_BYTES, Site, guard, with_headers
from skep.connector.intake import Intake
from skep.connector.interrupts import Interrupts
from skep.connector.management import Management
from skep.connector.platform import LOCAL_INSTANCE, LOCAL_TENANT, Platform
from skep.connector.platforms.web.accounts import SESSION_IDLE_MS, Accounts, seed_owner
from skep.connector.platforms.web.api import WebApi
from skep.connector.platforms.web.hub import Hub
from skep.connector.platforms.web.inbox import Inbox
from skep.connector.platforms.web.pages import Pages
from skep.connector.platforms.web.platform import WebPlatform
from skep.connector.ports import published_port
from skep.connector.seal import Seal, load_key
from skep.connector.sessions import Sessions
from skep.connector.upgrade import RelayUpgrade
from skep.foundation.clock import Clock
from skep.foundation.errors import SettingError, SkepError
from skep.foundation.log import get_logger
from skep.foundation.paths import Home
from skep.foundation.rpc import Listener
from skep.foundation.settings import ConnectorSettings, Settings, parse_listen
from skep.foundation.tasks import sleep_or
from skep.store.sqlite.connector import BufferedRow, ConnectorStore, ConnectorTx, open_connector
from skep.wire.control.connector import CONNECTOR

__all__ = ["OpenPlatform", "run_connector"]

OpenPlatform = Callable[[Intake, ConnectorStore, Clock], AbstractAsyncContextManager[Platform]]
"""Starts a platform; leaving the context stops it. What it hears before gateways can dial in waits for them."""

CHECK_EVERY_S: Final = 5.0
SESSIONS_EVERY_S: Final = 60.0
SWEEP_EVERY_S: Final = 3_600.0
STOP_WITHIN_S: Final = 2.0
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_EGRESS_KEPT_MS: Final = 8 * _DAY_MS

_log = get_logger(part="connector")


async def run_connector(
    settings: Settings,
    home: Home,
    clock: Clock,
    stop: asyncio.Event,
    *,
    others: Sequence[OpenPlatform] = (),
) -> None:
    """Serve until `stop` is set.

    Args:
        others: Platforms beside the web chat.

    Raises:
        SettingError: Port taken, directory or key not usable, database damaged: nothing was started.
    """
    chosen = settings.connector
    host, port = parse_listen(chosen.listen, "connector.listen")
    home.prepare()
    async with AsyncExitStack() as stack:
        key = load_key(home.connector_key, database=home.connector_db)
        store = await open_connector(home.connector_db)
        stack.push_async_callback(store.close)
        mark, start, waiting = await store.write(lambda tx: _prepare(tx, now_ms=clock.now_ms()))

        platforms: dict[str, Platform] = {}
        deliveries = Deliveries(
            store,
            clock=clock,
            mark=mark,
            start=start,
            bounds=Bounds(
                events=chosen.buffer_events, size=chosen.buffer_mib << 20, age_ms=chosen.buffer_days * _DAY_MS
            ),
            platforms=platforms,
        )
        deliveries.resume(waiting)
        stack.push_async_callback(deliveries.close)
        intake = Intake(store, deliveries, clock)
        egress = Egress(store, platforms, clock)
        hub = Hub()
        stack.callback(hub.close)
        chat = WebPlatform(store, hub, clock)
        platforms[chat.name] = chat
        for open_platform in others:
            platform = await stack.enter_async_context(open_platform(intake, store, clock))
            platforms[platform.name] = platform
        sessions = Sessions(
            store=store,
            deliveries=deliveries,
            egress=egress,
            platforms=platforms,
            provisioned={LOCAL_TENANT: _identities(platforms)},
            clock=clock,
            settle_s=chosen.stock_settle_s,
        )
        seal = Seal(key)
        accounts = Accounts(store, clock)
        inbox = Inbox(intake, hub, clock, per_minute=chosen.web_per_minute)
        interrupts = Interrupts(store, deliveries)

        app = web.Application(client_max_size=MAX_BODY_BYTES)
        sock = _listen(host, port)
        stack.callback(sock.close)
        real_port = sock.getsockname()[1]
        site = Site.of(host=host, port=real_port, public_url=chosen.public_url)
        api = WebApi(
            site,
            store=store,
            accounts=accounts,
            hub=hub,
            inbox=inbox,
            interrupts=interrupts,
            clock=clock,
        )
        _fill(app, site, api, RelayUpgrade(store=store, sessions=sessions, seal=seal, clock=clock))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_WITHIN_S, handle_signals=False)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(sessions.close)
        stack.push_async_callback(api.close)
        site_on_port = web.SockSite(runner, sock, backlog=512)
        await site_on_port.start()
        stack.push_async_callback(site_on_port.stop)

        management = Management(
            store=store,
            seal=seal,
            accounts=accounts,
            sessions=sessions,
            deliveries=deliveries,
            egress=egress,
            inbox=inbox,
            site=site,
            clock=clock,
        )
        listener = Listener(CONNECTOR, management.handlers(), epoch=clock.now_ms())
        await listener.start(home.connector_socket)
        stack.push_async_callback(listener.close)
        stack.enter_context(published_port(home.ports, "chat", real_port))
        _log.info("connector_started", port=real_port, waiting=sum(row.events for row in waiting))
        await _serve_until(stop, intake, deliveries, api, store, clock, chosen)
    _log.info("connector_stopped")


def _prepare(tx: ConnectorTx, *, now_ms: int) -> tuple[str, int, list[BufferedRow]]:
    """Bring a new database to life; return its mark, which start this is, and what waits in it."""
    tx.put_meta("mark", secrets.token_hex(4))
    seed_owner(tx, instance=LOCAL_INSTANCE, now_ms=now_ms)
    return tx.meta("mark") or "", tx.next_start(), tx.buffered()


def _identities(platforms: dict[str, Platform]) -> tuple[Identity, ...]:
    return tuple(
        Identity(platform=name, bot_id=bot_id)
        for name, platform in platforms.items()
        for bot_id in platform.bot_ids
    )


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and not listening yet.

    Raises:
        SettingError: The port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise SettingError(
            f"cannot listen on {host}:{port}: {exc.strerror or 'not an address of this machine'}",
            hint="choose another port: `skep up --chat-port 0`, or set `connector.listen`",
            code="connector.port_taken",
        ) from exc
    sock.setblocking(False)
    return sock


def _fill(app: web.Application, site: Site, api: WebApi, upgrade: RelayUpgrade) -> None:
    app.middlewares.append(guard(site))
    app.on_response_prepare.append(with_headers(site))
    app.router.add_get("/healthz", _healthz)
    upgrade.add_routes(app.router)
    api.add_routes(app.router)
    Pages().add_routes(app.router)


async def _healthz(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"ok": True})


async def _serve_until(
    stop: asyncio.Event,
    intake: Intake,
    deliveries: Deliveries,
    api: WebApi,
    store: ConnectorStore,
    clock: Clock,
    settings: ConnectorSettings,
) -> None:
    """Do what comes round, until `stop` is set."""
    next_sessions_s = SESSIONS_EVERY_S
    next_sweep_s = 0.0
    passed_s = 0.0
    while not await sleep_or(stop, CHECK_EVERY_S):
        passed_s += CHECK_EVERY_S
        deliveries.check_readers()
        try:
            if passed_s >= next_sessions_s:
                next_sessions_s = passed_s + SESSIONS_EVERY_S
                await api.check_sessions()
            if passed_s >= next_sweep_s:
                next_sweep_s = passed_s + SWEEP_EVERY_S
                await deliveries.expire()
                await intake.expire(max(24, settings.dedupe_hours) * _HOUR_MS)
                await store.write(lambda tx: _sweep(tx, settings, now_ms=clock.now_ms()))
        except SkepError as error:
            _log.warning("housekeeping_failed", code=error.code)  # the next round tries again


def _sweep(tx: ConnectorTx, settings: ConnectorSettings, *, now_ms: int) -> None:
    tx.sweep(
        now_ms=now_ms,
        egress_ms=_EGRESS_KEPT_MS,
        web_ms=settings.web_days * _DAY_MS,
        session_ms=SESSION_IDLE_MS,
    )
