"""The processes: `connector serve`, `gateway run`, `hive serve`, `web serve`, `harness run NAME`.

Started by `skep up` or a service manager. No typer here: each of them should be small.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from skep.foundation import log
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.errors import SettingError, SkepError
from skep.foundation.paths import Home
from skep.foundation.process import run_service
from skep.foundation.settings import Settings, default_home, load

__all__ = ["run", "serve"]

_VERBS = {"connector": "serve", "gateway": "run", "hive": "serve", "harness": "run", "web": "serve"}
_Work = Callable[[Settings, Home, asyncio.Event], Awaitable[int | None]]


def run(name: str, words: list[str]) -> int:
    """Run process `name`; `words` are its verb and options."""
    usage = f"skep {name} {_VERBS[name]}" + (" NAME" if name == "harness" else "")
    if "--help" in words or "-h" in words:
        sys.stdout.write(f"Usage: {usage}\n\nExample: SKEP_HOME=/var/lib/skep {usage}\n")
        return 0
    if not words or words[0] != _VERBS[name]:
        raise SettingError(f"`skep {name}` needs a verb", hint=f"run `{usage}`", code="cli.usage")
    if name == "harness":
        if len(words) != 2:
            raise SettingError("which agent?", hint=f"run `{usage}`", code="cli.usage")
        return serve(f"harness-{words[1]}", _harness(words[1]))
    return serve(name, _WORK[name])


def serve(process: str, work: _Work) -> int:
    """Run `work` as a process of this installation and return the exit code."""
    home = default_home()
    settings = load(home)
    log.configure(process=process, level=settings.log.level, log_format=settings.log.format)
    home.prepare()
    try:
        return run_service(lambda stop: work(settings, home, stop))
    except BaseExceptionGroup as group:
        known = group.subgroup(SkepError)
        if known is None:
            raise
        raise _first(known) from None


def _first(group: BaseExceptionGroup[SkepError]) -> SkepError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _connector(settings: Settings, home: Home, stop: asyncio.Event) -> int | None:
    from skep.connector.server import run_connector

    return await run_connector(settings, home, SYSTEM_CLOCK, stop)


async def _gateway(settings: Settings, home: Home, stop: asyncio.Event) -> int | None:
    from skep.gateway.gateway import run_gateway

    return await run_gateway(settings, home, SYSTEM_CLOCK, stop)


async def _hive(settings: Settings, home: Home, stop: asyncio.Event) -> int | None:
    from skep.hive.daemon import run_daemon

    return await run_daemon(settings, home, SYSTEM_CLOCK, stop)


async def _web(settings: Settings, home: Home, stop: asyncio.Event) -> int | None:
    from skep.dashboard.server import run_dashboard

    return await run_dashboard(settings, home, SYSTEM_CLOCK, stop)


def _harness(agent: str) -> _Work:
    async def work(_settings: Settings, home: Home, stop: asyncio.Event) -> int | None:
        from skep.harness.harness import run_harness

        return await run_harness(agent, home=home, clock=SYSTEM_CLOCK, stop=stop)

    return work


_WORK: dict[str, _Work] = {"connector": _connector, "gateway": _gateway, "hive": _hive, "web": _web}
