"""The methods of operators: over `web.sock` with a session, over `cli.sock` as this machine's own.

Source: control protocol, section 9; hive, sections 9 and 11. The tables are closed. Each act leaves
an audit row before its effect; what a caller claims to be counts for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from skep.broker.errors import AlreadySentError
from skep.broker.types import Actor
from skep.foundation.clock import Clock
from skep.foundation.rpc import Call, Connection, Handler, Listener, RpcError
from skep.hive.auth import OPERATOR, Auth, Session
from skep.hive.overview import Overview
from skep.hive.queries import Queries
from skep.hive.subscriptions import Subscriptions
from skep.wire.control import operator
from skep.wire.control.base import Empty, NoArgs
from skep.wire.control.operator import CLI, WEB

__all__ = ["Operator", "Steering"]

_READ_AUDIT_MS: Final = 3_600_000
"""That an operator reads a thread is noted once in this time."""
_READS_KEPT: Final = 10_000
_IN_FLIGHT: Final = 64


class Steering(Protocol):
    """What an operator's acts do (`skep.broker.broker.Broker`)."""

    async def audit(self, actor: str, act: str, *, about: str = "", detail: str = "") -> None:
        """Write one audit row."""
        ...

    def cancel_ask(self, actor: Actor, ask_id: str) -> Awaitable[str]:
        """Cancel an open ask."""
        ...

    def cancel_reminder(self, actor: Actor, reminder_id: str) -> Awaitable[str]:
        """Cancel an armed reminder."""
        ...


_Read = Callable[[Any, str], Awaitable[Any]]
"""Takes the arguments and who asks."""


class Operator:
    """Handlers of `web.sock` and `cli.sock`.

    Args:
        stop: Set by `daemon.stop`.
    """

    def __init__(
        self,
        *,
        auth: Auth,
        overview: Overview,
        queries: Queries,
        subscriptions: Subscriptions,
        steering: Steering,
        clock: Clock,
        stop: asyncio.Event,
    ) -> None:
        self._auth: Final = auth
        self._overview: Final = overview
        self._queries: Final = queries
        self._subscriptions: Final = subscriptions
        self._steering: Final = steering
        self._clock: Final = clock
        self._stop: Final = stop
        self._reads: Final[dict[tuple[str, str], int]] = {}
        self._looks: Final[dict[str, _Read]] = {
            operator.STATUS_GET.name: self._status,
            operator.HEALTH_LIST.name: self._health,
            operator.AGENT_LIST.name: self._agent_list,
            operator.AGENT_GET.name: self._agent_get,
            operator.HIVE_QUERY.name: self._query,
        }
        self._acts: Final[dict[str, _Read]] = {
            operator.ASK_CANCEL.name: self._ask_cancel,
            operator.REMINDER_CANCEL.name: self._reminder_cancel,
        }

    def web_listener(self, *, epoch: int, uids: frozenset[int] | None = None) -> Listener:
        """Return the listener for the web process."""
        handlers: dict[str, Handler] = {
            operator.AUTH_LOGIN.name: self._login,
            operator.AUTH_LOGOUT.name: self._logout,
            operator.HIVE_SUBSCRIBE.name: self._web_subscribe,
        }
        handlers |= {name: self._looking(name, look) for name, look in self._looks.items()}
        handlers |= {name: self._acting(act) for name, act in self._acts.items()}
        return Listener(
            WEB, handlers, uids=uids, in_flight=_IN_FLIGHT, epoch=epoch, on_close=self._subscriptions.drop
        )

    def cli_listener(self, *, epoch: int, uids: frozenset[int] | None = None) -> Listener:
        """Return the listener for the operator of this machine."""
        handlers: dict[str, Handler] = {
            operator.AUTH_CODE.name: self._code,
            operator.HIVE_SUBSCRIBE.name: self._cli_subscribe,
            operator.DAEMON_STOP.name: self._daemon_stop,
        }
        handlers |= {name: _local(act) for name, act in (self._looks | self._acts).items()}
        return Listener(
            CLI, handlers, uids=uids, in_flight=_IN_FLIGHT, epoch=epoch, on_close=self._subscriptions.drop
        )

    # Who it is.

    def _looking(self, name: str, look: _Read) -> Handler:
        async def handle(call: Call, args: Any) -> Any:
            session = await self._auth.session(call.session)
            # An open page asks for lists by itself; only what a person opens counts as use.
            if name == operator.AGENT_GET.name or getattr(args, "name", None) == "thread":
                await self._auth.used(session)
            return await look(args, session.operator)

        return handle

    def _acting(self, act: _Read) -> Handler:
        async def handle(call: Call, args: Any) -> Any:
            session = await self._auth.session(call.session)
            self._auth.check_act(session)
            await self._auth.used(session)
            return await act(args, session.operator)

        return handle

    async def _login(self, _call: Call, args: operator.AuthLoginArgs) -> operator.AuthLoginResult:
        handle, session = await self._auth.login(args.once)
        return operator.AuthLoginResult(
            session=handle, operator=session.operator, expires_at=session.expires_at
        )

    async def _logout(self, call: Call, _args: NoArgs) -> Empty:
        await self._auth.logout(await self._auth.session(call.session))
        return Empty()

    async def _code(self, _call: Call, args: operator.AuthCodeArgs) -> operator.AuthCodeResult:
        await self._steering.audit(OPERATOR, "auth.code", detail=f"{args.ttl_s} s")
        return operator.AuthCodeResult(code=await self._auth.new_code(ttl_s=args.ttl_s))

    # Looking.

    async def _status(self, _args: NoArgs, _who: str) -> operator.Status:
        return await self._overview.status()

    async def _health(self, _args: NoArgs, _who: str) -> operator.Findings:
        return await self._overview.findings()

    async def _agent_list(self, _args: NoArgs, _who: str) -> operator.AgentRows:
        return operator.AgentRows(agents=await self._overview.agents())

    async def _agent_get(self, args: operator.AgentGetArgs, _who: str) -> operator.AgentRow:
        return await self._overview.agent(args.agent)

    async def _query(self, args: operator.QueryArgs, who: str) -> operator.QueryResult:
        if args.name == "thread":
            await self._note_reading(who, str(args.params.get("id", ""))[:64])
        return await self._queries.run(args)

    async def _note_reading(self, who: str, thread: str) -> None:
        now = self._clock.now_ms()
        last = self._reads.get((who, thread))
        if last is not None and 0 <= now - last < _READ_AUDIT_MS:
            return
        await self._steering.audit(who, "thread.read", about=thread)
        if len(self._reads) >= _READS_KEPT:
            self._reads.clear()
        self._reads[who, thread] = now

    async def _web_subscribe(self, call: Call, args: operator.SubscribeArgs) -> operator.SubscribeResult:
        async def is_valid() -> Session:
            return await self._auth.session(call.session)

        await is_valid()
        return self._subscribe(call.connection, args, is_valid)

    async def _cli_subscribe(self, call: Call, args: operator.SubscribeArgs) -> operator.SubscribeResult:
        return self._subscribe(call.connection, args, None)

    def _subscribe(
        self,
        connection: Connection,
        args: operator.SubscribeArgs,
        is_valid: Callable[[], Awaitable[object]] | None,
    ) -> operator.SubscribeResult:
        start = self._subscriptions.subscribe(connection, cursor=args.cursor, is_valid=is_valid)
        return operator.SubscribeResult(cursor=start)

    # Steering.

    async def _ask_cancel(self, args: operator.CancelArgs, who: str) -> operator.CancelResult:
        await self._steering.audit(who, "ask.cancel", about=args.id[:64])
        return operator.CancelResult(state=await self._steering.cancel_ask(_actor(who), args.id))

    async def _reminder_cancel(self, args: operator.CancelArgs, who: str) -> operator.CancelResult:
        await self._steering.audit(who, "reminder.cancel", about=args.id[:64])
        try:
            state = await self._steering.cancel_reminder(_actor(who), args.id)
        except AlreadySentError as error:  # a code of agents' tools, which this socket does not have
            raise RpcError("closed", error.problem, hint=error.hint) from error
        return operator.CancelResult(state=state)

    async def _daemon_stop(self, _call: Call, _args: NoArgs) -> Empty:
        await self._steering.audit(OPERATOR, "daemon.stop")
        asyncio.get_running_loop().call_soon(self._stop.set)  # the answer leaves first
        return Empty()


def _local(act: _Read) -> Handler:
    async def handle(_call: Call, args: Any) -> Any:
        return await act(args, OPERATOR)

    return handle


def _actor(who: str) -> Actor:
    return Actor(principal=who, role="operator")
