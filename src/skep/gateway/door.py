"""The gateway's end of `door.sock`: one connection, dialled again for ever.

Source: control protocol, sections 3, 4 and 6.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.rpc import Caller, CallError, ConnectionLostError, Method, connect
from skep.foundation.tasks import Backoff

__all__ = ["Door"]

A = TypeVar("A")
R = TypeVar("R")

_log = get_logger(part="door")


class Door:
    """Calls to the daemon.

    Args:
        events: Per event of the daemon, who takes its data.
        on_open, on_lost: Called after each connect, and when the connection went away.
    """

    def __init__(
        self,
        path: Path,
        *,
        events: Mapping[str, Callable[[msgspec.Raw], None]],
        on_open: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._path: Final = path
        self._events: Final = events
        self._on_open: Final = on_open
        self._on_lost: Final = on_lost
        self._caller: Caller | None = None
        self._open = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the daemon is there."""
        return self._open.is_set()

    async def wait_open(self) -> None:
        """Wait until the daemon is there."""
        await self._open.wait()

    async def call(self, method: Method[A, R], args: A) -> R:
        """Call the daemon.

        Raises:
            CallError: It refused, or did not answer in time.
            ConnectionLostError: It is away, or went away: the effect may have happened.
        """
        if self._caller is None:
            raise ConnectionLostError("the daemon is away")
        return await self._caller.call(method, args)

    def begin(self, method: Method[A, R], args: A, done: Callable[[R | SkepError], None]) -> None:
        """Call the daemon and come back at once; `done` takes the result, or the error that `call` raises."""
        if self._caller is not None:
            self._caller.begin(method, args, done)
        else:
            asyncio.get_running_loop().call_soon(done, ConnectionLostError("the daemon is away"))

    def notify(self, method: Method[A, Any], args: A) -> None:
        """Call the daemon without an answer; dropped when it is away."""
        if self._caller is not None:
            self._caller.notify(method, args)

    def hang_up(self) -> None:
        """Leave a daemon that stops; the next one is dialled as ever."""
        if self._caller is not None:
            self._caller.close()

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        backoff = Backoff()
        is_told = False
        while True:
            try:
                caller = await connect(self._path, role="gateway", events=self._events)
            except (ConnectionLostError, CallError) as error:
                if not is_told:
                    _log.warning("daemon_away", problem=error.problem, code=error.code)
                    is_told = True
                await asyncio.sleep(backoff.next_s())
                continue
            _log.info("daemon_connected", epoch=caller.epoch)
            is_told = False
            backoff.reset()
            await self._serve(caller)

    async def _serve(self, caller: Caller) -> None:
        self._caller = caller
        self._open.set()
        try:
            self._on_open()
            await caller.wait_closed()
        finally:
            self._caller = None
            self._open.clear()
            caller.close()
            self._on_lost()


def is_worth_repeating(error: SkepError) -> bool:
    """Return whether the same call may go through later: the effect is unknown, or nobody must act."""
    if isinstance(error, CallError):
        return error.is_worth_repeating or error.wire_code == "internal"
    return isinstance(error, ConnectionLostError)
