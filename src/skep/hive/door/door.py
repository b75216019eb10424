"""The door: what the gateway hands in, and the lanes of chats that it carries out.

Source: control protocol, sections 4 to 7. Each event is taken in one transaction; when it is answered
it is on disk. The daemon decides who wrote and who answers: the gateway says only what it was told.
"""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Final, TypeVar

import msgspec

from skep.broker.broker import Broker
from skep.broker.types import IntakeKey
from skep.foundation.clock import Clock
from skep.foundation.errors import TryAgainError
from skep.foundation.log import get_logger
from skep.foundation.rpc import Call, Handler, RpcError
from skep.foundation.settings import HiveSettings
from skep.hive.door.accept import Arrival, accept_all, intake_key, refuse
from skep.hive.door.relays import Relays
from skep.hive.door.text import read_command
from skep.hive.ports import Agents
from skep.hive.pump import LeaseCalls
from skep.hive.turns import HeldLease, Leases
from skep.wire.control import door as wire
from skep.wire.control.base import Empty
from skep.wire.control.pump import NextArgs, NextResult
from skep.wire.relay.event import EventInvalidError, decode_event
from skep.wire.relay.session_key import session_key

__all__ = ["Door"]

T = TypeVar("T")

_RELAY_MAX: Final = 64
_DEFAULT: Final = "default"

_log = get_logger(part="door")


class Door:
    """What answers on `door.sock`."""

    def __init__(
        self,
        *,
        broker: Broker,
        clock: Clock,
        agents: Agents,
        calls: LeaseCalls,
        relays: Relays,
        settings: HiveSettings,
    ) -> None:
        self._broker: Final = broker
        self._clock: Final = clock
        self._agents: Final = agents
        self._calls: Final = calls
        self._relays: Final = relays
        self._settings: Final = settings
        self._accept_all: Final = partial(accept_all, broker.rules, agents)

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each method of this socket."""
        return {
            "door.attach": self.attach,
            "door.accept": self.accept,
            "door.interrupt": self.interrupt,
            "pump.next": self.next,
            "pump.started": self._calls.started,
            "pump.renew": self._calls.renew,
            "pump.ended": self._calls.ended,
            "pump.nack": self._calls.nack,
        }

    async def attach(self, call: Call, args: wire.AttachArgs) -> Empty:
        """`door.attach`: how one relay is; from here on turns of its chats are shown."""
        _check_relay(args.relay)
        self._relays.attach(call.connection, args)
        _log.info("relay_attached", relay=args.relay, state=args.state)
        return Empty()

    def accept(self, call: Call, args: wire.AcceptArgs) -> asyncio.Future[wire.AcceptResult]:
        """`door.accept`: one event, taken whole or not at all.

        Raises:
            TryAgainError: Whether it is stored is not known; the gateway repeats it.
        """
        _check_relay(args.relay)
        try:
            event = decode_event(args.event)
            session = session_key(event.source)
            key = intake_key(args.relay, event, buffer_id=args.buffer_id)
        except EventInvalidError as error:
            return self._refuse(args, _key_of_bytes(args), error.problem)
        except Exception as error:  # noqa: BLE001 - a poison event must not block its chat
            return self._refuse(args, _key_of_bytes(args), type(error).__name__, error)
        stops: tuple[HeldLease, ...] = ()
        command = read_command(event.text)
        if command is not None and command.name == "stop":
            stops = self._running(session, args.relay, event.source.chat_id)
        quiet_ms = self._quiet_ms(event.source.platform)
        arrival = Arrival(args.relay, key, args.event, event, session, command, bool(stops), quiet_ms)
        answer: asyncio.Future[wire.AcceptResult] = asyncio.get_running_loop().create_future()
        taken = self._broker.transact_each(self._accept_all, arrival)
        taken.add_done_callback(partial(self._accepted, args, key, stops, answer))
        return answer

    def _accepted(
        self,
        args: wire.AcceptArgs,
        key: IntakeKey,
        stops: tuple[HeldLease, ...],
        answer: asyncio.Future[wire.AcceptResult],
        taken: asyncio.Future[wire.AcceptResult],
    ) -> None:
        """Answer what became of an event; one that broke something is refused, and never blocks its chat."""
        error = None if taken.cancelled() else taken.exception()
        if isinstance(error, Exception) and not isinstance(error, TryAgainError):
            refused = self._refuse(args, key, type(error).__name__, error)
            refused.add_done_callback(partial(_pass_on, answer))
            return
        if error is None and not taken.cancelled():
            self._told(args.relay, taken.result(), stops)
        _pass_on(answer, taken)

    def _told(self, relay: str, accepted: wire.AcceptResult, stops: tuple[HeldLease, ...]) -> None:
        """Do and log what an event that is on disk brings with it."""
        if accepted.outcome == "handled":
            for held in stops:
                Leases.cancel(held, "stopped")
        if accepted.outcome == "refused":
            _log.error("event_refused", relay=relay, reason=accepted.reason)
        else:
            _log.debug("event_accepted", outcome=accepted.outcome, message_id=accepted.message_id)

    async def interrupt(self, call: Call, args: wire.InterruptArgs) -> wire.InterruptResult:
        """`door.interrupt`: stop what runs in exactly this session, also what a reminder began."""
        held = self._running(args.session_key, args.relay, args.chat_id)
        for lease in held:
            Leases.cancel(lease, "stopped")
        return wire.InterruptResult(cancelled=len(held))

    async def next(self, call: Call, args: NextArgs) -> NextResult:
        """`pump.next`, over the lanes of chats of the relays that are connected."""
        link = self._relays.link(call.connection)
        return await self._calls.take(
            call.connection,
            args,
            agent=None,
            lanes=args.lanes,
            mailboxes=link.mailboxes,
            changed=link.changed,
        )

    def _running(self, session: str, relay: str, chat_id: str) -> tuple[HeldLease, ...]:
        """Return the turns of this session that answer in this chat of this relay, whatever began them."""
        return tuple(
            held for held in self._calls.leases.of_session(session) if held.is_of_chat(relay, chat_id)
        )

    def _refuse(
        self, args: wire.AcceptArgs, key: IntakeKey, reason: str, error: Exception | None = None
    ) -> asyncio.Future[wire.AcceptResult]:
        """Keep an event that will never be taken where an operator sees it."""
        _log.error("event_refused", relay=args.relay, reason=reason, exc_info=error)
        rules = self._broker.rules
        return self._broker.transact(
            partial(refuse, rules=rules, key=key, relay=args.relay, event=args.event, reason=reason)
        )

    def _quiet_ms(self, platform: str) -> int:
        quiet = self._settings.quiet_ms
        return quiet.get(platform, quiet.get(_DEFAULT, 0))


def _check_relay(relay: str) -> None:
    if not 0 < len(relay) <= _RELAY_MAX:
        raise RpcError("invalid_argument", f"`relay` must have 1 to {_RELAY_MAX} characters")


def _key_of_bytes(args: wire.AcceptArgs) -> IntakeKey:
    """Return a key for an event that names nothing: a repeat has the same."""
    if args.buffer_id:
        return IntakeKey(f"b:{args.buffer_id}", args.relay)
    return IntakeKey(f"x:{hashlib.sha256(msgspec.Raw(args.event)).hexdigest()}", args.relay)


def _pass_on(answer: asyncio.Future[T], done: asyncio.Future[T]) -> None:
    """Let `answer` end as `done` did."""
    if answer.done():
        return
    if done.cancelled():
        answer.cancel()
    elif (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
