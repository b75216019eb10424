"""`run/ports.json`: where the chat listens, while it does.

Source: control protocol, section 11. Another process keeps its own port in the same file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

__all__ = ["published_port"]


@contextmanager
def published_port(path: Path, name: str, port: int) -> Iterator[None]:
    """Keep `name` in the file at `path` while the body runs."""
    _write(path, {**_read(path), name: port})
    try:
        yield
    finally:
        ports = _read(path)
        if ports.get(name) == port:  # not somebody's who came after us
            del ports[name]
            _write(path, ports)


def _read(path: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError):
        return {}


def _write(path: Path, ports: dict[str, int]) -> None:
    """Write the file in one step; nothing in it: no file."""
    if not ports:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(ports))
    fresh.replace(path)
