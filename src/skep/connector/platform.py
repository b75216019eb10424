"""What a chat platform is to the rest of the connector.

Source: platforms, sections 1 and 2; relay contract, sections 6, 7 and 11.
A platform hands in events through `Intake` and is handed actions by `Egress`; it calls neither router
nor gateway, and no exception but `SkepError` leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from skep.store.sqlite.connector import ChatRow, ConnectorTx, TakenRow
from skep.wire.relay.actions import Action, Hints, Result
from skep.wire.relay.descriptor import Descriptor
from skep.wire.relay.event import MessageEvent, SessionSource, encode_event
from skep.wire.relay.team import AgentHere

__all__ = ["LOCAL_INSTANCE", "LOCAL_TENANT", "Inbound", "Platform", "Target", "source_of"]

LOCAL_TENANT: Final = "local"
"""The tenant of whoever runs this connector."""
LOCAL_INSTANCE: Final = "gw-local"
"""Who the local tenant's people are bound to; a gateway without an instance counts as its own id."""


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a platform, verified and normalised, on its way to the store.

    Attributes:
        dedupe_key: What the platform repeats when it repeats the event: `platform:account:event`, so that
            keys that come together lie together. `None` when the platform's own rows, in the same
            transaction, tell a repeat.
        message_id: With a dedupe key the platform's own, the same in a repeat.
        wire: The event as JSON, as gateways get it. Encoded before it meets the writer thread.
    """

    dedupe_key: str | None
    message_id: str
    source: SessionSource
    wire: bytes

    @classmethod
    def of(cls, event: MessageEvent, *, dedupe_key: str | None) -> Inbound:
        """Return `event` as it is stored and sent; it must have a message id."""
        if event.message_id is None:
            raise ValueError("an inbound event needs a message id")
        return cls(
            dedupe_key=dedupe_key,
            message_id=event.message_id,
            source=event.source,
            wire=encode_event(event),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an action goes, after the egress guard let it through.

    Attributes:
        gateway_id: Who asks; idempotency keys are per gateway.
    """

    tenant: str
    gateway_id: str
    chat: ChatRow


class Platform(Protocol):
    """One chat platform and its accounts.

    Attributes:
        name: As in `source.platform`.
        bot_ids: Its accounts; the first one is meant when none is named.
        is_exact: The platform's store is ours, and a repeated send finds the first one: so `Egress`
            keeps no record of its own.
        repeats_safely: A send with the same key is harmless to the platform.
    """

    @property
    def name(self) -> str: ...
    @property
    def bot_ids(self) -> tuple[str, ...]: ...
    @property
    def is_exact(self) -> bool: ...
    @property
    def repeats_safely(self) -> bool: ...

    def descriptor(self, bot_id: str, *, is_skep: bool) -> Descriptor:
        """Return what can be done here; no I/O."""
        ...

    async def perform(self, action: Action, target: Target, hints: Hints) -> Result:
        """Do `action`, or say why not."""
        ...

    def delivered(self, tx: ConnectorTx, taken: Sequence[TakenRow]) -> None:
        """A gateway has acknowledged these events; in the transaction that forgets them.

        It can be told before the platform is told that they are stored: both are then on disk.
        """
        ...

    def agents_here(self, tenant: str, instance: str, agents: Sequence[AgentHere]) -> None:
        """Take which agents people of a gateway can choose from, and how they are; no I/O."""
        ...

    def given_up(self, tx: ConnectorTx, taken: TakenRow) -> None:
        """The buffer was too full or the event too old; in the transaction that forgets it."""
        ...


def source_of(chat: ChatRow) -> SessionSource:
    """Return the last source of a chat."""
    return _source_decoder.decode(chat.source)


_source_decoder: Final = msgspec.json.Decoder(SessionSource)
