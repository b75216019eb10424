"""Relays: which connectors the gateway dials, how each is, and who sees turns of their chats.

Source: control protocol, sections 4 and 7. One gateway connection may carry several relays; turns of
a chat are shown to the connection that attached its relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from skep.foundation.clock import Clock
from skep.foundation.rpc import Connection
from skep.foundation.tasks import TaskSet
from skep.hive.progress import ProgressHub
from skep.wire.control.door import AGENTS, TURN, AgentsHere, AttachArgs, FrontedPlatform, Turn
from skep.wire.control.operator import RelayRow

__all__ = ["GatewayLink", "Relays"]


class GatewayLink:
    """One gateway's connection, and what it attached: a subscriber of turns."""

    def __init__(self, connection: Connection, *, hub: ProgressHub, tasks: TaskSet) -> None:
        self.connection: Final = connection
        self.attached: Final[dict[str, AttachArgs]] = {}
        self.changed: Final = asyncio.Event()
        self._team: AgentsHere | None = None
        self._hub: Final = hub
        self._tasks: Final = tasks

    @property
    def is_writable(self) -> bool:
        """Whether the gateway reads."""
        return self.connection.is_writable

    def show(self, turn: Turn) -> None:
        """Send `turn` if it is of a chat of this gateway."""
        if turn.route.relay in self.attached:
            self.connection.emit(TURN, turn)

    def tell(self, team: AgentsHere) -> None:
        """Send `team` if it is not as it was told last."""
        if self.attached and team != self._team and self.is_writable:
            self._team = team
            self.connection.emit(AGENTS, team)

    def fell_behind(self) -> None:
        """Catch up when the gateway reads again."""
        self._tasks.spawn(self._catch_up())

    def mailboxes(self) -> Sequence[str]:
        """Return the mailboxes of chats that can be reached now."""
        return [f"door:{relay}" for relay, args in self.attached.items() if args.state == "connected"]

    def platform(self, relay: str, platform: str) -> FrontedPlatform | None:
        """Return what the connector said of `platform`."""
        args = self.attached.get(relay)
        return next((row for row in args.descriptors if row.platform == platform), None) if args else None

    async def _catch_up(self) -> None:
        while self.connection.is_open and self._hub.is_behind(self):
            await self.connection.writable()
            self._hub.catch_up(self)
            await asyncio.sleep(0)


class Relays:
    """All relays, as the gateway said last."""

    def __init__(
        self,
        *,
        clock: Clock,
        hub: ProgressHub,
        tasks: TaskSet,
        emit: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._clock: Final = clock
        self._hub: Final = hub
        self._tasks: Final = tasks
        self._emit: Final = emit
        self._links: Final[dict[Connection, GatewayLink]] = {}
        self._rows: Final[dict[str, RelayRow]] = {}

    def link(self, connection: Connection) -> GatewayLink:
        """Return the link of `connection`."""
        link = self._links.get(connection)
        if link is None:
            link = self._links[connection] = GatewayLink(connection, hub=self._hub, tasks=self._tasks)
            connection.state["freed"] = link.changed
        return link

    def attach(self, connection: Connection, args: AttachArgs) -> None:
        """Take what the gateway says of one relay; from here on it sees turns."""
        link = self.link(connection)
        link.attached[args.relay] = args
        link.changed.set()
        self._set(
            RelayRow(
                relay=args.relay,
                state=args.state,
                detail=args.detail,
                platforms=tuple(row.platform for row in args.descriptors),
                since=self._clock.now_ms(),
            )
        )
        self._hub.subscribe(link)

    def tell(self, team: AgentsHere) -> None:
        """Tell each gateway which agents are here."""
        for link in self._links.values():
            link.tell(team)

    def wake(self) -> None:
        """Let each waiting `pump.next` look again."""
        for link in self._links.values():
            link.changed.set()

    def gone(self, connection: Connection) -> None:
        """The gateway's connection is closed."""
        link = self._links.pop(connection, None)
        if link is None:
            return
        self._hub.unsubscribe(link)
        for relay in link.attached:
            if not any(relay in other.attached for other in self._links.values()):
                row = self._rows[relay]
                self._set(
                    RelayRow(relay=relay, state="away", platforms=row.platforms, since=self._clock.now_ms())
                )

    def rows(self) -> tuple[RelayRow, ...]:
        """Return each relay."""
        return tuple(self._rows.values())

    @property
    def is_attached(self) -> bool:
        """Whether a gateway is here and has attached."""
        return any(link.attached for link in self._links.values())

    def _set(self, row: RelayRow) -> None:
        old = self._rows.get(row.relay)
        if old is not None and (old.state, old.detail) == (row.state, row.detail):
            row = RelayRow(
                relay=row.relay, state=row.state, detail=row.detail, platforms=row.platforms, since=old.since
            )
        self._rows[row.relay] = row
        self._emit("relay", {"relay": row.relay, "state": row.state, "detail": row.detail})
