"""Lanes: one conversation of one recipient, and the counts by which the next one is found.

Source: hive, sections 1, 3.2 and 3.3; control protocol, section 5.3.

A lane is read once and then remembered by its transaction object (`HiveTx.memo`), which forgets everything when work is
undone. So nearly all that happens to a lane is one update of one row. A function here changes the row and what is
remembered together; a statement that changes lanes behind its back must `forget` them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from skep.store.ports import HiveTx, Row

__all__ = [
    "INTERRUPT",
    "Lane",
    "count_out",
    "ensure",
    "find",
    "forget",
    "grant",
    "place",
    "put",
    "release",
    "start",
    "took_more",
    "waiting",
    "write",
    "write_released",
]

INTERRUPT: Final = 2
"""Urgency of what goes before everything else."""
_COUNTED: Final = 1_000
"""Of a long list of waiting lanes the start is counted."""


class Lane(msgspec.Struct):
    """One row of table `lane`, as it is now.

    Attributes:
        mailbox: Who leases it: `agent:NAME`, `door:RELAY`, `operator:ID`.
        chat: Of an agent's session: where its person writes.
        head_at: When it may be taken; `None` when nothing is ready.
        quiet_cap: Until when a burst may put off the lane at most.
        call_id, call_seq: Of the last `more`, so that a repeat gives the same.
        done_turn, done_reply: The last turn that ended here, so that a repeat is known.
        held: What its lease holds (rows of `deliveries_of_lease`), if that was read.
        is_moved: When it may be taken was changed, and is not written yet.
    """

    id: int
    recipient: str
    session: str
    mailbox: str
    chat: int | None
    lease_id: str | None
    fence: int
    holder: str | None
    turn_id: str | None
    ready_n: int
    urgency: int
    done_turn: str | None
    done_reply: str | None
    call_id: str | None
    call_seq: int | None
    hold: str | None
    next_seq: int
    head_at: int | None
    quiet_cap: int | None
    held: list[Row] | None = None
    is_moved: bool = False


def find(tx: HiveTx, lane_id: int) -> Lane | None:
    """Return a lane by its id."""
    lane = tx.memo.get(lane_id)
    if lane is None:
        row = tx.one("lane", lane_id)
        return None if row is None else _remember(tx, row)
    return lane


def ensure(tx: HiveTx, recipient: str, session: str, *, mailbox: str, chat: int | None) -> Lane:
    """Return the lane of a session, made when it is new; its mailbox and chat are as given from now on."""
    lane = tx.memo.get((recipient, session))
    if lane is None:
        row = tx.one("lane_of_session", recipient, session)
        if row is None:
            row = tx.one("lane_insert", recipient, session, mailbox, chat)
            assert row is not None
        lane = _remember(tx, row)
    if lane.mailbox != mailbox or (chat is not None and lane.chat != chat):
        tx.memo.pop(_waiting(lane.mailbox), None)
        tx.memo.pop(_waiting(mailbox), None)
        lane.mailbox, lane.chat = mailbox, lane.chat if chat is None else chat
        tx.run("lane_moved", lane.id, mailbox, lane.chat)
    return lane


def place(
    tx: HiveTx, lane: Lane, *, now: int, urgency: int = 0, quiet_ms: int = 0, quiet_max_ms: int = 0
) -> int:
    """Take the next place for something that is ready; return it. The caller writes the lane (`write`, `put`).

    Args:
        quiet_ms: How long the lane waits for more of the same burst; at most `quiet_max_ms` in all.
    """
    seq = lane.next_seq
    lane.next_seq = seq + 1
    cap = now + quiet_max_ms if quiet_ms else None
    if lane.ready_n == 0 or lane.head_at is None:
        lane.head_at, lane.quiet_cap = now + quiet_ms, cap
        lane.urgency = max(lane.urgency, urgency)
        lane.is_moved = True
    elif urgency > 0:
        lane.head_at = min(lane.head_at, now)
        lane.urgency = max(lane.urgency, urgency)
        lane.is_moved = True
    elif lane.quiet_cap is not None and cap is not None and lane.head_at > now:
        lane.head_at = min(lane.quiet_cap, max(lane.head_at, now + quiet_ms))
        lane.is_moved = True
    lane.ready_n += 1
    if lane.lease_id is not None:
        tx.signals.append(f"lane:{lane.id}")
        if urgency == INTERRUPT:
            tx.signals.append(("interrupt", lane.id, lane.recipient))
    elif lane.hold is None:
        tx.signals.append(lane.mailbox)
        _count(tx, lane.mailbox, 1)
    return seq


def put(
    tx: HiveTx, lane: Lane, *, now: int, urgency: int = 0, quiet_ms: int = 0, quiet_max_ms: int = 0
) -> int:
    """Do as `place`, and write the lane."""
    seq = place(tx, lane, now=now, urgency=urgency, quiet_ms=quiet_ms, quiet_max_ms=quiet_max_ms)
    write(tx, (lane,))
    return seq


def write(tx: HiveTx, lanes: Iterable[Lane]) -> None:
    """Write what `place` changed. A place more, behind others that wait, changes no index."""
    counted: list[tuple[int, int, int]] = []
    moved: list[tuple[int, int, int, int | None, int, int | None]] = []
    for lane in lanes:
        if lane.is_moved:
            lane.is_moved = False
            moved.append((lane.id, lane.next_seq, lane.ready_n, lane.head_at, lane.urgency, lane.quiet_cap))
        else:
            counted.append((lane.id, lane.next_seq, lane.ready_n))
    tx.many("lane_counted", counted)
    tx.many("lane_placed", moved)


def grant(tx: HiveTx, granted: Sequence[tuple[Lane, list[Row]]], *, now: int, until: int) -> None:
    """Write the leases of lanes (`lease_id` and `holder` are set) and what each of them holds."""
    for lane, held in granted:
        _count(tx, lane.mailbox, -lane.ready_n)
        lane.held = held
        lane.fence += 1
        lane.ready_n -= len(held)
        lane.quiet_cap = lane.turn_id = lane.call_id = lane.call_seq = None
    tx.many(
        "lane_grant",
        [(lane.id, lane.lease_id, lane.fence, lane.holder, now, until, lane.ready_n) for lane, _ in granted],
    )
    tx.many("delivery_lease", [(row[0], lane.lease_id) for lane, held in granted for row in held])


def start(tx: HiveTx, lane: Lane, held: list[Row], *, turn_id: str) -> None:
    """The turn of a lease begins: what was leased is shown."""
    lane.turn_id = turn_id
    lane.held = [(row[0], "shown", *row[2:-1], turn_id) for row in held]
    tx.run("lane_start", lane.id, turn_id)
    tx.many("delivery_show", [(row[0], turn_id) for row in held])


def took_more(tx: HiveTx, lane: Lane, count: int, *, call_id: str | None, call_seq: int | None) -> None:
    """A running turn took `count` more (less than none: gave back)."""
    lane.ready_n -= count
    lane.call_id, lane.call_seq = call_id, call_seq
    lane.held = None
    tx.run("lane_take_more", lane.id, lane.ready_n, call_id, call_seq)


def release(
    tx: HiveTx,
    lane: Lane,
    *,
    back: int,
    not_before: int,
    not_after: int,
    fence: int = 0,
    turn_id: str | None = None,
    reply: str | None = None,
) -> None:
    """Free a lane, count what came back, and ring when there is something to take. Written by `write_released`.

    Args:
        not_before, not_after: Bounds of when it may be taken again.
        turn_id, reply: Of the turn that ended well, to know a repeat.
    """
    lane.ready_n += back
    lane.fence += fence
    lane.lease_id = lane.holder = lane.turn_id = lane.call_id = lane.call_seq = lane.held = None
    if turn_id is not None:
        lane.done_turn, lane.done_reply = turn_id, reply
    if not lane.ready_n:
        lane.head_at, lane.urgency = None, 0
    else:
        (head_at,) = tx.one("lane_head", lane.id) or (not_before,)
        lane.head_at = max(not_before, min(not_after, head_at))
        if lane.urgency or back:
            lane.urgency = (tx.one("lane_urgency", lane.id) or (0,))[0]
    if lane.ready_n and lane.hold is None:
        tx.signals.append(lane.mailbox)
        _count(tx, lane.mailbox, lane.ready_n)


def write_released(tx: HiveTx, released: Iterable[Lane]) -> None:
    """Write what `release` changed."""
    tx.many(
        "lane_release",
        [
            (
                lane.id,
                lane.fence,
                lane.ready_n,
                lane.head_at,
                lane.urgency,
                lane.done_turn,
                lane.done_reply,
            )
            for lane in released
        ],
    )


def count_out(tx: HiveTx, lane_id: int) -> None:
    """A ready delivery has left its lane other than by a lease."""
    tx.run("lane_recount", lane_id)
    forget(tx, lane_id)


def waiting(tx: HiveTx, mailbox: str) -> int:
    """Return how much waits in the lanes of a mailbox that can be taken; of a long list the start is counted."""
    key = _waiting(mailbox)
    count = tx.memo.get(key)
    if count is None or count < 0:
        row = tx.one("mailbox_waiting", mailbox, _COUNTED)
        count = tx.memo[key] = row[0] if row else 0
    return count


def forget(tx: HiveTx, lane_id: int) -> None:
    """A statement has changed this lane: read it again when it is needed."""
    lane = tx.memo.pop(lane_id, None)
    if lane is not None:
        del tx.memo[lane.recipient, lane.session]
        tx.memo.pop(_waiting(lane.mailbox), None)
    else:
        tx.forget()


def _remember(tx: HiveTx, row: Row) -> Lane:
    lane = Lane(*row)
    tx.memo[lane.id] = tx.memo[lane.recipient, lane.session] = lane
    return lane


def _count(tx: HiveTx, mailbox: str, change: int) -> None:
    key = _waiting(mailbox)
    if key in tx.memo:
        tx.memo[key] += change


def _waiting(mailbox: str) -> tuple[str]:
    return (mailbox,)
