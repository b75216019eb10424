"""The named queries of `hive.query`: what an operator may read of the hive.

Source: hive, sections 11.4 and 14; control protocol, section 9. The list is closed; rows have the
types of `skep.wire.control.rows`. Who reads, and that it is audited, is the caller's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec

from skep.foundation.errors import RefusedError
from skep.foundation.rpc import RpcError
from skep.hive.agents import Roster
from skep.hive.auth import HiveStore
from skep.hive.telemetry import Telemetry
from skep.store.ports import HiveTx, Row
from skep.wire.control import rows
from skep.wire.control.base import Args, Result
from skep.wire.control.envelope import Urgency
from skep.wire.control.operator import QueryArgs, QueryResult

__all__ = ["Queries"]

A = TypeVar("A", bound=Args)
R = TypeVar("R", bound=Result)

_LAST: Final = "~"
"""Sorts after every id."""
_NEVER: Final = 1 << 62
MAX_PAGE_BYTES: Final = 1 << 20
"""A page stops here, with at least one row (control protocol, section 3)."""
_ALIVE: Final = frozenset({"scheduled", "ready", "leased", "shown"})
_encoder: Final = msgspec.json.Encoder()

_Found = list[tuple[Result, str]]
"""Rows, one more than wanted when there are more; each with the cursor of a page that follows it."""


class Queries:
    """Runs named queries over the store of the hive and the one of figures."""

    def __init__(self, store: HiveStore, telemetry: Telemetry, *, roster: Roster) -> None:
        self._store: Final = store
        self._telemetry: Final = telemetry
        self._roster: Final = roster

    async def run(self, query: QueryArgs) -> QueryResult:
        """Return one page of rows.

        Raises:
            RpcError: `invalid_argument`: a wrong parameter or cursor.
            RefusedError: There is no such thread.
        """
        params = _params(query)
        match params:
            case rows.ThreadsParams():
                page = await self._store.view(lambda tx: _threads(tx, params, query.cursor))
            case rows.ThreadParams():
                page = await self._store.view(lambda tx: self._thread(tx, params, query.cursor))
            case rows.AsksParams():
                page = await self._store.view(lambda tx: self._asks(tx, params, query.cursor))
            case rows.RemindersParams():
                page = await self._store.view(lambda tx: _reminders(tx, params, query.cursor))
            case rows.AgentParams() if query.name == "lane":
                page = await self._store.view(lambda tx: _lanes(tx, params, query.cursor))
            case rows.AgentParams():
                page = await self._store.view(lambda tx: _dead(tx, params, query.cursor))
            case rows.StatsParams():
                page = await self._stats(params)
            case rows.TimelineParams():
                page = await self._timeline(params, query.cursor)
            case rows.AuditParams():
                page = await self._store.view(lambda tx: _audit(tx, params, query.cursor))
            case _:
                raise RpcError("invalid_argument", f"no query `{query.name}`")
        kept, cursor = _cut(page, getattr(params, "limit", len(page)))
        people = sorted({who for row in kept for who in _principals(row) if who.startswith("person:")})
        names = await self._store.view(lambda tx: _names(tx, people)) if people else {}
        return QueryResult(
            rows=tuple(cast("dict[str, Any]", msgspec.to_builtins(row)) for row in kept),
            cursor=cursor,
            names=names,
        )

    def _thread(self, tx: HiveTx, params: rows.ThreadParams, cursor: str | None) -> _Found:
        found = tx.all("op_messages", params.id, cursor or "", params.limit + 1)
        if not found and cursor is None:
            raise RefusedError("no such thread", code="broker.not_found")
        ids = _list(row[0] for row in found)
        deliveries: dict[str, list[rows.DeliveryRow]] = {}
        broadcasts: set[str] = set()
        senders = {row[0]: row[3] for row in found}
        for row in tx.all("op_deliveries", ids):
            deliveries.setdefault(row[0], []).append(_delivery(row, addressed_to=senders[row[0]]))
            if row[13]:
                broadcasts.add(row[0])
        asks = {row[0]: self._ask(row) for row in tx.all("op_asks_of", ids)}
        return [
            (
                rows.MessageRow(
                    id=row[0],
                    kind=row[1],
                    from_=row[2],
                    to=row[3],
                    body=row[4],
                    created_at=row[5],
                    in_reply_to=row[6],
                    turn_id=row[7],
                    broadcast=row[0] in broadcasts,
                    deliveries=tuple(deliveries.get(row[0], ())),
                    ask=asks.get(row[0]),
                ),
                row[0],
            )
            for row in found
        ]

    def _asks(self, tx: HiveTx, params: rows.AsksParams, cursor: str | None) -> _Found:
        found = tx.all("op_asks", cursor or _LAST, params.state, _agent(params.agent), params.limit + 1)
        return [(self._ask(row), row[0]) for row in found]

    def _ask(self, row: Row) -> rows.AskRow:
        target: str = row[2]
        name = target.removeprefix("agent:")
        return rows.AskRow(
            id=row[0],
            asker=row[1],
            target=target,
            question=row[3],
            state=row[4],
            asked_at=row[5],
            thread=row[6],
            deadline_at=row[7],
            closed_at=row[8],
            answer=row[9],
            target_state=self._roster.state(name) if name in self._roster.names() else None,
        )

    async def _stats(self, params: rows.StatsParams) -> _Found:
        figures = await self._telemetry.figures(self._chosen(params.agent), hours=params.hours)
        return [
            (
                rows.StatsRow(
                    agent=agent,
                    turns=figure.turns,
                    errors=figure.errors,
                    p50_ms=figure.p50_ms,
                    p95_ms=figure.p95_ms,
                    in_tokens=figure.in_tokens,
                    out_tokens=figure.out_tokens,
                    by_hour=figure.by_hour,
                ),
                "",
            )
            for agent, figure in figures.items()
        ]

    async def _timeline(self, params: rows.TimelineParams, cursor: str | None) -> _Found:
        before = _number(cursor, default=_NEVER)
        steps: list[rows.TimelineRow] = []
        for agent in params.agents or self._roster.names():
            steps += await self._steps(agent, before=before, limit=params.limit + 1)
        steps.sort(key=lambda step: step.at, reverse=True)
        return [(step, str(step.at)) for step in steps]

    async def _steps(self, agent: str, *, before: int, limit: int) -> list[rows.TimelineRow]:
        turns, events = await self._telemetry.last(agent, before=before, limit=limit)
        steps = [
            rows.TimelineRow(
                at=turn.started,
                agent=agent,
                what="turn",
                id=turn.id,
                ms=turn.ended - turn.started,
                detail=turn.outcome,
            )
            for turn in turns
        ]
        steps += [
            rows.TimelineRow(at=event.at, agent=agent, what=event.kind, detail=event.data or None)
            for event in events
        ]
        deliveries = await self._store.view(lambda tx: tx.all("op_timeline", f"agent:{agent}", before, limit))
        for id_, created_at, kind, state, done_at in deliveries:
            steps.append(
                rows.TimelineRow(at=created_at, agent=agent, what="stored", id=str(id_), detail=kind)
            )
            if done_at is not None and done_at < before:
                steps.append(rows.TimelineRow(at=done_at, agent=agent, what=state, id=str(id_)))
        return steps

    def _chosen(self, agent: str | None) -> tuple[str, ...]:
        return self._roster.names() if agent is None else (agent,)


def _params(query: QueryArgs) -> Args:
    try:
        return msgspec.convert(query.params, rows.PARAMS[query.name])
    except msgspec.ValidationError as exc:
        raise RpcError("invalid_argument", f"`{query.name}`: {exc}") from exc


def _threads(tx: HiveTx, params: rows.ThreadsParams, cursor: str | None) -> _Found:
    found = tx.all("op_threads", cursor or _LAST, _agent(params.agent), params.limit + 1)
    threads = _list(row[0] for row in found)
    spans = {row[0]: row[1:] for row in tx.all("op_thread_spans", threads)}
    openings = {row[0]: row[1:] for row in tx.all("op_openings", _list(span[0] for span in spans.values()))}
    people: dict[str, list[str]] = {}
    for thread, who in tx.all("op_thread_people", threads):
        people.setdefault(thread, []).append(who)
    counts: dict[str, list[tuple[str, bool, int]]] = {}
    for thread, state, is_held, count in tx.all("op_thread_states", threads):
        counts.setdefault(thread, []).append((state, bool(is_held), count))
    page: _Found = []
    for thread, newest in found:
        first, messages, started_at, last_at = spans[thread]
        kind, sender, to, opening = openings[first]
        states = counts.get(thread, [])
        waiting = sum(count for state, _, count in states if state in _ALIVE)
        dead = sum(count for state, _, count in states if state == "dead")
        is_stuck = dead > 0 or any(is_held for state, is_held, _ in states if state in _ALIVE)
        page.append(
            (
                rows.ThreadRow(
                    id=thread,
                    kind=kind,
                    from_=sender,
                    to=to,
                    opening=opening,
                    stage="stuck" if is_stuck else "moving" if waiting else "earlier",
                    messages=messages,
                    started_at=started_at,
                    last_at=last_at,
                    waiting=waiting,
                    dead=dead,
                    people=tuple(people.get(thread, ())),
                ),
                newest,
            )
        )
    return page


def _delivery(row: Row, *, addressed_to: str) -> rows.DeliveryRow:
    recipient: str = row[2]
    return rows.DeliveryRow(
        delivery_id=row[1],
        to=addressed_to if recipient.startswith("chat:") else recipient,
        state=row[3],
        lane=row[4],
        attempt=row[5],
        urgency=_urgency(row[6]),
        not_before=row[7] or None,
        deadline_at=row[8],
        done_at=row[9],
        turn_id=row[10],
        reason=row[11],
        hold=row[12],
    )


def _reminders(tx: HiveTx, params: rows.RemindersParams, cursor: str | None) -> _Found:
    agent = _agent(params.agent)
    if params.state == "open":
        due_at, _, after = (cursor or "-1 ").partition(" ")
        found = tx.all("op_reminders_open", _number(due_at, default=-1), after, agent, params.limit + 1)
    else:
        found = tx.all("op_reminders", cursor or _LAST, params.state, agent, params.limit + 1)
    return [
        (
            rows.ReminderRow(
                id=row[0],
                owner=row[1],
                session=row[2],
                body=row[3],
                due_at=row[4],
                state=row[5],
                created_at=row[6],
                rrule=row[7],
                attempts=row[8],
                sent_at=row[9],
                last_error=row[10],
            ),
            f"{row[4]} {row[0]}" if params.state == "open" else row[0],
        )
        for row in found
    ]


def _lanes(tx: HiveTx, params: rows.AgentParams, cursor: str | None) -> _Found:
    found = tx.all("op_lanes", _number(cursor, default=0), _agent(params.agent), params.limit + 1)
    return [
        (
            rows.LaneRow(
                lane=row[0],
                recipient=row[1],
                session=row[2],
                ready=row[3],
                urgency=_urgency(row[4]),
                hold=row[5],
                turn_id=row[6],
                oldest_at=row[7],
            ),
            str(row[0]),
        )
        for row in found
    ]


def _dead(tx: HiveTx, params: rows.AgentParams, cursor: str | None) -> _Found:
    at, _, id_ = (cursor or "").partition(" ")
    found = tx.all(
        "op_dead",
        _number(at, default=_NEVER),
        _number(id_, default=_NEVER),
        _agent(params.agent),
        params.limit + 1,
    )
    return [
        (
            rows.DeadRow(
                delivery_id=row[0],
                message=row[1],
                kind=row[2],
                from_=row[3],
                to=row[5] if row[4].startswith("chat:") else row[4],
                thread=row[6],
                opening=row[7],
                state=row[8],
                created_at=row[9],
                reason=row[10],
                attempt=row[11],
                at=row[12] or None,
            ),
            f"{row[12]} {row[0]}",
        )
        for row in found
    ]


def _audit(tx: HiveTx, params: rows.AuditParams, cursor: str | None) -> _Found:
    found = tx.all("op_audit", _number(cursor, default=_NEVER), params.limit + 1)
    return [
        (
            rows.AuditRow(
                id=row[0], at=row[1], actor=row[2], act=row[3], object=row[4] or None, detail=row[5] or None
            ),
            str(row[0]),
        )
        for row in found
    ]


def _names(tx: HiveTx, people: Sequence[str]) -> dict[str, str]:
    ids = _list(int(who.removeprefix("person:")) for who in people if who.removeprefix("person:").isdecimal())
    return {f"person:{id_}": name for id_, name in tx.all("op_names", ids)}


def _principals(row: Result) -> Iterable[str]:
    match row:
        case rows.ThreadRow():
            return row.people
        case rows.MessageRow():
            return (row.from_, row.to, *(delivery.to for delivery in row.deliveries))
        case rows.AskRow():
            return (row.asker, row.target)
        case rows.ReminderRow():
            return (row.owner,)
        case rows.DeadRow():
            return (row.from_, row.to)
        case _:
            return ()


def _cut(found: _Found, limit: int) -> tuple[list[Result], str | None]:
    """Return the rows of one page, and where the next one begins if there is more."""
    size, kept = 0, 0
    for row, _ in found[:limit]:
        size += len(_encoder.encode(row))
        if kept and size > MAX_PAGE_BYTES:
            break
        kept += 1
    return [row for row, _ in found[:kept]], found[kept - 1][1] if kept < len(found) else None


def _urgency(value: int) -> Urgency:
    return "interrupt" if value > 1 else "soon" if value else "normal"


def _list(values: Iterable[object]) -> str:
    return json.dumps(list(values))


def _agent(name: str | None) -> str | None:
    return None if name is None else f"agent:{name}"


def _number(text: str | None, *, default: int) -> int:
    if not text:
        return default
    try:
        return min(int(text), _NEVER)
    except ValueError as exc:
        raise RpcError("invalid_argument", "`cursor` is not one of ours") from exc
