"""Where everything of one installation lies: `SKEP_HOME`.

Source: control protocol, sections 2 and 11.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from skep.foundation.errors import SettingError

__all__ = ["MAX_SOCKET_PATH", "Home"]

MAX_SOCKET_PATH: Final = 100
"""Longest path of a socket in bytes; the kernel's limit is 107."""
_LONGEST_NAME: Final = "a" * 32


class Home:
    """The paths under one `SKEP_HOME`. Nothing is made or read until `prepare`."""

    def __init__(self, root: Path) -> None:
        self.root: Final = root.absolute()
        self.config: Final = self.root / "skep.toml"
        self.agents_config: Final = self.root / "agents.toml"
        self.keys: Final = self.root / "keys"
        self.connector_key: Final = self.keys / "connector.key"
        self.gateway_env: Final = self.keys / "gateway.env"
        self.connector_db: Final = self.root / "connector.db"
        self.hive_db: Final = self.root / "hive.db"
        self.memory_db: Final = self.root / "memory.db"
        self.telemetry_db: Final = self.root / "telemetry.db"
        self.shared: Final = self.root / "shared"
        self.logs: Final = self.root / "logs"
        self.run: Final = self.root / "run"

    @property
    def ports(self) -> Path:
        """`{"chat": …, "dashboard": …}` while they listen."""
        return self.run / "ports.json"

    @property
    def up_lock(self) -> Path:
        """Held by `skep up`; holds its pid."""
        return self.run / "up.lock"

    @property
    def door_socket(self) -> Path:
        """Daemon, for the gateway."""
        return self._socket("door.sock")

    @property
    def web_socket(self) -> Path:
        """Daemon, for the web process."""
        return self._socket("web.sock")

    @property
    def cli_socket(self) -> Path:
        """Daemon, for the operator on this machine."""
        return self._socket("cli.sock")

    @property
    def connector_socket(self) -> Path:
        """Connector, for its administrator on this machine."""
        return self._socket("connector.sock")

    def pump_socket(self, agent: str) -> Path:
        """Daemon, for the harness of `agent`."""
        return self._socket(f"agents/{agent}/pump.sock")

    def hive_socket(self, agent: str) -> Path:
        """Daemon, for the tools of `agent`."""
        return self._socket(f"agents/{agent}/hive.sock")

    def agent_state(self, agent: str) -> Path:
        """What the agent writes."""
        return self.root / "agents" / agent / "state"

    def agent_harness(self, agent: str) -> Path:
        """What only its harness writes."""
        return self.root / "agents" / agent / "harness"

    def log_file(self, process: str) -> Path:
        """What `process` wrote to stderr."""
        return self.logs / f"{process}.log"

    def prepare(self) -> None:
        """Make the directories, 0700, and a short `run` when the path is too long for sockets.

        Raises:
            SettingError: Not a directory, not ours, or not writable.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.root.stat().st_uid != os.getuid():
                raise SettingError(
                    f"the data directory `{self.root}` belongs to another user",
                    hint="set SKEP_HOME to a directory of yours",
                    code="home.foreign",
                )
            for directory in (self.keys, self.logs):
                directory.mkdir(mode=0o700, exist_ok=True)
            self._prepare_run()
            probe = self.root / f".probe-{os.getpid()}"
            probe.touch(mode=0o600)
            probe.unlink()
        except (NotADirectoryError, FileExistsError) as exc:
            raise SettingError(
                f"the data directory `{self.root}` is not a directory",
                hint="set SKEP_HOME to a directory",
                code="home.not_directory",
            ) from exc
        except OSError as exc:
            raise SettingError(
                f"the data directory `{self.root}` cannot be written: {exc.strerror}",
                hint="give it space and write permission, or set SKEP_HOME to another directory",
                code="home.unwritable",
            ) from exc

    def _prepare_run(self) -> None:
        longest = self.run / "agents" / _LONGEST_NAME / "pump.sock"
        if len(os.fsencode(longest)) > MAX_SOCKET_PATH:
            short = self._short_run()
            _make_own_directory(short)
            if self.run.is_symlink() and self.run.readlink() != short:
                self.run.unlink()
            if not self.run.is_symlink():
                self.run.symlink_to(short)
        else:
            self.run.mkdir(mode=0o700, exist_ok=True)
        (self.run / "agents").mkdir(mode=0o700, exist_ok=True)

    def _short_run(self) -> Path:
        mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        if runtime and Path(runtime).is_dir():
            return Path(runtime) / f"skep-{mark}"
        return Path("/tmp") / f"skep-{os.getuid()}-{mark}"

    def _socket(self, name: str) -> Path:
        run = self.run
        if run.is_symlink():
            run = run.readlink()
        return run / name


def _make_own_directory(path: Path) -> None:
    """Make `path` 0700, or check that what is there is a directory of ours and nobody else's."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not path.is_dir() or path.is_symlink() or found.st_uid != os.getuid():
        raise SettingError(
            f"`{path}` is in the way and is not ours",
            hint=f"remove `{path}`, or set SKEP_HOME to a shorter path",
            code="home.squatted",
        )
    if found.st_mode & 0o077:
        path.chmod(0o700)
