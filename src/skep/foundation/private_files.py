"""Read a file that holds a secret, if nobody else could have read or written it.

Source: secrets and providers, sections A2 and A3.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, Protocol

from skep.foundation.exits import ClassifiedError, Outcome

__all__ = ["MAX_CREDENTIAL_BYTES", "OTHERS", "Refused", "read_all", "read_private"]

MAX_CREDENTIAL_BYTES: Final = 65_536
OTHERS: Final = 0o026
"""Bits of a mode: others may read it, the group and others may write it."""


class Refused(Protocol):
    """Makes the error of whoever reads."""

    def __call__(self, outcome: Outcome, problem: str, *, where: str = "", hint: str = "") -> ClassifiedError:
        """Return the error."""
        ...


def read_private(path: Path, *, max_bytes: int, refused: Refused, forbidden: int = OTHERS) -> bytes:
    """Return the content of a regular file of root's or ours.

    Args:
        forbidden: Bits that its mode must not have.

    Raises:
        ClassifiedError: As `refused` makes it: `not_found`; `unsafe_target`, where a mode is wrong with the
            command that mends it; `usage` over `max_bytes`.
    """
    where = str(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError as exc:
        raise refused("not_found", f"`{path}` is not there", where=where) from exc
    except OSError as exc:
        raise refused("unsafe_target", f"`{path}` cannot be opened: {exc.strerror}", where=where) from exc
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise refused("unsafe_target", f"`{path}` is not a regular file", where=where)
        if about.st_uid not in {0, os.geteuid()}:
            raise refused("unsafe_target", f"`{path}` belongs to somebody else", where=where)
        if (mode := stat.S_IMODE(about.st_mode)) & forbidden:
            raise refused(
                "unsafe_target",
                f"`{path}` has mode {mode:04o}: others can read or write it",
                where=where,
                hint=f"run `chmod {mode & ~(forbidden | 0o007):04o} {path}`, and renew what it held",
            )
        return read_all(fd, max_bytes=max_bytes, what=where, refused=refused)
    finally:
        os.close(fd)


def read_all(fd: int, *, max_bytes: int, what: str, refused: Refused) -> bytes:
    """Return what can be read from `fd`.

    Raises:
        ClassifiedError: As `refused` makes it: `usage` over `max_bytes`, `unsafe_target` when it cannot be read.
    """
    parts: list[bytes] = []
    left = max_bytes + 1
    try:
        while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    except OSError as exc:
        raise refused("unsafe_target", f"`{what}` cannot be read: {exc.strerror}", where=what) from exc
    if left <= 0:
        raise refused("usage", f"`{what}` is over {max_bytes} bytes", where=what)
    return b"".join(parts)
