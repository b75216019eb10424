"""Calls of the command line to running processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from skep.cli.output import NotReachableError
from skep.foundation.errors import SkepError
from skep.foundation.paths import Home
from skep.foundation.rpc import Caller, ConnectionLostError, connect

__all__ = ["PROBE_S", "connector", "daemon"]

PROBE_S: Final = 3.0
"""How long a reading command waits for an answer, in seconds."""


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
    except SkepError:
        raise
    finally:
        caller.close()
