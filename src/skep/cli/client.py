"""Calls of the command line to running processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from skep.cli.output import NotReachableError
from skep.foundation.paths import Home
from skep.foundation.rpc import Caller, ConnectionLostError, connect
from skep.foundation.settings import load, parse_listen

__all__ = ["PROBE_S", "connector", "daemon", "dashboard", "dashboard_address"]

PROBE_S: Final = 3.0
"""How long a reading command waits for an answer, in seconds."""
_LOOPBACK: Final = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@asynccontextmanager
async def daemon(home: Home) -> AsyncIterator[Caller]:
    """Yield a connection to the daemon.

    Raises:
        NotReachableError: It is not running.
    """
    async with _dial(home.cli_socket, "the daemon", home) as caller:
        yield caller


@asynccontextmanager
async def connector(home: Home) -> AsyncIterator[Caller]:
    """Yield a connection to the connector.

    Raises:
        NotReachableError: It is not running.
    """
    async with _dial(home.connector_socket, "the connector", home) as caller:
        yield caller


def dashboard_address(home: Home) -> tuple[str, int]:
    """Return host and port of the dashboard: of the one that runs, else as it is set."""
    host, port = parse_listen(load(home).web.listen, "web.listen")
    with suppress(OSError, ValueError, KeyError):
        port = int(json.loads(home.ports.read_bytes())["dashboard"])
    return host, port


async def dashboard(home: Home) -> str:
    """Return the dashboard's address, once it has answered there.

    Raises:
        NotReachableError: It does not answer.
    """
    host, port = dashboard_address(home)
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(_LOOPBACK.get(host, host), port)
            try:
                writer.write(b"HEAD /healthz HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (host.encode(), port))
                is_there = (await reader.readline()).startswith(b"HTTP/")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        is_there = False
    if not is_there:
        raise NotReachableError(
            f"the dashboard of `{home.root}` is not running", hint="start it with `skep up`"
        )
    return f"http://{host}:{port}"


@asynccontextmanager
async def _dial(path: Path, what: str, home: Home) -> AsyncIterator[Caller]:
    try:
        caller = await connect(path, role="cli", timeout_s=PROBE_S)
    except ConnectionLostError as exc:
        raise NotReachableError(
            f"{what} of `{home.root}` is not running", hint="start it with `skep up`"
        ) from exc
    try:
        yield caller
    except ConnectionLostError as exc:
        raise NotReachableError(f"{what} went away", hint="run `skep status`") from exc
    finally:
        caller.close()
