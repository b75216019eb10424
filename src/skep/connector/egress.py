"""Egress: what a gateway asks to be done on a platform, guarded, done once, and answered.

Source: relay contract, sections 7, 13 and 16; platforms, sections 7 and 8.
It keeps no queue: each action is answered within 10 s, in order per chat, and the sender keeps its copy.
A refusal never tells whether somebody else owns the target.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from skep.connector.platform import Platform, Target
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError, TryAgainError
from skep.foundation.log import get_logger
from skep.store.sqlite.connector import ChatRow, ConnectorStore, ConnectorTx
from skep.wire.relay.actions import (
    Action,
    ActionInvalidError,
    Draft,
    FollowUp,
    Hints,
    Result,
    Send,
    decode_action,
    read_hints,
)
from skep.wire.relay.frames import Outbound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ANSWER_WITHIN_S", "Egress", "Identity", "Origin", "declined"]

ANSWER_WITHIN_S: Final = 10.0
_CHATS_MAX: Final = 10_000
_AGAIN: Final = frozenset({"rate_limited", "transient", "account_down"})
"""Results after which the platform certainly did nothing."""

_log = get_logger(part="egress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One account of one platform."""

    platform: str
    bot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who asks: facts of the authenticated record, never of a frame.

    Attributes:
        identities: What this connection advertised and is provisioned for, the default first.
    """

    gateway_id: str
    tenant: str
    instance: str
    identities: tuple[Identity, ...]


class Egress:
    """The only way out to a platform."""

    def __init__(self, store: ConnectorStore, platforms: Mapping[str, Platform], clock: Clock) -> None:
        self._store: Final = store
        self._platforms: Final = platforms
        self._clock: Final = clock
        self._chats: dict[tuple[str, str, str], tuple[ChatRow, ...]] = {}
        self._locks: Final[dict[tuple[str, str], _Turns]] = {}

    async def perform(self, frame: Outbound, origin: Origin) -> Result:
        """Do what `frame` asks for, or say why not. Never raises."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self._perform(frame, origin)
        except TimeoutError:
            return Result(error="the platform timed out", code="unknown_outcome")
        except ActionInvalidError as error:
            is_unknown = error.problem.startswith("unsupported op")
            return Result(error=error.problem, code="unsupported" if is_unknown else "bad_format")
        except TryAgainError as error:
            # `network` makes a 0.19.0 gateway try again (relay contract, section 7).
            return Result(
                error=f"network: {error.problem}",
                code="transient",
                retry_after_ms=int(error.retry_after_s * 1000),
            )
        except SkepError as error:
            return Result(error=error.problem, code="unknown")
        except Exception as error:  # noqa: BLE001 - the border: a platform's bug must not end the session
            _log.error("egress_failed", exc_info=error)
            return Result(error="unexpected fault in the connector", code="unknown")

    def forget_chats(self) -> None:
        """Look each chat up again: bindings have changed."""
        self._chats.clear()

    async def _perform(self, frame: Outbound, origin: Origin) -> Result:
        action = decode_action(frame.action)
        if isinstance(action, FollowUp):
            return Result(error=f"unsupported op: {action.op}", code="unsupported")
        hints = read_hints(action.metadata)
        async with self._turn(origin.tenant, action.chat_id):
            chat = await self._target(frame, action.chat_id, hints, origin)
            if chat is None:
                return declined(frame, origin)
            platform = self._platforms[chat.platform]
            target = Target(tenant=origin.tenant, gateway_id=origin.gateway_id, chat=chat)
            if hints.idem is not None and not platform.is_exact and _is_kept(action):
                return await self._once(platform, action, target, hints, hints.idem)
            return await platform.perform(action, target, hints)

    async def _target(self, frame: Outbound, chat_id: str, hints: Hints, origin: Origin) -> ChatRow | None:
        """Return the chat that is meant, if this connection may write there.

        The tenant must have received from it, under an account that the connection advertised; and
        the action must name its scope, else a person of the tenant's own whom it is a chat with.
        """
        if hints.scopes_disagree or not (hints.scope_id or hints.user_id):
            return None
        for identity in _named(frame, origin):
            for chat in await self._chats_of(origin.tenant, identity.platform, chat_id):
                if chat.bot_id != identity.bot_id or chat.instance != origin.instance:
                    continue
                if hints.scope_id is not None:
                    return chat if chat.scope_id == hints.scope_id else None
                return chat if chat.user_id == hints.user_id else None
        return None

    async def _chats_of(self, tenant: str, platform: str, chat_id: str) -> tuple[ChatRow, ...]:
        """Return the tenant's own chats of this id. A foreign chat costs the same as an unknown one."""
        key = (tenant, platform, chat_id)
        known = self._chats.get(key)
        if known is None:
            rows = await self._store.read(lambda tx: tx.chats(tenant, platform=platform, chat_id=chat_id))
            known = tuple(rows)
            if known:  # what is not there may come
                if len(self._chats) >= _CHATS_MAX:
                    self._chats.clear()
                self._chats[key] = known
        return known

    async def _once(
        self, platform: Platform, action: Action, target: Target, hints: Hints, idem: str
    ) -> Result:
        """Call a platform whose store is not ours at most once per key, as far as that can be known."""
        gateway_id = target.gateway_id
        found = await self._store.write(partial(_begin, gateway_id, idem, self._clock.now_ms()))
        if found is not None:
            if found[0] is not None:
                return _results.decode(found[0])
            if not (platform.repeats_safely or hints.repeat):
                return Result(error="whether it was sent is not known", code="unknown_outcome")
        result = await platform.perform(action, target, hints)
        if result.code in _AGAIN:
            await self._store.write(lambda tx: tx.forget_egress(gateway_id, idem))
        elif result.code != "unknown_outcome":
            wire = _encoder.encode(result.to_wire())
            await self._store.write(lambda tx: tx.end_egress(gateway_id, idem, wire))
        return result

    @asynccontextmanager
    async def _turn(self, tenant: str, chat_id: str) -> AsyncIterator[None]:
        """Wait until everything that came before for this chat is done."""
        key = (tenant, chat_id)
        turns = self._locks.get(key)
        if turns is None:
            turns = self._locks[key] = _Turns()
        turns.waiting += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.waiting -= 1
            if not turns.waiting:
                del self._locks[key]


@dataclass(slots=True)
class _Turns:
    lock: asyncio.Lock
    waiting: int

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


def declined(frame: Outbound, origin: Origin) -> Result:
    """Return the one refusal: the same bytes whoever owns the target, or nobody."""
    default = origin.identities[0].platform if origin.identities else "relay"
    name = frame.platform or default
    return Result(
        code="egress_declined",
        error=f"{name} egress declined: target is not an approved destination for this connection",
    )


def _named(frame: Outbound, origin: Origin) -> tuple[Identity, ...]:
    """Return the identities that `frame` may mean: the one it is tagged with, else all advertised."""
    if frame.platform is None:
        return origin.identities
    return tuple(
        identity
        for identity in origin.identities
        if identity.platform == frame.platform and frame.bot_id in (None, "", identity.bot_id)
    )


def _is_kept(action: Action) -> bool:
    return isinstance(action, Send) or (isinstance(action, Draft) and action.final)


def _begin(gateway_id: str, idem: str, now_ms: int, tx: ConnectorTx) -> tuple[bytes | None] | None:
    found = tx.egress(gateway_id, idem)
    if found is None:
        tx.begin_egress(gateway_id, idem, now_ms=now_ms)
    return found


_results: Final = msgspec.json.Decoder(Result)
_encoder: Final = msgspec.json.Encoder()
