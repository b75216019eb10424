"""Taking events in: dedupe key, route and delivery, all in one transaction.

Source: platforms, section 1; relay contract, section 11. The platform gets its answer only when this is on
disk. The same key again changes nothing and goes nowhere.
"""

from __future__ import annotations

import enum
from functools import partial
from typing import Final

import msgspec

from skep.connector.deliveries import Deliveries
from skep.connector.platform import Inbound
from skep.connector.routing import recipient_of
from skep.foundation.clock import Clock
from skep.store.sqlite.connector import ChatRow, ConnectorStore, ConnectorTx
from skep.wire.relay.event import SessionSource

__all__ = ["Intake", "Taken"]

_KNOWN_MAX: Final = 10_000


class Taken(enum.Enum):
    """What became of an event."""

    STORED = enum.auto()
    DUPLICATE = enum.auto()
    UNBOUND = enum.auto()
    """Its author reaches nobody here."""


class Intake:
    """The only way in for a platform."""

    def __init__(self, store: ConnectorStore, deliveries: Deliveries, clock: Clock) -> None:
        self._store: Final = store
        self._deliveries: Final = deliveries
        self._clock: Final = clock
        self._known: dict[tuple[str, ...], SessionSource] = {}

    async def accept(self, inbound: Inbound) -> Taken:
        """Take one event in; returns when it is on disk.

        Raises:
            StoreUnavailableError: It is not; the platform must try again.
        """
        return await self._store.write(partial(self.take, inbound))

    def take(self, inbound: Inbound, tx: ConnectorTx) -> Taken:
        """Take one event in, as a part of a transaction of the platform's."""
        now_ms = self._clock.now_ms()
        key = inbound.dedupe_key
        if key is not None and not tx.take_in(key, now_ms=now_ms):
            return Taken.DUPLICATE
        source = inbound.source
        recipient = recipient_of(source, tx)
        if recipient is None:
            return Taken.UNBOUND
        tenant, instance = recipient.tenant, recipient.instance
        self._remember_chat(source, tenant, instance, tx)
        delivery_id = tx.deliver(
            tenant,
            instance,
            platform=source.platform,
            message_id=inbound.message_id,
            event=inbound.wire,
            now_ms=now_ms,
        )
        tx.signals.append(partial(self._deliveries.offer, tenant, instance, delivery_id, inbound.wire))
        return Taken.STORED

    def forget_chats(self) -> None:
        """Write each chat down again: bindings have changed."""
        self._known.clear()

    def _remember_chat(self, source: SessionSource, tenant: str, instance: str, tx: ConnectorTx) -> None:
        """Write the chat's last source down, unless it is there already, as nearly always."""
        source = msgspec.structs.replace(source, message_id=None)
        key = (tenant, instance, source.platform, source.bot_id or "", source.chat_id)
        if self._known.get(key) == source:
            return
        wire = _encoder.encode(source)
        chat = ChatRow(
            platform=source.platform,
            bot_id=source.bot_id or "",
            chat_id=source.chat_id,
            instance=instance,
            scope_id=source.scope_id,
            user_id=source.user_id,
            source=wire,
        )
        tx.put_chat(tenant, chat)
        tx.signals.append(partial(self._know, key, source))

    def _know(self, key: tuple[str, ...], source: SessionSource) -> None:
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[key] = source


_encoder: Final = msgspec.json.Encoder()
