"""What the daemon finds wrong, from facts that are handed in.

Source: hive, sections 5.3, 10 and 13.1; control protocol, section 2. Pure. `status`, `doctor` and
the dashboard show the same findings (`skep.foundation.health`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from skep.foundation.health import SEVERITY_ORDER, Finding
from skep.wire.control.operator import AgentState, Findings, RelayRow

__all__ = ["AgentFacts", "Facts", "find"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """One agent.

    Attributes:
        log: Where its harness writes.
        is_sandboxed: Its tools are to run in a sandbox; `runs_tools` whether it has any.
    """

    name: str
    state: AgentState
    note: str | None
    log: str
    is_sandboxed: bool
    runs_tools: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """How things are.

    Attributes:
        dead: Deliveries that were given up.
        held: Lanes that are held, by reason.
        has_bubblewrap: Tools of agents can be sandboxed.
        is_one_user: All processes run as the same user.
        store_problem: Why the store does not answer, if it does not.
        secrets: What was found of secret files (`skep.hive.secret_files`).
    """

    agents: tuple[AgentFacts, ...]
    gateway_attached: bool
    relays: tuple[RelayRow, ...]
    dead: int
    held: dict[str, int]
    has_bubblewrap: bool
    is_one_user: bool
    store_problem: str | None = None
    secrets: tuple[Finding, ...] = ()


_GATEWAY = "gateway.away"
_SANDBOX = "sandbox.missing"
_STORE = "store.unavailable"
_LETTERS = "letters.dead"


def find(facts: Facts) -> Findings:
    """Return what is wrong, worst first, and the checks that found nothing."""
    findings = sorted(
        (finding for check in _CHECKS.values() for finding in check(facts)),
        key=lambda finding: (SEVERITY_ORDER[finding.severity], finding.id),
    )
    passed = tuple(name for name, check in _CHECKS.items() if not any(check(facts)))
    return Findings(findings=tuple(findings), passed=passed, not_checked=("memory", "providers"))


def _store(facts: Facts) -> Iterator[Finding]:
    if facts.store_problem is not None:
        yield Finding(
            id=_STORE,
            severity="broken",
            problem=facts.store_problem,
            fix="look at the disk that holds SKEP_HOME; work goes on by itself when it is back",
        )


def _agents(facts: Facts) -> Iterator[Finding]:
    for agent in facts.agents:
        why = f": {agent.note}" if agent.note else ""
        if agent.state == "failed":
            yield Finding(
                id=f"agent.failed.{agent.name}",
                severity="broken",
                problem=f"agent `{agent.name}` failed too often and is not started again{why}",
                fix=f"tail {agent.log}",
            )
        elif agent.state == "held":
            yield Finding(
                id=f"agent.held.{agent.name}",
                severity="broken",
                problem=f"agent `{agent.name}` waits for its old process to end{why}",
                fix="its messages wait too, none is lost; if the process never ends, restart the machine",
            )
        elif agent.state == "suspect":
            yield Finding(
                id=f"agent.suspect.{agent.name}",
                severity="soon",
                problem=f"agent `{agent.name}` was not heard for a while; it is started again if that goes on",
                fix=f"tail {agent.log}",
            )
        elif agent.state == "starting" and agent.note:
            yield Finding(
                id=f"agent.restarting.{agent.name}",
                severity="soon",
                problem=f"agent `{agent.name}` stopped and is being started again{why}",
                fix=f"tail {agent.log}",
            )


def _gateway(facts: Facts) -> Iterator[Finding]:
    if not facts.gateway_attached:
        yield Finding(
            id=_GATEWAY,
            severity="broken",
            problem="no gateway is attached: nobody can be reached, and nobody can write",
            fix="skep status",
        )


def _relays(facts: Facts) -> Iterator[Finding]:
    explained = () if facts.gateway_attached else (_GATEWAY,)
    for relay in facts.relays:
        why = f": {relay.detail}" if relay.detail else ""
        if relay.state == "off":
            yield Finding(
                id=f"relay.off.{relay.relay}",
                severity="look",
                problem=f"the gateway dials no connector for `{relay.relay}`{why}",
                fix="set `gateway.relay_url`",
                depends_on=explained,
            )
        elif relay.state == "connecting":
            yield Finding(
                id=f"relay.connecting.{relay.relay}",
                severity="soon",
                problem=f"the connector `{relay.relay}` is away{why}",
                fix="skep status",
                depends_on=explained,
            )
        elif relay.state == "away":
            yield Finding(
                id=f"relay.away.{relay.relay}",
                severity="soon",
                problem=f"nobody says how the connector `{relay.relay}` is",
                fix="skep status",
                depends_on=explained,
            )


def _letters(facts: Facts) -> Iterator[Finding]:
    if facts.dead:
        many = "message was" if facts.dead == 1 else "messages were"
        yield Finding(
            id=_LETTERS,
            severity="soon",
            problem=f"{facts.dead} {many} given up",
            fix="open Threads in the dashboard: the stuck ones say why",
        )


def _lanes(facts: Facts) -> Iterator[Finding]:
    if count := facts.held.get("loop_guard"):
        yield Finding(
            id="lanes.loop_guard",
            severity="soon",
            problem=f"agents answered each other so often that {count} of their conversations are held",
            fix="open Threads in the dashboard",
        )


def _secrets(facts: Facts) -> Iterator[Finding]:
    yield from facts.secrets


def _sandbox(facts: Facts) -> Iterator[Finding]:
    if not facts.has_bubblewrap:
        is_needed = any(agent.is_sandboxed and agent.runs_tools for agent in facts.agents)
        yield Finding(
            id=_SANDBOX,
            severity="broken" if is_needed else "look",
            problem="bubblewrap is not installed: agents with tools of their own cannot be started",
            fix="apt-get install bubblewrap",
        )
    for agent in facts.agents:
        if not agent.is_sandboxed:
            yield Finding(
                id=f"sandbox.none.{agent.name}",
                severity="look",
                problem=f"the tools of agent `{agent.name}` run without a sandbox",
                fix=f'set `sandbox = "bwrap"` in `[agent.{agent.name}]` of agents.toml',
            )


def _users(facts: Facts) -> Iterator[Finding]:
    if facts.is_one_user:
        yield Finding(
            id="host.one_user",
            severity="look",
            problem="all processes run as one user: between agents, the sandbox is the only wall",
            fix="run Skep as a user that owns nothing else",
        )


_CHECKS = {
    "store": _store,
    "agents": _agents,
    "gateway": _gateway,
    "relays": _relays,
    "letters": _letters,
    "lanes": _lanes,
    "secrets": _secrets,
    "sandbox": _sandbox,
    "users": _users,
}
