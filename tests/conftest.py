"""What every test gets: uvloop, and no way out of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.network import LoopbackLoop, loopback_only


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Async tests and fixtures run on the event loop that Skep runs on."""
    return "asyncio", {"loop_factory": LoopbackLoop}


@pytest.fixture(scope="session", autouse=True)
def no_outside_sockets() -> Iterator[None]:
    """A test that reaches for another machine fails there and then."""
    with loopback_only():
        yield
