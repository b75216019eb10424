"""The upgrade of `/relay`: who may open a session, and how everybody else is refused.

Source: relay contract, sections 2.3 and 9. A closed code of 4401 can switch a gateway off for good, so it is said
only for certain; a token that is merely old is 401, a store that is away is 503.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import hdrs, web

from skep.connector.seal import Seal
from skep.connector.sessions import CLOSE_UNAUTHORIZED, GatewayIdentity, Sessions
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError, WireError
from skep.foundation.log import get_logger
from skep.store.sqlite.connector import ConnectorStore, ConnectorTx, GatewayRow, SealedRow
from skep.wire.relay.frames import MAX_LINE_BYTES
from skep.wire.relay.token import Verdict, check_token, peek_gateway_id

__all__ = ["RelayUpgrade", "secret_name"]

HEARTBEAT_S: Final = 20.0
LOOKUP_WITHIN_S: Final = 5.0
MAX_MESSAGE_BYTES: Final = 2 * MAX_LINE_BYTES
"""A line that is too long is skipped; only a message that is far too long ends the session."""

_log = get_logger(part="relay")


class RelayUpgrade:
    """`GET /relay`."""

    def __init__(self, *, store: ConnectorStore, sessions: Sessions, seal: Seal, clock: Clock) -> None:
        self._store: Final = store
        self._sessions: Final = sessions
        self._seal: Final = seal
        self._clock: Final = clock

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve `/relay`."""
        router.add_get("/relay", self._upgrade)

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            compress=False,
            heartbeat=HEARTBEAT_S,
            max_msg_size=MAX_MESSAGE_BYTES,
            timeout=1.0,
            decode_text=False,
        )
        if not socket.can_prepare(request):
            raise WireError("this is a WebSocket")
        try:
            gateway = await self._authenticate(request)
        except (SkepError, TimeoutError) as error:
            # Nothing is known of the gateway, so nothing is said of it.
            _log.warning("gateway_record_not_read", problem=type(error).__name__)
            return _refusal(503, "try again")
        if isinstance(gateway, Verdict):
            if gateway is Verdict.EXPIRED:
                return _refusal(401, "the token has expired")
            await socket.prepare(request)
            await socket.close(code=CLOSE_UNAUTHORIZED, message=b"unauthorized")
            return socket
        await socket.prepare(request)
        await self._sessions.serve(socket, gateway)
        return socket

    async def _authenticate(self, request: web.Request) -> GatewayIdentity | Verdict:
        """Return whose token came with `request`, or why nobody's; the same work for unknown ids."""
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer":
            token = ""
        gateway_id = peek_gateway_id(token) or ""
        now_ms = self._clock.now_ms()

        def look_up(tx: ConnectorTx) -> tuple[GatewayRow | None, list[SealedRow]]:
            return tx.gateway(gateway_id), tx.secrets(gateway_id, now_ms=now_ms)

        async with asyncio.timeout(LOOKUP_WITHIN_S):
            row, sealed = await self._store.read(look_up)
        secrets = [self._seal.open(item.sealed, name=secret_name(gateway_id, item.mark)) for item in sealed]
        if row is None or row.revoked_at is not None:
            secrets = []
        check = check_token(token, secrets=secrets, now_s=now_ms // 1000, upgrade=True)
        if check.verdict is not Verdict.VALID or row is None:
            return Verdict.EXPIRED if check.verdict is Verdict.EXPIRED else Verdict.REFUSED
        return GatewayIdentity(gateway_id=row.gateway_id, tenant=row.tenant, instance=row.instance)


def secret_name(gateway_id: str, mark: str) -> str:
    """Return what a gateway's secret is sealed under."""
    return f"gateway:{gateway_id}:{mark}"


def _refusal(status: int, problem: str) -> web.Response:
    return web.json_response({"error": problem}, status=status)
