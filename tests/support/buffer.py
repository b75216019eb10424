"""Intake and deliveries over a real database, without sockets."""

from __future__ import annotations

from dataclasses import dataclass, field

from skep.connector.deliveries import Bounds, Deliveries, Receiver, Sent
from skep.connector.intake import Intake, Taken
from skep.connector.platform import Inbound, Platform
from skep.connector.platforms.web.hub import Hub
from skep.connector.platforms.web.platform import WebPlatform
from skep.foundation.clock import ManualClock
from skep.store.sqlite.connector import ConnectorStore
from skep.wire.relay.event import MessageEvent, SessionSource

__all__ = ["INSTANCE", "TENANT", "FakeReceiver", "Rig", "an_event"]

TENANT, INSTANCE = "local", "gw-local"


@dataclass
class FakeReceiver(Receiver):
    """A socket with a window; what it was given is kept."""

    window: int = 1_000
    is_skep_one: bool = True
    flight: dict[str, Sent] = field(default_factory=dict[str, Sent])
    lines: list[bytes] = field(default_factory=list[bytes])
    abandoned: str = ""

    @property
    def in_flight(self) -> dict[str, Sent]:
        return self.flight

    @property
    def is_skep(self) -> bool:
        return self.is_skep_one

    @property
    def room(self) -> int:
        return self.window - len(self.flight)

    @property
    def texts(self) -> list[str]:
        """The texts it was given, in order."""
        return [line.split(b'"text":"')[1].split(b'"')[0].decode() for line in self.lines]

    def send(self, *lines: bytes) -> None:
        self.lines += lines

    def abandon(self, reason: str) -> None:
        self.abandoned = reason


def an_event(text: str, *, user: str = "owner", chat: str = "c", key: str | None = None) -> Inbound:
    """Return an event of the web chat; its text is its key, unless there is another."""
    source = SessionSource(platform="web", chat_id=chat, user_id=user, user_ns="local", scope_id="local")
    event = MessageEvent(text=text, message_id=f"m-{text}", source=source)
    return Inbound.of(event, dedupe_key=key or text)


class Rig:
    """Intake and deliveries over a real database."""

    def __init__(self, store: ConnectorStore, bounds: Bounds, *, start: int = 1) -> None:
        self.store = store
        self.clock = ManualClock()
        platforms: dict[str, Platform] = {"web": WebPlatform(store, Hub(), self.clock)}
        self.deliveries = Deliveries(
            store, clock=self.clock, mark="m", start=start, bounds=bounds, platforms=platforms
        )
        self.intake = Intake(store, self.deliveries, self.clock)

    async def accept(
        self, text: str, *, user: str = "owner", chat: str = "c", key: str | None = None
    ) -> Taken:
        """Take one event in."""
        return await self.intake.accept(an_event(text, user=user, chat=chat, key=key))

    def attach(self, receiver: Receiver) -> None:
        """Make it the newest socket."""
        self.deliveries.attach(receiver, tenant=TENANT, instance=INSTANCE)

    def ack(self, receiver: Receiver, *buffer_ids: str) -> int:
        """Acknowledge."""
        return self.deliveries.ack(receiver, *buffer_ids, tenant=TENANT, instance=INSTANCE)

    async def waiting(self) -> int:
        """Return how many rows there are, once all is written."""
        rows = await self.store.write(lambda tx: tx.buffered())
        return sum(row.events for row in rows)
