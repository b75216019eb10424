"""Asks: a question with exactly one end.

Source: hive, section 8.1. States: `open`, then one of `answered`, `cancelled`, `expired`, `target_gone`;
each end is one statement conditional on `open`, so that one of two racers wins and the other is told.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skep.broker import lanes, letters, rights
from skep.broker.errors import ClosedError, InvalidArgumentError, TooLargeError, TooManyOpenError
from skep.broker.ops import chat_for_person, deliver, insert_message, send, to_chat
from skep.broker.rules import Rules, charge
from skep.broker.types import BROADCAST, OPERATOR_INBOX, SYSTEM, Actor, AskOpened, AskRow, Draft, Sent
from skep.store.ports import HiveTx, Row

__all__ = [
    "answer",
    "answer_by_turn",
    "cancel",
    "claim",
    "expire",
    "has_open",
    "list_of",
    "open_ask",
    "tell_seen",
]


def open_ask(
    tx: HiveTx,
    rules: Rules,
    actor: Actor,
    *,
    to: str,
    question: str,
    choices: Sequence[str],
    deadline_ms: int | None,
    idem: str | None,
) -> Sent:
    """Store an ask and its envelope."""
    if to == BROADCAST:
        raise InvalidArgumentError("`to` of an ask is one recipient")
    if len(choices) > 20 or any(not choice or len(choice) > 200 for choice in choices):
        raise InvalidArgumentError("`choices` are at most 20 texts of 1 to 200 characters")
    if actor.role in ("agent", "manager"):
        charge(tx, rules, owner=actor.principal, what="ask")
        count = tx.one("ask_count_open", actor.principal)
        if count is not None and count[0] >= rules.settings.asks_max:
            raise TooManyOpenError(
                f"{rules.settings.asks_max} asks are open", hint="cancel one: `cancel_ask`"
            )
    deadline_at = rules.time.wall() + deadline_ms if deadline_ms is not None else None
    draft = Draft(
        to=to, kind="ask", body=question, choices=tuple(choices), deadline_at=deadline_at, idem=idem
    )
    sent = send(tx, rules, actor, draft)
    if sent.duplicate:
        return sent
    message = tx.one("message", sent.id)
    assert message is not None
    session = message[5] or (OPERATOR_INBOX if actor.role == "operator" else f"dm:{message[3]}")
    tx.run("ask_insert", sent.id, actor.principal, session, message[3], rules.time.stamp(), deadline_at)
    tx.memo.pop(_asked(message[3]), None)
    tx.signals.append(("ask", sent.id, "open"))
    return sent


def has_open(tx: HiveTx, target: str) -> bool:
    """Return whether an ask to `target` is open; that none is stays true until one is put."""
    key = _asked(target)
    if key in tx.memo:
        return False
    if tx.one("ask_open_to", target) is not None:
        return True
    tx.memo[key] = None
    return False


def _asked(target: str) -> tuple[str, str]:
    return ("asked", target)


def answer(
    tx: HiveTx,
    rules: Rules,
    actor: Actor,
    ask_id: str,
    body: str,
    *,
    chat: int | None = None,
    platform_id: str | None = None,
) -> Sent:
    """Answer an ask that was put to `actor`; an operator may answer any.

    Args:
        chat, platform_id: Where a person wrote it and as what: what the asker says to it goes there.

    Raises:
        NotFoundError: There is no such ask for this actor.
        ClosedError: It has ended.
    """
    ask = tx.one("ask", ask_id)
    if ask is None or (actor.principal != ask[3] and actor.role != "operator"):
        raise rights.missing()
    if ask[4] != "open":
        raise ClosedError(f"the ask is {ask[4]}")
    draft = Draft(to=ask[1], kind="answer", body=body, chat=chat, platform_id=platform_id)
    message_id = _answer(tx, rules, ask, draft, by=actor.principal, turn_id=actor.turn_id)
    return Sent(id=message_id, thread=ask[8])


def answer_by_turn(
    tx: HiveTx, rules: Rules, ask_id: str, draft: Draft, *, by: str, turn_id: str
) -> str | None:
    """Let the reply of a turn answer the ask that heads it; return the id, or nothing when it was answered.

    An ask that has ended otherwise still gets the words, as a plain message marked `late`.
    """
    ask = tx.one("ask", ask_id)
    if ask is None or ask[4] == "answered":
        return None
    if ask[4] == "open":
        kind, late = "answer", False
    else:
        kind, late = "message", True
    answer_draft = Draft(
        to=ask[1], kind=kind, body=draft.body, idem=draft.idem, attachments=draft.attachments
    )
    return _answer(tx, rules, ask, answer_draft, by=by, turn_id=turn_id, late=late)


def cancel(tx: HiveTx, rules: Rules, actor: Actor, ask_id: str) -> str:
    """Cancel an open ask; a question that nobody has seen is taken back."""
    ask = tx.one("ask", ask_id)
    if ask is None:
        raise rights.missing()
    rights.may_close_ask(actor, ask[1])
    if not tx.run("ask_close", ask_id, "cancelled", rules.time.stamp(), None):
        raise ClosedError(f"the ask is {ask[4]}")
    _take_back(tx, rules, ask_id)
    _tell_end(tx, ask_id, "cancelled")
    return "cancelled"


def expire(tx: HiveTx, rules: Rules, *, limit: int = 256) -> int:
    """End the asks whose deadline has passed, and tell each asker; return how many."""
    ended = 0
    for (ask_id,) in tx.all("asks_past_deadline", rules.time.wall(), limit):
        ask = tx.one("ask", ask_id)
        if ask is None or not tx.run("ask_close", ask_id, "expired", rules.time.stamp(), None):
            continue
        _take_back(tx, rules, ask_id)
        _tell_asker(
            tx, rules, ask, body=f"No answer from {ask[3]} before the deadline.", key=f"expired:{ask_id}"
        )
        _tell_end(tx, ask_id, "expired")
        ended += 1
    return ended


def tell_seen(tx: HiveTx, rules: Rules, held: Sequence[Row]) -> None:
    """Tell askers whose question a turn has seen and not answered, once."""
    for row in held:
        if row[5] != "ask":
            continue
        ask = tx.one("ask", row[4])
        if ask is None or ask[4] != "open" or not tx.run("ask_told", row[4]):
            continue
        _tell_asker(
            tx, rules, ask, body=f"{ask[3]} has seen the question and not answered.", key=f"seen:{row[4]}"
        )


def claim(tx: HiveTx, rules: Rules, actor: Actor, ask_id: str) -> AskOpened:
    """Return an ask, with its answer: that goes into the turn that waited for it, and does not wait any more."""
    ask = tx.one("ask", ask_id)
    if ask is None or ask[1] != actor.principal:
        raise rights.missing()
    answer = tx.one("ask_answer_text", ask_id) if ask[4] == "answered" else None
    if answer is None:
        return AskOpened(id=ask_id, state=ask[4])
    body, delivery_id, state, lane_id, message_id, platform_id = answer
    if state == "ready":
        state = _take_up(tx, rules, actor, delivery_id, lane_id)
        tx.signals.append(("delivery", delivery_id, message_id, lane_id, actor.principal, state))
    return AskOpened(id=ask_id, state=ask[4], answer=body, platform_id=platform_id)


def _take_up(tx: HiveTx, rules: Rules, actor: Actor, delivery_id: int, lane_id: int) -> str:
    """Put an answer that waits into the turn of its own lane; into another turn it goes as read."""
    lane = lanes.find(tx, lane_id)
    assert lane is not None
    if lane.turn_id is None or (lane.id, lane.turn_id) != (actor.lane, actor.turn_id):
        tx.run("delivery_claim", delivery_id, rules.time.stamp(), actor.turn_id)
        lanes.count_out(tx, lane_id)
        return "done"
    tx.run("delivery_show_more", delivery_id, lane.lease_id, lane.turn_id)
    lanes.took_more(tx, lane, 1, call_id=lane.call_id, call_seq=lane.call_seq)
    return "shown"


def list_of(tx: HiveTx, actor: Actor, *, state: str | None, limit: int = 100) -> tuple[AskRow, ...]:
    """Return the asks of `actor`, or all for an operator; newest first."""
    owner = None if actor.role in ("operator", "system") else actor.principal
    rows = tx.all("asks_list", owner, state, 1 << 62, limit)
    return tuple(_row(row) for row in rows)


def _answer(
    tx: HiveTx, rules: Rules, ask: Row, draft: Draft, *, by: str, turn_id: str | None, late: bool = False
) -> str:
    ask_id, asker, session, thread = ask[0], ask[1], ask[2], ask[8]
    if len(draft.body.encode()) > rules.settings.body_max_bytes:
        raise TooLargeError(f"the answer is over {rules.settings.body_max_bytes} bytes")
    if asker.startswith("person:"):
        chat = ask[9] if ask[9] is not None else chat_for_person(tx, int(asker[7:]), near=None)
        message_id = to_chat(
            tx,
            rules,
            sender=by,
            person=asker,
            chat=chat,
            draft=draft,
            thread=thread,
            in_reply_to=ask_id,
            turn_id=turn_id,
        ).id
    else:
        message_id = rules.time.new_id()
        known = insert_message(
            tx,
            rules,
            message_id,
            sender=by,
            draft=draft,
            to=asker,
            thread=thread,
            in_reply_to=ask_id,
            turn_id=turn_id,
            chat=draft.chat,
            late=late,
        )
        if known is not None:
            return known.id
        deliver(tx, rules, message_id, recipient=asker, session=session, mailbox=asker, draft=draft)
    if not late:
        tx.run("ask_close", ask_id, "answered", rules.time.stamp(), message_id)
        _tell_end(tx, ask_id, "answered")
    return message_id


def _take_back(tx: HiveTx, rules: Rules, ask_id: str) -> None:
    """Cancel the envelope of an ask that nobody has begun to read."""
    row = tx.one("delivery_of_message", ask_id)
    if row is not None and row[1] in ("ready", "scheduled"):
        letters.close_waiting(tx, rules, row[0], state="cancelled", reason="ask ended")


def _tell_asker(tx: HiveTx, rules: Rules, ask: Row, *, body: str, key: str) -> None:
    asker, session, thread = ask[1], ask[2], ask[8]
    draft = Draft(to=asker, kind="receipt", body=body, idem=key)
    if asker.startswith("person:"):
        if ask[9] is not None:
            to_chat(
                tx,
                rules,
                sender=SYSTEM.principal,
                person=asker,
                chat=ask[9],
                draft=draft,
                thread=thread,
                in_reply_to=ask[0],
            )
        return
    message_id = rules.time.new_id()
    known = insert_message(
        tx,
        rules,
        message_id,
        sender=SYSTEM.principal,
        draft=draft,
        to=asker,
        thread=thread,
        in_reply_to=ask[0],
    )
    if known is None:
        deliver(tx, rules, message_id, recipient=asker, session=session, mailbox=asker, draft=draft)


def _tell_end(tx: HiveTx, ask_id: str, state: str) -> None:
    tx.signals.extend((("ask", ask_id, state), f"ask:{ask_id}"))


def _row(row: Row) -> AskRow:
    choices = msgspec.json.decode(row[8], type=tuple[str, ...]) if row[8] else ()
    return AskRow(
        id=row[0],
        asker=row[1],
        target=row[2],
        question=row[3],
        asked_at=row[4],
        deadline_at=row[5],
        state=row[6],
        target_state=row[7] or "gone",
        choices=choices,
        answer=row[9],
    )
