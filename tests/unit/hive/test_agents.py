"""skep.hive.agents, against the control protocol, section 12."""

from __future__ import annotations

from pathlib import Path

import pytest

from skep.foundation.errors import SettingError
from skep.hive.agents import DEFAULT_AGENTS, AgentSettings, Roster, load_agents, parse_agents

SPECIFIED = """
default = "concierge"
[agent.concierge]
runtime = "rehearsal"
role = "manager"
people = "all"
talks_to = "all"
max_parallel_lanes = 4
sandbox = "bwrap"
network = false
limits = { memory_mib = 2048, processes = 256, turn_s = 7200, output_mib = 16 }
on_change = "note"
"""

REFUSED = {
    "not TOML": ("default = ", "is not TOML", "mend"),
    "unknown key": ("x = 1\n[agent.a]\n", "line 1: no setting `x`", "known here: default, agent"),
    "unknown setting, near one": (
        '[agent.a]\nrole = "agent"\nrunime = "acp"\n',
        "line 3: no setting `agent.a.runime`",
        "did you mean `runtime`?",
    ),
    "unknown limit": (
        "[agent.a]\n[agent.b]\nlimits = { turns = 3 }\n",
        "line 3: no setting `agent.b.limits.turns`",
        "did you mean `turn_s`?",
    ),
    "unknown limit in a table of its own": (
        "[agent.a]\n\n[agent.a.limits]\nturns = 3\n",
        "line 4: no setting `agent.a.limits.turns`",
        "did you mean `turn_s`?",
    ),
    "wrong type": (
        '[agent.a]\nnetwork = "yes"\n',
        "line 2: `agent.a.network`: expected `bool`, got `str`",
        "see",
    ),
    "wrong choice": (
        '[agent.a]\nruntime = "magic"\n',
        "line 2: `agent.a.runtime`: invalid enum value",
        "see",
    ),
    "no agent": ('default = "a"\n', "line 1: there is no agent", "add `[agent.NAME]`"),
    "not a table": ("[agent]\na = 1\n", "line 2: `agent.a` is not a table", "write `[agent.a]`"),
    "capital in a name": ("[agent.Ada]\n", "line 1: `Ada` cannot name an agent", "a letter first"),
    "name too long": (f"[agent.{'a' * 33}]\n", "cannot name an agent", "a letter first"),
    "reserved name": ("[agent.system]\n", "line 1: `system` cannot name an agent: it is reserved", "pick"),
    "default names nobody": (
        'default = "concerge"\n[agent.concierge]\n',
        "line 1: `default` does not name an agent",
        "did you mean `concierge`?",
    ),
    "two managers": (
        '[agent.a]\nrole = "manager"\n[agent.b]\nrole = "manager"\n',
        "line 4: `a` and `b` are both manager",
        "give one",
    ),
    "no such time zone": (
        '[agent.a]\ntimezone = "Europe/Atlantis"\n',
        "line 2: no time zone `Europe/Atlantis`",
        "Europe/Berlin",
    ),
    "a path is no time zone": ('[agent.a]\ntimezone = "../../etc/passwd"\n', "line 2: no time zone", "write"),
    "not a person": ('[agent.a]\npeople = ["ada"]\n', "line 2: `ada` is not a person", "person:7"),
    "talks to nobody": ('[agent.a]\ntalks_to = ["b"]\n', "line 2: `b` is no agent", "one of: a"),
    "no command": ('[agent.a]\nruntime = "acp"\n', "line 1: `agent.a` has no `command`", 'runtime "acp"'),
}


@pytest.mark.parametrize(("text", "problem", "hint"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_file_is_refused_with_its_line(text: str, problem: str, hint: str) -> None:
    """What is wrong is said with the line, and with the nearest name where there is one."""
    with pytest.raises(SettingError) as raised:
        parse_agents(text)

    assert problem in raised.value.problem
    assert "agents.toml" in raised.value.problem
    assert hint in raised.value.hint


def test_the_specified_example_is_the_default_concierge() -> None:
    """The example of section 12 spells out defaults, but for the role."""
    agents = parse_agents(SPECIFIED)

    assert agents.default == "concierge"
    assert agents.agent["concierge"] == AgentSettings(role="manager", max_parallel_lanes=4)


def test_without_a_file_there_are_two_agents(tmp_path: Path) -> None:
    """`concierge` manages, `scribe` works; neither needs a model."""
    agents = load_agents(tmp_path / "agents.toml")

    assert agents is DEFAULT_AGENTS
    assert agents.manager == "concierge"
    assert {name: agent.runtime for name, agent in agents.agent.items()} == {
        "concierge": "rehearsal",
        "scribe": "rehearsal",
    }


def test_an_agent_that_people_cannot_write_to_runs_one_turn() -> None:
    """One mind, one turn; agents that serve people run four."""
    agents = parse_agents('[agent.front]\n[agent.back]\npeople = "none"\n')
    roster = Roster(agents)

    assert [card.max_parallel_lanes for name in roster.names() if (card := roster.get(name))] == [4, 1]


def test_the_manager_answers_when_no_default_is_written() -> None:
    """The default is the manager, else the first."""
    assert parse_agents('[agent.a]\n[agent.b]\nrole = "manager"\n').default == "b"
    assert parse_agents("[agent.a]\n[agent.b]\n").default == "a"


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A directory in its place is not taken for no file."""
    path = tmp_path / "agents.toml"
    path.mkdir()

    with pytest.raises(SettingError, match="cannot be read"):
        load_agents(path)
