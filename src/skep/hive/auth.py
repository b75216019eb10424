"""Operators' sign-in: one-time codes and sessions.

Source: control protocol, sections 9 and 11; reliability, sections 3.2 and 3.4.
Codes and session handles are 128 random bits, told once and kept as hashes. A right code is always
taken; only wrong ones are slowed down, so that nobody can lock an operator out by guessing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from skep.foundation.clock import Clock
from skep.foundation.errors import BusyError, SignInAgainError
from skep.foundation.ids import fingerprint, random_token
from skep.store.ports import HiveTx

__all__ = ["OPERATOR", "Auth", "HiveStore", "Session"]

T = TypeVar("T")

OPERATOR: Final = "operator:local"
SESSION_MS: Final = 12 * 3_600_000
"""How long a session lasts, used or not."""
IDLE_MS: Final = 30 * 60_000
"""How long a session may rest and still act."""
_SEEN_EVERY_MS: Final = 60_000
"""How often the use of a session is written down."""
_KEEP_CODES_MS: Final = 24 * 3_600_000
"""How long an old code is remembered, so that its second use is told what is wrong."""
_WRONG_A_MINUTE: Final = 5
_WRONG_KEPT: Final = 64
_PURPOSE: Final = "dashboard"
_HINT: Final = "run `skep web link` on the machine where Skep runs for a new link"


class HiveStore(Protocol):
    """Transactions over the hive's tables (`skep.broker.broker.Broker`)."""

    def transact(self, op: Callable[[HiveTx], T], *, may_refuse: bool = False) -> Awaitable[T]:
        """Run `op` as one transaction; the result is given when it is durable."""
        ...

    async def view(self, op: Callable[[HiveTx], T]) -> T:
        """Return what `op` reads."""
        ...


@dataclass(slots=True, kw_only=True)
class Session:
    """A signed-in operator. Times are UTC milliseconds.

    Attributes:
        key: Hash of its handle.
        seen_at: When a person last did something with it; `kept_at` when that was written down.
    """

    key: bytes
    operator: str
    seen_at: int
    kept_at: int
    expires_at: int


class Auth:
    """Who may look, and who may act."""

    def __init__(self, store: HiveStore, *, clock: Clock) -> None:
        self._store: Final = store
        self._clock: Final = clock
        self._sessions: Final[dict[bytes, Session]] = {}
        # Signed out since the start: one that is being read just then must not come back.
        self._ended: Final[set[bytes]] = set()
        self._wrong: Final[deque[int]] = deque(maxlen=_WRONG_KEPT)

    async def new_code(self, *, ttl_s: int) -> str:
        """Return a new one-time code."""
        code = random_token()
        key, now = fingerprint(code), self._clock.now_ms()

        def put(tx: HiveTx) -> None:
            tx.run("codes_expire", now - _KEEP_CODES_MS)
            tx.run("sessions_expire", now)
            tx.run("code_put", key, _PURPOSE, now + ttl_s * 1000)

        await self._store.transact(put)
        return code

    async def login(self, once: str) -> tuple[str, Session]:
        """Spend a code; return the handle of the new session, told this once, and the session.

        Raises:
            SignInAgainError: Wrong, used or expired; says which.
            BusyError: Too many wrong ones lately.
        """
        handle = random_token()
        now = self._clock.now_ms()
        session = Session(
            key=fingerprint(handle), operator=OPERATOR, seen_at=now, kept_at=now, expires_at=now + SESSION_MS
        )
        code = fingerprint(once)

        def spend(tx: HiveTx) -> str:
            found = tx.one("op_code", code)
            if found is None:
                return "this sign-in link is wrong"
            purpose, expires_at = found
            if purpose != _PURPOSE:
                return "this sign-in link has been used already"
            if expires_at <= now:
                return "this sign-in link has expired"
            tx.run("op_code_spend", code, _PURPOSE)
            tx.run("audit_insert", now, OPERATOR, "auth.login", None, None)
            tx.run("session_put", session.key, session.operator, now, session.expires_at)
            return ""

        problem = await self._store.transact(spend)
        if problem:
            raise self._refusal(problem, now)
        self._sessions[session.key] = session
        return handle, session

    async def session(self, handle: str | None) -> Session:
        """Return the session of this handle: its operator may look.

        Raises:
            SignInAgainError: There is none, or it has run out.
        """
        if not handle:
            raise SignInAgainError("not signed in", hint=_HINT)
        key = fingerprint(handle)
        found = self._sessions.get(key) or await self._load(key)
        if found is None or found.expires_at <= self._clock.now_ms():
            self._sessions.pop(key, None)
            raise SignInAgainError("the session has ended", hint=_HINT)
        return found

    async def used(self, session: Session) -> None:
        """Note that a person did something with `session`, unless it had rested too long to act."""
        now = self._clock.now_ms()
        if self.is_idle(session) or now < session.seen_at:
            return
        session.seen_at = now
        if now - session.kept_at >= _SEEN_EVERY_MS:
            session.kept_at = now
            await self._store.transact(
                lambda tx: tx.run("session_seen", session.key, now, session.expires_at)
            )

    def is_idle(self, session: Session) -> bool:
        """Return whether `session` has rested too long to act."""
        return self._clock.now_ms() - session.seen_at > IDLE_MS

    def check_act(self, session: Session) -> None:
        """Refuse an act of a session that has rested too long.

        Raises:
            SignInAgainError: Sign in again to act; looking goes on.
        """
        if self.is_idle(session):
            raise SignInAgainError("nothing was done here for 30 minutes: sign in again to act", hint=_HINT)

    async def logout(self, session: Session) -> None:
        """End `session`, here and on disk."""
        now = self._clock.now_ms()
        self._ended.add(session.key)
        self._sessions.pop(session.key, None)

        def end(tx: HiveTx) -> None:
            tx.run("audit_insert", now, session.operator, "auth.logout", None, None)
            tx.run("session_end", session.key)

        await self._store.transact(end)

    async def _load(self, key: bytes) -> Session | None:
        row = await self._store.view(lambda tx: tx.one("session_get", key))
        if row is None or key in self._ended:
            return None
        operator, _, seen_at, expires_at = row
        # Two calls may load at once: one object, so that both see the same times.
        return self._sessions.setdefault(
            key,
            Session(key=key, operator=operator, seen_at=seen_at, kept_at=seen_at, expires_at=expires_at),
        )

    def _refusal(self, problem: str, now: int) -> Exception:
        while self._wrong and not 0 <= now - self._wrong[0] < 60_000:
            self._wrong.popleft()
        self._wrong.append(now)
        over = len(self._wrong) - _WRONG_A_MINUTE
        if over > 0:
            return BusyError(
                "too many wrong sign-in links: wait a little",
                hint=_HINT,
                code="auth.rate_limited",
                retry_after_s=float(min(60, 2**over)),
            )
        return SignInAgainError(problem, hint=_HINT)
