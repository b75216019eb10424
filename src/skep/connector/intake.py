"""Taking events in: dedupe key, route and delivery, all in one transaction.

Source: platforms, section 1; relay contract, section 11. The platform gets its answer only when this is on
disk. The same key again changes nothing and goes nowhere. What comes in one turn of the loop is one
operation of the store; an event in it that cannot be stored takes no other with it.
A Skep gateway gets an event while the disk is still at work: `Deliveries.run_ahead`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from skep.connector.deliveries import Deliveries, Waiting
from skep.connector.platform import Inbound
from skep.connector.routing import Recipient, recipient_of
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.store.sqlite.connector import ChatRow, ConnectorStore, ConnectorTx
from skep.wire.relay.event import SessionSource

__all__ = ["Intake", "Taken"]

K = TypeVar("K")
T = TypeVar("T")
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
        # Under way, and going out when they are on disk: nothing may overtake them.
        self._behind = 0
        # Changed in the writer thread alone, whose transactions they are checked against.
        self._tx: ConnectorTx | None = None
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

    def write(self, op: Callable[[ConnectorTx], T]) -> asyncio.Future[T]:
        """Do as the store's `write` for a transaction of a platform's own in which it will `take` events in."""
        return self._goes_behind(self._store.write(op))

    def take(self, inbound: Inbound, tx: ConnectorTx) -> Taken:
        """Take one event in, as a part of a transaction of the platform's."""
        return self._take_one(inbound, None, tx)

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
        """Write down what this turn of the loop brought, and let it run ahead if it may."""
        calls, self._calls = self._calls, []
        batch = [inbound for call in calls for inbound in call.inbounds]
        ahead = self._ahead(batch)
        if ahead is None:
            if (written := self._store_all(calls, batch, [])) is not None:
                self._goes_behind(written)
            return
        claims = self._claims(ahead)
        for claim in claims:
            self._deliveries.run_ahead(claim.tenant, claim.instance, claim.waiting)
        # Behind the socket's own turn: the writer, once awake, wants the interpreter for itself.
        asyncio.get_running_loop().call_soon(self._store_all, calls, batch, claims)

    def _store_all(
        self, calls: list[_Call], batch: list[Inbound], claims: list[_Claim]
    ) -> asyncio.Future[list[Taken]] | None:
        """Hand a batch to the writer; nothing comes of it when the store is closed."""
        try:
            written = self._store.write(partial(self._take_all, batch, claims))
        except SkepError as error:
            _fail(calls, error)
            return None
        written.add_done_callback(partial(_tell, calls))
        return written

    def _goes_behind(self, written: asyncio.Future[T]) -> asyncio.Future[T]:
        self._behind += 1
        written.add_done_callback(self._has_gone)
        return written

    def _has_gone(self, written: asyncio.Future[Any]) -> None:
        self._behind -= 1

    def _ahead(self, batch: list[Inbound]) -> dict[Recipient, list[Inbound]] | None:
        """Return who gets what of a batch now; `None` when any of it must be on disk first.

        That is so for events whose repeat by their platform could not be told, and where author or chat are
        not on disk as they are now: an answer could be declined.
        """
        tx = self._tx
        if self._behind or tx is None:
            return None
        lanes: dict[Recipient, list[Inbound]] = {}
        for inbound in batch:
            source = inbound.source
            author = self._recipients.get(_author(source))
            if inbound.dedupe_key is None or author is None or not author.holds(tx):
                return None
            chat = self._chats.get(_chat(author.value.tenant, source))
            if chat is None or not chat.holds(tx) or chat.value != _last(author.value, source):
                return None
            lanes.setdefault(author.value, []).append(inbound)
        for recipient, inbounds in lanes.items():
            if not self._deliveries.may_run_ahead(recipient.tenant, recipient.instance, len(inbounds)):
                return None
        return lanes

    def _claims(self, ahead: dict[Recipient, list[Inbound]]) -> list[_Claim]:
        """Take the ids of what runs ahead."""
        return [
            _Claim(recipient.tenant, recipient.instance, inbounds, self._deliveries.claim(inbounds))
            for recipient, inbounds in ahead.items()
        ]

    # In the writer thread.

    def _take_all(self, batch: list[Inbound], claims: list[_Claim], tx: ConnectorTx) -> list[Taken]:
        """Take events in at once when all of them are new, as nearly always; else one by one."""
        self._tx = tx
        done = tx.attempt(partial(self._take_new, batch, claims, tx))
        if not isinstance(done, Exception):
            return done
        known = {id(one.inbounds[at]): one.only(at) for one in claims for at in range(len(one.inbounds))}
        return [self._take_alone(inbound, known.get(id(inbound)), tx) for inbound in batch]

    def _take_new(self, batch: list[Inbound], claims: list[_Claim], tx: ConnectorTx) -> list[Taken]:
        now_ms = self._clock.now_ms()
        tx.take_all_in([key for inbound in batch if (key := inbound.dedupe_key) is not None], now_ms=now_ms)
        if not claims:
            return self._keep(batch, tx, now_ms=now_ms)
        self._keep_claimed(claims, tx, now_ms=now_ms)
        return [Taken.STORED] * len(batch)

    def _take_alone(self, inbound: Inbound, claim: _Claim | None, tx: ConnectorTx) -> Taken:
        taken = tx.attempt(partial(self._take_one, inbound, claim, tx))
        if isinstance(taken, Exception):
            _log.error("event_unfit", platform=inbound.source.platform, problem=type(taken).__name__)
            return Taken.UNFIT
        return taken

    def _take_one(self, inbound: Inbound, claim: _Claim | None, tx: ConnectorTx) -> Taken:
        now_ms = self._clock.now_ms()
        key = inbound.dedupe_key
        if key is not None and not tx.take_in(key, now_ms=now_ms):
            return Taken.DUPLICATE
        if claim is None:
            return self._keep([inbound], tx, now_ms=now_ms)[0]
        self._keep_claimed([claim], tx, now_ms=now_ms)
        return Taken.STORED

    def _keep(self, batch: list[Inbound], tx: ConnectorTx, *, now_ms: int) -> list[Taken]:
        """Write events down for those who receive them."""
        taken: list[Taken] = []
        lanes: dict[Recipient, list[Inbound]] = {}
        for inbound in batch:
            recipient = self._recipient_of(inbound.source, tx)
            if recipient is None:
                taken.append(Taken.UNBOUND)
                continue
            taken.append(Taken.STORED)
            self._remember_chat(inbound.source, recipient, tx)
            lanes.setdefault(recipient, []).append(inbound)
        self._keep_claimed(self._claims(lanes), tx, now_ms=now_ms)
        return taken

    def _keep_claimed(self, claims: list[_Claim], tx: ConnectorTx, *, now_ms: int) -> None:
        for claim in claims:
            self._deliveries.keep(
                claim.tenant, claim.instance, claim.inbounds, claim.waiting, tx, now_ms=now_ms
            )

    def _recipient_of(self, source: SessionSource, tx: ConnectorTx) -> Recipient | None:
        """Return who gets what the author of `source` wrote, if anybody does."""
        key = _author(source)
        known = self._recipients.get(key)
        if known is not None and known.holds(tx):
            return known.value
        recipient = recipient_of(source, tx)
        if recipient is not None:
            _know(self._recipients, key, recipient, tx)
        return recipient

    def _remember_chat(self, source: SessionSource, recipient: Recipient, tx: ConnectorTx) -> None:
        """Write the chat's last source down, unless that is on disk, as nearly always.

        It was written when the author was bound as now: so that is on disk too.
        """
        key, value = _chat(recipient.tenant, source), _last(recipient, source)
        known = self._chats.get(key)
        if known is not None and known.value == value and known.holds(tx):
            return
        chat = ChatRow(
            platform=source.platform,
            bot_id=source.bot_id or "",
            chat_id=source.chat_id,
            instance=recipient.instance,
            scope_id=source.scope_id,
            user_id=source.user_id,
            source=_encoder.encode(value[1]),
        )
        tx.put_chat(recipient.tenant, chat)
        _know(self._chats, key, value, tx)


class _Claim(NamedTuple):
    """Events of one instance, and the ids that they have as deliveries."""

    tenant: str
    instance: str
    inbounds: Sequence[Inbound]
    waiting: Sequence[Waiting]

    def only(self, at: int) -> _Claim:
        """Return one of them."""
        return _Claim(self.tenant, self.instance, self.inbounds[at : at + 1], self.waiting[at : at + 1])


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


def _author(source: SessionSource) -> tuple[str, str, str]:
    return source.platform, source.user_ns or "", source.user_id or ""


def _chat(tenant: str, source: SessionSource) -> tuple[str, str, str, str]:
    return tenant, source.platform, source.bot_id or "", source.chat_id


def _last(recipient: Recipient, source: SessionSource) -> tuple[str, SessionSource]:
    """Return what is remembered of a chat: whose it is, and where it was written to last."""
    return recipient.instance, msgspec.structs.replace(source, message_id=None)


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
