"""Administration over `connector.sock`: status, gateways, sign-in codes.

Source: control protocol, section 10; relay contract, sections 9, 10 and 13. A secret or a code appears in one
answer and is never listed. A gateway that is revoked loses its sessions, its people and its buffer.
"""

from __future__ import annotations

import hashlib
import secrets
from functools import partial
from typing import Final

from skep import __version__
from skep.connector.deliveries import Deliveries
from skep.connector.egress import Egress
from skep.connector.http import Site
from skep.connector.platform import LOCAL_TENANT
from skep.connector.platforms.web.accounts import Accounts, seed_owner
from skep.connector.platforms.web.inbox import Inbox
from skep.connector.platforms.web.platform import SITE, WEB
from skep.connector.seal import Seal
from skep.connector.sessions import Sessions
from skep.connector.upgrade import secret_name
from skep.foundation.clock import Clock
from skep.foundation.errors import RefusedError, WireError
from skep.foundation.health import Finding
from skep.foundation.rpc import Call, Handler
from skep.store.sqlite.connector import ConnectorStore, ConnectorTx
from skep.store.sqlite.connector import GatewayRow as StoredGateway
from skep.wire.control.base import Empty, NoArgs
from skep.wire.control.connector import (
    ConnectorStatus,
    GatewayEnsureArgs,
    GatewayEnsureResult,
    GatewayRevokeArgs,
    GatewayRow,
    GatewayRows,
    PlatformStatus,
    WebCodeArgs,
    WebCodeResult,
)

__all__ = ["Management"]

SECRET_BYTES: Final = 32
OLD_SECRET_FOR_MS: Final = 24 * 3_600_000
MAX_ID_CHARS: Final = 128


class Management:
    """Handlers of `connector.sock`."""

    def __init__(
        self,
        *,
        store: ConnectorStore,
        seal: Seal,
        accounts: Accounts,
        sessions: Sessions,
        deliveries: Deliveries,
        egress: Egress,
        inbox: Inbox,
        site: Site,
        clock: Clock,
    ) -> None:
        self._store: Final = store
        self._seal: Final = seal
        self._accounts: Final = accounts
        self._sessions: Final = sessions
        self._deliveries: Final = deliveries
        self._egress: Final = egress
        self._inbox: Final = inbox
        self._site: Final = site
        self._clock: Final = clock
        self._started_at: Final = clock.now_ms()

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by method."""
        return {
            "status.get": self._status,
            "gateway.ensure": self._ensure,
            "gateway.list": self._list,
            "gateway.revoke": self._revoke,
            "web.code": self._code,
        }

    async def _status(self, _call: Call, _args: NoArgs) -> ConnectorStatus:
        rows = await self._rows()
        web = PlatformStatus(
            platform=WEB, account=SITE, state="ready", last_event_at=self._inbox.last_event_at
        )
        return ConnectorStatus(
            build=__version__,
            started_at=self._started_at,
            chat_url=self._site.url,
            gateways=rows,
            platforms=(web,),
            findings=tuple(self._findings()),
        )

    async def _list(self, _call: Call, _args: NoArgs) -> GatewayRows:
        return GatewayRows(gateways=await self._rows())

    async def _ensure(self, _call: Call, args: GatewayEnsureArgs) -> GatewayEnsureResult:
        if not 0 < len(args.gateway_id) <= MAX_ID_CHARS:
            raise WireError(
                f"`gateway_id` has not 1 to {MAX_ID_CHARS} characters", code="control.invalid_argument"
            )
        secret = secrets.token_hex(SECRET_BYTES)
        mark = hashlib.sha256(secret.encode()).hexdigest()[:16]
        sealed = self._seal.close(secret, name=secret_name(args.gateway_id, mark))
        is_new = await self._store.write(partial(self._ensure_in, args, mark, sealed))
        self._egress.forget_chats()
        return GatewayEnsureResult(secret=secret if is_new else None)

    def _ensure_in(self, args: GatewayEnsureArgs, mark: str, sealed: bytes, tx: ConnectorTx) -> bool:
        """Make the gateway what is asked; return whether it got the new secret."""
        now_ms = self._clock.now_ms()
        if not tx.has_tenant(args.tenant):
            raise RefusedError(f"no tenant `{args.tenant}`", code="connector.not_found")
        known = tx.gateway(args.gateway_id)
        if known is not None and known.revoked_at is None and known.tenant != args.tenant:
            raise RefusedError(
                f"gateway `{args.gateway_id}` belongs to another tenant", code="connector.conflict"
            )
        if known is None or known.revoked_at is not None:
            tx.put_gateway(args.gateway_id, tenant=args.tenant, instance=args.gateway_id, now_ms=now_ms)
        if args.tenant == LOCAL_TENANT:
            seed_owner(tx, instance=args.gateway_id, now_ms=now_ms)
        if args.have in {row.mark for row in tx.secrets(args.gateway_id, now_ms=now_ms)}:
            return False
        tx.put_secret(
            args.gateway_id, mark=mark, sealed=sealed, now_ms=now_ms, older_until=now_ms + OLD_SECRET_FOR_MS
        )
        return True

    async def _revoke(self, _call: Call, args: GatewayRevokeArgs) -> Empty:
        row = await self._store.write(partial(self._revoke_in, args.gateway_id))
        self._egress.forget_chats()
        self._sessions.revoke(row.gateway_id)
        self._deliveries.forget(row.tenant, row.instance)
        return Empty()

    def _revoke_in(self, gateway_id: str, tx: ConnectorTx) -> StoredGateway:
        row = tx.gateway(gateway_id)
        if row is None or row.revoked_at is not None:
            raise RefusedError(f"no gateway `{gateway_id}`", code="connector.not_found")
        tx.drop_instance(row.tenant, row.instance)  # people first: from here on nothing reaches it
        tx.revoke_gateway(gateway_id, now_ms=self._clock.now_ms())
        return row

    async def _code(self, _call: Call, args: WebCodeArgs) -> WebCodeResult:
        code = await self._accounts.new_code(args.account, ttl_s=args.ttl_s)
        return WebCodeResult(code=code, url=f"{self._site.url}/#once={code}")

    async def _rows(self) -> tuple[GatewayRow, ...]:
        rows = await self._store.read(lambda tx: tx.gateways())
        return tuple(
            GatewayRow(
                gateway_id=row.gateway_id,
                tenant=row.tenant,
                connected=self._sessions.is_connected(row.gateway_id),
                buffered=self._deliveries.buffered(row.tenant, row.instance),
                last_seen_at=row.last_seen_at,
                is_skep=bool(row.is_skep),
            )
            for row in rows
        )

    def _findings(self) -> list[Finding]:
        found = [
            Finding(
                id="connector.gateway_twice",
                severity="broken",
                problem=f"two processes use gateway `{gateway_id}` at once",
                fix="stop one of them, or give it an id of its own",
            )
            for gateway_id in sorted(self._sessions.quarrels)
        ]
        found += [
            Finding(
                id="connector.buffer_dropped",
                severity="look",
                problem=f"{count} messages for `{instance}` were given up: too many waited, or too long",
                fix="start its gateway: `skep up`",
            )
            for (_, instance), count in sorted(self._deliveries.dropped.items())
        ]
        return found
