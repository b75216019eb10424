"""Deliveries that did not arrive: dead letters, receipts, and what operators do with them.

Source: hive, sections 3.3 and 9.2.
"""

from __future__ import annotations

from typing import Final

from skep.broker import lanes, rights
from skep.broker.errors import ClosedError, NoRouteError
from skep.broker.ops import deliver, insert_message, to_chat
from skep.broker.rules import Rules
from skep.broker.types import OPERATOR_INBOX, SYSTEM, Actor, Draft
from skep.store.ports import HiveTx, Row

__all__ = ["cancel", "close_waiting", "drop", "make_dead", "receipt", "requeue"]

_SILENT: Final = ("system", "reminder")
_WHY: Final = {
    "attempts": "it was tried several times and never finished",
    "error": "the recipient failed on it several times",
    "unknown": "the platform did not say whether it took it",
    "deadline": "its deadline passed",
    "age": "it waited too long",
    "retired": "the recipient is gone",
}


def make_dead(tx: HiveTx, rules: Rules, delivery_id: int, *, reason: str, notice: bool = False) -> bool:
    """Give a delivery up, and tell its sender; return whether it was still alive.

    Args:
        reason: `deadline` makes it `expired`, every other `dead`.
        notice: The sender has been told already.
    """
    state = "expired" if reason == "deadline" else "dead"
    row = close_waiting(tx, rules, delivery_id, state=state, reason=reason)
    if row is None:
        return False
    if not notice and row[12] not in _SILENT and row[11] != "receipt":
        why = _WHY.get(reason, "it was refused")
        receipt(tx, rules, row, body=f"Not delivered to {row[13]}: {why}.")
    if row[11] == "ask" and tx.run("ask_close", row[10], "target_gone", rules.time.stamp(), None):
        tx.signals.extend((("ask", row[10], "target_gone"), f"ask:{row[10]}"))
    return True


def close_waiting(
    tx: HiveTx, rules: Rules, delivery_id: int, *, state: str, reason: str | None
) -> Row | None:
    """Put a delivery into a final state and keep the counts right; nothing when it has ended already."""
    row = tx.one("delivery", delivery_id)
    if row is None or not tx.run("delivery_close", delivery_id, state, rules.time.stamp(), reason):
        return None
    if row[1] == "ready":
        lanes.count_out(tx, row[2])
    tx.signals.append(("delivery", delivery_id, row[10], row[2], row[7], state))
    return row


def receipt(tx: HiveTx, rules: Rules, row: Row, *, body: str) -> None:
    """Tell the sender of a delivery what became of it: one envelope of kind `receipt`."""
    message_id, sender, thread, from_session, chat = row[10], row[12], row[14], row[15], row[16]
    draft = Draft(to=sender, kind="receipt", body=body, idem=f"receipt:{row[0]}:{row[4]}:{row[5]}")
    if sender.startswith("person:"):
        if chat is None:
            return
        answers = (row[17],) if row[17] else ()
        told = Draft(to=sender, kind="receipt", body=body, idem=draft.idem, answers=answers)
        try:
            to_chat(
                tx,
                rules,
                sender=SYSTEM.principal,
                person=sender,
                chat=chat,
                draft=told,
                thread=thread,
                in_reply_to=message_id,
            )
        except NoRouteError:
            return
        return
    receipt_id = rules.time.new_id()
    known = insert_message(
        tx,
        rules,
        receipt_id,
        sender=SYSTEM.principal,
        draft=draft,
        to=sender,
        thread=thread,
        in_reply_to=message_id,
    )
    if known is not None:
        return
    if sender.startswith("operator:"):
        session = OPERATOR_INBOX
    else:
        session = from_session or f"dm:{row[13]}"
    deliver(tx, rules, receipt_id, recipient=sender, session=session, mailbox=sender, draft=draft)


def cancel(tx: HiveTx, rules: Rules, actor: Actor, delivery_id: int) -> str:
    """Cancel a delivery that is scheduled or ready; return its state."""
    row = tx.one("delivery", delivery_id)
    if row is None:
        raise rights.missing()
    rights.may_cancel_delivery(actor, row[12], row[7])
    if row[1] not in ("scheduled", "ready"):
        raise ClosedError(f"the delivery is {row[1]}")
    close_waiting(tx, rules, delivery_id, state="cancelled", reason=None)
    return "cancelled"


def requeue(tx: HiveTx, rules: Rules, actor: Actor, delivery_id: int) -> str:
    """Make a dead delivery ready again, at the end of its lane; return its state."""
    row = tx.one("delivery", delivery_id)
    if row is None:
        raise rights.missing()
    rights.may_handle_dead(actor, row[12], row[7])
    if row[1] not in ("dead", "expired"):
        raise ClosedError(f"the delivery is {row[1]}")
    now = rules.time.steady()
    lane = lanes.find(tx, row[2])
    if lane is None:
        raise rights.missing()
    seq = lanes.put(tx, lane, now=now, urgency=row[3])
    tx.run("delivery_requeue", delivery_id, seq, now)
    tx.signals.append(("delivery", delivery_id, row[10], row[2], row[7], "ready"))
    return "ready"


def drop(tx: HiveTx, rules: Rules, actor: Actor, delivery_id: int) -> str:
    """Give a dead delivery up for good; return its state."""
    row = tx.one("delivery", delivery_id)
    if row is None:
        raise rights.missing()
    rights.may_handle_dead(actor, row[12], row[7])
    if not tx.run("delivery_drop", delivery_id, rules.time.stamp()):
        raise ClosedError(f"the delivery is {row[1]}")
    tx.signals.append(("delivery", delivery_id, row[10], row[2], row[7], "cancelled"))
    return "cancelled"
