"""Leases: who works on a lane, what a turn holds, and how it ends.

Source: hive, sections 3.3, 5 and 6; control protocol, section 6.
Every step checks the state it leaves, the lease and the fence, inside one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from skep.broker import asks, letters, rights
from skep.broker.envelopes import envelope_of, pending_of, reply_key_of, route_of
from skep.broker.errors import NoTurnError, StaleLeaseError, TooLargeError
from skep.broker.ops import OUT, URGENCY, insert_message, send, to_chat
from skep.broker.rules import Rules
from skep.broker.types import (
    SYSTEM,
    Actor,
    Draft,
    Ended,
    Envelope,
    Granted,
    Lease,
    LostLease,
    Outcome,
    Pending,
    Reply,
    Started,
)
from skep.store.ports import HiveTx, Row

__all__ = ["ended", "hold", "lose", "more", "more_of_turn", "nack", "renew", "resume", "started", "take"]

BATCH_BYTES: Final = 1 << 20
"""A batch of envelopes stops here, encoded, with at least one. Control protocol, section 3."""
_ENVELOPE_BYTES: Final = 1_024
"""What an envelope takes in JSON beside its body, its attachments and its origin, at most."""
_SHORT: Final = 1_024
_encoder: Final = msgspec.json.Encoder()
STOPPED: Final = "(stopped)"
"""Last line of an answer that somebody stopped. Control protocol, section 6.2."""
_GIVEN_UP: Final = "I could not finish this: the attempt failed several times. The operator can see why."


def take(
    tx: HiveTx, rules: Rules, mailboxes: Sequence[str], *, holder: str, burst: int, lanes: int
) -> Granted:
    """Lease up to `lanes` lanes that are ready; see `Broker.take`."""
    now = rules.time.steady()
    leases: list[Lease] = []
    room = BATCH_BYTES
    for mailbox in mailboxes:
        while len(leases) < lanes and room > 0 and (row := tx.one("lane_pick", mailbox, now)) is not None:
            lease, weight = _grant(
                tx, rules, row, mailbox=mailbox, holder=holder, burst=burst, now=now, room=room
            )
            leases.append(lease)
            room -= weight
    if leases:
        return Granted(leases=tuple(leases))
    next_at: int | None = None
    for mailbox in mailboxes:
        found = tx.one("lane_next_at", mailbox)
        if found is not None and found[0] is not None:
            next_at = found[0] if next_at is None else min(next_at, found[0])
    return Granted(ready_in_ms=None if next_at is None else max(1, next_at - now))


def started(tx: HiveTx, rules: Rules, lease_id: str, *, fence: int, turn_id: str) -> Started:
    """Mark what was leased as shown; see `Broker.started`."""
    lane = _leased(tx, lease_id, fence)
    if lane[8] is not None and lane[8] != turn_id:
        raise StaleLeaseError("another turn has begun with this lease")
    held = _held(tx, lane)
    if lane[8] is None:
        tx.run("lane_start", lane[0], turn_id)
        tx.run("deliveries_show", lane[0], turn_id)
    if not held:
        raise StaleLeaseError("the lease holds nothing")
    for row in held:
        tx.signals.append(("delivery", row[0], row[4], lane[0], lane[1], "shown"))
    head = held[0]
    route = None
    shown = _platform_ids(held)
    if lane[1].startswith("agent:") and _is_from_chat(head):
        route = route_of(tx, head[8], answers=shown)
    return Started(
        lane=lane[0],
        recipient=lane[1],
        session=lane[2],
        reply_key=reply_key_of(head[4], requeued=head[11]),
        route=route,
        shown=shown,
    )


def more(
    tx: HiveTx, rules: Rules, lease_id: str, *, fence: int, limit: int, call_id: str | None
) -> tuple[tuple[Envelope, ...], Pending]:
    """Give further envelopes of the lane to the running turn; see `Broker.more`."""
    lane = _leased(tx, lease_id, fence)
    lane_id, recipient, session, mailbox, turn_id = lane[0], lane[1], lane[2], lane[3], lane[8]
    if turn_id is None:
        raise NoTurnError("the turn has not begun")
    now = rules.time.stamp()
    ready_n = lane[9]
    if call_id is not None and call_id == lane[13]:
        rows = tx.all("envelopes_held", lane_id, lane[14])
        # They went out before: the attempt they carry is the one that is counted already.
        rows = [(*row[:5], row[5] - 1, None, *row[7:]) for row in rows]
    else:
        rows, _ = _fitting(tx.all("envelopes_ready", lane_id, limit), BATCH_BYTES)
        for row in rows:
            tx.run("delivery_show_more", row[0], lease_id, turn_id)
            tx.signals.append(("delivery", row[0], row[8], lane_id, recipient, "shown"))
        if rows:
            tx.run("lane_take_more", lane_id, len(rows), call_id, rows[0][1])
            ready_n -= len(rows)
    envelopes = tuple(envelope_of(tx, row, to=recipient, session=session, now=now) for row in rows)
    waiting = tx.one("mailbox_waiting", mailbox)
    return envelopes, pending_of(
        tx, rules, lane=lane_id, mailbox=mailbox, in_lane=ready_n, elsewhere=waiting[0] if waiting else 0
    )


def more_of_turn(
    tx: HiveTx, rules: Rules, actor: Actor, *, limit: int, call_id: str | None
) -> tuple[tuple[Envelope, ...], Pending]:
    """Do as `more` for the turn in which `actor` acts.

    Raises:
        NotFoundError: The lane is not the actor's.
        NoTurnError: No turn runs there, or another one.
    """
    row = tx.one("lane", actor.lane) if actor.lane is not None else None
    if actor.lane is not None and (row is None or row[1] != actor.principal):
        raise rights.missing()
    if row is None or row[8] is None or (actor.turn_id is not None and row[8] != actor.turn_id):
        raise NoTurnError("no turn runs here")
    return more(tx, rules, row[5], fence=row[6], limit=limit, call_id=call_id)


def renew(tx: HiveTx, rules: Rules, lease_id: str, *, fence: int) -> int:
    """Let a lease go on; return until when."""
    until = rules.time.steady() + rules.settings.lease_ttl_ms
    if not tx.run("lane_renew", _lane_id(lease_id), lease_id, fence, until):
        raise StaleLeaseError("the lease has ended")
    return until


def ended(
    tx: HiveTx,
    rules: Rules,
    lease_id: str,
    *,
    fence: int,
    turn_id: str,
    outcome: Outcome,
    reply: Reply | None,
    code: str | None,
    platform_message_ids: Sequence[str],
) -> Ended:
    """Close a turn; see `Broker.ended`."""
    lane = tx.one("lane", _lane_id(lease_id))
    if lane is None or lane[5] != lease_id or lane[6] != fence:
        return _ended_before(tx, lane, turn_id)
    if lane[8] is not None and lane[8] != turn_id:
        raise StaleLeaseError("another turn has begun with this lease")
    held = _held(tx, lane)
    of_chat = lane[2] == OUT and lane[1].startswith("chat:")
    if outcome == "cancelled" and lane[8] is None:
        nack(tx, rules, lease_id, fence=fence, delivery_ids=(), delay_ms=0, reason="cancelled")
        return Ended(released=True, lane=lane[0], recipient=lane[1])
    if outcome not in ("ok", "cancelled"):
        return _failed(tx, rules, lane, held, outcome=outcome, of_chat=of_chat, code=code)
    message_id = reply_to = None
    if of_chat:
        for platform_id in platform_message_ids if held else ():
            tx.run("said_put", held[0][8], platform_id, held[0][4])
    elif held:
        body = _text_of(rules, reply, outcome)
        message_id, reply_to = _reply(tx, rules, lane, held, turn_id=turn_id, body=body, reply=reply)
        asks.tell_seen(tx, rules, held)
    now = rules.time.stamp()
    tx.run("deliveries_done", lane[0], now, turn_id, _state(lane))
    for row in held:
        tx.signals.append(("delivery", row[0], row[4], lane[0], lane[1], "done"))
    _release(tx, rules, lane, back=0, turn_id=turn_id, reply=message_id)
    return Ended(
        released=True,
        lane=lane[0],
        recipient=lane[1],
        message_id=message_id,
        reply_to=reply_to,
        envelopes=len(held),
    )


def nack(
    tx: HiveTx,
    rules: Rules,
    lease_id: str,
    *,
    fence: int,
    delivery_ids: Sequence[int],
    delay_ms: int,
    reason: str,
) -> None:
    """Give deliveries back without blame; see `Broker.nack`."""
    lane = _leased(tx, lease_id, fence)
    held = _held(tx, lane)
    back = [row for row in held if not delivery_ids or row[0] in delivery_ids]
    for row in back:
        tx.run("delivery_back", row[0], max(0, row[2] - 1), row[3], reason or None)
        tx.signals.append(("delivery", row[0], row[4], lane[0], lane[1], "ready"))
    if len(back) < len(held):
        tx.run("lane_take_more", lane[0], -len(back), None, None)
        return
    _release(tx, rules, lane, back=len(back), wait_ms=delay_ms)


def lose(tx: HiveTx, rules: Rules, lost: Sequence[Row], *, blame: bool = True) -> tuple[LostLease, ...]:
    """End leases whose harness is gone: fence + 1, everything back in its place. Hive, section 5.3.

    What was never shown is not counted as an attempt, unless its start was missed.

    Args:
        lost: Rows of one of the `lease…` statements.
        blame: Whether an attempt too many makes a dead letter; not when the daemon itself was gone.
    """
    found: list[LostLease] = []
    for lane_id, recipient, session, lease_id, holder, turn_id, missed in lost:
        lane = tx.one("lane", lane_id)
        if lane is None or lane[5] != lease_id:
            continue
        back = 0
        for row in _held(tx, lane):
            attempt = row[2] if row[1] == "shown" or missed else max(0, row[2] - 1)
            if blame and attempt >= rules.settings.attempts_max:
                letters.make_dead(
                    tx, rules, row[0], reason="attempts", notice=_give_up_notice(tx, rules, row)
                )
            else:
                back += tx.run("delivery_back", row[0], attempt, row[3], None)
                tx.signals.append(("delivery", row[0], row[4], lane_id, recipient, "ready"))
        _release(tx, rules, lane, back=back, fence=1)
        tx.signals.append(f"lost:{lease_id}")
        found.append(
            LostLease(
                lane=lane_id,
                recipient=recipient,
                session=session,
                lease_id=lease_id,
                holder=holder,
                turn_id=turn_id,
                missed_start=bool(missed),
            )
        )
    return tuple(found)


def hold(tx: HiveTx, *, lane: int | None, mailbox: str | None, reason: str) -> int:
    """Grant no lease of a lane or a mailbox; return how many lanes changed."""
    if lane is not None:
        return tx.run("lane_hold", lane, reason)
    return tx.run("mailbox_hold", mailbox, reason)


def resume(tx: HiveTx, *, lane: int | None, mailbox: str | None, reason: str | None) -> int:
    """Free a lane or the lanes of a mailbox; return how many changed."""
    if lane is not None:
        freed = tx.all("lane_unhold", lane, reason)
    else:
        freed = tx.all("mailbox_unhold", mailbox, reason)
    tx.signals.extend({row[0] for row in freed})
    return len(freed)


def _give_up_notice(tx: HiveTx, rules: Rules, row: Row) -> bool:
    """Tell the person whose message heads a turn that is not tried again; return whether somebody was told.

    It goes under the key of the answer, so that a draft of a dead turn never stays.
    """
    if not _is_from_chat(row):
        return False
    key = reply_key_of(row[4], requeued=row[11])
    draft = Draft(to=row[6], kind="system", body=_GIVEN_UP, idem=key, answers=(row[9],) if row[9] else ())
    to_chat(
        tx,
        rules,
        sender=SYSTEM.principal,
        person=row[6],
        chat=row[8],
        draft=draft,
        thread=row[10],
        in_reply_to=row[4],
        reply_key=key,
    )
    return True


def _grant(
    tx: HiveTx, rules: Rules, picked: Row, *, mailbox: str, holder: str, burst: int, now: int, room: int
) -> tuple[Lease, int]:
    """Lease one lane; return the lease and what it weighs in a frame."""
    lane_id, recipient, session, ready_n, urgency, fence, waiting = picked[:7]
    rows = [picked[7:]]
    if urgency == URGENCY["interrupt"]:
        rows = tx.all("envelopes_interrupt", lane_id) or rows
    elif ready_n > 1 and burst > 1 and session != OUT and rows[0][10].startswith("person:"):
        rows = _burst(tx.all("envelopes_ready", lane_id, min(burst, rules.settings.burst_max)))
    rows, weight = _fitting(rows, room)
    lease_id = f"{lane_id}-{rules.time.token()}"
    for row in rows:
        tx.run("delivery_lease", row[0], lease_id)
        tx.signals.append(("delivery", row[0], row[8], lane_id, recipient, "leased"))
    count = len(rows)
    tx.run("lane_grant", lane_id, lease_id, holder, now, now + rules.settings.lease_ttl_ms, count)
    stamp = rules.time.stamp()
    chat = int(recipient[5:]) if recipient.startswith("chat:") else None
    lease = Lease(
        lease_id=lease_id,
        fence=fence + 1,
        lane=lane_id,
        session=session,
        envelopes=tuple(
            envelope_of(tx, row, to=recipient, session=session, now=stamp, chat=chat) for row in rows
        ),
        pending=pending_of(
            tx, rules, lane=lane_id, mailbox=mailbox, in_lane=ready_n - count, elsewhere=waiting - ready_n
        ),
    )
    return lease, weight


def _fitting(rows: list[Row], room: int) -> tuple[list[Row], int]:
    """Return the first of `rows` that weigh no more than `room` in a frame, at least one; and their weight."""
    weight = 0
    for count, row in enumerate(rows):
        more = _weight(row)
        if count and weight + more > room:
            return rows[:count], weight
        weight += more
    return rows, weight


def _weight(row: Row) -> int:
    """Return how many bytes an envelope takes in JSON, at most."""
    body: str = row[14]
    text = 6 * len(body) if len(body) < _SHORT else len(_encoder.encode(body))
    return text + len(row[15] or "") + len(row[16] or "") + _ENVELOPE_BYTES


def _burst(rows: list[Row]) -> list[Row]:
    """Return the people's messages at the head."""
    for at, row in enumerate(rows):
        if not row[10].startswith("person:"):
            return rows[:at]
    return rows


def _reply(
    tx: HiveTx,
    rules: Rules,
    lane: Row,
    held: list[Row],
    *,
    turn_id: str,
    body: str,
    reply: Reply | None,
) -> tuple[str | None, str | None]:
    """Store the answer of a turn, and say where it went. Control protocol, section 6.2."""
    if not body:
        return None, None
    head = held[0]
    message_id, kind, sender, thread = head[4], head[5], head[6], head[10]
    key = reply_key_of(message_id, requeued=head[11])
    draft = Draft(
        to=sender,
        body=body,
        idem=key,
        attachments=reply.attachments if reply else (),
        answers=_platform_ids(held),
    )
    if kind == "ask" and (
        told := asks.answer_by_turn(tx, rules, message_id, draft, by=lane[1], turn_id=turn_id)
    ):
        return told, "ask"
    if _is_from_chat(head):
        sent = to_chat(
            tx,
            rules,
            sender=lane[1],
            person=sender,
            chat=head[8],
            draft=draft,
            thread=thread,
            in_reply_to=message_id,
            turn_id=turn_id,
            reply_key=key,
        )
        return sent.id, f"chat:{head[8]}"
    if sender.startswith("operator:"):
        actor = Actor(principal=lane[1], role="system", lane=lane[0], turn_id=turn_id)
        sent = send(tx, rules, actor, Draft(to=sender, body=body, idem=key, in_reply_to=message_id))
        return sent.id, sender
    recorded = rules.time.new_id()
    known = insert_message(
        tx,
        rules,
        recorded,
        sender=lane[1],
        draft=draft,
        to=sender,
        thread=thread,
        in_reply_to=message_id,
        turn_id=turn_id,
        from_session=lane[2],
    )
    return known.id if known else recorded, "record"


def _failed(
    tx: HiveTx,
    rules: Rules,
    lane: Row,
    held: list[Row],
    *,
    outcome: Outcome,
    of_chat: bool,
    code: str | None,
) -> Ended:
    """Close a turn that did not work: each delivery is tried again later, or given up."""
    settings = rules.settings
    back = dead = 0
    failures = 0
    for row in held:
        failures = max(failures, row[3] + 1)
        limit = 2 if of_chat else settings.failures_max
        if outcome == "refused" or row[3] + 1 >= limit or row[2] >= settings.attempts_max:
            notice = not of_chat and _give_up_notice(tx, rules, row)
            reason = f"refused: {code}" if outcome == "refused" and code else outcome
            letters.make_dead(tx, rules, row[0], reason=reason, notice=notice)
            dead += 1
        else:
            back += tx.run("delivery_back", row[0], row[2], row[3] + 1, outcome)
            tx.signals.append(("delivery", row[0], row[4], lane[0], lane[1], "ready"))
    steps = settings.error_backoff_ms
    _release(tx, rules, lane, back=back, wait_ms=steps[min(failures, len(steps)) - 1] if back else 0)
    return Ended(released=True, lane=lane[0], recipient=lane[1], dead=dead, envelopes=len(held))


def _ended_before(tx: HiveTx, lane: Row | None, turn_id: str) -> Ended:
    """Return what became of a turn that is told to end again."""
    if lane is not None:
        if lane[11] == turn_id:
            return Ended(released=True, lane=lane[0], recipient=lane[1], message_id=lane[12], duplicate=True)
        if tx.one("turn_was_done", lane[0], turn_id):
            reply = tx.one("reply_of_turn", turn_id)
            return Ended(
                released=True,
                lane=lane[0],
                recipient=lane[1],
                message_id=reply[0] if reply else None,
                duplicate=True,
            )
    raise StaleLeaseError("the lease has ended")


def _release(
    tx: HiveTx,
    rules: Rules,
    lane: Row,
    *,
    back: int,
    wait_ms: int = 0,
    fence: int = 0,
    turn_id: str | None = None,
    reply: str | None = None,
) -> None:
    """Free a lane, count what came back, and ring when there is something to take."""
    now = rules.time.steady()
    tx.run(
        "lane_release",
        lane[0],
        back,
        now + wait_ms if wait_ms else 0,
        now + rules.settings.quiet_max_ms,  # a time of another clock never puts a lane off for long
        fence,
        turn_id,
        reply,
    )
    if lane[9] + back > 0 and lane[15] is None:
        tx.signals.append(lane[3])


def _leased(tx: HiveTx, lease_id: str, fence: int) -> Row:
    lane = tx.one("lane", _lane_id(lease_id))
    if lane is None or lane[5] != lease_id or lane[6] != fence:
        raise StaleLeaseError("the lease has ended")
    return lane


def _state(lane: Row) -> str:
    """Return the state of what a lease holds: a turn shows all of it when it begins."""
    return "leased" if lane[8] is None else "shown"


def _held(tx: HiveTx, lane: Row) -> list[Row]:
    return tx.all("deliveries_of_lease", lane[0], _state(lane))


def _lane_id(lease_id: str) -> int:
    """Return the lane that a lease names; a lease id starts with it."""
    digits = lease_id.partition("-")[0]
    return int(digits) if digits.isdecimal() and len(digits) < 19 else 0


def _is_from_chat(row: Row) -> bool:
    return row[8] is not None and row[6].startswith("person:")


def _platform_ids(held: Sequence[Row]) -> tuple[str, ...]:
    """Return the platform's ids of what people wrote in the chat of the head."""
    return tuple(row[9] for row in held if row[9] is not None and row[8] == held[0][8])


def _text_of(rules: Rules, reply: Reply | None, outcome: Outcome) -> str:
    body = reply.body.rstrip() if reply is not None else ""
    if len(body.encode()) > rules.settings.body_max_bytes:
        raise TooLargeError(f"the reply is over {rules.settings.body_max_bytes} bytes")
    if outcome == "cancelled" and body and not body.endswith(STOPPED):
        body = f"{body}\n{STOPPED}"
    return body
