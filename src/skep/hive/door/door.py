"""The door: what the gateway hands in, and the lanes of chats that it carries out.

Source: control protocol, sections 4 to 7. Each event is taken in one transaction; when it is answered
it is on disk. The daemon decides who wrote and who answers: the gateway says only what it was told.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from skep.broker.broker import Broker
from skep.foundation.clock import Clock
from skep.foundation.errors import TryAgainError
from skep.foundation.log import get_logger
from skep.foundation.rpc import Call, Handler, RpcError
from skep.foundation.settings import HiveSettings
from skep.hive.door.accept import Accepted, Arrival, accept, intake_key, refuse
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

_RELAY_MAX: Final = 64
_DEFAULT: Final = "default"

_log = get_logger(part="door")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stop:
    """What a `/stop` is to stop, looked up before its transaction."""

    held: tuple[HeldLease, ...]


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

    async def accept(self, call: Call, args: wire.AcceptArgs) -> wire.AcceptResult:
        """`door.accept`: one event, one transaction.

        Raises:
            TryAgainError: Whether it is stored is not known; the gateway repeats it.
        """
        _check_relay(args.relay)
        try:
            event = decode_event(args.event)
            session = session_key(event.source)
            key = intake_key(args.relay, event, buffer_id=args.buffer_id)
        except EventInvalidError as error:
            return await self._refuse(args, _key_of_bytes(args), error.problem)
        except Exception as error:  # noqa: BLE001 - a poison event must not block its chat
            return await self._refuse(args, _key_of_bytes(args), type(error).__name__, error)
        stops = _Stop(held=())
        command = read_command(event.text)
        if command is not None and command.name == "stop":
            stops = _Stop(held=self._running(session, args.relay, event.source.chat_id))
        arrival = Arrival(
            relay=args.relay,
            key=key,
            event=event,
            session=session,
            command=command,
            runs=bool(stops.held),
            quiet_ms=self._quiet_ms(event.source.platform),
        )
        try:
            accepted = await self._broker.transact(
                partial(accept, rules=self._broker.rules, agents=self._agents, arrival=arrival)
            )
        except TryAgainError:
            raise
        except Exception as error:  # noqa: BLE001 - a poison event must not block its chat
            return await self._refuse(args, key, type(error).__name__, error)
        if accepted.outcome == "handled":
            for held in stops.held:
                Leases.cancel(held, "stopped")
        if accepted.outcome == "refused":
            return await self._refuse(args, key, accepted.reason or "refused")
        self._told(accepted)
        return wire.AcceptResult(outcome=accepted.outcome, message_id=accepted.message_id)

    async def interrupt(self, call: Call, args: wire.InterruptArgs) -> wire.InterruptResult:
        """`door.interrupt`: stop the turn of exactly this session."""
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
        """Return the turns of this session that a chat of this relay has begun."""
        return tuple(
            held for held in self._calls.leases.of_session(session) if held.is_of_chat(relay, chat_id)
        )

    async def _refuse(
        self, args: wire.AcceptArgs, key: str, reason: str, error: Exception | None = None
    ) -> wire.AcceptResult:
        """Keep an event that will never be taken where an operator sees it."""
        kept = await self._broker.transact(
            partial(
                refuse,
                rules=self._broker.rules,
                key=key,
                relay=args.relay,
                event=bytes(args.event).decode("utf-8", "replace"),
                reason=reason,
            )
        )
        _log.error("event_refused", relay=args.relay, reason=reason, exc_info=error)
        return wire.AcceptResult(outcome=kept.outcome, message_id=kept.message_id, reason=kept.reason)

    def _told(self, accepted: Accepted) -> None:
        _log.debug(
            "event_accepted",
            outcome=accepted.outcome,
            message_id=accepted.message_id,
            person_id=accepted.person,
            agent=accepted.agent,
        )

    def _quiet_ms(self, platform: str) -> int:
        quiet = self._settings.quiet_ms
        return quiet.get(platform, quiet.get(_DEFAULT, 0))


def _check_relay(relay: str) -> None:
    if not 0 < len(relay) <= _RELAY_MAX:
        raise RpcError("invalid_argument", f"`relay` must have 1 to {_RELAY_MAX} characters")


def _key_of_bytes(args: wire.AcceptArgs) -> str:
    """Return a key for an event that names nothing: a repeat has the same."""
    if args.buffer_id:
        return f"{args.relay}:b:{args.buffer_id}"
    return f"{args.relay}:x:{hashlib.sha256(msgspec.Raw(args.event)).hexdigest()}"
