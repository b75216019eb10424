"""Sending: one message, its place in each recipient's lane, and what a sender is told.

Source: hive, sections 2, 3.4, 6.3, 6.4, 7.4, 7.7 and 9; control protocol, section 5.
Functions of a transaction: they run in the writer thread and compose with others in one transaction.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from skep.broker import rights
from skep.broker.errors import (
    IdempotencyConflictError,
    InvalidArgumentError,
    NoRouteError,
    NoSuchRecipientError,
    QueueFullError,
    TooLargeError,
)
from skep.broker.rules import Rules, charge
from skep.broker.types import BROADCAST, OPERATOR_INBOX, SYSTEM, Actor, Draft, Sent
from skep.store.ports import HiveTx, Row

__all__ = [
    "LIMITED",
    "OUT",
    "URGENCY",
    "chat_for_person",
    "deliver",
    "insert_message",
    "mailbox_of_chat",
    "send",
    "to_chat",
]

OUT: Final = "out"
"""Session of the one lane of a chat."""
URGENCY: Final = {"normal": 0, "soon": 1, "interrupt": 2}
_SESSION_MAX: Final = 512
_IDEM_MAX: Final = 128
LIMITED: Final = ("agent", "manager")
"""Roles whose sends are counted. People and operators are never refused for load."""


def send(tx: HiveTx, rules: Rules, actor: Actor, draft: Draft) -> Sent:
    """Store `draft` and its deliveries; see `Broker.send`."""
    _check(rules, draft)
    if draft.to == BROADCAST:
        return _broadcast(tx, rules, actor, draft)
    recipient = _recipient(tx, actor, draft)
    if actor.role in LIMITED:
        charge(tx, rules, owner=actor.principal, what="send")
    replied, ignored = _replied_to(tx, actor, draft)
    lane = _turn_lane(tx, actor)
    chat = draft.chat
    if recipient.startswith("person:"):
        if chat is None:
            chat = chat_for_person(tx, int(recipient[7:]), near=lane[4] if lane else None)
        owner, session, mailbox = f"chat:{chat}", OUT, mailbox_of_chat(tx, chat)
    else:
        owner = mailbox = recipient
        session = draft.session or _session(tx, actor, recipient, replied)
        if recipient.startswith("operator:"):
            session = OPERATOR_INBOX
    message_id = rules.time.new_id()
    thread = replied[4] if replied else message_id
    stored = insert_message(
        tx,
        rules,
        message_id,
        sender=actor.principal,
        draft=draft,
        to=recipient,
        thread=thread,
        in_reply_to=replied[0] if replied else None,
        turn_id=actor.turn_id,
        from_session=lane[2] if lane else None,
        chat=chat,
    )
    if stored is not None:
        return stored
    delivery_id = deliver(
        tx,
        rules,
        message_id,
        recipient=owner,
        session=session,
        mailbox=mailbox,
        draft=draft,
        chat=chat if mailbox == recipient else None,
        limited=actor.role in LIMITED,
    )
    state = "stored"
    if actor.role in LIMITED:
        if replied and recipient.startswith("agent:"):
            _guard(tx, rules, thread=thread, lane_owner=owner, session=session)
        state = _state_of(tx, recipient)
    return Sent(
        id=message_id,
        thread=thread,
        reply_ignored=ignored,
        recipient_state=state,
        delivery_ids=(delivery_id,),
    )


def insert_message(
    tx: HiveTx,
    rules: Rules,
    message_id: str,
    *,
    sender: str,
    draft: Draft,
    to: str,
    thread: str,
    in_reply_to: str | None,
    turn_id: str | None = None,
    from_session: str | None = None,
    chat: int | None = None,
    reply_key: str | None = None,
    late: bool = False,
) -> Sent | None:
    """Store the row of a message; `Sent` with `duplicate` when its key was used for the same before.

    Raises:
        IdempotencyConflictError: The key was used for another body.
    """
    digest = sha256(draft.body.encode()).digest()[:16] if draft.idem is not None else b""
    inserted = tx.run(
        "message_insert",
        message_id,
        draft.kind,
        sender,
        to,
        thread,
        in_reply_to,
        draft.body,
        _json(draft.attachments),
        _json(draft.origin),
        draft.idem,
        digest,
        turn_id,
        rules.time.stamp(),
        from_session,
        chat,
        draft.platform_id,
        _json(draft.answers),
        reply_key,
        _json(draft.choices),
        int(late),
    )
    if inserted:
        return None
    row = tx.one("message_of_idem", sender, draft.idem)
    assert row is not None
    earlier_id, earlier_thread, earlier_digest, deliveries = row
    if earlier_digest != digest:
        raise IdempotencyConflictError("this `idem` was used for another body")
    return Sent(id=earlier_id, thread=earlier_thread, duplicate=True, recipients=deliveries)


def deliver(
    tx: HiveTx,
    rules: Rules,
    message_id: str,
    *,
    recipient: str,
    session: str,
    mailbox: str,
    draft: Draft,
    chat: int | None = None,
    broadcast: bool = False,
    limited: bool = False,
) -> int:
    """Put a stored message into the lane (`recipient`, `session`); return the delivery's id.

    Raises:
        QueueFullError: `limited`, and too much waits there.
    """
    urgency = 0 if broadcast else URGENCY[draft.urgency]
    now = rules.time.steady()
    if draft.not_before is not None and draft.not_before > rules.time.wall():
        lane = tx.one("lane_ensure", recipient, session, mailbox, chat)
        assert lane is not None
        return _delivery(
            tx, message_id, lane[0], None, "scheduled", urgency, broadcast, draft, now, recipient
        )
    quiet = draft.quiet_ms if not urgency else 0
    row = tx.one(
        "lane_put",
        recipient,
        session,
        mailbox,
        chat,
        now + quiet,
        urgency,
        now + rules.settings.quiet_max_ms if quiet else None,
        now,
    )
    assert row is not None
    lane_id, seq, lease_id, hold, _ = row
    waiting = tx.one("mailbox_waiting", mailbox) if limited else None
    if waiting is not None and waiting[0] > rules.settings.queue_max:
        raise QueueFullError(
            f"`{recipient}` has {rules.settings.queue_max} messages to read", retry_after_s=10
        )
    if lease_id is not None:
        tx.signals.append(f"lane:{lane_id}")
        if urgency == URGENCY["interrupt"]:
            tx.signals.append(("interrupt", lane_id, recipient))
    elif hold is None:
        tx.signals.append(mailbox)
    return _delivery(tx, message_id, lane_id, seq, "ready", urgency, broadcast, draft, now + quiet, recipient)


def _delivery(
    tx: HiveTx,
    message_id: str,
    lane: int,
    seq: int | None,
    state: str,
    urgency: int,
    broadcast: bool,  # noqa: FBT001 - private, and by position for speed
    draft: Draft,
    now: int,
    recipient: str,
) -> int:
    delivery_id = tx.insert(
        "delivery_insert",
        message_id,
        lane,
        seq,
        state,
        urgency,
        broadcast,
        draft.not_before or 0,
        draft.deadline_at,
        now,
    )
    tx.signals.append(("delivery", delivery_id, message_id, lane, recipient, state))
    return delivery_id


def to_chat(
    tx: HiveTx,
    rules: Rules,
    *,
    sender: str,
    person: str,
    chat: int,
    draft: Draft,
    thread: str | None,
    in_reply_to: str | None,
    turn_id: str | None = None,
    reply_key: str | None = None,
) -> Sent:
    """Store a message to a person in a chat that is already known, without limits and rights."""
    message_id = rules.time.new_id()
    stored = insert_message(
        tx,
        rules,
        message_id,
        sender=sender,
        draft=draft,
        to=person,
        thread=thread or message_id,
        in_reply_to=in_reply_to,
        turn_id=turn_id,
        chat=chat,
        reply_key=reply_key,
    )
    if stored is not None:
        return stored
    delivery_id = deliver(
        tx,
        rules,
        message_id,
        recipient=f"chat:{chat}",
        session=OUT,
        mailbox=mailbox_of_chat(tx, chat),
        draft=draft,
    )
    return Sent(id=message_id, thread=thread or message_id, delivery_ids=(delivery_id,))


def chat_for_person(tx: HiveTx, person: int, *, near: int | None) -> int:
    """Return the chat where `person` is reached: `near` if they write there, else their latest direct one.

    Raises:
        NoRouteError: There is none.
    """
    if near is not None and tx.one("chat_has_person", near, person):
        return near
    row = tx.one("chat_latest_direct", person)
    if row is None:
        raise NoRouteError(f"`person:{person}` has no chat where they can be reached")
    return row[0]


def mailbox_of_chat(tx: HiveTx, chat: int) -> str:
    """Return who carries messages to `chat`."""
    row = tx.one("chat", chat)
    if row is None:
        raise NoRouteError(f"there is no `chat:{chat}`")
    return f"door:{row[1]}"


def _broadcast(tx: HiveTx, rules: Rules, actor: Actor, draft: Draft) -> Sent:
    """One message, one delivery per agent but the sender. Hive, section 7.4."""
    rights.may_broadcast(actor)
    if actor.role in LIMITED:
        charge(tx, rules, owner=actor.principal, what="broadcast")
    lane = _turn_lane(tx, actor)
    message_id = rules.time.new_id()
    stored = insert_message(
        tx,
        rules,
        message_id,
        sender=actor.principal,
        draft=draft,
        to=BROADCAST,
        thread=message_id,
        in_reply_to=None,
        turn_id=actor.turn_id,
        from_session=lane[2] if lane else None,
    )
    if stored is not None:
        return stored
    ids: list[int] = []
    for name, *_ in tx.all("agents"):
        recipient = f"agent:{name}"
        if recipient == actor.principal:
            continue
        ids.append(
            deliver(
                tx,
                rules,
                message_id,
                recipient=recipient,
                session=f"dm:{actor.principal}",
                mailbox=recipient,
                draft=draft,
                broadcast=True,
            )
        )
    return Sent(id=message_id, thread=message_id, recipients=len(ids), delivery_ids=tuple(ids))


def _recipient(tx: HiveTx, actor: Actor, draft: Draft) -> str:
    """Return the principal that `draft.to` names, when the actor may write to it."""
    to = draft.to
    kind, colon, name = to.partition(":")
    if not colon and to not in ("operator", "system", "reminder"):
        kind, name, to = "agent", to, f"agent:{to}"
    if kind == "agent":
        row = tx.one("agent", name)
        if row is None:
            raise NoSuchRecipientError(f"there is no agent `{name[:64]}`")
        rights.may_send_to_agent(tx, actor, row)
        if draft.urgency == "interrupt":
            rights.may_interrupt(actor)
        return to
    if kind == "person" and name.isdecimal():
        if tx.one("person", int(name)) is None:
            raise NoSuchRecipientError(f"there is no `person:{name[:32]}`")
        rights.may_send_to_person(tx, actor, int(name))
        return to
    if kind == "operator":
        return to if colon else "operator:local"
    raise NoSuchRecipientError("`to` is not an agent, a person, an operator or `*`")


def _replied_to(tx: HiveTx, actor: Actor, draft: Draft) -> tuple[Row | None, bool]:
    """Return the message replied to, or nothing and whether a reply was ignored."""
    if draft.in_reply_to is None:
        return None, False
    row = tx.one("message", draft.in_reply_to)
    if row is None or not rights.sees_message(tx, actor, row, chat=draft.chat):
        return None, True
    return row, False


def _session(tx: HiveTx, actor: Actor, recipient: str, replied: Row | None) -> str:
    """Return the session in which `recipient` is to read it: where the conversation was, as they see it."""
    if replied is not None:
        if replied[2] == recipient:
            return replied[5] or f"dm:{actor.principal}"
        got = tx.one("message_received_in", replied[0], recipient)
        if got is not None:
            return got[0]
    return f"dm:{actor.principal}"


def _turn_lane(tx: HiveTx, actor: Actor) -> Row | None:
    """Return the lane of the turn in which an agent acts; another agent's lane counts as none."""
    if actor.lane is None:
        return None
    row = tx.one("lane", actor.lane)
    return row if row is not None and row[1] == actor.principal else None


def _state_of(tx: HiveTx, recipient: str) -> str:
    if not recipient.startswith("agent:"):
        return "stored"
    row = tx.one("agent", recipient[6:])
    if row is None or row[2] != "up":
        return row[2] if row else "stored"
    return "busy" if tx.one("mailbox_is_busy", recipient) else "idle"


def _guard(tx: HiveTx, rules: Rules, *, thread: str, lane_owner: str, session: str) -> None:
    """Hold the lane of agents that talk in circles, and tell the manager. Hive, section 6.4."""
    limit = rules.settings.guard_messages
    since = f"{max(0, rules.time.stamp() - rules.settings.guard_window_ms):012x}"
    row = tx.one("thread_rate", thread, f"{since[:8]}-{since[8:]}", limit + 1)
    if row is None or row[0] <= limit or row[1]:
        return
    lane = tx.one("lane_of", lane_owner, session)
    if lane is None or not tx.run("lane_hold", lane[0], "loop_guard"):
        return
    tx.signals.append(("lane", lane[0], lane_owner, "loop_guard"))
    manager = tx.one("manager")
    if manager is None or f"agent:{manager[0]}" == lane_owner:
        return
    note = Draft(
        to=f"agent:{manager[0]}",
        kind="system",
        body=f"Two agents wrote {limit} messages to each other in a short time. The lane {lane[0]} of "
        f"{lane_owner} is held. Thread: {thread}. `resume_lane` frees it.",
    )
    send(tx, rules, SYSTEM, note)


def _check(rules: Rules, draft: Draft) -> None:
    size = len(draft.body.encode())
    if size > rules.settings.body_max_bytes:
        raise TooLargeError(
            f"`body` is {size} bytes, the most is {rules.settings.body_max_bytes}",
            hint="put it into the shared space and send its path",
        )
    if draft.session is not None and not 0 < len(draft.session) <= _SESSION_MAX:
        raise InvalidArgumentError(f"`session` must have 1 to {_SESSION_MAX} characters")
    if draft.idem is not None and not 0 < len(draft.idem) <= _IDEM_MAX:
        raise InvalidArgumentError(f"`idem` must have 1 to {_IDEM_MAX} characters")
    if len(draft.attachments) > rules.settings.attachments_max:
        raise InvalidArgumentError(f"`attachments` has more than {rules.settings.attachments_max} entries")


def _json(value: object) -> str | None:
    return msgspec.json.encode(value).decode() if value else None
