"""Where the dashboard listens: both loopback addresses for `localhost`, on one port.

Source: control protocol, section 11.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

from skep.foundation.errors import SettingError
from skep.foundation.paths import Home

__all__ = ["listen", "tell_port"]

_TRIES: Final = 16


def listen(host: str, port: int) -> tuple[list[socket.socket], int]:
    """Return sockets bound to `host`, and their port; port 0 picks one.

    Raises:
        SettingError: The port is taken, or `host` is not an address of this machine.
    """
    addresses = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    for _ in range(_TRIES):
        sockets: list[socket.socket] = []
        try:
            chosen = port
            for address in addresses:
                sock = _bound(address, chosen)
                if sock is not None:
                    sockets.append(sock)
                    chosen = sock.getsockname()[1]
        except OSError as exc:
            for sock in sockets:
                sock.close()
            if exc.errno == errno.EADDRINUSE and port == 0:
                continue  # the picked port is free on one address only
            raise _cannot_listen(host, port, exc) from exc
        return sockets, chosen
    raise SettingError(f"no free port on `{host}`", hint="choose one with --dashboard-port")


@contextmanager
def tell_port(home: Home, port: int) -> Iterator[None]:
    """Keep `dashboard` in `run/ports.json` while the body runs."""
    _set_port(home, port)
    try:
        yield
    finally:
        with suppress(OSError):
            _set_port(home, None)


def _bound(address: str, port: int) -> socket.socket | None:
    """Return a bound socket, `None` where this machine has no IPv6."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if family is socket.AF_INET6:
            return None
        raise
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(128)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRNOTAVAIL and address == "::1":
            return None
        raise
    return sock


def _set_port(home: Home, port: int | None) -> None:
    path = home.ports
    ports: dict[str, Any] = {}
    with suppress(FileNotFoundError, ValueError):
        found: object = json.loads(path.read_bytes())
        if isinstance(found, dict):
            ports = cast("dict[str, Any]", found)
    ports.pop("dashboard", None)
    if port is not None:
        ports["dashboard"] = port
    if not ports:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_name(f".ports-{os.getpid()}.json")
    fresh.write_text(json.dumps(ports))
    fresh.chmod(0o600)
    fresh.replace(path)


def _cannot_listen(host: str, port: int, exc: OSError) -> SettingError:
    if exc.errno == errno.EADDRINUSE:
        return SettingError(
            f"port {port} on `{host}` is taken",
            hint="choose another with --dashboard-port (0 picks one)",
            code="dashboard.port_taken",
        )
    return SettingError(
        f"cannot listen on `{host}` port {port}: {exc.strerror}", hint="set `web.listen` to HOST:PORT"
    )
