"""Rows of `hive.query`, one struct per named query, and what each query takes.

Source: hive, sections 11.4 and 14; control protocol, section 9. They cross the socket as plain
objects in `QueryResult.rows`; fields with their default value are left out.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from skep.wire.control.base import Args, Result
from skep.wire.control.envelope import Kind, Urgency

__all__ = [
    "PARAMS",
    "ROWS",
    "AgentParams",
    "AskRow",
    "AsksParams",
    "AuditParams",
    "AuditRow",
    "DeadRow",
    "DeliveryRow",
    "DeliveryState",
    "LaneRow",
    "MessageRow",
    "ReminderRow",
    "RemindersParams",
    "StatsParams",
    "StatsRow",
    "ThreadParams",
    "ThreadRow",
    "ThreadsParams",
    "TimelineParams",
    "TimelineRow",
]

DeliveryState = Literal["scheduled", "ready", "leased", "shown", "done", "expired", "cancelled", "dead"]
_Limit = Annotated[int, msgspec.Meta(ge=1, le=500)]


class ThreadsParams(Args, frozen=True):
    """`threads`, the one with the newest message first; `agent` takes part in it."""

    agent: str | None = None
    limit: _Limit = 50


class ThreadRow(Result, frozen=True):
    """One thread.

    Attributes:
        id: Its root message.
        opening: First 200 characters of the root's body.
        stage: `stuck` (something dead or held), `moving` (something waits or runs), else `earlier`.
        waiting: Deliveries that are not at their end.
        people: Principals that take part, in the order in which they came.
    """

    id: str
    kind: Kind
    from_: str = msgspec.field(name="from")
    to: str
    opening: str
    stage: Literal["moving", "stuck", "earlier"]
    messages: int
    started_at: int
    last_at: int
    waiting: int = 0
    dead: int = 0
    people: tuple[str, ...] = ()


class ThreadParams(Args, frozen=True):
    """`thread`: the messages of one, oldest first; the reading is audited."""

    id: str
    limit: _Limit = 200


class DeliveryRow(Result, frozen=True):
    """Where a message stands for one recipient: what its tick is drawn from."""

    delivery_id: int
    to: str
    state: DeliveryState
    lane: int
    attempt: int = 0
    urgency: Urgency = "normal"
    not_before: int | None = None
    deadline_at: int | None = None
    done_at: int | None = None
    turn_id: str | None = None
    reason: str | None = None
    hold: str | None = None


class AskRow(Result, frozen=True):
    """`asks`: one ask.

    Attributes:
        target_state: State of the target, when it is an agent.
        answer: Text of the answer.
    """

    id: str
    asker: str
    target: str
    question: str
    state: Literal["open", "answered", "cancelled", "expired", "target_gone"]
    asked_at: int
    thread: str
    deadline_at: int | None = None
    closed_at: int | None = None
    answer: str | None = None
    target_state: str | None = None


class MessageRow(Result, frozen=True):
    """`thread`: one message of it, with what became of each delivery."""

    id: str
    kind: Kind
    from_: str = msgspec.field(name="from")
    to: str
    body: str
    created_at: int
    in_reply_to: str | None = None
    broadcast: bool = False
    turn_id: str | None = None
    deliveries: tuple[DeliveryRow, ...] = ()
    ask: AskRow | None = None


class AgentParams(Args, frozen=True):
    """`lane` and `dead`: of one agent, or of all."""

    agent: str | None = None
    limit: _Limit = 100


class LaneRow(Result, frozen=True):
    """`lane`: one lane in which something waits, runs or is held."""

    lane: int
    recipient: str
    session: str
    ready: int = 0
    oldest_at: int | None = None
    urgency: Urgency = "normal"
    hold: str | None = None
    turn_id: str | None = None


class DeadRow(Result, frozen=True):
    """`dead`: a delivery that was given up, newest first."""

    delivery_id: int
    message: str
    kind: Kind
    from_: str = msgspec.field(name="from")
    to: str
    thread: str
    opening: str
    state: Literal["dead", "expired"]
    created_at: int
    reason: str | None = None
    attempt: int = 0
    at: int | None = None


class AsksParams(Args, frozen=True):
    """`asks`, newest first; `agent` asks or is asked."""

    state: Literal["open", "closed", "all"] = "open"
    agent: str | None = None
    limit: _Limit = 100


class RemindersParams(Args, frozen=True):
    """`reminders`: open ones by when they are due, others newest first."""

    state: Literal["open", "closed", "all"] = "open"
    agent: str | None = None
    limit: _Limit = 100


class ReminderRow(Result, frozen=True):
    """`reminders`: one reminder."""

    id: str
    owner: str
    session: str
    body: str
    due_at: int
    state: Literal["armed", "sent", "cancelled", "skipped", "failed"]
    created_at: int
    rrule: str | None = None
    attempts: int = 0
    sent_at: int | None = None
    last_error: str | None = None


class StatsParams(Args, frozen=True):
    """`stats`: per agent, over the last `hours`."""

    agent: str | None = None
    hours: Annotated[int, msgspec.Meta(ge=1, le=24 * 90)] = 24


class StatsRow(Result, frozen=True):
    """`stats`: turns of one agent.

    Attributes:
        by_hour: (turns, errors) of each hour, oldest first; the last one is running.
    """

    agent: str
    turns: int = 0
    errors: int = 0
    p50_ms: int | None = None
    p95_ms: int | None = None
    in_tokens: int = 0
    out_tokens: int = 0
    by_hour: tuple[tuple[int, int], ...] = ()


class TimelineParams(Args, frozen=True):
    """`timeline`: what happened to these agents, newest first."""

    agents: tuple[str, ...] = ()
    limit: _Limit = 200


class TimelineRow(Result, frozen=True):
    """`timeline`: one step.

    Attributes:
        what: `stored`, `turn`, `done`, `dead`, or of its process: `start`, `up`, `adopted`, `exit`,
            `missed_start`, `failed`, `zombie`.
        id: Of the delivery or turn.
        detail: An outcome, an exit code, a kind; never what somebody wrote.
    """

    at: int
    agent: str
    what: str
    id: str | None = None
    ms: int | None = None
    detail: str | None = None


class AuditParams(Args, frozen=True):
    """`audit`, newest first."""

    limit: _Limit = 100


class AuditRow(Result, frozen=True):
    """`audit`: who did what to what."""

    id: int
    at: int
    actor: str
    act: str
    object: str | None = None
    detail: str | None = None


PARAMS: dict[str, type[Args]] = {
    "threads": ThreadsParams,
    "thread": ThreadParams,
    "lane": AgentParams,
    "dead": AgentParams,
    "asks": AsksParams,
    "reminders": RemindersParams,
    "stats": StatsParams,
    "timeline": TimelineParams,
    "audit": AuditParams,
}
ROWS: dict[str, type[Result]] = {
    "threads": ThreadRow,
    "thread": MessageRow,
    "lane": LaneRow,
    "dead": DeadRow,
    "asks": AskRow,
    "reminders": ReminderRow,
    "stats": StatsRow,
    "timeline": TimelineRow,
    "audit": AuditRow,
}
