"""One-shot reminders: armed, then sent once, cancelled, skipped or failed.

Source: hive, sections 7.7 and 8.2 to 8.5. Due times are wall-clock times.
"""

from __future__ import annotations

from typing import Final

from skep.broker import lanes, rights
from skep.broker.errors import (
    AlreadySentError,
    IdempotencyConflictError,
    InvalidArgumentError,
    TooFarError,
    TooLargeError,
    TooManyOpenError,
    TooSoonError,
)
from skep.broker.ops import deliver, insert_message
from skep.broker.rules import Rules, charge
from skep.broker.types import Actor, Draft, Fired, ReminderRow, ReminderSet
from skep.foundation.errors import SkepError
from skep.store.ports import HiveTx, Row

__all__ = ["arm", "cancel", "fire_due", "list_of", "next_due_at"]

_SENDER: Final = "reminder"
_MISSED: Final = ("once", "skip", "all")
_LATE_MS: Final = 60_000
"""From here on the text says how late it is."""


def arm(
    tx: HiveTx,
    rules: Rules,
    actor: Actor,
    *,
    body: str,
    in_ms: int | None,
    due_at: int | None,
    session: str | None,
    missed: str,
    idem: str | None,
) -> ReminderSet:
    """Store a reminder of `actor` to itself; see `Broker.remind`."""
    settings, now = rules.settings, rules.time.wall()
    if (in_ms is None) == (due_at is None):
        raise InvalidArgumentError("give one of `in_s` and `at`")
    due = now + in_ms if in_ms is not None else due_at or 0
    size = len(body.encode())
    if size > settings.reminder_body_max_bytes:
        raise TooLargeError(f"`body` is {size} bytes, the most is {settings.reminder_body_max_bytes}")
    if missed not in _MISSED:
        raise InvalidArgumentError("`missed` is `once`, `skip` or `all`")
    if idem is not None and (known := tx.one("reminder_of_idem", actor.principal, idem)) is not None:
        if known[2] != body:
            raise IdempotencyConflictError("this `idem` was used for another reminder")
        return ReminderSet(
            id=known[0], due_at=known[1], open=_open(tx, actor), limit=settings.reminders_max, duplicate=True
        )
    if due < now + settings.reminder_min_ms:
        raise TooSoonError(f"a reminder lies at least {settings.reminder_min_ms // 1000} s ahead")
    if due > now + settings.reminder_max_ms:
        raise TooFarError(f"a reminder lies at most {settings.reminder_max_ms // 86_400_000} days ahead")
    if actor.role in ("agent", "manager"):
        charge(tx, rules, owner=actor.principal, what="remind")
    count = _open(tx, actor)
    if count >= settings.reminders_max:
        raise TooManyOpenError(
            f"{settings.reminders_max} reminders are armed", hint="cancel one: `cancel_reminder`"
        )
    if session is None:
        lane = lanes.find(tx, actor.lane) if actor.lane is not None else None
        is_own = lane is not None and lane.recipient == actor.principal
        session = lane.session if lane is not None and is_own else f"dm:{_SENDER}"
    reminder_id = rules.time.new_id()
    tx.run(
        "reminder_insert",
        reminder_id,
        actor.principal,
        session,
        body,
        idem,
        due,
        None,
        missed,
        rules.time.stamp(),
        actor.turn_id,
    )
    tx.signals.extend((("reminder", reminder_id, "armed"), "reminders"))
    return ReminderSet(id=reminder_id, due_at=due, open=count + 1, limit=settings.reminders_max)


def cancel(tx: HiveTx, actor: Actor, reminder_id: str) -> str:
    """Cancel an armed reminder. Against one that fires, exactly one wins."""
    row = tx.one("reminder", reminder_id)
    if row is None:
        raise rights.missing()
    rights.owns(actor, row[1])
    if not tx.run("reminder_cancel", reminder_id):
        raise AlreadySentError(f"the reminder is {row[2]}")
    tx.signals.extend((("reminder", reminder_id, "cancelled"), "reminders"))
    return "cancelled"


def fire_due(tx: HiveTx, rules: Rules, *, limit: int) -> Fired:
    """Send what is due by the wall clock: messages, deliveries, marks and attempts in one transaction."""
    now = rules.time.wall()
    rows = tx.all("reminders_due", now, limit)
    sent = failed = 0
    for row in rows:
        if _fire(tx, rules, row, now=now):
            sent += 1
        else:
            failed += 1
    next_at = next_due_at(tx)
    return Fired(sent=sent, failed=failed, more=next_at is not None and next_at <= now, next_due_at=next_at)


def next_due_at(tx: HiveTx) -> int | None:
    """Return when the next armed reminder is due, in UTC milliseconds."""
    row = tx.one("reminder_next")
    return row[0] if row else None


def list_of(
    tx: HiveTx, actor: Actor, *, state: str | None = "armed", limit: int = 200
) -> tuple[ReminderRow, ...]:
    """Return the reminders of `actor`, or all for an operator; soonest first."""
    owner = None if actor.role in ("operator", "system") else actor.principal
    return tuple(
        ReminderRow(
            id=row[0],
            owner=row[1],
            session=row[2],
            body=row[3],
            due_at=row[4],
            state=row[5],
            rrule=row[6],
            created_at=row[7],
            sent_at=row[8],
        )
        for row in tx.all("reminders_list", owner, state, limit)
    )


def _fire(tx: HiveTx, rules: Rules, row: Row, *, now: int) -> bool:
    """Send one reminder; return whether it went out. One that cannot be sent stops no other."""
    reminder_id, owner, session, body, due_at, missed = row
    late_ms = now - due_at
    state, error = "sent", None
    if missed == "skip" and late_ms > _LATE_MS:
        state = "skipped"
    elif owner.startswith("agent:") and tx.one("agent", owner[6:]) is None:
        state, error = "failed", "no_such_recipient"
    if not tx.run("reminder_done", reminder_id, state, now if state == "sent" else None, error):
        return False
    if state == "sent":
        if late_ms > _LATE_MS:
            body = f"{body}\n(due {_span(late_ms)} ago)"
        draft = Draft(to=owner, kind="reminder", body=body, idem=f"{reminder_id}:{due_at}")
        message_id = rules.time.new_id()
        try:
            known = insert_message(
                tx,
                rules,
                message_id,
                sender=_SENDER,
                draft=draft,
                to=owner,
                thread=message_id,
                in_reply_to=None,
            )
        except SkepError:
            return False  # the key is taken by other words: it was sent before
        if known is None:
            deliver(tx, rules, message_id, recipient=owner, session=session, mailbox=owner, draft=draft)
    tx.run("reminder_attempt_insert", reminder_id, owner, now, int(state == "sent"))
    tx.signals.append(("reminder", reminder_id, state))
    return state == "sent"


def _open(tx: HiveTx, actor: Actor) -> int:
    row = tx.one("reminder_count", actor.principal)
    return row[0] if row else 0


def _span(span_ms: int) -> str:
    minutes = span_ms // 60_000
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"
