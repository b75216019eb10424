"""The web chat's API over HTTP, and the upgrade of its socket.

Source: control protocol, section 13; reliability, section 3.2. A cookie counts only for a request that our own page
made; a terminal client sends a bearer token.
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import hdrs, web

from skep.connector.http import Sender, Site, read_json, sender_of
from skep.connector.interrupts import Interrupts
from skep.connector.platforms.web.accounts import SESSION_IDLE_MS, Accounts, Session
from skep.connector.platforms.web.hub import Hub
from skep.connector.platforms.web.inbox import Inbox
from skep.connector.platforms.web.payloads import (
    MAX_SOCKET_BYTES,
    ConversationRow,
    Me,
    NewConversation,
    NewSession,
    PatchConversation,
)
from skep.connector.platforms.web.platform import new_id, to_message
from skep.connector.platforms.web.socket import TabSocket
from skep.foundation.clock import Clock
from skep.foundation.errors import RefusedError, SignInAgainError, WireError
from skep.store.sqlite.connector import ConnectorStore, ConnectorTx

__all__ = ["WebApi"]

HEARTBEAT_S: Final = 30.0
_PAGE: Final = 50
_MESSAGES_MAX: Final = 100


class WebApi:
    """Routes of the web chat."""

    def __init__(
        self,
        site: Site,
        *,
        store: ConnectorStore,
        accounts: Accounts,
        hub: Hub,
        inbox: Inbox,
        interrupts: Interrupts,
        clock: Clock,
    ) -> None:
        self._site: Final = site
        self._store: Final = store
        self._accounts: Final = accounts
        self._hub: Final = hub
        self._inbox: Final = inbox
        self._interrupts: Final = interrupts
        self._clock: Final = clock
        self._sockets: Final[set[web.WebSocketResponse]] = set()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve `/api`."""
        router.add_post("/api/session", self._sign_in)
        router.add_delete("/api/session", self._sign_out)
        router.add_get("/api/me", self._me)
        router.add_get("/api/conversations", self._conversations)
        router.add_post("/api/conversations", self._new_conversation)
        router.add_patch("/api/conversations/{conversation}", self._change_conversation)
        router.add_get("/api/conversations/{conversation}/messages", self._messages)
        router.add_get("/api/socket", self._socket)

    async def close(self) -> None:
        """Tell every tab that the server restarts."""
        for socket in list(self._sockets):
            await socket.close(code=1012, message=b"restarting", drain=False)

    async def check_sessions(self) -> None:
        """Close the tabs of sessions that are over."""
        handles = self._hub.handles()
        for handle in await self._accounts.gone(handles) if handles else ():
            self._hub.sign_out(handle)

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        sender = sender_of(request, self._site)
        if sender is Sender.ELSEWHERE:
            raise _cross_site()
        body = await read_json(request, NewSession)
        if body.bearer:
            return _json({"token": await self._accounts.sign_in(body.once, kind="bearer")})
        if sender is Sender.NO_BROWSER:
            raise _cross_site()
        handle = await self._accounts.sign_in(body.once, kind="cookie")
        response = web.Response(status=204)
        response.set_cookie(
            self._site.cookie,
            handle,
            max_age=SESSION_IDLE_MS // 1000,
            path="/",
            secure=self._site.is_https,
            httponly=True,
            samesite="Strict",
        )
        return response

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        session = await self._session(request, changes=True)
        await self._accounts.sign_out(session)
        self._hub.sign_out(session.handle)
        response = web.Response(status=204)
        response.del_cookie(
            self._site.cookie, path="/", secure=self._site.is_https, httponly=True, samesite="Strict"
        )
        return response

    async def _me(self, request: web.Request) -> web.StreamResponse:
        session = await self._session(request)
        return _json(Me(account=session.account, name=session.name))

    async def _conversations(self, request: web.Request) -> web.StreamResponse:
        session = await self._session(request)
        before = request.query.get("before")
        rows = await self._store.read(
            lambda tx: tx.web_conversations(session.account, before=before, limit=_PAGE)
        )
        return _json(
            [
                ConversationRow(
                    id=row.conversation,
                    title=row.title,
                    last_at=row.last_at,
                    unread=row.unread,
                    archived=bool(row.is_archived),
                )
                for row in rows
            ]
        )

    async def _new_conversation(self, request: web.Request) -> web.StreamResponse:
        session = await self._session(request, changes=True)
        body = await read_json(request, NewConversation)
        conversation, now_ms = new_id("c", self._clock), self._clock.now_ms()
        await self._store.write(
            lambda tx: tx.put_web_conversation(
                conversation, account=session.account, title=body.title or None, now_ms=now_ms
            )
        )
        return _json({"id": conversation})

    async def _change_conversation(self, request: web.Request) -> web.StreamResponse:
        session = await self._session(request, changes=True)
        body = await read_json(request, PatchConversation)
        conversation = request.match_info["conversation"]

        def change(tx: ConnectorTx) -> None:
            _check_own(tx, conversation, session)
            tx.set_web_conversation(conversation, title=body.title or None, is_archived=body.archived)
            if body.read:
                tx.read_web_conversation(conversation)

        await self._store.write(change)
        return web.Response(status=204)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        session = await self._session(request)
        conversation, before = request.match_info["conversation"], request.query.get("before")
        limit = _limit(request.query.get("limit"))

        def read(tx: ConnectorTx) -> list[object]:
            _check_own(tx, conversation, session)
            return [to_message(row) for row in tx.web_messages(conversation, before=before, limit=limit)]

        return _json(await self._store.read(read))

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        session = await self._session(request, changes=True)
        socket = web.WebSocketResponse(
            compress=False,
            heartbeat=HEARTBEAT_S,
            max_msg_size=MAX_SOCKET_BYTES,
            timeout=1.0,
            decode_text=False,
            writer_limit=0,
        )
        if not socket.can_prepare(request):
            raise WireError("this is a WebSocket", code="web.bad_request")
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await TabSocket(
                socket,
                request,
                session,
                store=self._store,
                hub=self._hub,
                inbox=self._inbox,
                interrupts=self._interrupts,
                clock=self._clock,
            ).serve()
        finally:
            self._sockets.discard(socket)
        return socket

    async def _session(self, request: web.Request, *, changes: bool = False) -> Session:
        """Return who asks.

        Raises:
            RefusedError: It changes something and does not come from our own page.
            SignInAgainError: Nobody is signed in.
        """
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        handle = token.strip() if scheme.lower() == "bearer" else None
        if changes:
            sender = sender_of(request, self._site)
            if sender is Sender.ELSEWHERE or (sender is Sender.NO_BROWSER and handle is None):
                raise _cross_site()
        if handle is None:
            handle = request.cookies.get(self._site.cookie)
        session = await self._accounts.session(handle) if handle else None
        if session is None:
            raise SignInAgainError(
                "you are not signed in", hint="get a link: `skep chat --link`", code="web.sign_in"
            )
        return session


def _cross_site() -> RefusedError:
    return RefusedError("this request does not come from the chat's own page", code="web.cross_site")


def _check_own(tx: ConnectorTx, conversation: str, session: Session) -> None:
    owner = tx.web_conversation(conversation)
    if owner is None or owner[0] != session.account:
        raise RefusedError("no such conversation", code="web.not_found")


def _limit(text: str | None) -> int:
    if text is None:
        return _PAGE
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MESSAGES_MAX:
        raise WireError(f"`limit` is not 1 to {_MESSAGES_MAX}", code="web.bad_request")
    return int(text)


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
