"""The dashboard's HTTP server: loopback by default, one cookie, a closed list of calls.

Source: control protocol, sections 9 and 11; hive, section 11; reliability, section 3.2.

    GET    /, /assets/…        the page
    POST   /api/session        {once} → the session's cookie
    DELETE /api/session        signs out
    POST   /api/call/METHOD    arguments → result, in the name of the cookie's session
    GET    /api/events         server-sent events
    GET    /healthz            {"ok": true}

The session is taken from the cookie alone, never from a body; whether it may do what it asks is
decided by the daemon.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from skep.dashboard.daemon import Daemon, Position
from skep.dashboard.events import EventStream
from skep.dashboard.listening import listen, tell_port
from skep.dashboard.pages import NOT_BUILT, Pages
from skep.dashboard.site import HEADERS, Site
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.paths import Home
from skep.foundation.rpc.frames import decode_args
from skep.foundation.settings import Settings, parse_listen
from skep.wire.control.base import NoArgs
from skep.wire.control.operator import (
    AUTH_LOGIN,
    AUTH_LOGOUT,
    HIVE_SUBSCRIBE,
    WEB,
    AuthLoginArgs,
    AuthLoginResult,
)

__all__ = ["CALLS", "Dashboard", "run_dashboard"]

_log = get_logger(part="dashboard")

CALLS: Final = {
    name: method
    for name, method in WEB.methods.items()
    if name not in {AUTH_LOGIN.name, AUTH_LOGOUT.name, HIVE_SUBSCRIBE.name}
}
"""What a page may call. The other three have routes of their own, so that a page never sees a session."""

_MAX_BODY: Final = 128 * 1024
_BODY_S: Final = 10
_MAX_STREAMS: Final = 64
_MAX_STREAMS_PER_SESSION: Final = 12
_STOP_S: Final = 2.0

_STATUS: Final = {
    "sign_in": 401,
    "not_allowed": 403,
    "step_up": 403,
    "not_found": 404,
    "unknown_method": 404,
    "conflict": 409,
    "idempotency_conflict": 409,
    "closed": 409,
    "too_large": 413,
    "busy": 429,
    "rate_limited": 429,
    "connection_lost": 503,
    "unavailable": 503,
    "shutting_down": 503,
    "timeout": 504,
    "internal": 502,
    "proto_unsupported": 502,
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _HttpError(SkepError):
    """A request that is not passed on."""

    def __init__(self, status: int, code: str, problem: str, *, hint: str = "") -> None:
        super().__init__(problem, hint=hint, code=f"dashboard.{code}")
        self.status: Final = status


async def run_dashboard(settings: Settings, home: Home, clock: Clock, stop: asyncio.Event) -> None:
    """Serve the dashboard until `stop` is set.

    Raises:
        SettingError: The port is taken, or an address is not one.
    """
    host, port = parse_listen(settings.web.listen, "web.listen")
    sockets, port = listen(host, port)
    daemon = Daemon(home.web_socket)
    site = Site.at(host, port, public_url=settings.web.public_url)
    dashboard = Dashboard(daemon, site=site, clock=clock)
    runner = web.AppRunner(
        dashboard.app(), access_log=None, handler_cancellation=True, shutdown_timeout=_STOP_S
    )
    await runner.setup()
    try:
        for sock in sockets:
            await web.SockSite(runner, sock).start()
        with tell_port(home, port):
            _log.info("dashboard_listening", host=host, port=port)
            await stop.wait()
            dashboard.end_streams()
    finally:
        await runner.cleanup()
        daemon.close()


class Dashboard:
    """The routes and what they share."""

    def __init__(self, daemon: Daemon, *, site: Site, clock: Clock, root: Path | None = None) -> None:
        self._daemon: Final = daemon
        self._site: Final = site
        self._clock: Final = clock
        self._pages: Final = Pages(root or Path(__file__).parents[1] / "_web" / "dashboard")
        self._streams: Final[defaultdict[str, set[EventStream]]] = defaultdict(set)

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._guard], client_max_size=_MAX_BODY)
        app.on_response_prepare.append(self._add_headers)
        app.router.add_post("/api/session", self._sign_in)
        app.router.add_delete("/api/session", self._sign_out)
        app.router.add_post("/api/call/{method}", self._call)
        app.router.add_get("/api/events", self._events, allow_head=False)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/{path:.*}", self._page)
        return app

    def end_streams(self, session: str | None = None) -> None:
        """End the event streams of `session`, or all of them."""
        chosen = list(self._streams.values()) if session is None else [self._streams.get(session, set())]
        for stream in [stream for streams in chosen for stream in streams]:
            stream.end()

    # --- routes ---

    async def _page(self, request: web.Request) -> web.StreamResponse:
        page = self._pages.get(request.path)
        if page is None:
            if request.path == "/":
                return web.Response(
                    body=NOT_BUILT,
                    status=503,
                    headers={"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"},
                )
            raise _HttpError(404, "not_found", "nothing is here")
        headers = {"Content-Type": page.media_type, "Cache-Control": page.cache_control, "ETag": page.etag}
        if request.headers.get("If-None-Match") == page.etag:
            return web.Response(status=304, headers=headers)
        body = page.body
        if page.packed is not None:
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request.headers.get("Accept-Encoding", ""):
                headers["Content-Encoding"] = "gzip"
                body = page.packed
        return web.Response(body=body, headers=headers)

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        return _json({"ok": True, "daemon": await self._daemon.is_there()})

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        args = decode_args(msgspec.Raw(await self._body(request)), AuthLoginArgs)
        result = await self._daemon.call(AUTH_LOGIN, args, session=None)
        assert isinstance(result, AuthLoginResult)
        response = _json({"operator": result.operator, "expires_at": result.expires_at})
        response.set_cookie(
            self._site.cookie,
            result.session,
            path="/",
            max_age=max(0, (result.expires_at - self._clock.now_ms()) // 1000),
            httponly=True,
            samesite="Strict",
            secure=self._site.is_tls,
        )
        return response

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        self.end_streams(session)
        await self._daemon.call(AUTH_LOGOUT, NoArgs(), session=session)
        response = web.Response(status=204)
        response.del_cookie(
            self._site.cookie, path="/", httponly=True, samesite="Strict", secure=self._site.is_tls
        )
        return response

    async def _call(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        method = CALLS.get(request.match_info["method"])
        if method is None:
            raise _HttpError(404, "unknown_method", "no such method")
        args = decode_args(msgspec.Raw(await self._body(request) or b"{}"), method.args)
        return _json(await self._daemon.call(method, args, session=session))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        mine = len(self._streams.get(session, ()))
        if mine >= _MAX_STREAMS_PER_SESSION or sum(map(len, self._streams.values())) >= _MAX_STREAMS:
            raise _HttpError(429, "too_many", "too many pages are open", hint="close some tabs")
        after = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        stream = EventStream(self._daemon, session=session, after=Position.parse(after))
        self._streams[session].add(stream)
        first = None
        try:
            first = await stream.open()
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    "X-Accel-Buffering": "no",
                }
            )
            with suppress(ConnectionResetError):  # the tab is gone
                await response.prepare(request)
                await stream.run(response, first)
            return response
        finally:
            if first is not None:
                first.caller.close()
            self._streams[session].discard(stream)
            if not self._streams[session]:
                del self._streams[session]

    # --- rules ---

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuse what is not ours before anything is done, and give each error one shape."""
        try:
            if not self._site.is_host(request.headers.get("Host", "")):
                raise _HttpError(421, "host", "this dashboard does not answer to that name")
            if request.path.startswith("/api/") and not self._site.is_same_origin(request.headers):
                raise _HttpError(403, "cross_site", "the request did not come from the dashboard's own page")
            if request.method == "POST" and request.content_type != "application/json":
                raise _HttpError(415, "not_json", "the body is not `application/json`")
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(_HttpError(413, "too_large", f"the body is over {_MAX_BODY} bytes"), 413)
        except web.HTTPException as error:
            code = "not_found" if error.status == 404 else "method_not_allowed"
            return _refusal(_HttpError(error.status, code, error.reason.lower()), error.status)
        except _HttpError as error:
            return _refusal(error, error.status)
        except SkepError as error:
            return _refusal(error, _STATUS.get(error.wire_code, 400))
        except Exception as error:  # noqa: BLE001 - the border: the page gets an incident id, the log the rest
            incident = secrets.token_hex(4)
            _log.error("request_failed", incident=incident, exc_info=error)
            return _refusal(_HttpError(500, "internal", f"unexpected fault, incident {incident}"), 500)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        if self._site.is_tls:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"

    async def _body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(_BODY_S):
                return await request.read()
        except TimeoutError as exc:
            raise _HttpError(408, "too_slow", f"the body did not come within {_BODY_S} s") from exc

    def _session(self, request: web.Request) -> str:
        session = request.cookies.get(self._site.cookie, "")
        if not session or len(session) > 256:
            raise _HttpError(401, "sign_in", "not signed in", hint="run `skep web link`")
        return session


def _json(result: object) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(result),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _refusal(error: SkepError, status: int) -> web.Response:
    response = _json(error.as_json())
    response.set_status(status)
    retry_ms = getattr(error, "retry_after_ms", None)
    if isinstance(retry_ms, int):
        response.headers["Retry-After"] = str(max(1, -(-retry_ms // 1000)))
    return response
