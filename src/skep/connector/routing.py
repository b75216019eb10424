"""Who receives an event: its author decides, and nobody else.

Source: relay contract, section 11, steps 1 and 2, and section 13, invariants 1 to 3.
An author that is bound to nobody reaches nobody; a chat, a guild or a route never delivers by itself.
Pure over the transaction it is given.
"""

from __future__ import annotations

import msgspec

from skep.store.sqlite.connector import ConnectorTx
from skep.wire.relay.event import SessionSource

__all__ = ["Recipient", "recipient_of"]


class Recipient(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway of one tenant, by what it serves."""

    tenant: str
    instance: str


def recipient_of(source: SessionSource, tx: ConnectorTx) -> Recipient | None:
    """Return who gets what the author of `source` wrote; `None`: nobody does."""
    if not source.user_id:
        return None
    bound = tx.binding(source.platform, source.user_ns or "", source.user_id)
    return Recipient(tenant=bound[0], instance=bound[1]) if bound else None
