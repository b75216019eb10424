"""Outbound: leases the lanes of chats, says each message, reports what became of it.

Source: control protocol, sections 5.3 to 6.3. One lane per chat, so order holds per chat and a blocked
chat blocks itself. Nothing is durable here: the daemon keeps its copy until `pump.ended`, and the
answer's key makes a repeat harmless at a Skep connector.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, TypeVar

from skep.foundation.log import get_logger
from skep.foundation.rpc import CallError, ConnectionLostError, Method
from skep.foundation.tasks import Backoff, TaskSet
from skep.gateway.dialer import Account, RelayLink
from skep.gateway.door import Door, is_worth_repeating
from skep.gateway.errors import AmbiguousError, NotSentError
from skep.gateway.wording import final_action, plain_action
from skep.wire.control.envelope import Envelope, Lease, Route
from skep.wire.control.pump import (
    ENDED,
    NACK,
    NEXT,
    RENEW,
    STARTED,
    EndedArgs,
    NackArgs,
    NextArgs,
    Outcome,
    RenewArgs,
    StartedArgs,
)
from skep.wire.relay.actions import Action, Result

__all__ = ["MAX_LANES", "Outbox", "outcome_of"]

MAX_LANES: Final = 64
RENEW_EVERY_S: Final = 20.0
REPORT_PATIENCE_S: Final = 60.0
RELINK_PATIENCE_S: Final = 30.0
"""How long a message whose outcome is not known waits for the relay to come back, in seconds."""
LEAVE_S: Final = 5.0
"""How long what is on its way may take when the daemon stops, in seconds."""
MAX_KEPT: Final = 1024

AGAIN_CODES: Final = frozenset({"rate_limited", "transient", "account_down"})
PLAIN_CODES: Final = frozenset({"too_long", "bad_format", "media_refused", "unsupported"})
_AGAIN_WORDS: Final = (
    "connecterror",
    "connectionerror",
    "connectionreset",
    "connectionrefused",
    "connecttimeout",
    "network",
    "broken pipe",
    "remotedisconnected",
    "eoferror",
)
"""How a connector without codes says that a failure is temporary (relay contract, section 7)."""

_log = get_logger(part="outbox")
A = TypeVar("A")
R = TypeVar("R")


def outcome_of(result: Result) -> str:
    """Return the code that decides what follows: of the result, or of its words when it has none."""
    if result.success:
        return "success"
    if result.code:
        return result.code
    words = (result.error or "").casefold()
    if any(word in words for word in _AGAIN_WORDS):
        return "transient"
    return "unknown_outcome" if "timed out" in words else "unknown"


class Outbox:
    """Leases of the lanes of chats on one relay."""

    def __init__(self, door: Door, link: RelayLink, tasks: TaskSet) -> None:
        self._door: Final = door
        self._link: Final = link
        self._tasks: Final = tasks
        self._leases: dict[str, Lease] = {}
        self._slot_free = asyncio.Event()
        self._delays: dict[int, Backoff] = {}
        self._unreported: dict[str, tuple[Outcome, str | None, tuple[str, ...]]] = {}
        self._all_done = asyncio.Event()
        self._all_done.set()

    async def run(self) -> None:
        """Take leases until cancelled; those that are taken go on to their end."""
        backoff = Backoff()
        while True:
            await self._link.wait_connected()
            await self._door.wait_open()
            free = MAX_LANES - len(self._leases)
            if not free:
                self._slot_free.clear()
                await self._slot_free.wait()
                continue
            try:
                result = await self._door.call(NEXT, NextArgs(max=1, lanes=free))
            except (CallError, ConnectionLostError) as error:
                if error.wire_code == "shutting_down":
                    await self._leave()
                elif not is_worth_repeating(error):
                    _log.error("leases_refused", code=error.code, problem=error.problem)
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            for lease in result.leases:
                self._leases[lease.lease_id] = lease
                self._all_done.clear()
                self._tasks.spawn(self._carry(lease))

    async def renew(self) -> None:
        """Keep the leases that are worked on, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            for lease in list(self._leases.values()):
                try:
                    await self._door.call(RENEW, RenewArgs(lease_id=lease.lease_id, fence=lease.fence))
                except (CallError, ConnectionLostError) as error:
                    _log.debug("lease_not_renewed", code=error.code)

    async def drain(self) -> None:
        """Wait until no lease is worked on."""
        await self._all_done.wait()

    async def _leave(self) -> None:
        """The daemon stops: end what is on its way while it still listens, then hang up."""
        _log.info("daemon_stopping")
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self.drain()
        self._door.hang_up()

    async def _carry(self, lease: Lease) -> None:
        try:
            for envelope in lease.envelopes[:1]:
                await self._say(lease, envelope)
        except (CallError, ConnectionLostError, TimeoutError) as error:
            # The lease is stale, or the daemon went away and took it back: it comes again.
            _log.debug("lease_lost", why=type(error).__name__)
        finally:
            del self._leases[lease.lease_id]
            self._slot_free.set()
            if not self._leases:
                self._all_done.set()

    async def _say(self, lease: Lease, envelope: Envelope) -> None:
        route, key = envelope.route, envelope.reply_key or envelope.id
        if route is None:
            _log.error("lease_without_route", delivery_id=envelope.delivery_id)
            await self._start(lease)
            await self._end(lease, envelope, "refused", code="config_error")
            return
        if (known := self._unreported.pop(key, None)) is not None:
            outcome, code, ids = known
            await self._start(lease)
            await self._end(lease, envelope, outcome, code=code, ids=ids)
            return
        account = self._link.account(route)
        if account is None:
            await self._give_back(lease, envelope, None, "relay_down")
            return
        await self._start(lease)
        await self._deliver(lease, envelope, route, account)

    async def _deliver(self, lease: Lease, envelope: Envelope, route: Route, account: Account) -> None:
        """Ask until the outcome is one that can be reported."""
        action: Action = final_action(envelope, route, account.descriptor)
        is_plain = is_again = False
        while True:
            try:
                result = await self._link.request(action, platform=account.platform, bot_id=account.bot_id)
            except NotSentError:
                await self._give_back(lease, envelope, None, "relay_down")
                return
            except AmbiguousError:
                if not account.descriptor.skep:
                    await self._end(lease, envelope, "unknown", code="unknown_outcome")
                    return
                if not await self._is_back():
                    await self._give_back(lease, envelope, None, "relay_down")
                    return
                continue  # the same frame again: its key makes that harmless
            code = outcome_of(result)
            if code == "success":
                await self._end(lease, envelope, "ok", ids=result.message_ids)
            elif code in AGAIN_CODES:
                await self._give_back(lease, envelope, result.retry_after_ms, code)
            elif code == "unknown_outcome" and account.descriptor.skep and not is_again:
                is_again = True
                continue
            elif code == "unknown_outcome":
                await self._end(lease, envelope, "unknown", code=code)
            elif code in PLAIN_CODES and not is_plain:
                is_plain = True
                action = plain_action(envelope, route, account.descriptor)
                continue
            else:
                await self._end(lease, envelope, "refused", code=code)
            return

    async def _is_back(self) -> bool:
        try:
            async with asyncio.timeout(RELINK_PATIENCE_S):
                await self._link.wait_connected()
        except TimeoutError:
            return False
        return True

    async def _start(self, lease: Lease) -> None:
        """Say that the platform is about to be called. Not repeated: a lost lease is leased again."""
        args = StartedArgs(lease_id=lease.lease_id, fence=lease.fence, turn_id=lease.lease_id)
        await self._door.call(STARTED, args)

    async def _end(
        self,
        lease: Lease,
        envelope: Envelope,
        outcome: Outcome,
        *,
        code: str | None = None,
        ids: tuple[str, ...] = (),
    ) -> None:
        """Report the end; kept in memory while it cannot be told, and told when it is leased again."""
        self._delays.pop(envelope.delivery_id, None)
        args = EndedArgs(
            lease_id=lease.lease_id,
            fence=lease.fence,
            turn_id=lease.lease_id,
            outcome=outcome,
            platform_message_ids=ids,
            code=code,
        )
        try:
            await self._report(ENDED, args)
        except (CallError, ConnectionLostError, TimeoutError):
            self._unreported[envelope.reply_key or envelope.id] = (outcome, code, ids)
            if len(self._unreported) > MAX_KEPT:
                self._unreported.pop(next(iter(self._unreported)))
            raise
        _log.debug("message_relayed", outcome=outcome, code=code, delivery_id=envelope.delivery_id)

    async def _give_back(self, lease: Lease, envelope: Envelope, delay_ms: int | None, reason: str) -> None:
        if delay_ms is None:
            backoff = self._delays.setdefault(envelope.delivery_id, Backoff(first_s=1.0, last_s=60.0))
            delay_ms = int(backoff.next_s() * 1000)
        if len(self._delays) > MAX_KEPT:
            self._delays.pop(next(iter(self._delays)))
        args = NackArgs(
            lease_id=lease.lease_id,
            fence=lease.fence,
            delivery_ids=(envelope.delivery_id,),
            delay_ms=min(delay_ms, 3_600_000),
            reason=reason,
        )
        await self._report(NACK, args)

    async def _report(self, method: Method[Any, Any], args: object) -> None:
        """Tell the daemon; what nobody must act on is repeated while the lease may still be ours."""
        backoff = Backoff()
        async with asyncio.timeout(REPORT_PATIENCE_S):
            while True:
                try:
                    await self._door.call(method, args)
                except CallError as error:
                    if not is_worth_repeating(error):
                        raise
                    await asyncio.sleep(backoff.next_s())
                else:
                    return
