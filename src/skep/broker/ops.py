"""Sending: one message, its place in each recipient's lane, and what a sender is told.

Source: hive, sections 2, 3.4, 6.3, 6.4, 7.4, 7.7 and 9; control protocol, section 5.
Functions of a transaction: they run in the writer thread and compose with others in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from skep.broker import lanes, rights
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
    "Post",
    "agent_of",
    "chat_for_person",
    "deliver",
    "insert_message",
    "mailbox_of_chat",
    "send",
    "send_all",
    "to_chat",
]

OUT: Final = "out"
"""Session of the one lane of a chat."""
URGENCY: Final = {"normal": 0, "soon": 1, "interrupt": lanes.INTERRUPT}
_SESSION_MAX: Final = 512
_IDEM_MAX: Final = 128
_NEXT_DELIVERY: Final = ("next delivery",)
LIMITED: Final = ("agent", "manager")
"""Roles whose sends are counted. People and operators are never refused for load."""


def send(tx: HiveTx, rules: Rules, actor: Actor, draft: Draft) -> Sent:
    """Store `draft` and its deliveries; see `Broker.send`."""
    return send_all(tx, rules, ((actor, draft),))[0]


def send_all(tx: HiveTx, rules: Rules, drafts: Sequence[tuple[Actor, Draft]]) -> list[Sent]:
    """Do as `send` for many at once, in order; rows of one table are written together.

    Raises:
        Whatever `send` raises: then nothing of all this may stay.
    """
    post = Post(tx, rules)
    sent = [post.send(actor, draft) for actor, draft in drafts]
    post.flush()
    return sent


class Post:
    """Messages on their way into the store: those that nothing can refuse any more are written together."""

    def __init__(self, tx: HiveTx, rules: Rules) -> None:
        self._tx: Final = tx
        self._rules: Final = rules
        self._letters: list[_Letter] = []

    def send(self, actor: Actor, draft: Draft) -> Sent:
        """Take a message; its delivery is there after `flush`."""
        tx, rules = self._tx, self._rules
        _check(rules, draft)
        if draft.to == BROADCAST:
            self.flush()
            return _broadcast(tx, rules, actor, draft)
        letter = _address(tx, rules, actor, draft)
        if letter.is_limited or draft.idem is not None or draft.not_before is not None:
            self.flush()
            return _send_alone(tx, rules, letter)
        self._letters.append(letter)
        return letter.sent

    def flush(self) -> None:
        """Write what was taken. Whoever writes messages otherwise meanwhile calls it first."""
        if self._letters:
            letters, self._letters = self._letters, []
            _post(self._tx, self._rules, letters)


class _Letter(msgspec.Struct):
    """A message to one recipient that may be sent."""

    actor: Actor
    draft: Draft
    to: str
    owner: str
    session: str
    mailbox: str
    chat: int | None
    in_reply_to: str | None
    from_session: str | None
    sent: Sent
    is_limited: bool


def _address(tx: HiveTx, rules: Rules, actor: Actor, draft: Draft) -> _Letter:
    """Find out where `draft` goes, and whether it may."""
    to = _recipient(tx, actor, draft)
    is_limited = actor.role in LIMITED
    if is_limited:
        charge(tx, rules, owner=actor.principal, what="send")
    replied, ignored = _replied_to(tx, actor, draft) if draft.in_reply_to is not None else (None, False)
    lane = _turn_lane(tx, actor) if actor.lane is not None else None
    chat = draft.chat
    if to.startswith("person:"):
        if chat is None:
            chat = chat_for_person(tx, int(to[7:]), near=lane.chat if lane else None)
        owner, session, mailbox = f"chat:{chat}", OUT, mailbox_of_chat(tx, chat)
    else:
        owner = mailbox = to
        session = draft.session or _session(tx, actor, to, replied)
        if to.startswith("operator:"):
            session = OPERATOR_INBOX
    message_id = rules.time.new_id()
    return _Letter(
        actor,
        draft,
        to,
        owner,
        session,
        mailbox,
        chat,
        replied[0] if replied else None,
        lane.session if lane else None,
        Sent(id=message_id, thread=replied[4] if replied else message_id, reply_ignored=ignored),
        is_limited,
    )


def _post(tx: HiveTx, rules: Rules, letters: list[_Letter]) -> None:
    """Store what can be refused no more, and deliver it."""
    stamp = rules.time.stamp()
    tx.many(
        "message_insert",
        [
            _message_row(
                letter.sent.id,
                sender=letter.actor.principal,
                draft=letter.draft,
                to=letter.to,
                thread=letter.sent.thread,
                in_reply_to=letter.in_reply_to,
                stamp=stamp,
                turn_id=letter.actor.turn_id,
                from_session=letter.from_session,
                chat=letter.chat,
            )
            for letter in letters
        ],
    )
    now, quiet_max_ms = rules.time.steady(), rules.settings.quiet_max_ms
    touched: dict[int, lanes.Lane] = {}
    rows: list[tuple[object, ...]] = []
    for delivery_id, letter in enumerate(letters, _delivery_ids(tx, len(letters))):
        draft, mailbox, sent = letter.draft, letter.mailbox, letter.sent
        chat = letter.chat if mailbox == letter.to else None
        lane = lanes.ensure(tx, letter.owner, letter.session, mailbox=mailbox, chat=chat)
        urgency = URGENCY[draft.urgency]
        quiet_ms = 0 if urgency else draft.quiet_ms
        seq = lanes.place(tx, lane, now=now, urgency=urgency, quiet_ms=quiet_ms, quiet_max_ms=quiet_max_ms)
        touched[lane.id] = lane
        at = now + quiet_ms
        rows.append((delivery_id, sent.id, lane.id, seq, "ready", urgency, 0, 0, draft.deadline_at, at))
        sent.delivery_ids = (delivery_id,)
        tx.signals.append(("delivery", delivery_id, sent.id, lane.id, letter.owner, "ready"))
    lanes.write(tx, touched.values())
    tx.many("delivery_insert", rows)


def _send_alone(tx: HiveTx, rules: Rules, letter: _Letter) -> Sent:
    """Store and deliver what may still be refused, or known already."""
    actor, draft, sent = letter.actor, letter.draft, letter.sent
    stored = insert_message(
        tx,
        rules,
        sent.id,
        sender=actor.principal,
        draft=draft,
        to=letter.to,
        thread=sent.thread,
        in_reply_to=letter.in_reply_to,
        turn_id=actor.turn_id,
        from_session=letter.from_session,
        chat=letter.chat,
    )
    if stored is not None:
        return stored
    delivery_id = deliver(
        tx,
        rules,
        sent.id,
        recipient=letter.owner,
        session=letter.session,
        mailbox=letter.mailbox,
        draft=draft,
        chat=letter.chat if letter.mailbox == letter.to else None,
        limited=letter.is_limited,
    )
    sent.delivery_ids = (delivery_id,)
    if letter.is_limited:
        if letter.in_reply_to is not None and letter.to.startswith("agent:"):
            _guard(tx, rules, thread=sent.thread, lane_owner=letter.owner, session=letter.session)
        sent.recipient_state = _state_of(tx, letter.to)
    return sent


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
    digest = _digest(draft)
    inserted = tx.run(
        "message_insert",
        *_message_row(
            message_id,
            sender=sender,
            draft=draft,
            to=to,
            thread=thread,
            in_reply_to=in_reply_to,
            stamp=rules.time.stamp(),
            turn_id=turn_id,
            from_session=from_session,
            chat=chat,
            reply_key=reply_key,
            late=late,
        ),
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
    lane = lanes.ensure(tx, recipient, session, mailbox=mailbox, chat=chat)
    state, seq, at = "ready", None, now
    if draft.not_before is not None and draft.not_before > rules.time.wall():
        state = "scheduled"
    else:
        quiet_ms = 0 if urgency else draft.quiet_ms
        seq = lanes.put(
            tx,
            lane,
            now=now,
            urgency=urgency,
            quiet_ms=quiet_ms,
            quiet_max_ms=rules.settings.quiet_max_ms,
        )
        at = now + quiet_ms
        if limited and lanes.waiting(tx, mailbox) > rules.settings.queue_max:
            raise QueueFullError(
                f"`{recipient}` has {rules.settings.queue_max} messages to read", retry_after_s=10
            )
    delivery_id = _delivery_ids(tx, 1)
    tx.run(
        "delivery_insert",
        delivery_id,
        message_id,
        lane.id,
        seq,
        state,
        urgency,
        broadcast,
        draft.not_before or 0,
        draft.deadline_at,
        at,
    )
    tx.signals.append(("delivery", delivery_id, message_id, lane.id, recipient, state))
    return delivery_id


def _delivery_ids(tx: HiveTx, count: int) -> int:
    """Return the first of `count` new delivery ids. To have the store give them costs twice the insert."""
    first = tx.memo.get(_NEXT_DELIVERY)
    if first is None:
        ((newest,),) = tx.all("delivery_last")
        first = (newest or 0) + 1
    tx.memo[_NEXT_DELIVERY] = first + count
    return first


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


def agent_of(tx: HiveTx, name: str) -> Row | None:
    """Return one agent that is not retired."""
    key = ("agent", name)
    row = tx.memo.get(key)
    if row is None:
        row = tx.memo[key] = tx.one("agent", name)
    return row


def mailbox_of_chat(tx: HiveTx, chat: int) -> str:
    """Return who carries messages to `chat`: for as long as there is the chat."""
    key = ("chat", chat)
    mailbox = tx.memo.get(key)
    if mailbox is None:
        row = tx.one("chat", chat)
        if row is None:
            raise NoRouteError(f"there is no `chat:{chat}`")
        mailbox = tx.memo[key] = f"door:{row[1]}"
    return mailbox


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
        from_session=lane.session if lane else None,
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
        row = agent_of(tx, name)
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


def _turn_lane(tx: HiveTx, actor: Actor) -> lanes.Lane | None:
    """Return the lane of the turn in which an agent acts; another agent's lane counts as none."""
    if actor.lane is None:
        return None
    lane = lanes.find(tx, actor.lane)
    return lane if lane is not None and lane.recipient == actor.principal else None


def _state_of(tx: HiveTx, recipient: str) -> str:
    if not recipient.startswith("agent:"):
        return "stored"
    row = agent_of(tx, recipient[6:])
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
    lane = tx.one("lane_of_session", lane_owner, session)
    if lane is None or not tx.run("lane_hold", lane[0], "loop_guard"):
        return
    lanes.forget(tx, lane[0])
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
    body, most = draft.body, rules.settings.body_max_bytes
    if len(body) * 4 > most and (size := len(body.encode())) > most:
        raise TooLargeError(
            f"`body` is {size} bytes, the most is {most}",
            hint="put it into the shared space and send its path",
        )
    if draft.session is not None and not 0 < len(draft.session) <= _SESSION_MAX:
        raise InvalidArgumentError(f"`session` must have 1 to {_SESSION_MAX} characters")
    if draft.idem is not None and not 0 < len(draft.idem) <= _IDEM_MAX:
        raise InvalidArgumentError(f"`idem` must have 1 to {_IDEM_MAX} characters")
    if len(draft.attachments) > rules.settings.attachments_max:
        raise InvalidArgumentError(f"`attachments` has more than {rules.settings.attachments_max} entries")


def _message_row(
    message_id: str,
    *,
    sender: str,
    draft: Draft,
    to: str,
    thread: str,
    in_reply_to: str | None,
    stamp: int,
    turn_id: str | None,
    from_session: str | None,
    chat: int | None,
    reply_key: str | None = None,
    late: bool = False,
) -> tuple[object, ...]:
    return (
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
        _digest(draft),
        turn_id,
        stamp,
        from_session,
        chat,
        draft.platform_id,
        _json(draft.answers),
        reply_key,
        _json(draft.choices),
        int(late),
    )


def _digest(draft: Draft) -> bytes:
    return sha256(draft.body.encode()).digest()[:16] if draft.idem is not None else b""


def _json(value: object) -> str | None:
    return _encoder.encode(value).decode() if value else None


_encoder: Final = msgspec.json.Encoder()
