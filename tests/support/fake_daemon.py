"""A daemon for the dashboard's tests: the real listener on `web.sock`, with answers that a test sets.

It has the real closed table, sign-in by one-time codes, and events that a test sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skep.foundation.errors import SkepError
from skep.foundation.rpc import Call, Connection, Listener, RpcError
from skep.wire.control.operator import (
    HIVE,
    WEB,
    AuthLoginArgs,
    AuthLoginResult,
    HiveEvent,
    SubscribeArgs,
    SubscribeResult,
)

__all__ = ["FakeDaemon"]

_HINT = "run `skep web link`"
EXPIRES_AT = 1_767_225_600_000 + 12 * 3_600_000


class FakeDaemon:
    """Answers on `web.sock`.

    Attributes:
        answers: Result, error, or function of the arguments, by method.
        calls: (method, arguments, session) of each call, in order.
        codes: One-time codes that are good.
        sessions: Handles that are signed in.
    """

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        self.answers: dict[str, Any] = dict(answers or {})
        self.calls: list[tuple[str, Any, str | None]] = []
        self.codes: set[str] = {"good"}
        self.used: set[str] = set()
        self.sessions: set[str] = set()
        self.expires_at = EXPIRES_AT
        self.cursor = 100
        self.watchers: list[Connection] = []
        self.subscribed_after: list[int | None] = []
        self._listener: Listener | None = None
        self.epoch = 1

    async def start(self, path: Path) -> None:
        """Listen on `path`."""
        handlers = {name: self._answer(name) for name in WEB.methods}
        handlers["auth.login"] = self._login
        handlers["auth.logout"] = self._logout
        handlers["hive.subscribe"] = self._subscribe
        self._listener = Listener(WEB, handlers, epoch=self.epoch)
        await self._listener.start(path)

    async def stop(self) -> None:
        """Go away, as a killed daemon does."""
        if self._listener is not None:
            await self._listener.close()
        self.watchers.clear()

    def emit(self, kind: str, **data: Any) -> None:
        """Tell every subscriber that something changed."""
        self.cursor += 1
        event = HiveEvent(cursor=self.cursor, kind=kind, data=data)
        for connection in self.watchers:
            connection.emit(HIVE, event)

    def _answer(self, name: str) -> Any:
        async def handler(call: Call, args: Any) -> Any:
            self._check(call)
            self.calls.append((name, args, call.session))
            answer = self.answers.get(name)
            if callable(answer):
                answer = answer(args)
            if isinstance(answer, SkepError):
                raise answer
            if answer is None:
                raise RpcError("not_found", f"no answer set for `{name}`")
            return answer

        return handler

    async def _login(self, call: Call, args: AuthLoginArgs) -> AuthLoginResult:
        self.calls.append(("auth.login", args, call.session))
        if args.once in self.used:
            raise RpcError("sign_in", "this sign-in link has been used already", hint=_HINT)
        if args.once not in self.codes:
            raise RpcError("sign_in", "this sign-in link is wrong", hint=_HINT)
        self.codes.remove(args.once)
        self.used.add(args.once)
        session = f"session-{len(self.used)}"
        self.sessions.add(session)
        return AuthLoginResult(session=session, operator="owner", expires_at=self.expires_at)

    async def _logout(self, call: Call, args: Any) -> Any:
        self._check(call)
        self.calls.append(("auth.logout", args, call.session))
        self.sessions.discard(str(call.session))
        return {}

    async def _subscribe(self, call: Call, args: SubscribeArgs) -> SubscribeResult:
        self._check(call)
        self.subscribed_after.append(args.cursor)
        self.watchers.append(call.connection)
        return SubscribeResult(cursor=self.cursor)

    def _check(self, call: Call) -> None:
        if call.session not in self.sessions:
            raise RpcError("sign_in", "not signed in", hint=_HINT)
