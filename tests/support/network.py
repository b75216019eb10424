"""No test leaves this machine: connecting or resolving elsewhere raises.

Covers the `socket` module and uvloop, which connects without it. Never touches child processes.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

__all__ = ["LoopbackLoop", "OutsideSocketError", "loopback_only"]


class OutsideSocketError(RuntimeError):
    """A test tried to reach `host`. Not an `OSError`: no code under test takes it for a bad connection."""

    def __init__(self, host: object) -> None:
        super().__init__(f"a test tried to reach {host!r}: only this machine is allowed")


class LoopbackLoop(uvloop.Loop):
    """uvloop, for this machine only."""

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Connect as uvloop does, if `host` is this machine."""
        _check_host(host)
        return await super().create_connection(protocol_factory, host, *args, **kwargs)

    async def getaddrinfo(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        """Resolve as uvloop does, if `host` is this machine."""
        _check_host(host)
        return await super().getaddrinfo(host, *args, **kwargs)


@contextmanager
def loopback_only() -> Iterator[None]:
    """Forbid the `socket` module to reach another machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    getaddrinfo = socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        _check_address(self, address)
        connect(self, address)

    def checked_connect_ex(self: socket.socket, address: Any) -> int:
        _check_address(self, address)
        return connect_ex(self, address)

    def checked_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _check_host(host)
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", checked_connect)
        patch.setattr(socket.socket, "connect_ex", checked_connect_ex)
        patch.setattr(socket, "getaddrinfo", checked_getaddrinfo)
        yield


def _check_address(sock: socket.socket, address: Any) -> None:
    if sock.family in {socket.AF_INET, socket.AF_INET6}:
        _check_host(address[0])


def _check_host(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost"} or str(name).endswith(".localhost"):
        return
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        raise OutsideSocketError(host) from None
    if not (address.is_loopback or address.is_unspecified):
        raise OutsideSocketError(host)
