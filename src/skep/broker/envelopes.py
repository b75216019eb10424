"""From rows to envelopes: what a recipient sees, and the hint of what else waits.

Source: hive, sections 2.1, 5.5 and 6.2; control protocol, section 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from skep.broker import lanes
from skep.broker.errors import StaleLeaseError
from skep.broker.lanes import Lane
from skep.broker.rules import Rules
from skep.broker.types import BROADCAST_HINT, Attachment, Effect, Envelope, Pending, Route, Urgency
from skep.store.ports import HiveTx, Row

__all__ = ["Hints", "envelope_of", "pending_of", "reply_key_of", "route_of"]

_URGENCY: Final[Sequence[Urgency]] = ("normal", "soon", "interrupt")
_attachments: Final = msgspec.json.Decoder(tuple[Attachment, ...])
_texts: Final = msgspec.json.Decoder(tuple[str, ...])
_object: Final = msgspec.json.Decoder(dict[str, Any])


def envelope_of(
    tx: HiveTx, row: Row, *, to: str, session: str, now: int, chat: int | None = None
) -> Envelope:
    """Return the envelope of a row of `envelopes_ready`, that goes out now.

    Args:
        to: The recipient; for a message to a person `addressed_to` stays.
        now: The stamp of now, for the age.
        chat: Of the lane, when it is the lane of a chat.
    """
    (
        delivery_id,
        seq,
        urgency,
        broadcast,
        deadline_at,
        attempt,
        shown_turn,
        requeued,
        message_id,
        kind,
        sender,
        addressed_to,
        thread,
        in_reply_to,
        body,
        attachments,
        origin,
        created_at,
        _message_chat,
        _,
        reply_key,
        answers,
        choices,
        late,
        _failures,
    ) = row
    route = None
    if chat is not None:
        to = addressed_to
        reply_key = reply_key or f"m:{message_id}"
        if requeued:
            reply_key = f"{reply_key}:{requeued + 1}"
        repeat = shown_turn is not None
        route = route_of(tx, chat, answers=_texts.decode(answers) if answers else (), repeat=repeat)
    attempt += 1
    facts: dict[str, Any] = {}
    if urgency:
        facts["urgency"] = _URGENCY[int(urgency)]
    if broadcast:
        facts.update(broadcast=True, hint=BROADCAST_HINT)
    if attempt > 1:
        facts["redelivered"] = True
    if shown_turn is not None and chat is None:
        facts["prior_effects"] = _effects(tx, shown_turn)
    if attachments:
        facts["attachments"] = _attachments.decode(attachments)
    if origin:
        facts["origin"] = _object.decode(origin)
    if choices:
        facts["choices"] = _texts.decode(choices)
    if late:
        facts["late"] = True
    if chat is not None:
        facts.update(route=route, reply_key=reply_key)
        if sender.startswith("agent:"):
            facts["agent"] = sender[6:]
    return Envelope(
        id=message_id,
        delivery_id=delivery_id,
        kind=kind,
        from_=sender,
        to=to,
        session=session,
        thread=thread,
        body=body,
        lane_seq=seq,
        attempt=attempt,
        created_at=created_at,
        age_ms=max(0, now - created_at),
        in_reply_to=in_reply_to,
        deadline_at=deadline_at,
        **facts,
    )


def reply_key_of(message_id: str, *, requeued: int) -> str:
    """Return the idempotency key of the answer to a turn with this head. Control protocol, section 5.5."""
    return f"r:{message_id}:{requeued + 1}" if requeued else f"r:{message_id}"


def route_of(tx: HiveTx, chat: int, *, answers: tuple[str, ...] = (), repeat: bool = False) -> Route:
    """Return where to say it. Control protocol, section 5.4."""
    row = tx.one("chat", chat)
    if row is None:
        raise StaleLeaseError(f"`chat:{chat}` is gone")
    _, relay, platform, bot_id, scope_id, chat_id, thread_id, chat_type, user_id, _, _ = row
    return Route(
        relay=relay,
        platform=platform,
        bot_id=bot_id,
        chat_id=chat_id,
        chat_type=chat_type,
        thread_id=thread_id or None,
        scope_id=scope_id or None,
        user_id=user_id or None,
        reply_to=answers[-1] if answers else None,
        answers=answers,
        repeat=repeat,
    )


def pending_of(tx: HiveTx, rules: Rules, lane: Lane, *, elsewhere: int) -> Pending:
    """Return what else waits, for the holder of a lane; in other lanes only what can be taken. Hive, section 6.2."""
    if lane.ready_n > 0:
        names = [row[0] for row in tx.all("pending_from", lane.id)]
        oldest = [row[0] for row in tx.all("pending_oldest", lane.id)]
    elif elsewhere:
        heads = tx.all("pending_elsewhere", lane.mailbox)
        names = list(dict.fromkeys(row[0] for row in heads))
        oldest = [row[1] for row in heads]
    else:
        return Pending()
    age = max(0, rules.time.stamp() - min(oldest)) if oldest else 0
    return Pending(lane=lane.ready_n, other_lanes=elsewhere, oldest_age_ms=age, from_=tuple(names))


class Hints:
    """The hints of leases that are granted together: what waits in other lanes is the same for all of a mailbox."""

    def __init__(self, tx: HiveTx, rules: Rules) -> None:
        self._tx: Final = tx
        self._rules: Final = rules
        self._elsewhere: Final[dict[str, Pending]] = {}

    def of(self, lane: Lane) -> Pending:
        """Return what else waits for the holder of `lane`."""
        elsewhere = lanes.waiting(self._tx, lane.mailbox)
        if lane.ready_n > 0 or not elsewhere:
            return pending_of(self._tx, self._rules, lane, elsewhere=elsewhere)
        known = self._elsewhere.get(lane.mailbox)
        if known is None:
            known = pending_of(self._tx, self._rules, lane, elsewhere=elsewhere)
            self._elsewhere[lane.mailbox] = known
        return known


def _effects(tx: HiveTx, turn_id: str) -> tuple[Effect, ...]:
    """Return what a dead turn had sent and armed."""
    rows = [*tx.all("message_effects", turn_id), *tx.all("reminder_effects", turn_id)]
    return tuple(Effect(kind=kind, id=effect_id, text=text) for kind, effect_id, text in rows)
