"""The child processes of `skep up`: started, watched, restarted with back-off, stopped in order.

Source: control protocol, section 11. Each child has its own session, so that Ctrl-C reaches
`skep up` alone, and the read end of a pipe whose end tells it that `skep up` is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.paths import Home
from skep.foundation.settings import LIFE_FD, child_environment, relay_environment
from skep.foundation.tasks import sleep_or

__all__ = ["Child", "ChildDiedError", "LifePipe", "last_words"]

RESTART_S: Final = (1, 2, 5, 15, 60)
DEATHS_MAX: Final = 5
DEATHS_WINDOW_MS: Final = 120_000
_LAST_BYTES: Final = 16_384
_WORDS: Final = frozenset({"error", "hint", "code"})


class ChildDiedError(SkepError):
    """A child ended before it was ready; `problem` is its own."""

    code = "up.child_died"


class LifePipe:
    """A pipe that nobody writes to: its end is the end of this process."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()

    def close(self) -> None:
        """End it: what still runs stops."""
        for fd in (self.read_end, self._write_end):
            with suppress(OSError):
                os.close(fd)


class Child:
    """One process, restarted when it dies until it is stopped or dies too often."""

    def __init__(
        self,
        name: str,
        words: tuple[str, ...],
        *,
        home: Home,
        life: LifePipe,
        clock: Clock,
        extra_env: dict[str, str],
        tell: Callable[[str], None],
    ) -> None:
        self.name: Final = name
        self.is_down = False
        self._words: Final = words
        self._home: Final = home
        self._life: Final = life
        self._clock: Final = clock
        self._extra_env: Final = extra_env
        self._tell: Final = tell
        self._process: asyncio.subprocess.Process | None = None
        self._deaths: Final[deque[int]] = deque(maxlen=DEATHS_MAX)
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Of the running process, if it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process once."""
        log = self._home.log_file(self.name)
        with log.open("ab") as stderr:
            log.chmod(0o600)
            self._log_start = stderr.tell()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "skep",
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env={
                    **child_environment(self._home),
                    **relay_environment(),
                    **self._extra_env,
                    LIFE_FD: str(self._life.read_end),
                },
                pass_fds=(self._life.read_end,),
                start_new_session=True,
            )

    async def wait_until(self, is_ready: Callable[[], object], *, limit_s: float = 15.0) -> None:
        """Wait until `is_ready()` (which may be awaitable) is true.

        Raises:
            ChildDiedError: The process ended first, or the time is over.
        """
        for _ in range(int(limit_s / 0.05)):
            if self._process is None or self._process.returncode is not None:
                raise self._died("ended while starting")
            ready = is_ready()
            if asyncio.iscoroutine(ready):
                ready = await ready
            if ready:
                return
            await asyncio.sleep(0.05)
        raise self._died(f"was not ready after {limit_s:g} s")

    async def keep(self, stop: asyncio.Event) -> None:
        """Restart the process when it dies, until `stop`."""
        while not stop.is_set() and not self.is_down:
            process = self._process
            if process is None:
                return
            await process.wait()
            if stop.is_set():
                return
            now_ms = self._clock.monotonic_ms()
            while self._deaths and now_ms - self._deaths[0] >= DEATHS_WINDOW_MS:
                self._deaths.popleft()  # long ago: it starts again as if it were the first time
            self._deaths.append(now_ms)
            if len(self._deaths) == DEATHS_MAX:
                self.is_down = True
                self._tell(f"{self.name} died {DEATHS_MAX} times in 2 min and is down: {self.last_words()}")
                return
            wait_s = RESTART_S[min(len(self._deaths), len(RESTART_S)) - 1]
            self._tell(f"{self.name} ended with {process.returncode}; starting it again in {wait_s} s")
            if await sleep_or(stop, wait_s):
                return
            try:
                await self.start()
            except OSError as error:  # the next round counts it as another death
                self._tell(f"{self.name} cannot be started: {error.strerror}")

    async def stop(self, *, limit_s: float) -> None:
        """Ask the process to end; after `limit_s`, end it."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(max(limit_s, 0.1)):
                await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End the process now."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """Return the last error that the process printed since its start, or where to look."""
        log = self._home.log_file(self.name)
        return last_words(log, since=self._log_start).get("error", f"see {log}")

    def _died(self, how: str) -> ChildDiedError:
        log = self._home.log_file(self.name)
        words = last_words(log, since=self._log_start)
        hint = words.get("hint", f"see {log}")
        problem = f"the {self.name} {how}: {words.get('error', f'see {log}')}"
        return ChildDiedError(problem, hint=hint, code=words.get("code"))


def last_words(log: Path, *, since: int = 0) -> dict[str, str]:
    """Return the last `error`, `hint` and `code` that were printed to `log` after byte `since`."""
    words: dict[str, str] = {}
    with suppress(OSError), log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - _LAST_BYTES, since if since <= size else 0))
        for line in stream.read().decode(errors="replace").splitlines():
            name, colon, text = line.partition(": ")
            if colon and name in _WORDS:
                words[name] = text
    return words
