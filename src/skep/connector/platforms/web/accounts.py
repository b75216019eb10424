"""Who is signed in to the web chat: one-time codes and sessions.

Source: control protocol, sections 11 and 13; reliability, section 3.2. Codes and session handles are 128 random
bits; only their hashes are kept. A code works once, and says afterwards whether it was used or too old.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from skep.connector.limits import Bucket
from skep.connector.platform import LOCAL_TENANT
from skep.connector.platforms.web.platform import SITE, WEB
from skep.foundation.clock import Clock
from skep.foundation.errors import BusyError, RefusedError, SignInAgainError
from skep.foundation.ids import fingerprint, random_token
from skep.store.sqlite.connector import ConnectorStore, ConnectorTx

__all__ = ["OWNER", "SESSION_IDLE_MS", "Accounts", "Session", "seed_owner"]

OWNER: Final = "owner"
"""Account of whoever runs this Skep."""
SESSION_IDLE_MS: Final = 30 * 86_400_000
_SEEN_EVERY_MS: Final = 3_600_000
_TRIES_PER_MINUTE: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who is signed in.

    Attributes:
        handle: Hash of the session's handle.
    """

    handle: bytes
    account: str
    name: str
    tenant: str


class Accounts:
    """Codes and sessions of the web chat."""

    def __init__(self, store: ConnectorStore, clock: Clock) -> None:
        self._store: Final = store
        self._clock: Final = clock
        self._tries: Final = Bucket(per_minute=_TRIES_PER_MINUTE, burst=_TRIES_PER_MINUTE, clock=clock)

    async def new_code(self, account: str, *, ttl_s: int) -> str:
        """Return a one-time code for `account`.

        Raises:
            RefusedError: There is no such account (`not_found`).
        """
        code = random_token()
        await self._store.write(partial(self._keep_code, account, code, ttl_s))
        return code

    async def sign_in(self, once: str, *, kind: Literal["cookie", "bearer"]) -> str:
        """Use a code up; return the handle of a new session.

        Raises:
            SignInAgainError: Wrong, used or expired; the code tells which.
            BusyError: Too many tries.
        """
        wait_s = self._tries.spend()
        if wait_s:
            raise BusyError("too many tries to sign in", code="web.rate_limited", retry_after_s=wait_s)
        handle = random_token()
        await self._store.write(partial(self._redeem, once, handle, kind))
        return handle

    async def session(self, handle: str) -> Session | None:
        """Return the session of `handle`, and keep it alive."""
        key = fingerprint(handle)
        now_ms = self._clock.now_ms()
        row = await self._store.read(lambda tx: tx.web_session(key, seen_after=now_ms - SESSION_IDLE_MS))
        if row is None:
            return None
        if now_ms - row.seen_at > _SEEN_EVERY_MS:
            await self._store.write(lambda tx: tx.web_session_seen(key, now_ms=now_ms))
        return Session(handle=key, account=row.account, name=row.name, tenant=row.tenant)

    async def sign_out(self, session: Session) -> None:
        """Close a session for good."""
        await self._store.write(lambda tx: tx.drop_web_session(session.handle))

    async def gone(self, handles: set[bytes]) -> set[bytes]:
        """Return those of `handles` whose sessions are over, and keep the others alive."""
        now_ms = self._clock.now_ms()
        return await self._store.write(partial(_keep_alive, handles, now_ms))

    def _keep_code(self, account: str, code: str, ttl_s: int, tx: ConnectorTx) -> None:
        if tx.web_account(account) is None:
            raise RefusedError(f"no web account `{account}`", code="web.not_found")
        tx.put_web_code(fingerprint(code), account=account, expires_at=self._clock.now_ms() + ttl_s * 1000)

    def _redeem(self, once: str, handle: str, kind: Literal["cookie", "bearer"], tx: ConnectorTx) -> None:
        now_ms = self._clock.now_ms()
        key = fingerprint(once)
        code = tx.web_code(key)
        if code is None:
            raise _refusal("is not one of ours", "web.code_wrong")
        if code.used_at is not None:
            raise _refusal("was used already", "web.code_used")
        if now_ms >= code.expires_at:
            raise _refusal("has expired", "web.code_expired")
        tx.use_web_code(key, now_ms=now_ms)
        tx.put_web_session(fingerprint(handle), account=code.account, kind=kind, now_ms=now_ms)


def seed_owner(tx: ConnectorTx, *, instance: str, now_ms: int) -> None:
    """Make the local tenant with its owner, and bind every account of it that is bound to nobody."""
    tx.add_tenant(LOCAL_TENANT, now_ms=now_ms)
    tx.add_web_account(OWNER, tenant=LOCAL_TENANT, name=OWNER, is_owner=True, now_ms=now_ms)
    for account in tx.web_accounts_of(LOCAL_TENANT):
        tx.bind(WEB, SITE, account, tenant=LOCAL_TENANT, instance=instance, now_ms=now_ms)


def _keep_alive(handles: set[bytes], now_ms: int, tx: ConnectorTx) -> set[bytes]:
    gone: set[bytes] = set()
    for handle in handles:
        row = tx.web_session(handle, seen_after=now_ms - SESSION_IDLE_MS)
        if row is None:
            gone.add(handle)
        elif now_ms - row.seen_at > _SEEN_EVERY_MS:
            tx.web_session_seen(handle, now_ms=now_ms)
    return gone


def _refusal(what: str, code: str) -> SignInAgainError:
    return SignInAgainError(f"the sign-in link {what}", hint="get a new one: `skep chat --link`", code=code)
