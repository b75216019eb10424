"""Stopping a turn from its chat.

Source: relay contract, sections 7.2 and 16. The session key is one that the gateway itself builds: from the
last source of the chat, in Skep's form for a Skep gateway, else in the form of the released client.
"""

from __future__ import annotations

from typing import Final

import msgspec

from skep.connector.deliveries import Deliveries
from skep.connector.platform import source_of
from skep.foundation.errors import RefusedError, TryAgainError
from skep.store.sqlite.connector import ConnectorStore
from skep.wire.relay.frames import InterruptInbound, encode_frame
from skep.wire.relay.session_key import session_key, stock_session_key

__all__ = ["Interrupts"]


class Interrupts:
    """Carries a person's stop to the gateway that runs the turn."""

    def __init__(self, store: ConnectorStore, deliveries: Deliveries) -> None:
        self._store: Final = store
        self._deliveries: Final = deliveries

    async def stop(
        self,
        *,
        tenant: str,
        platform: str,
        chat_id: str,
        thread_id: str | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> None:
        """Interrupt what answers in a chat. It goes out at once, or not at all.

        Args:
            thread_id: The thread that is meant, `None` for what is outside of threads; where it is not known,
                the thread of the last source.

        Raises:
            RefusedError: Nothing was ever said in this chat.
            TryAgainError: The gateway is not connected.
        """
        chats = await self._store.read(lambda tx: tx.chats(tenant, platform=platform, chat_id=chat_id))
        if not chats:
            raise RefusedError("nothing was said here yet", code="connector.not_found")
        for chat in chats:
            receiver = self._deliveries.receiver(tenant, chat.instance)
            if receiver is None:
                raise TryAgainError(
                    "the gateway is not connected", hint="try again in a moment", code="connector.away"
                )
            source = source_of(chat)
            if thread_id is not msgspec.UNSET:
                source = msgspec.structs.replace(source, thread_id=thread_id)
            key = session_key(source) if receiver.is_skep else stock_session_key(source)
            receiver.send(encode_frame(InterruptInbound(session_key=key, chat_id=chat_id)))
