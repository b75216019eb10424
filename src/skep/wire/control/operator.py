"""What an operator may ask and do: on the web socket with a session, on the CLI socket without.

Source: control protocol, section 9. The list is closed; a new method is a change of that table.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from skep.foundation.health import Finding
from skep.foundation.rpc import Event, Method, Table
from skep.wire.control.base import Args, Empty, NoArgs, Result

__all__ = [
    "AGENT_GET",
    "AGENT_LIST",
    "ASK_CANCEL",
    "AUTH_CODE",
    "AUTH_LOGIN",
    "AUTH_LOGOUT",
    "CLI",
    "DAEMON_STOP",
    "HEALTH_LIST",
    "HIVE",
    "HIVE_QUERY",
    "HIVE_SUBSCRIBE",
    "REMINDER_CANCEL",
    "STATUS_GET",
    "WEB",
    "AgentGetArgs",
    "AgentRow",
    "AgentRows",
    "AgentState",
    "AuthCodeArgs",
    "AuthCodeResult",
    "AuthLoginArgs",
    "AuthLoginResult",
    "CancelArgs",
    "CancelResult",
    "Findings",
    "HiveEvent",
    "QueryArgs",
    "QueryName",
    "QueryResult",
    "RelayRow",
    "Status",
    "SubscribeArgs",
    "SubscribeResult",
]


class AuthLoginArgs(Args, frozen=True):
    """Sign in by a one-time code."""

    once: str


class AuthLoginResult(Result, frozen=True):
    """`session` is told once; the daemon keeps only its hash."""

    session: str
    operator: str
    expires_at: int


class AuthCodeArgs(Args, frozen=True):
    """Make a one-time code."""

    for_: Literal["dashboard"] = msgspec.field(default="dashboard", name="for")
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=900)] = 900


class AuthCodeResult(Result, frozen=True):
    """The code, told once."""

    code: str


AgentState = Literal["defined", "starting", "up", "draining", "stopped", "suspect", "failed", "held"]


class AgentRow(Result, frozen=True):
    """One agent, as the dashboard and `skep agent list` show it.

    Attributes:
        busy: Turns that run now; `turn_started_at` is when the oldest of them began.
        queue: Envelopes that wait; `oldest_at` is when the oldest was stored.
        turns_today: In the agent's time zone.
        reminders_sent, reminders_tried: Over the last 24 hours.
        reminder_hours: (tried, sent) of each of these hours, oldest first.
    """

    name: str
    role: str
    runtime: str
    state: AgentState
    note: str | None = None
    up_since: int | None = None
    busy: int = 0
    turn_started_at: int | None = None
    queue: int = 0
    oldest_at: int | None = None
    turns_today: int = 0
    turn_p50_ms: int | None = None
    turn_p95_ms: int | None = None
    reminders_sent: int = 0
    reminders_tried: int = 0
    reminder_hours: tuple[tuple[int, int], ...] = ()
    open_asks: int = 0
    open_reminders: int = 0
    dead: int = 0
    missed_starts: int = 0
    is_default: bool = False


class AgentRows(Result, frozen=True):
    """All agents."""

    agents: tuple[AgentRow, ...] = ()


class AgentGetArgs(Args, frozen=True):
    """One agent by name."""

    agent: str


class RelayRow(Result, frozen=True):
    """One connector that the gateway dials."""

    relay: str
    state: Literal["off", "connecting", "connected", "away"]
    detail: str | None = None
    platforms: tuple[str, ...] = ()
    since: int | None = None


class Status(Result, frozen=True):
    """How the hive is. Word for a part: ok, degraded, down, not checked."""

    build: str
    boot_epoch: int
    started_at: int
    gateway_attached: bool
    pid: int = 0
    relays: tuple[RelayRow, ...] = ()
    agents: tuple[AgentRow, ...] = ()
    store: str = "ok"
    findings: tuple[Finding, ...] = ()
    now: int = 0


class Findings(Result, frozen=True):
    """What is wrong, worst first; `passed` are the ids of checks that found nothing."""

    findings: tuple[Finding, ...] = ()
    passed: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()


QueryName = Literal["threads", "thread", "lane", "dead", "asks", "reminders", "stats", "timeline", "audit"]


class QueryArgs(Args, frozen=True):
    """A named query; `cursor` is where the last page ended.

    What `params` it takes, and what rows it gives, is in `skep.wire.control.rows`.
    """

    name: QueryName
    params: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    cursor: str | None = None


class QueryResult(Result, frozen=True):
    """Rows of one page; `cursor` is null on the last.

    Attributes:
        names: Display name of each `person:<n>` that occurs in the rows.
    """

    rows: tuple[dict[str, Any], ...] = ()
    cursor: str | None = None
    names: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class SubscribeArgs(Args, frozen=True):
    """From `cursor` on, or from now."""

    cursor: int | None = None


class SubscribeResult(Result, frozen=True):
    """Where the stream stands."""

    cursor: int


class HiveEvent(Result, frozen=True):
    """Something changed.

    Attributes:
        kind: `resync` (ask again), `delivery`, `agent`, `ask`, `reminder`, `health`, `turn`, `relay`.
        data: Ids and the new state; never what somebody wrote, but for `turn` text so far.
    """

    cursor: int
    kind: str
    data: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class CancelArgs(Args, frozen=True):
    """Cancel the ask or reminder of this id."""

    id: str


class CancelResult(Result, frozen=True):
    """The state it is in now."""

    state: str


AUTH_LOGIN = Method(name="auth.login", args=AuthLoginArgs, result=AuthLoginResult)
AUTH_LOGOUT = Method(name="auth.logout", args=NoArgs, result=Empty)
AUTH_CODE = Method(name="auth.code", args=AuthCodeArgs, result=AuthCodeResult)
STATUS_GET = Method(name="status.get", args=NoArgs, result=Status)
HEALTH_LIST = Method(name="health.list", args=NoArgs, result=Findings)
AGENT_LIST = Method(name="agent.list", args=NoArgs, result=AgentRows)
AGENT_GET = Method(name="agent.get", args=AgentGetArgs, result=AgentRow)
HIVE_QUERY = Method(name="hive.query", args=QueryArgs, result=QueryResult)
HIVE_SUBSCRIBE = Method(name="hive.subscribe", args=SubscribeArgs, result=SubscribeResult)
ASK_CANCEL = Method(name="ask.cancel", args=CancelArgs, result=CancelResult)
REMINDER_CANCEL = Method(name="reminder.cancel", args=CancelArgs, result=CancelResult)
DAEMON_STOP = Method(name="daemon.stop", args=NoArgs, result=Empty)

HIVE = Event(name="hive", data=HiveEvent)

_READ = (STATUS_GET, HEALTH_LIST, AGENT_LIST, AGENT_GET, HIVE_QUERY, HIVE_SUBSCRIBE)
_STEER = (ASK_CANCEL, REMINDER_CANCEL)

WEB = Table("web.sock", (AUTH_LOGIN, AUTH_LOGOUT, *_READ, *_STEER))
CLI = Table("cli.sock", (AUTH_CODE, *_READ, *_STEER, DAEMON_STOP))
