"""Leases: who works on a lane, what a turn holds, and how it ends.

Source: hive, sections 3.3, 5 and 6; control protocol, section 6.
Every step checks the state it leaves, the lease and the fence, inside one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import msgspec

from skep.broker import asks, lanes, letters, rights
from skep.broker.envelopes import Hints, envelope_of, pending_of, reply_key_of, route_of
from skep.broker.errors import NoTurnError, StaleLeaseError, TooLargeError
from skep.broker.lanes import INTERRUPT, Lane
from skep.broker.ops import OUT, insert_message, send, to_chat
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

__all__ = [
    "Ending",
    "Wanted",
    "ended_all",
    "hold",
    "lose",
    "more",
    "more_of_turn",
    "nack",
    "renew",
    "resume",
    "started",
    "take_all",
]

BATCH_BYTES: Final = 1 << 20
"""A batch of envelopes stops here, encoded, with at least one. Control protocol, section 3."""
_ENVELOPE_BYTES: Final = 1_024
"""What an envelope takes in JSON beside its body, its attachments and its origin, at most."""
_SHORT: Final = 1_024
_encoder: Final = msgspec.json.Encoder()
STOPPED: Final = "(stopped)"
"""Last line of an answer that somebody stopped. Control protocol, section 6.2."""
_GIVEN_UP: Final = "I could not finish this: the attempt failed several times. The operator can see why."


class Wanted(msgspec.Struct, frozen=True):
    """One request for leases: of these mailboxes, up to so many lanes.

    Attributes:
        holder: The connection that gets them.
        burst: Most of people's messages that one lease carries.
    """

    mailboxes: Sequence[str]
    holder: str
    burst: int
    lanes: int


def take_all(tx: HiveTx, rules: Rules, wanted: Sequence[Wanted]) -> list[Granted]:
    """Lease what is ready to each, see `Broker.take`; who comes first is served first."""
    now = rules.time.steady()
    granted: list[Granted] = []
    for mailboxes, asking in _by_mailboxes(wanted):
        granted += _take(tx, rules, mailboxes, asking, now=now)
    return granted


def started(tx: HiveTx, rules: Rules, lease_id: str, *, fence: int, turn_id: str) -> Started:
    """Mark what was leased as shown; see `Broker.started`."""
    lane = _leased(tx, lease_id, fence)
    if lane.turn_id is not None and lane.turn_id != turn_id:
        raise StaleLeaseError("another turn has begun with this lease")
    held = _held(tx, lane)
    if not held:
        raise StaleLeaseError("the lease holds nothing")
    if lane.turn_id is None:
        lanes.start(tx, lane, held, turn_id=turn_id)
    for row in held:
        tx.signals.append(("delivery", row[0], row[4], lane.id, lane.recipient, "shown"))
    head = held[0]
    route = None
    shown = _platform_ids(held)
    if lane.recipient.startswith("agent:") and _is_from_chat(head):
        route = route_of(tx, head[8], answers=shown)
    return Started(
        lane=lane.id,
        recipient=lane.recipient,
        session=lane.session,
        reply_key=reply_key_of(head[4], requeued=head[11]),
        route=route,
        speaks_in=(route.relay, route.chat_id) if route is not None else _speaks_in(tx, lane),
        shown=shown,
    )


def more(
    tx: HiveTx, rules: Rules, lease_id: str, *, fence: int, limit: int, call_id: str | None
) -> tuple[tuple[Envelope, ...], Pending]:
    """Give further envelopes of the lane to the running turn; see `Broker.more`."""
    lane = _leased(tx, lease_id, fence)
    if lane.turn_id is None:
        raise NoTurnError("the turn has not begun")
    now = rules.time.stamp()
    if call_id is not None and call_id == lane.call_id:
        rows = tx.all("envelopes_held", lane.id, lane.call_seq)
        # They went out before: the attempt they carry is the one that is counted already.
        rows = [(*row[:5], row[5] - 1, None, *row[7:]) for row in rows]
    else:
        rows, _ = _fitting(tx.all("envelopes_ready", lane.id, limit), BATCH_BYTES)
        for row in rows:
            tx.run("delivery_show_more", row[0], lease_id, lane.turn_id)
            tx.signals.append(("delivery", row[0], row[8], lane.id, lane.recipient, "shown"))
        if rows:
            lanes.took_more(tx, lane, len(rows), call_id=call_id, call_seq=rows[0][1])
    envelopes = tuple(envelope_of(tx, row, to=lane.recipient, session=lane.session, now=now) for row in rows)
    return envelopes, pending_of(tx, rules, lane, elsewhere=lanes.waiting(tx, lane.mailbox))


def more_of_turn(
    tx: HiveTx, rules: Rules, actor: Actor, *, limit: int, call_id: str | None
) -> tuple[tuple[Envelope, ...], Pending]:
    """Do as `more` for the turn in which `actor` acts.

    Raises:
        NotFoundError: The lane is not the actor's.
        NoTurnError: No turn runs there, or another one.
    """
    lane = lanes.find(tx, actor.lane) if actor.lane is not None else None
    if actor.lane is not None and (lane is None or lane.recipient != actor.principal):
        raise rights.missing()
    if lane is None or lane.lease_id is None or lane.turn_id is None:
        raise NoTurnError("no turn runs here")
    if actor.turn_id is not None and lane.turn_id != actor.turn_id:
        raise NoTurnError("no turn runs here")
    return more(tx, rules, lane.lease_id, fence=lane.fence, limit=limit, call_id=call_id)


def renew(tx: HiveTx, rules: Rules, lease_id: str, *, fence: int) -> int:
    """Let a lease go on; return until when."""
    until = rules.time.steady() + rules.settings.lease_ttl_ms
    if not tx.run("lane_renew", _lane_id(lease_id), lease_id, fence, until):
        raise StaleLeaseError("the lease has ended")
    return until


class Ending(msgspec.Struct, frozen=True):
    """How a turn is said to have ended; see `Broker.ended`."""

    lease_id: str
    fence: int
    turn_id: str
    outcome: Outcome
    reply: Reply | None = None
    code: str | None = None
    platform_message_ids: Sequence[str] = ()


def ended_all(tx: HiveTx, rules: Rules, endings: Sequence[Ending]) -> list[Ended]:
    """Close turns, in order; see `Broker.ended`. What they held and where is written together."""
    closing = _Closing([], [])
    results = [_ended(tx, rules, ending, closing) for ending in endings]
    closing.write(tx)
    return results


class _Closing(msgspec.Struct):
    """What is still to be written of turns that ended: rows of `delivery_done`, and lanes."""

    done: list[tuple[int, int, str]]
    released: list[Lane]

    def write(self, tx: HiveTx) -> None:
        """Write it. Whoever sends or gives back meanwhile calls it first: that may read these rows again."""
        tx.many("delivery_done", self.done)
        lanes.write_released(tx, self.released)
        self.done.clear()
        self.released.clear()


def _ended(tx: HiveTx, rules: Rules, ending: Ending, closing: _Closing) -> Ended:
    turn_id, outcome = ending.turn_id, ending.outcome
    lane = lanes.find(tx, _lane_id(ending.lease_id))
    if lane is None or lane.lease_id != ending.lease_id or lane.fence != ending.fence:
        return _ended_before(tx, lane, turn_id)
    if lane.turn_id is not None and lane.turn_id != turn_id:
        raise StaleLeaseError("another turn has begun with this lease")
    held = _held(tx, lane)
    of_chat = lane.session == OUT and lane.recipient.startswith("chat:")
    if outcome != "ok" or ending.reply is not None or any(row[5] == "ask" for row in held):
        closing.write(tx)
    if outcome == "cancelled" and lane.turn_id is None:
        _give_back(tx, rules, lane, held, delay_ms=0, reason="cancelled")
        return Ended(released=True, lane=lane.id, recipient=lane.recipient)
    if outcome not in ("ok", "cancelled"):
        return _failed(tx, rules, lane, held, outcome=outcome, of_chat=of_chat, code=ending.code)
    message_id = reply_to = None
    if of_chat:
        for platform_id in ending.platform_message_ids if held else ():
            tx.run("said_put", held[0][8], platform_id, held[0][4])
    elif held:
        reply = ending.reply
        body = _text_of(rules, reply, outcome)
        message_id, reply_to = _reply(tx, rules, lane, held, turn_id=turn_id, body=body, reply=reply)
        asks.tell_seen(tx, rules, held)
    now = rules.time.stamp()
    for row in held:
        closing.done.append((row[0], now, turn_id))
        tx.signals.append(("delivery", row[0], row[4], lane.id, lane.recipient, "done"))
    _free(tx, rules, lane, back=0, turn_id=turn_id, reply=message_id)
    closing.released.append(lane)
    return Ended(
        released=True,
        lane=lane.id,
        recipient=lane.recipient,
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
    back = [row for row in held if row[0] in delivery_ids]
    if not delivery_ids or len(back) == len(held):
        _give_back(tx, rules, lane, held, delay_ms=delay_ms, reason=reason)
        return
    _back(tx, lane, back, reason=reason)
    lanes.took_more(tx, lane, -len(back), call_id=None, call_seq=None)


def lose(tx: HiveTx, rules: Rules, lost: Sequence[Row], *, blame: bool = True) -> tuple[LostLease, ...]:
    """End leases whose harness is gone: fence + 1, everything back in its place. Hive, section 5.3.

    What was never shown is not counted as an attempt, unless its start was missed.

    Args:
        lost: Rows of one of the `lease…` statements.
        blame: Whether an attempt too many makes a dead letter; not when the daemon itself was gone.
    """
    found: list[LostLease] = []
    for lane_id, recipient, session, lease_id, holder, turn_id, missed in lost:
        lane = lanes.find(tx, lane_id)
        if lane is None or lane.lease_id != lease_id:
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
    changed = (
        tx.run("lane_hold", lane, reason) if lane is not None else tx.run("mailbox_hold", mailbox, reason)
    )
    tx.forget()
    return changed


def resume(tx: HiveTx, *, lane: int | None, mailbox: str | None, reason: str | None) -> int:
    """Free a lane or the lanes of a mailbox; return how many changed."""
    if lane is not None:
        freed = tx.all("lane_unhold", lane, reason)
    else:
        freed = tx.all("mailbox_unhold", mailbox, reason)
    tx.forget()
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


def _by_mailboxes(wanted: Sequence[Wanted]) -> Iterator[tuple[Sequence[str], list[Wanted]]]:
    """Return neighbours that look into the same mailboxes together."""
    for mailboxes, asking in groupby(wanted, key=attrgetter("mailboxes")):
        yield mailboxes, list(asking)


def _take(
    tx: HiveTx, rules: Rules, mailboxes: Sequence[str], wanted: Sequence[Wanted], *, now: int
) -> list[Granted]:
    """Give each its leases, out of what is ready in the same mailboxes."""
    total = sum(one.lanes for one in wanted)
    picked: list[Row] = []
    for mailbox in mailboxes:
        if len(picked) < total:
            picked += tx.all("lane_pick", mailbox, now, total - len(picked))
    rows = iter(picked)
    given = [_fill(tx, rules, rows, one) for one in wanted]
    until = now + rules.settings.lease_ttl_ms
    lanes.grant(tx, [(one.lane, one.held) for ones in given for one in ones], now=now, until=until)
    next_at = None if all(given) else _next_at(tx, mailboxes)
    nothing = Granted(ready_in_ms=None if next_at is None else max(1, next_at - now))
    hints, stamp = Hints(tx, rules), rules.time.stamp()
    return [
        Granted(leases=tuple([_lease(tx, one, hints, stamp) for one in ones])) if ones else nothing
        for ones in given
    ]


def _fill(tx: HiveTx, rules: Rules, rows: Iterator[Row], wanted: Wanted) -> list[_Grant]:
    """Return what one request gets of the rows of `lane_pick` that are left."""
    grants: list[_Grant] = []
    room = BATCH_BYTES
    while len(grants) < wanted.lanes and room > 0 and (row := next(rows, None)) is not None:
        grants.append(_grant(tx, rules, row, wanted, room=room))
        room -= grants[-1].weight
    return grants


class _Grant(msgspec.Struct):
    """One lane that is leased: what it holds, as rows of `envelopes_ready` and of `deliveries_of_lease`."""

    lane: Lane
    rows: list[Row]
    held: list[Row]
    weight: int


def _grant(tx: HiveTx, rules: Rules, picked: Row, wanted: Wanted, *, room: int) -> _Grant:
    """Lease one lane: choose what goes out with it."""
    lane = lanes.find(tx, picked[0])
    assert lane is not None
    rows = [picked[1:]]
    if lane.urgency == INTERRUPT:
        rows = tx.all("envelopes_interrupt", lane.id) or rows
    elif lane.ready_n > 1 and wanted.burst > 1 and lane.session != OUT and rows[0][10].startswith("person:"):
        rows = _burst(tx.all("envelopes_ready", lane.id, min(wanted.burst, rules.settings.burst_max)))
    rows, weight = _fitting(rows, room)
    lane.lease_id, lane.holder = f"{lane.id}-{rules.time.token()}", wanted.holder
    held = [_held_row(row) for row in rows]
    for row in rows:
        tx.signals.append(("delivery", row[0], row[8], lane.id, lane.recipient, "leased"))
    return _Grant(lane, rows, held, weight)


def _lease(tx: HiveTx, grant: _Grant, hints: Hints, stamp: int) -> Lease:
    lane = grant.lane
    chat = int(lane.recipient[5:]) if lane.recipient.startswith("chat:") else None
    assert lane.lease_id is not None
    return Lease(
        lease_id=lane.lease_id,
        fence=lane.fence,
        lane=lane.id,
        session=lane.session,
        envelopes=tuple(
            [
                envelope_of(tx, row, to=lane.recipient, session=lane.session, now=stamp, chat=chat)
                for row in grant.rows
            ]
        ),
        pending=hints.of(lane),
    )


def _next_at(tx: HiveTx, mailboxes: Sequence[str]) -> int | None:
    """Return when the next lane of these mailboxes can be taken."""
    found = [row[0] for mailbox in mailboxes for row in tx.all("lane_next_at", mailbox)]
    return min((at for at in found if at is not None), default=None)


def _held_row(row: Row) -> Row:
    """Return a row of `envelopes_ready` as `deliveries_of_lease` gives it once it is leased."""
    return (
        row[0],
        "leased",
        row[5] + 1,
        row[24],
        row[8],
        row[9],
        row[10],
        row[17],
        row[18],
        row[19],
        row[12],
        row[7],
        row[6],
    )


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
    lane: Lane,
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
        told := asks.answer_by_turn(tx, rules, message_id, draft, by=lane.recipient, turn_id=turn_id)
    ):
        return told, "ask"
    if _is_from_chat(head):
        sent = to_chat(
            tx,
            rules,
            sender=lane.recipient,
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
        actor = Actor(principal=lane.recipient, role="system", lane=lane.id, turn_id=turn_id)
        sent = send(tx, rules, actor, Draft(to=sender, body=body, idem=key, in_reply_to=message_id))
        return sent.id, sender
    recorded = rules.time.new_id()
    known = insert_message(
        tx,
        rules,
        recorded,
        sender=lane.recipient,
        draft=draft,
        to=sender,
        thread=thread,
        in_reply_to=message_id,
        turn_id=turn_id,
        from_session=lane.session,
    )
    return known.id if known else recorded, "record"


def _failed(
    tx: HiveTx,
    rules: Rules,
    lane: Lane,
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
            tx.signals.append(("delivery", row[0], row[4], lane.id, lane.recipient, "ready"))
    steps = settings.error_backoff_ms
    _release(tx, rules, lane, back=back, wait_ms=steps[min(failures, len(steps)) - 1] if back else 0)
    return Ended(released=True, lane=lane.id, recipient=lane.recipient, dead=dead, envelopes=len(held))


def _ended_before(tx: HiveTx, lane: Lane | None, turn_id: str) -> Ended:
    """Return what became of a turn that is told to end again."""
    if lane is not None:
        if lane.done_turn == turn_id:
            return Ended(
                released=True,
                lane=lane.id,
                recipient=lane.recipient,
                message_id=lane.done_reply,
                duplicate=True,
            )
        reply = tx.one("reply_of_turn", turn_id)
        if reply is not None or tx.one("turn_was_done", lane.id, turn_id):
            return Ended(
                released=True,
                lane=lane.id,
                recipient=lane.recipient,
                message_id=reply[0] if reply else None,
                duplicate=True,
            )
    raise StaleLeaseError("the lease has ended")


def _give_back(tx: HiveTx, rules: Rules, lane: Lane, held: list[Row], *, delay_ms: int, reason: str) -> None:
    """Give all that a lease holds back without blame, and free the lane."""
    _back(tx, lane, held, reason=reason)
    _release(tx, rules, lane, back=len(held), wait_ms=delay_ms)


def _back(tx: HiveTx, lane: Lane, held: list[Row], *, reason: str) -> None:
    for row in held:
        tx.run("delivery_back", row[0], max(0, row[2] - 1), row[3], reason or None)
        tx.signals.append(("delivery", row[0], row[4], lane.id, lane.recipient, "ready"))


def _release(tx: HiveTx, rules: Rules, lane: Lane, *, back: int, wait_ms: int = 0, fence: int = 0) -> None:
    """Free a lane into which something comes back, not to be taken again before `wait_ms` are over."""
    _free(tx, rules, lane, back=back, wait_ms=wait_ms, fence=fence)
    lanes.write_released(tx, (lane,))


def _free(
    tx: HiveTx,
    rules: Rules,
    lane: Lane,
    *,
    back: int,
    wait_ms: int = 0,
    fence: int = 0,
    turn_id: str | None = None,
    reply: str | None = None,
) -> None:
    now = rules.time.steady()
    lanes.release(
        tx,
        lane,
        back=back,
        not_before=now + wait_ms if wait_ms else 0,
        not_after=now + rules.settings.quiet_max_ms,  # a time of another clock never puts a lane off for long
        fence=fence,
        turn_id=turn_id,
        reply=reply,
    )


def _leased(tx: HiveTx, lease_id: str, fence: int) -> Lane:
    lane = lanes.find(tx, _lane_id(lease_id))
    if lane is None or lane.lease_id != lease_id or lane.fence != fence:
        raise StaleLeaseError("the lease has ended")
    return lane


def _held(tx: HiveTx, lane: Lane) -> list[Row]:
    """Return what a lease holds: a turn shows all of it when it begins."""
    if lane.held is None:
        state = "leased" if lane.turn_id is None else "shown"
        lane.held = tx.all("deliveries_of_lease", lane.id, state)
    return lane.held


def _lane_id(lease_id: str) -> int:
    """Return the lane that a lease names; a lease id starts with it."""
    digits = lease_id.partition("-")[0]
    return int(digits) if digits.isdecimal() and len(digits) < 19 else 0


def _speaks_in(tx: HiveTx, lane: Lane) -> tuple[str, str] | None:
    """Return relay and chat id of the chat where the person of a lane is told what its turns have to say."""
    row = tx.one("chat", lane.chat) if lane.chat is not None else None
    return None if row is None else (row[1], row[5])


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
