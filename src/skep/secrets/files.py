"""Read a file that holds a secret, if nobody else could have read or written it.

Source: secrets and providers, sections A2 and A3.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from skep.secrets.problems import SecretError, usage

__all__ = ["MAX_CREDENTIAL_BYTES", "one_line", "read_all", "read_private"]

MAX_CREDENTIAL_BYTES: Final = 65_536


def read_private(path: Path, *, max_bytes: int, forbidden: int = 0o026) -> bytes:
    """Return the content of a regular file of root's or ours.

    Args:
        forbidden: Bits that its mode must not have; others may not read, group and others not write it.

    Raises:
        SecretError: `unsafe_target` or `not_found`, with the command that mends it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError as exc:
        raise SecretError("not_found", f"`{path}` is not there", where=str(path)) from exc
    except OSError as exc:
        raise SecretError(
            "unsafe_target", f"`{path}` cannot be opened: {exc.strerror}", where=str(path)
        ) from exc
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise SecretError("unsafe_target", f"`{path}` is not a regular file", where=str(path))
        if about.st_uid not in {0, os.geteuid()}:
            raise SecretError("unsafe_target", f"`{path}` belongs to somebody else", where=str(path))
        if (mode := stat.S_IMODE(about.st_mode)) & forbidden:
            raise SecretError(
                "unsafe_target",
                f"`{path}` has mode {mode:04o}: others can read or write it",
                where=str(path),
                hint=f"run `chmod {mode & ~(forbidden | 0o007):04o} {path}`, and renew what it held",
            )
        return read_all(fd, max_bytes=max_bytes, what=str(path))
    finally:
        os.close(fd)


def read_all(fd: int, *, max_bytes: int, what: str) -> bytes:
    """Return what can be read from `fd`.

    Raises:
        SecretError: `usage` over `max_bytes`, `unsafe_target` when it cannot be read.
    """
    parts: list[bytes] = []
    left = max_bytes + 1
    try:
        while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    except OSError as exc:
        raise SecretError("unsafe_target", f"`{what}` cannot be read: {exc.strerror}", where=what) from exc
    if left <= 0:
        raise usage(f"`{what}` is over {max_bytes} bytes")
    return b"".join(parts)


def one_line(data: bytes, *, what: str) -> str:
    """Return the credential that `data` is: one line of ASCII, its newline taken off.

    Raises:
        SecretError: `auth` when there is none, `usage` when it is something else.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise usage(f"{what} starts with a byte order mark", hint="write it again as plain text")
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    if not line.strip():
        raise SecretError("auth", f"{what} is empty", hint="put the credential into it")
    if b"\n" in line or b"\r" in line:
        raise usage(f"{what} has more than one line", hint="leave only the credential in it")
    if not all(0x21 <= byte <= 0x7E for byte in line):
        raise usage(f"{what} holds a space or a character that no credential has")
    return line.decode("ascii")
