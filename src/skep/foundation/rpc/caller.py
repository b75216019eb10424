"""The calling end of a control socket.

Source: control protocol, section 3. After a time-out or a lost connection the effect may have
happened: each writing method is safe to repeat.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from skep import __version__
from skep.foundation.errors import SkepError, TryAgainError, WireError
from skep.foundation.log import get_logger
from skep.foundation.rpc.frames import (
    MAX_FROM_LISTENER,
    MAX_TO_LISTENER,
    PROTO,
    FrameSplitter,
    Hello,
    HelloResult,
    Incoming,
    Method,
    RpcError,
    decode_args,
    decode_incoming,
    encode_request,
    is_too_large,
)
from skep.foundation.tasks import Awaited

__all__ = ["CallError", "Caller", "ConnectionLostError", "connect"]

A = TypeVar("A")
R = TypeVar("R")

_log = get_logger(part="rpc")
_HELLO = Method(name="hello", args=Hello, result=HelloResult)
_AGAIN = frozenset({"busy", "rate_limited", "timeout", "unavailable", "shutting_down"})


class CallError(RpcError):
    """The listener refused, or gave no answer in time (`timeout`)."""

    @property
    def is_worth_repeating(self) -> bool:
        """Whether nobody must act: the same call may go through later."""
        return self.wire_code in _AGAIN


class ConnectionLostError(TryAgainError):
    """The socket is gone (or was never there); whether the effect happened is unknown."""

    code = "control.connection_lost"


EventHandler = Callable[[msgspec.Raw], None]


class _Call(msgspec.Struct, frozen=True):
    """A call that waits for its answer."""

    method: Method[Any, Any]
    limit_s: float
    done: Callable[[Any], None]


async def connect(
    path: Path,
    *,
    role: str,
    events: Mapping[str, EventHandler] | None = None,
    timeout_s: float = 10.0,
) -> Caller:
    """Dial the socket at `path` and say hello.

    Args:
        events: Per event name, who takes its data; unknown events are ignored.

    Raises:
        ConnectionLostError: Nobody listens there, or it hung up.
        CallError: The listener speaks another protocol, or did not answer.
    """
    loop = asyncio.get_running_loop()
    caller = Caller(events or {})
    try:
        async with asyncio.timeout(timeout_s):
            await loop.create_unix_connection(lambda: caller, str(path))
    except (OSError, TimeoutError) as exc:
        raise ConnectionLostError(f"nobody answers at `{path.name}`") from exc
    hello = Hello(proto=PROTO, role=role, build=__version__, pid=os.getpid())
    try:
        result = await caller.call(_HELLO, hello, timeout_s=timeout_s)
    except (SkepError, asyncio.CancelledError):
        caller.close()
        raise
    caller.epoch = result.epoch
    caller.build = result.build
    return caller


class Caller(asyncio.Protocol):
    """A connection to a listener. Make one with `connect`.

    Attributes:
        epoch, build: As the listener told in `hello`.
    """

    def __init__(self, events: Mapping[str, EventHandler]) -> None:
        self.epoch = 0
        self.build = ""
        self._events = events
        self._splitter = FrameSplitter(max_bytes=MAX_FROM_LISTENER)
        self._waiting: Awaited[int, _Call] = Awaited(on_late=_late)
        self._next_i = 0
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._transport is not None

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, whoever closed it."""
        await asyncio.shield(self._closed)

    async def call(
        self,
        method: Method[A, R],
        args: A,
        *,
        timeout_s: float | None = None,
        session: str | None = None,
        proof: str | None = None,
    ) -> R:
        """Call `method` and return its result.

        Raises:
            CallError: Refused, no answer within the method's time limit, or `too_large`: not sent.
            ConnectionLostError: The connection went away; the effect may have happened.
        """
        answer: asyncio.Future[R] = self._loop.create_future()
        self.begin(method, args, partial(_settle, answer), timeout_s=timeout_s, session=session, proof=proof)
        return await answer

    def begin(
        self,
        method: Method[A, R],
        args: A,
        done: Callable[[R | SkepError], None],
        *,
        timeout_s: float | None = None,
        session: str | None = None,
        proof: str | None = None,
    ) -> None:
        """Call `method` and come back at once: `call` for who has no task to wait in.

        Args:
            done: Takes the result, or the error that `call` raises: once, and never before this has
                come back. It must not raise, nor wait.
        """
        if self._transport is None:
            error = ConnectionLostError(f"the connection was closed before `{method.name}`")
            self._loop.call_soon(done, error)
            return
        i = self._next_i = self._next_i % 0xFFFF_FFFF + 1
        request = encode_request(i, method.name, args, s=session, p=proof)
        if is_too_large(request, MAX_TO_LISTENER):
            problem = f"a call of `{method.name}` is over {MAX_TO_LISTENER} bytes"
            self._loop.call_soon(done, CallError("too_large", problem))
            return
        limit_s = method.timeout_s if timeout_s is None else timeout_s
        self._waiting.add(i, _Call(method, limit_s, done), limit_s=limit_s)
        self._send(request)

    def notify(self, method: Method[A, Any], args: A) -> None:
        """Call `method` without an answer; dropped when the connection is gone."""
        if self.is_open:
            self._send(encode_request(0, method.name, args))

    def close(self) -> None:
        """Send what waits, then hang up."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail at once what waits for an answer."""
        self._transport = None
        for call in self._waiting.pop_all():
            call.done(ConnectionLostError("the connection was lost before the answer"))
        if not self._closed.done():
            self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Give each answer to who waits for it, each event to its handler."""
        try:
            for frame in self._splitter.feed(data):
                self._take(frame)
        except WireError as error:
            _log.error("listener_sent_nonsense", problem=error.problem)
            if self._transport is not None:
                self._transport.abort()

    def _take(self, frame: bytes) -> None:
        incoming = decode_incoming(frame)
        if incoming.e is not None:
            handler = self._events.get(incoming.e)
            if handler is not None:
                handler(incoming.d)
            return
        call = self._waiting.pop(incoming.i)
        if call is not None:
            call.done(_outcome(incoming, call.method))

    def _send(self, frame: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        transport = self._transport
        if self._out and transport is not None and not transport.is_closing():
            transport.write(b"".join(self._out))
        self._out.clear()


def _outcome(answer: Incoming, method: Method[Any, R]) -> R | SkepError:
    if not answer.ok:
        return CallError(answer.code, answer.problem, hint=answer.hint, retry_after_ms=answer.retry_after_ms)
    try:
        return decode_args(answer.r, method.result)
    except RpcError as error:
        return error


def _settle(answer: asyncio.Future[R], outcome: R | SkepError) -> None:
    if answer.done():  # who waited was cancelled
        return
    if isinstance(outcome, SkepError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _late(call: _Call) -> None:
    call.done(CallError("timeout", f"no answer to `{call.method.name}` within {call.limit_s:g} s"))
