"""Notices that a secret file has changed under a running harness, and asks for a restart where that is wanted.

Source: secrets and providers, section A5.9; control protocol, section 12 (`on_change`).
What a file was like when a harness started is kept beside its sockets, for a daemon that adopts the
harness. It reads no secret: it looks at files, and never into them. It ends no process: the supervisor does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from skep.foundation.health import Finding
from skep.foundation.log import get_logger
from skep.foundation.paths import Home
from skep.foundation.settings import ProviderSettings
from skep.hive.agents import AgentSettings, Roster
from skep.secrets.watching import LOOK_EVERY_S, Stamp, stamp_of
from skep.wire.control.operator import AgentState

__all__ = ["Restart", "SecretFiles", "files_of"]

RESTART_FIX: Final = "stop `skep up` with Ctrl-C and start it again, or restart the unit of the daemon"
NO_FIX: Final = "nothing to do: it is restarted when its running turns have ended"
_NOT_RUNNING: Final[frozenset[AgentState]] = frozenset({"defined", "stopped", "failed"})

_log = get_logger(part="secret_files")

Stamps = dict[str, Stamp | None]
"""By path; `None` for a file that is not there."""
Restart = Callable[[str, Callable[[], Awaitable[bool]]], None]
"""Restarts the harness of an agent when its turns have ended, if it is then still wanted."""


def files_of(agent: AgentSettings, providers: Mapping[str, ProviderSettings], root: Path) -> tuple[Path, ...]:
    """Return the key files of the providers that `agent` uses; relative ones start from `root`."""
    names = (*((agent.provider,) if agent.provider else ()), *agent.fallback)
    places = (provider.key or "" for name in names if (provider := providers.get(name)) is not None)
    found = (place.partition(":")[2] for place in places if place.startswith("file:"))
    return tuple(dict.fromkeys(root / Path(path).expanduser() for path in found if path))


class SecretFiles:
    """The secret files of all agents: `began` before each start of a harness, `run` beside them.

    Args:
        every_s: How often to look.
    """

    def __init__(
        self,
        *,
        roster: Roster,
        providers: Mapping[str, ProviderSettings],
        home: Home,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._roster: Final = roster
        self._home: Final = home
        self._every_s: Final = every_s
        self._files: Final = {
            name: files
            for name in roster.names()
            if (files := files_of(roster.settings(name), providers, home.root))
        }
        self._known: Final[dict[str, Stamps]] = {}
        self._now: Stamps = {}
        self._looking: Final = asyncio.Lock()

    async def recall(self) -> None:
        """Take up what an earlier daemon kept: a harness that it started may be adopted."""
        for name in self._files:
            self._known[name] = await asyncio.to_thread(_load, self._kept_at(name))

    async def began(self, agent: str) -> None:
        """Remember the files of `agent` as they are, just before its harness starts and reads them."""
        if (files := self._files.get(agent)) is None:
            return
        async with self._looking:
            stamps = await asyncio.to_thread(_stamps, files)
            self._known[agent] = stamps
            self._now |= stamps
            await asyncio.to_thread(_save, self._kept_at(agent), stamps)

    async def run(self, restart: Restart) -> None:
        """Look again and again; ask for a restart of whom `on_change` names."""
        while self._files:
            await self.look()
            for name in self._files:
                if self._is_to_restart(name):
                    restart(name, lambda name=name: self._still_wanted(name))
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Look at every file once."""
        async with self._looking:
            files = dict.fromkeys(path for files in self._files.values() for path in files)
            self._now = await asyncio.to_thread(_stamps, files)

    def findings(self) -> tuple[Finding, ...]:
        """Return `secret.changed` if a harness runs with what is no longer in its file, as of the last look."""
        told = [
            f"`{path}` {'has changed' if self._now[path] else 'is gone'}; agent `{name}` still has the old content"
            for name in self._files
            for path in self._changed(name)
        ]
        if not told:
            return ()
        is_done_for_you = all(self._is_to_restart(name) for name in self._files if self._changed(name))
        return (
            Finding(
                id="secret.changed",
                severity="look",
                problem="; ".join(told),
                fix=NO_FIX if is_done_for_you else RESTART_FIX,
            ),
        )

    async def _still_wanted(self, agent: str) -> bool:
        await self.look()
        return self._is_to_restart(agent)

    def _is_to_restart(self, agent: str) -> bool:
        """Return whether it asks for a restart, and would find what it then reads."""
        changed = self._changed(agent)
        return (
            self._roster.settings(agent).on_change == "restart"
            and bool(changed)
            and all(self._now[path] is not None for path in changed)
        )

    def _changed(self, agent: str) -> list[str]:
        if self._roster.state(agent) in _NOT_RUNNING:
            return []
        known = self._known.get(agent, {})
        paths = map(str, self._files[agent])
        return [path for path in paths if path in known and self._now.get(path, known[path]) != known[path]]

    def _kept_at(self, agent: str) -> Path:
        return self._home.pump_socket(agent).with_name("secret-files.json")


def _stamps(files: Collection[Path]) -> Stamps:
    return {str(path): stamp_of(path) for path in files}


def _load(path: Path) -> Stamps:
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=Stamps)
    return {}


def _save(path: Path, stamps: Stamps) -> None:
    new = path.with_suffix(".new")
    try:
        new.write_bytes(msgspec.json.encode(stamps))
        new.replace(path)
    except OSError as error:  # only an adopted harness would miss it
        _log.warning("secret_stamps_not_kept", errno=error.errno)
