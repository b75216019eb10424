"""Taking events in: dedupe key, route and delivery, all in one transaction.

Source: platforms, section 1; relay contract, section 11. The platform gets its answer only when this is on
disk. The same key again changes nothing and goes nowhere. What comes in one turn of the loop is one
operation of the store; an event in it that cannot be stored takes no other with it.
A Skep gateway gets an event as soon as it is written, while the disk is still at work: `Deliveries.run_ahead`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from skep.connector.deliveries import Deliveries, Kept
from skep.connector.platform import Inbound
from skep.connector.routing import Recipient, recipient_of
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.store.sqlite.connector import ChatRow, ConnectorStore, ConnectorTx
from skep.wire.relay.event import SessionSource

__all__ = ["Intake", "Taken"]

K = TypeVar("K")
V = TypeVar("V")

_KNOWN_MAX: Final = 10_000
_EXPIRE_STEP: Final = 500

_log = get_logger(part="intake")


class Taken(enum.Enum):
    """What became of an event."""

    STORED = enum.auto()
    DUPLICATE = enum.auto()
    UNBOUND = enum.auto()
    """Its author reaches nobody here."""
    UNFIT = enum.auto()
    """It cannot be stored, now or later: there is nothing that the platform could do."""


class Intake:
    """The only way in for a platform."""

    def __init__(self, store: ConnectorStore, deliveries: Deliveries, clock: Clock) -> None:
        self._store: Final = store
        self._deliveries: Final = deliveries
        self._clock: Final = clock
        self._calls: list[_Call] = []
        # Read and changed in the writer thread alone.
        self._recipients: Final[dict[tuple[str, str, str], _Known[Recipient]]] = {}
        self._chats: Final[dict[tuple[str, str, str, str], _Known[tuple[str, SessionSource]]]] = {}

    async def accept(self, inbound: Inbound) -> Taken:
        """Take one event in; returns when it is on disk.

        Raises:
            StoreUnavailableError: It is not; the platform must try again.
        """
        return (await self.accept_all([inbound]))[0]

    def accept_all(self, inbounds: Sequence[Inbound]) -> asyncio.Future[list[Taken]]:
        """Take events in, in this order and behind all that came before.

        Returns:
            A future, done when they are on disk: what became of each. It raises `StoreUnavailableError`
            when they are not; the platform must try again.
        """
        loop = asyncio.get_running_loop()
        call = _Call(inbounds, loop.create_future())
        if not self._calls:
            loop.call_soon(self._flush)
        self._calls.append(call)
        return call.future

    def take(self, inbound: Inbound, tx: ConnectorTx) -> Taken:
        """Take one event in, as a part of a transaction of the platform's."""
        now_ms = self._clock.now_ms()
        key = inbound.dedupe_key
        if key is not None and not tx.take_in(key, now_ms=now_ms):
            return Taken.DUPLICATE
        return self._keep([inbound], tx, now_ms=now_ms).taken[0]

    async def expire(self, age_ms: int) -> None:
        """Forget what was taken so long ago that no platform repeats it.

        A reader walks through the keys, so that the writer need not.
        """
        before_ms = self._clock.now_ms() - age_ms
        keys = [""]
        while keys:
            old = partial(ConnectorTx.old_intake, after=keys[-1], before_ms=before_ms, limit=_EXPIRE_STEP)
            keys = await self._store.read(old)
            await self._store.write(partial(ConnectorTx.forget_intake, dedupe_keys=keys))

    def _flush(self) -> None:
        """Write down what this turn of the loop brought."""
        calls, self._calls = self._calls, []
        batch = [inbound for call in calls for inbound in call.inbounds]
        try:
            written = self._store.write(partial(self._take_all, batch))
        except SkepError as error:  # closed
            _fail(calls, error)
        else:
            written.add_done_callback(partial(_tell, calls))

    # In the writer thread.

    def _take_all(self, batch: list[Inbound], tx: ConnectorTx) -> list[Taken]:
        """Take events in at once when all of them are new, as nearly always; else one by one."""
        done = tx.attempt(partial(self._take_new, batch, tx))
        if isinstance(done, Exception):
            return [self._take_one(inbound, tx) for inbound in batch]
        if done.certain:
            self._deliveries.run_ahead(done.certain)
        return done.taken

    def _take_new(self, batch: list[Inbound], tx: ConnectorTx) -> _Done:
        now_ms = self._clock.now_ms()
        tx.take_all_in([key for inbound in batch if (key := inbound.dedupe_key) is not None], now_ms=now_ms)
        return self._keep(batch, tx, now_ms=now_ms)

    def _take_one(self, inbound: Inbound, tx: ConnectorTx) -> Taken:
        taken = tx.attempt(partial(self.take, inbound, tx))
        if isinstance(taken, Exception):
            _log.error("event_unfit", platform=inbound.source.platform, problem=type(taken).__name__)
            return Taken.UNFIT
        return taken

    def _keep(self, batch: list[Inbound], tx: ConnectorTx, *, now_ms: int) -> _Done:
        """Write events down for those who receive them."""
        taken: list[Taken] = []
        lanes: dict[Recipient, list[Inbound]] = {}
        uncertain: set[Recipient] = set()
        for inbound in batch:
            recipient = self._recipient_of(inbound.source, tx)
            if recipient is None:
                taken.append(Taken.UNBOUND)
                continue
            taken.append(Taken.STORED)
            if not self._knew_chat(inbound.source, recipient, tx) or inbound.dedupe_key is None:
                uncertain.add(recipient)
            lanes.setdefault(recipient, []).append(inbound)
        certain: list[Kept] = []
        for recipient, inbounds in lanes.items():
            kept = self._deliveries.keep(recipient.tenant, recipient.instance, inbounds, tx, now_ms=now_ms)
            if recipient not in uncertain:
                certain.append(kept)
        return _Done(taken, certain)

    def _recipient_of(self, source: SessionSource, tx: ConnectorTx) -> Recipient | None:
        """Return who gets what the author of `source` wrote, if anybody does."""
        key = (source.platform, source.user_ns or "", source.user_id or "")
        known = self._recipients.get(key)
        if known is not None and known.holds(tx):
            return known.value
        recipient = recipient_of(source, tx)
        if recipient is not None:
            _know(self._recipients, key, recipient, tx)
        return recipient

    def _knew_chat(self, source: SessionSource, recipient: Recipient, tx: ConnectorTx) -> bool:
        """Return whether this is the chat's last source on disk, as nearly always; else write it down.

        It was written when the author was bound as now: so that is on disk too.
        """
        source = msgspec.structs.replace(source, message_id=None)
        bot_id = source.bot_id or ""
        key, value = (recipient.tenant, source.platform, bot_id, source.chat_id), (recipient.instance, source)
        known = self._chats.get(key)
        if known is not None and known.value == value and known.holds(tx):
            return True
        chat = ChatRow(
            platform=source.platform,
            bot_id=bot_id,
            chat_id=source.chat_id,
            instance=recipient.instance,
            scope_id=source.scope_id,
            user_id=source.user_id,
            source=_encoder.encode(source),
        )
        tx.put_chat(recipient.tenant, chat)
        _know(self._chats, key, value, tx)
        return False


class _Done(NamedTuple):
    """What became of a batch. What is `certain` is told from its repeat, and its author and chat are on disk."""

    taken: list[Taken]
    certain: list[Kept]


class _Call(msgspec.Struct, frozen=True):
    """What one call of `accept_all` brought, and who waits for it."""

    inbounds: Sequence[Inbound]
    future: asyncio.Future[list[Taken]]


class _Known(Generic[V]):
    """What was read or written in a transaction. It holds once that is on disk, until a binding changes.

    One that is undone never holds; it is replaced by the next.
    """

    __slots__ = ("_bindings", "_is_on_disk", "value")

    def __init__(self, value: V, tx: ConnectorTx) -> None:
        self.value: Final = value
        self._bindings: Final = tx.bindings
        self._is_on_disk = False
        tx.signals.append(self._stored)

    def holds(self, tx: ConnectorTx) -> bool:
        """Whether it need not be read or written again."""
        return self._is_on_disk and self._bindings == tx.bindings

    def _stored(self) -> None:
        self._is_on_disk = True


def _know(known: dict[K, _Known[V]], key: K, value: V, tx: ConnectorTx) -> None:
    if len(known) >= _KNOWN_MAX:
        known.clear()
    known[key] = _Known(value, tx)


def _tell(calls: list[_Call], written: asyncio.Future[list[Taken]]) -> None:
    if (error := written.exception()) is not None:
        _fail(calls, error)
        return
    taken = written.result()
    start = 0
    for call in calls:
        end = start + len(call.inbounds)
        if not call.future.done():
            call.future.set_result(taken[start:end])
        start = end


def _fail(calls: list[_Call], error: BaseException) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(error)


_encoder: Final = msgspec.json.Encoder()
