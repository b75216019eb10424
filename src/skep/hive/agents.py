"""The agents of this installation, as `agents.toml` describes them.

Source: control protocol, section 12. Without a file there are two agents that need no model. Read
with the standard library; a wrong name, type or value is refused with its file and its line.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, cast

import msgspec

from skep.foundation.errors import SettingError
from skep.hive.ports import AgentCard
from skep.wire.control.operator import AgentState

__all__ = ["DEFAULT_AGENTS", "AgentSettings", "AgentsFile", "Limits", "Roster", "load_agents", "parse_agents"]

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
PERSON: Final = re.compile(r"person:[1-9]\d*")
RESERVED: Final = frozenset({"operator", "system", "reminder", "person", "chat", "all"})
_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Limits(_Table, frozen=True):
    """What one agent's tools may use."""

    memory_mib: _Positive = 2_048
    processes: _Positive = 256
    turn_s: _Positive = 7_200
    output_mib: _Positive = 16


class McpServer(_Table, frozen=True):
    """A tool server of one agent, started in its sandbox."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class AgentSettings(_Table, frozen=True):
    """`[agent.NAME]`.

    Attributes:
        people: Who may write to it.
        max_parallel_lanes: Turns at once; by default 4 when people may write to it, else 1.
        timezone: Whose midnight ends its day; by default the system's.
    """

    runtime: Literal["rehearsal", "model", "acp", "command"] = "rehearsal"
    role: Literal["agent", "manager"] = "agent"
    people: Literal["all", "none"] | tuple[str, ...] = "all"
    talks_to: Literal["all"] | tuple[str, ...] = "all"
    max_parallel_lanes: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    sandbox: Literal["bwrap", "none"] = "bwrap"
    network: bool = False
    limits: Limits = Limits()
    on_change: Literal["note", "restart"] = "note"
    host: str | None = None
    timezone: str | None = None
    provider: str | None = None
    model: str | None = None
    fallback: tuple[str, ...] = ()
    prompt: str | None = None
    prompt_file: str | None = None
    tools: tuple[Literal["shell", "files"], ...] = ()
    mcp: tuple[McpServer, ...] = ()
    command: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    timeout_s: _Positive = 600

    @property
    def lanes(self) -> int:
        """Turns that may run at once."""
        return self.max_parallel_lanes or (1 if self.people == "none" else 4)

    @property
    def zone(self) -> zoneinfo.ZoneInfo | None:
        """The time zone of its days; `None` is the system's."""
        return zoneinfo.ZoneInfo(self.timezone) if self.timezone else None


class AgentsFile(_Table, frozen=True):
    """All of `agents.toml`; `default` answers where no other agent is named."""

    default: str
    agent: dict[str, AgentSettings]

    @property
    def manager(self) -> str | None:
        """The agent that coordinates the others, if there is one."""
        return next((name for name, agent in self.agent.items() if agent.role == "manager"), None)


DEFAULT_AGENTS: Final = AgentsFile(
    default="concierge",
    agent={"concierge": AgentSettings(role="manager"), "scribe": AgentSettings()},
)
"""Two agents that answer without a model: what is there before anything is set up."""


class Roster:
    """Which agents there are, and how they are now (`skep.hive.ports.Agents`)."""

    def __init__(self, agents: AgentsFile) -> None:
        self.agents: Final = agents
        self._states: Final[dict[str, AgentState]] = dict.fromkeys(agents.agent, "defined")

    @property
    def default(self) -> str:
        """Name of the agent that answers where no other is named."""
        return self.agents.default

    def names(self) -> tuple[str, ...]:
        """Return the names of all agents, stopped ones included."""
        return tuple(self.agents.agent)

    def settings(self, name: str) -> AgentSettings:
        """Return how the agent of this name is set up; it must be there."""
        return self.agents.agent[name]

    def get(self, name: str) -> AgentCard | None:
        """Return the agent of this name, as far as messages need it."""
        agent = self.agents.agent.get(name)
        if agent is None:
            return None
        return AgentCard(
            name=name,
            role=agent.role,
            runtime=agent.runtime,
            people=agent.people,
            talks_to=agent.talks_to,
            max_parallel_lanes=agent.lanes,
        )

    def state(self, name: str) -> AgentState:
        """Return how the supervisor sees it; `defined` for one that it does not know."""
        return self._states.get(name, "defined")

    def set_state(self, name: str, state: AgentState) -> None:
        """Only the supervisor says how an agent is."""
        self._states[name] = state


def load_agents(path: Path) -> AgentsFile:
    """Return what the file at `path` says; without one, the agents that Skep comes with.

    Raises:
        SettingError: Not readable, or something in it is wrong; says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return DEFAULT_AGENTS
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingError(
            f"`{path}` cannot be read: {exc.__class__.__name__}", hint="mend or remove the file"
        ) from exc
    return parse_agents(text, file=str(path))


def parse_agents(text: str, *, file: str = "agents.toml") -> AgentsFile:
    """Return what `text` says; `file` is its name in errors.

    Raises:
        SettingError: Something in it is wrong; says where.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingError(f"`{file}` is not TOML: {exc}", hint="mend the line named above") from exc
    source = _Source(file, text)
    _check_keys(source, tree, AgentsFile, ())
    tables = tree.get("agent")
    if not isinstance(tables, dict) or not tables:
        raise source.error(("agent",), "there is no agent", hint="add `[agent.NAME]`, or remove the file")
    agents = {name: _agent(source, name, table) for name, table in cast("dict[str, object]", tables).items()}
    default = tree.get("default", _first_choice(agents))
    if not isinstance(default, str) or default not in agents:
        near = difflib.get_close_matches(str(default), agents, n=1, cutoff=0.5)
        raise source.error(
            ("default",),
            "`default` does not name an agent of this file",
            hint=f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(agents)}",
        )
    parsed = AgentsFile(default=default, agent=agents)
    _check_together(source, parsed)
    return parsed


class _Source:
    """The text of a file, to find the line of a key in."""

    def __init__(self, file: str, text: str) -> None:
        self.file: Final = file
        self._lines: Final = text.splitlines()

    def error(
        self, path: tuple[str, ...], problem: str, *, hint: str, code: str = "setting.invalid"
    ) -> SettingError:
        """Return an error that says where `path` is."""
        return SettingError(f"`{self.file}` line {self.line(path)}: {problem}", hint=hint, code=code)

    def line(self, path: tuple[str, ...]) -> int:
        """Return the line of the deepest part of `path` that the text has; 1 for none."""
        best, depth, table = 1, 0, ()
        for number, line in enumerate(self._lines, start=1):
            if header := _HEADER.match(line):
                table = found = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            elif key := re.match(r"""\s*["']?([\w-]+)["']?\s*[.=]""", line):
                found = (*table, key[1])
            else:
                continue
            common = _common(found, path)
            if common == len(found) and common > depth:
                best, depth = number, common
        return best


def _common(found: tuple[str, ...], path: tuple[str, ...]) -> int:
    count = 0
    for left, right in zip(found, path, strict=False):
        if left != right:
            break
        count += 1
    return count


def _check_keys(
    source: _Source, table: Mapping[str, object], kind: type[_Table], path: tuple[str, ...]
) -> None:
    for key in table:
        if key not in kind.__struct_fields__:
            raise _unknown(source, (*path, key), kind.__struct_fields__)


def _unknown(source: _Source, path: tuple[str, ...], known: tuple[str, ...]) -> SettingError:
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    return source.error(
        path,
        f"no setting `{'.'.join(path)}`",
        hint=f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}",
        code="setting.unknown",
    )


def _agent(source: _Source, name: str, table: object) -> AgentSettings:
    path = ("agent", name)
    if name in RESERVED:
        raise source.error(path, f"`{name}` cannot name an agent: it is reserved", hint="pick another name")
    if not NAME.fullmatch(name):
        raise source.error(
            path, f"`{name[:64]}` cannot name an agent", hint="use 1 to 32 of a-z, 0-9 and -, a letter first"
        )
    if not isinstance(table, dict):
        raise source.error(path, f"`agent.{name}` is not a table", hint=f"write `[agent.{name}]`")
    keys = cast("dict[str, object]", table)
    _check_keys(source, keys, AgentSettings, path)
    try:
        agent = msgspec.convert(keys, AgentSettings)
    except msgspec.ValidationError as exc:
        raise _as_setting_error(source, path, exc) from exc
    _check_agent(source, path, agent)
    return agent


def _first_choice(agents: Mapping[str, AgentSettings]) -> str:
    managers = [name for name, agent in agents.items() if agent.role == "manager"]
    return managers[0] if managers else next(iter(agents))


def _as_setting_error(source: _Source, path: tuple[str, ...], exc: msgspec.ValidationError) -> SettingError:
    problem, _, where = str(exc).partition(" - at `$")
    path = (*path, *(part for part in re.split(r"\.|\[[^\]]*\]", where.rstrip("`")) if part))
    if unknown := _UNKNOWN.search(problem):
        known = Limits if path[-1] == "limits" else McpServer
        return _unknown(source, (*path, unknown[1]), known.__struct_fields__)
    return source.error(
        path,
        f"`{'.'.join(path)}`: {problem[:1].lower()}{problem[1:]}",
        hint="see the agents in docs/reference/settings.md",
    )


def _check_agent(source: _Source, path: tuple[str, ...], agent: AgentSettings) -> None:
    if agent.timezone is not None:
        try:
            zoneinfo.ZoneInfo(agent.timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise source.error(
                (*path, "timezone"),
                f"no time zone `{agent.timezone[:64]}`",
                hint='write it as, say, "Europe/Berlin"',
            ) from exc
    if agent.runtime in {"acp", "command"} and not agent.command:
        raise source.error(
            path,
            f"`{'.'.join(path)}` has no `command`",
            hint=f'runtime "{agent.runtime}" needs `command = ["…"]`',
        )
    for person in agent.people if isinstance(agent.people, tuple) else ():
        if not PERSON.fullmatch(person):
            raise source.error(
                (*path, "people"),
                f"`{person[:64]}` is not a person",
                hint='write "all", "none", or a list such as ["person:7"]',
            )


def _check_together(source: _Source, agents: AgentsFile) -> None:
    managers = [name for name, agent in agents.agent.items() if agent.role == "manager"]
    if len(managers) > 1:
        raise source.error(
            ("agent", managers[1], "role"),
            f"`{managers[0]}` and `{managers[1]}` are both manager",
            hint='give one of them `role = "agent"`',
        )
    for name, agent in agents.agent.items():
        for other in agent.talks_to if isinstance(agent.talks_to, tuple) else ():
            if other not in agents.agent:
                raise source.error(
                    ("agent", name, "talks_to"),
                    f"`{other[:64]}` is no agent",
                    hint=f"one of: {', '.join(agents.agent)}",
                )
