"""A running dashboard as a test sees it, and behind it a daemon whose answers the test sets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from skep.dashboard import run_dashboard
from skep.foundation.clock import Clock
from skep.foundation.paths import Home
from skep.foundation.settings import Settings, WebSettings
from support.fake_daemon import EXPIRES_AT, FakeDaemon
from support.waiting import eventually

__all__ = ["NOW_MS", "SAME_ORIGIN", "Running", "running_dashboard"]

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
NOW_MS = EXPIRES_AT - 12 * 3_600_000


@dataclass
class Running:
    """A dashboard that answers."""

    home: Home
    daemon: FakeDaemon
    port: int
    http: aiohttp.ClientSession
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    async def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs: Any
    ) -> tuple[int, Any]:
        """Return status and JSON (or text) of one request from our own page."""
        sent = SAME_ORIGIN if headers is None else headers
        async with self.http.request(method, self.origin + path, headers=sent, **kwargs) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json else text

    async def sign_in(self, once: str = "good") -> None:
        """Get the cookie."""
        status, _ = await self.ask("POST", "/api/session", json={"once": once})
        assert status == 200


@asynccontextmanager
async def running_dashboard(home: Home, daemon: FakeDaemon, *, clock: Clock) -> AsyncIterator[Running]:
    """Run a dashboard on a port of its own, with `daemon` on its socket."""
    await daemon.start(home.web_socket)
    stop = asyncio.Event()
    jar = aiohttp.CookieJar(unsafe=True)
    settings = Settings(web=WebSettings(listen="localhost:0"))
    async with asyncio.TaskGroup() as group, aiohttp.ClientSession(cookie_jar=jar) as http:
        group.create_task(run_dashboard(settings, home, clock, stop))
        port = await eventually(lambda: int(json.loads(home.ports.read_text())["dashboard"]))
        yield Running(home=home, daemon=daemon, port=port, http=http, stop=stop)
        stop.set()
    await daemon.stop()
