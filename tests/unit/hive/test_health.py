"""skep.hive.health: each thing that can be wrong is one finding, with what mends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from skep.hive.health import AgentFacts, Facts, find
from skep.wire.control.operator import RelayRow

SCRIBE = AgentFacts(
    name="scribe", state="up", note=None, log="/x/harness-scribe.log", is_sandboxed=True, runs_tools=False
)
WELL = Facts(
    agents=(SCRIBE,),
    gateway_attached=True,
    relays=(RelayRow(relay="local", state="connected"),),
    dead=0,
    held={},
    has_bubblewrap=True,
    is_one_user=False,
)


def agent(**facts: Any) -> dict[str, Any]:
    """The same hive with another agent."""
    return {"agents": (replace(SCRIBE, **facts),)}


FOUND: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "failed": (agent(state="failed", note="exit code 3"), "agent.failed.scribe", "broken", "exit code 3"),
    "zombie": (
        agent(state="held", note="process 7 does not die"),
        "agent.held.scribe",
        "broken",
        "process 7",
    ),
    "suspect": (agent(state="suspect"), "agent.suspect.scribe", "soon", "not heard"),
    "restarting": (
        agent(state="starting", note="exit code 3"),
        "agent.restarting.scribe",
        "soon",
        "exit code",
    ),
    "no sandbox": (agent(is_sandboxed=False), "sandbox.none.scribe", "look", "without a sandbox"),
    "no gateway": ({"gateway_attached": False}, "gateway.away", "broken", "no gateway"),
    "relay off": (
        {"relays": (RelayRow(relay="local", state="off", detail="no URL"),)},
        "relay.off.local",
        "look",
        "no URL",
    ),
    "relay connecting": (
        {"relays": (RelayRow(relay="local", state="connecting", detail="refused"),)},
        "relay.connecting.local",
        "soon",
        "refused",
    ),
    "one dead letter": ({"dead": 1}, "letters.dead", "soon", "1 message was"),
    "dead letters": ({"dead": 3}, "letters.dead", "soon", "3 messages were"),
    "loop guard": ({"held": {"loop_guard": 2, "paused": 9}}, "lanes.loop_guard", "soon", "2 of their"),
    "no bubblewrap": ({"has_bubblewrap": False}, "sandbox.missing", "look", "bubblewrap"),
    "no bubblewrap, and needed": (
        {"has_bubblewrap": False, **agent(runs_tools=True)},
        "sandbox.missing",
        "broken",
        "bubblewrap",
    ),
    "one user": ({"is_one_user": True}, "host.one_user", "look", "one user"),
    "store": ({"store_problem": "the disk is full"}, "store.unavailable", "broken", "the disk is full"),
}


def test_a_healthy_hive_has_no_finding() -> None:
    """Every check is named as passed, and what was not checked is said."""
    found = find(WELL)

    assert found.findings == ()
    assert set(found.passed) == {
        "store",
        "agents",
        "gateway",
        "relays",
        "letters",
        "lanes",
        "secrets",
        "sandbox",
        "users",
    }
    assert found.not_checked == ("memory", "providers")


@pytest.mark.parametrize(("change", "id_", "severity", "problem"), FOUND.values(), ids=FOUND.keys())
def test_each_trouble_is_one_finding(change: dict[str, Any], id_: str, severity: str, problem: str) -> None:
    """It has a stable id, how bad it is, why, and what to do."""
    found = find(replace(WELL, **change))

    assert [(finding.id, finding.severity) for finding in found.findings] == [(id_, severity)]
    assert problem in found.findings[0].problem
    assert found.findings[0].fix
    assert len(found.passed) == 8


def test_a_gateway_that_is_away_explains_its_relays() -> None:
    """One cause is reported once."""
    found = find(
        replace(WELL, gateway_attached=False, relays=(RelayRow(relay="local", state="away"),))
    ).findings

    assert [(finding.id, finding.depends_on) for finding in found] == [
        ("gateway.away", ()),
        ("relay.away.local", ("gateway.away",)),
    ]
