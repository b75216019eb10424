"""The way to the daemon: one shared connection for calls, one more for each event stream.

Source: control protocol, sections 2, 3 and 9. Dials again by itself; keeps nothing between calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.rpc import Caller, Method, connect
from skep.wire.control.operator import HIVE, HIVE_SUBSCRIBE, SubscribeArgs

__all__ = ["Daemon", "Position", "Subscription"]

_log = get_logger(part="dashboard")
_ROLE: Final = "web"
_DIAL_TIMEOUT_S: Final = 3.0
_IN_FLIGHT: Final = 48
"""Calls at once on the shared connection; the daemon takes 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a stream has come; a cursor means nothing to another boot of the daemon."""

    epoch: int
    cursor: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.cursor}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position written as `epoch.cursor`, `None` for anything else."""
        epoch, dot, cursor = text.partition(".")
        is_good = bool(dot) and all(
            part.isascii() and part.isdecimal() and len(part) < 20 for part in (epoch, cursor)
        )
        return cls(epoch=int(epoch), cursor=int(cursor)) if is_good else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A connection of its own that carries the events of one session, from `position` on."""

    caller: Caller
    position: Position


class Daemon:
    """Calls to the daemon over `web.sock`."""

    def __init__(self, socket: Path) -> None:
        self._socket: Final = socket
        self._caller: Caller | None = None
        self._dialing: Final = asyncio.Lock()
        self._slots: Final = asyncio.Semaphore(_IN_FLIGHT)
        self._was_there: bool | None = None

    async def call(self, method: Method[Any, Any], args: object, *, session: str | None) -> object:
        """Call `method` in the name of `session`.

        Raises:
            CallError: The daemon refused, or gave no answer in time.
            ConnectionLostError: The daemon is away.
        """
        async with self._slots:
            caller = await self._connected()
            return await caller.call(method, args, session=session)

    async def subscribe(
        self, *, session: str, after: Position | None, take: Callable[[msgspec.Raw], None]
    ) -> Subscription:
        """Start an event stream for `session`: what came `after` a position, or from now on.

        Raises:
            CallError: The daemon refused (`sign_in`: the session has ended).
            ConnectionLostError: The daemon is away.
        """
        caller = await self._dial({HIVE.name: take})
        cursor = after.cursor if after is not None and after.epoch == caller.epoch else None
        try:
            started = await caller.call(HIVE_SUBSCRIBE, SubscribeArgs(cursor=cursor), session=session)
        except (SkepError, asyncio.CancelledError):
            caller.close()
            raise
        position = Position(epoch=caller.epoch, cursor=started.cursor if cursor is None else cursor)
        return Subscription(caller=caller, position=position)

    async def is_there(self) -> bool:
        """Return whether the daemon answers."""
        try:
            await self._connected()
        except SkepError:
            return False
        return True

    def close(self) -> None:
        """Hang up."""
        if self._caller is not None:
            self._caller.close()

    async def _connected(self) -> Caller:
        async with self._dialing:
            if self._caller is None or not self._caller.is_open:
                self._caller = await self._dial({})
            return self._caller

    async def _dial(self, events: dict[str, Callable[[msgspec.Raw], None]]) -> Caller:
        try:
            caller = await connect(self._socket, role=_ROLE, events=events, timeout_s=_DIAL_TIMEOUT_S)
        except SkepError as error:
            if self._was_there is not False:
                _log.warning("daemon_away", code=error.code)
            self._was_there = False
            raise
        if self._was_there is False:
            _log.info("daemon_back", epoch=caller.epoch)
        self._was_there = True
        return caller
