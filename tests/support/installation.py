"""A real `skep up` in a directory of its own: started, looked at, killed in parts, stopped.

Processes are found by the `SKEP_HOME` in their environment, so that only ours are ever touched.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["KINDS", "Installation", "installed", "processes_of"]

KINDS: Final = ("connector", "gateway", "hive", "web", "harness")
_START_LIMIT_S: Final = 60.0


class Installation:
    """One data directory, and the `skep up` that serves it, if it runs.

    Attributes:
        chat_url, dashboard_url: Without the one-time code.
        chat_once, dashboard_once: One-time codes of the last banner.
    """

    def __init__(
        self, home: Path, *, source: Path | None = None, extra_env: dict[str, str] | None = None
    ) -> None:
        self.home: Final = home
        self.chat_url = self.dashboard_url = ""
        self.chat_once = self.dashboard_once = ""
        self.chat_port = self.dashboard_port = 0
        self.banner = ""
        self._up: subprocess.Popen[str] | None = None
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self.env: Final = {**kept, "SKEP_HOME": str(home), **(extra_env or {})}
        self._source: Final = source  # as working directory: it comes first on the path of all processes

    @property
    def up_pid(self) -> int:
        """Of `skep up`."""
        assert self._up is not None
        return self._up.pid

    def start(self, *flags: str) -> None:
        """Run `skep up` and wait for its banner; the same ports as before, free ones the first time."""
        ports = ("--chat-port", str(self.chat_port), "--dashboard-port", str(self.dashboard_port))
        self._errors = (self.home.parent / f"{self.home.name}-up.err").open("a+")
        self._up = subprocess.Popen(
            [sys.executable, "-m", "skep", "up", *(flags or ports)],
            env=self.env,
            cwd=self._source,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._up.stdout is not None
        lines: list[str] = []
        for line in self._up.stdout:
            lines.append(line)
            if line.startswith("Stop:"):
                break
        self.banner = "".join(lines)
        chat = re.search(r"Chat: +(http://127\.0\.0\.1:(\d+))/#once=(\S+)", self.banner)
        dashboard = re.search(r"Dashboard: +(http://localhost:(\d+))/#once=(\S+)", self.banner)
        if chat is None or dashboard is None:
            self._errors.seek(0)
            raise AssertionError(f"skep up did not start: {self._errors.read()}{self.banner}")
        self.chat_url, self.chat_once, self.chat_port = chat[1], chat[3], int(chat[2])
        self.dashboard_url, self.dashboard_once = dashboard[1], dashboard[3]
        self.dashboard_port = int(dashboard[2])

    def stop(self) -> int:
        """Ask `skep up` to stop, as Ctrl-C does, and return its exit code."""
        assert self._up is not None
        self._up.send_signal(signal.SIGINT)
        code = self._up.wait(timeout=30)
        self._close_pipes()
        return code

    def kill_up(self) -> None:
        """End `skep up` alone, the hard way, and wait until nothing of it is left."""
        assert self._up is not None
        self._up.kill()
        self._up.wait()
        self._close_pipes()
        self.wait_until_empty(limit_s=15)

    def wait_until_empty(self, *, limit_s: float) -> None:
        """Wait until no process of this installation runs."""
        end = time.monotonic() + limit_s
        while left := processes_of(self.home):
            assert time.monotonic() < end, f"still running after {limit_s} s: {left}"
            time.sleep(0.05)

    def pids(self, kind: str) -> list[int]:
        """Return the processes of this kind: a word of `KINDS`, or `harness NAME`."""
        words = [*kind.split()]
        return [pid for pid, command in processes_of(self.home).items() if _is_of(command, words)]

    def kill(self, kind: str) -> int | None:
        """End one process of this kind the hard way; return its pid, or `None` when none runs."""
        for pid in self.pids(kind):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return pid
        return None

    def run(self, *words: str, timeout_s: float = 60, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `skep` with `words` on this installation."""
        return subprocess.run(
            [sys.executable, "-m", "skep", *words],
            env=self.env,
            cwd=self._source,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def end(self) -> None:
        """Stop whatever is left, whatever happened."""
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGINT)
            try:
                self._up.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.wait()
        self._close_pipes()
        for pid in processes_of(self.home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _close_pipes(self) -> None:
        if self._up is not None and self._up.stdout is not None:
            self._up.stdout.close()
            self._errors.close()


@contextmanager
def installed(home: Path, *, source: Path | None = None) -> Iterator[Installation]:
    """Yield a running installation at `home`; nothing of it is left behind."""
    installation = Installation(home, source=source)
    try:
        installation.start()
        yield installation
    finally:
        installation.end()


def processes_of(home: Path) -> dict[int, list[str]]:
    """Return pid and command line of each process whose `SKEP_HOME` is `home`."""
    wanted = f"SKEP_HOME={home}".encode()
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if command and command[0]:
                        found[int(entry.name)] = command
    return found


def _is_of(command: list[str], words: list[str]) -> bool:
    if "skep" not in command:
        return False
    after = [word for word in command[command.index("skep") + 1 :] if word]
    return after[:1] == words[:1] and all(word in after for word in words)
