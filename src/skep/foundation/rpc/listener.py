"""The listening end of a control socket: one closed table, one kind of caller.

Source: control protocol, sections 2 and 3. Who the caller is comes from the socket and its peer
credentials, never from a frame.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from skep import __version__
from skep.foundation.errors import SkepError, TryAgainError, WireError
from skep.foundation.log import get_logger
from skep.foundation.rpc.frames import (
    MAX_FROM_LISTENER,
    MAX_TO_LISTENER,
    PROTO,
    Event,
    FrameSplitter,
    Hello,
    HelloResult,
    Method,
    Request,
    RpcError,
    Table,
    decode_args,
    decode_request,
    encode_answer,
    encode_event,
    encode_problem,
    is_too_large,
)
from skep.foundation.tasks import TaskSet

__all__ = ["Call", "Connection", "Handler", "Listener", "peer_credentials"]

_log = get_logger(part="rpc")
CLOSE_LIMIT_S: Final = 0.5
"""A caller has so long to read what was sent before a connection is closed, in seconds."""
_CLOSING_CODES: Final = frozenset({"bad_frame", "proto_unsupported"})


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request on its way to its handler.

    Attributes:
        session: Handle of an operator's session, on the web socket only.
        proof: Fresh step-up proof, on the web socket only.
    """

    connection: Connection
    session: str | None
    proof: str | None


Handler = Callable[[Call, Any], Coroutine[Any, Any, Any] | asyncio.Future[Any] | msgspec.Struct]
"""Answers one method. What it returns decides what a call costs:

- a coroutine, as an `async def` does, runs in a task of the listener;
- a future is answered when it is done, without a task. It is of this call alone: it is cancelled when the
  listener closes (and with its connection, where the method says so), so who sets it looks first;
- a struct is the result.

What it raises, and what a future fails with, becomes the same refusal.
"""


class Listener:
    """Serves one table on one socket file.

    Args:
        table: The closed list; `handlers` must have exactly its names.
        uids: Who may connect; anyone else is closed at accept.
        in_flight: Requests of one connection that may wait for an answer.
        epoch: Boot epoch told in `hello`.
        on_open, on_close: Called with each connection after `hello`, and when it is gone.

    Attributes:
        pending: What handlers have returned and is not done yet; those of it that run are in `tasks`.
        all_gone: Set whenever the last connection is gone.
    """

    def __init__(
        self,
        table: Table,
        handlers: Mapping[str, Handler],
        *,
        uids: frozenset[int] | None = None,
        in_flight: int = 64,
        epoch: int = 0,
        on_open: Callable[[Connection], None] | None = None,
        on_close: Callable[[Connection], None] | None = None,
    ) -> None:
        if set(handlers) != set(table.methods):
            odd = sorted(set(handlers) ^ set(table.methods))
            raise ValueError(f"handlers and table {table.name} differ: {', '.join(odd)}")
        self.table = table
        self.handlers: Final = dict(handlers)
        self.uids: Final = uids if uids is not None else frozenset({os.getuid()})
        self.in_flight: Final = in_flight
        self.epoch = epoch
        self.on_open: Final = on_open
        self.on_close: Final = on_close
        self.connections: Final[set[Connection]] = set()
        self.is_closing = False
        self.tasks: Final = TaskSet(on_error=_told)
        self.pending: Final[set[asyncio.Future[Any]]] = set()
        self.all_gone: Final = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def start(self, path: Path, *, mode: int = 0o600) -> None:
        """Listen on `path`; a stale socket file there is replaced."""
        with suppress(FileNotFoundError):
            path.unlink()
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)  # the file must not be open to others between bind and chmod
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        path.chmod(mode)
        self._server = await loop.create_unix_server(lambda: Connection(self), sock=sock, backlog=128)
        self._path = path

    def refuse_callers(self) -> None:
        """Take no new connections; those that are there go on."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Take no new connections, close each that is there, and remove the socket file.

        When it returns, each connection is gone and `on_close` was told of it.
        """
        self.is_closing = True
        self.refuse_callers()
        for connection in list(self.connections):
            connection.close()
        await self.tasks.close()
        for future in self.pending:
            future.cancel()
        await asyncio.gather(*self.pending, return_exceptions=True)
        if self.connections:
            self.all_gone.clear()
            await self.all_gone.wait()
        if self._path is not None:
            with suppress(FileNotFoundError):
                self._path.unlink()


class Connection(asyncio.Protocol):
    """One caller on a listener.

    Attributes:
        role: What the caller said it is (told in logs, decides nothing).
        uid, pid: Of the peer, from the kernel.
        state: For the handlers of this table: whatever they keep per connection.
    """

    def __init__(self, listener: Listener) -> None:
        self.role = ""
        self.uid = -1
        self.pid = 0
        self.state: dict[str, Any] = {}
        self.is_open = False
        self._listener = listener
        self._splitter = FrameSplitter(max_bytes=MAX_TO_LISTENER)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._in_flight = 0
        self._waiting: set[asyncio.Future[Any]] = set()
        self._is_greeted = False
        self._cutting_off: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._loop = asyncio.get_running_loop()

    @property
    def is_writable(self) -> bool:
        """Whether the caller reads what it gets; progress is dropped while it does not."""
        return self.is_open and self._writable.is_set()

    async def writable(self) -> None:
        """Wait until the caller has read enough."""
        await self._writable.wait()

    def emit(self, event: Event[Any], data: object) -> None:
        """Send an event; it leaves with whatever else waits, at the end of the loop's turn."""
        self._send(encode_event(event.name, data))

    def close(self) -> None:
        """Send what waits, then close; a caller that does not read it is cut off."""
        if self._transport is None or self._cutting_off is not None:
            return
        self._flush()
        self._cutting_off = self._loop.call_later(CLOSE_LIMIT_S, self._transport.abort)
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check who it is; a foreign uid is closed without a word."""
        self._transport = cast("asyncio.Transport", transport)
        self.uid, self.pid = peer_credentials(transport.get_extra_info("socket"))
        if self.uid not in self._listener.uids or self._listener.is_closing:
            _log.warning("peer_refused", table=self._listener.table.name, uid=self.uid)
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=256 * 1024)
        self.is_open = True
        self._listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the caller; calls that only wait for it are cancelled."""
        if not self.is_open:
            return
        self.is_open = False
        self._transport = None
        self._writable.set()
        if self._cutting_off is not None:
            self._cutting_off.cancel()
        self._listener.connections.discard(self)
        if not self._listener.connections:
            self._listener.all_gone.set()
        for waiting in self._waiting:
            waiting.cancel()
        if self._is_greeted and self._listener.on_close is not None:
            self._listener.on_close(self)

    def pause_writing(self) -> None:
        """The caller does not read: take no further requests of it either."""
        self._writable.clear()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The caller reads again."""
        self._writable.set()
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take what arrived and start a handler for each request in it."""
        if not self.is_open or self._cutting_off is not None:
            return
        try:
            for frame in self._splitter.feed(data):
                if self._cutting_off is not None:
                    return
                self._take(frame)
        except WireError as error:
            self._refuse(0, "bad_frame", error.problem)

    def _take(self, frame: bytes) -> None:
        listener = self._listener
        request = listener.table.read(frame) if self._is_greeted else None
        if request is None or self._in_flight >= listener.in_flight:
            self._take_odd(decode_request(frame))
        else:
            call = Call(connection=self, session=request.s, proof=request.p)
            self._begin(request.i, request.method, call, request.a)

    def _take_odd(self, request: Request) -> None:
        """Take what is not an ordinary request, or comes at the wrong time; say what is wrong with it."""
        if not self._is_greeted:
            self._greet(request)
        elif (method := self._listener.table.methods.get(request.m)) is None:
            self._refuse(request.i, "unknown_method", f"no method `{request.m[:64]}` on this socket")
        elif self._in_flight >= self._listener.in_flight:
            limit = self._listener.in_flight
            self._refuse(request.i, "busy", f"{limit} requests are in flight", retry_after_ms=50)
        else:
            try:
                args = decode_args(request.a, method.args)
            except RpcError as error:
                self._refuse(request.i, error.wire_code, error.problem)
                return
            self._begin(request.i, method, Call(connection=self, session=request.s, proof=request.p), args)

    def _greet(self, request: Request) -> None:
        if request.m != "hello":
            self._refuse(request.i, "proto_unsupported", "the first request is not `hello`")
            return
        try:
            hello = decode_args(request.a, Hello)
        except RpcError as error:
            self._refuse(request.i, error.wire_code, error.problem)
            return
        if hello.proto != PROTO:
            self._refuse(
                request.i,
                "proto_unsupported",
                f"control protocol {hello.proto} is not spoken here, {PROTO} is",
                hint="upgrade the listening process first, then the caller",
            )
            return
        self.role = hello.role[:32]
        self._is_greeted = True
        self._send(
            encode_answer(request.i, HelloResult(proto=PROTO, build=__version__, epoch=self._listener.epoch))
        )
        if self._listener.on_open is not None:
            self._listener.on_open(self)

    def _begin(self, i: int, method: Method[Any, Any], call: Call, args: object) -> None:
        """Give a request to its handler; it is in flight until it is answered."""
        listener = self._listener
        try:
            answer = listener.handlers[method.name](call, args)
        except Exception as error:  # noqa: BLE001 - the border: `_fail` tells and logs
            self._fail(i, method, error)
            return
        if not isinstance(answer, asyncio.Future):
            if not isinstance(answer, Coroutine):
                self._answer(i, method, answer)
                return
            answer = listener.tasks.spawn(answer)
        self._in_flight += 1
        listener.pending.add(answer)
        answer.add_done_callback(partial(self._ended, i, method))
        if method.ends_with_connection:
            self._waiting.add(answer)
            answer.add_done_callback(self._waiting.discard)

    def _ended(self, i: int, method: Method[Any, Any], answer: asyncio.Future[Any]) -> None:
        self._in_flight -= 1
        self._listener.pending.discard(answer)
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            self._answer(i, method, answer.result())
        else:
            self._fail(i, method, error)

    def _answer(self, i: int, method: Method[Any, Any], result: object) -> None:
        if not i:
            return
        try:
            answer = encode_answer(i, result)
        except Exception as error:  # noqa: BLE001 - the border: `_fail` tells and logs
            self._fail(i, method, error)
            return
        if is_too_large(answer, MAX_FROM_LISTENER):
            _log.error("answer_too_large", method=method.name, size_bytes=len(answer))
            problem = f"the answer to `{method.name}` is over {MAX_FROM_LISTENER} bytes"
            answer = encode_problem(i, "too_large", problem, hint="ask for less at once")
        self._send(answer)

    def _fail(self, i: int, method: Method[Any, Any], error: BaseException) -> None:
        """Refuse with the error's code; what is unexpected stays here, the caller gets an incident id."""
        if isinstance(error, SkepError):
            self._refuse(
                i, error.wire_code, error.problem, hint=error.hint, retry_after_ms=_retry_after_ms(error)
            )
        else:
            incident = secrets.token_hex(4)
            _log.error("handler_failed", method=method.name, incident=incident, exc_info=error)
            self._refuse(i, "internal", f"unexpected fault, incident {incident}")

    def _refuse(
        self, i: int, code: str, problem: str, *, hint: str = "", retry_after_ms: int | None = None
    ) -> None:
        if i or code in _CLOSING_CODES:
            self._send(encode_problem(i, code, problem, hint=hint, retry_after_ms=retry_after_ms))
        if code in _CLOSING_CODES:
            self.close()

    def _send(self, frame: bytes) -> None:
        if not self.is_open:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        transport = self._transport
        if self._out and transport is not None and not transport.is_closing():
            transport.write(b"".join(self._out))
        self._out.clear()


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """Return (uid, pid) of the process at the other end, as the kernel knows it.

    On macOS the pid is 0.
    """
    if sys.platform == "darwin":
        _version, uid = struct.unpack_from("=II", sock.getsockopt(0, 1, 76))  # LOCAL_PEERCRED: xucred
        return uid, 0
    pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid, pid


def _retry_after_ms(error: SkepError) -> int | None:
    if isinstance(error, RpcError):
        return error.retry_after_ms
    if isinstance(error, TryAgainError):
        return int(error.retry_after_s * 1000)
    return None


def _told(error: BaseException) -> None:
    """Nothing is left to do: the caller was refused, and the log knows."""
