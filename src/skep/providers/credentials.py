"""The key of an endpoint: where it lies is written down, the key itself never is.

Source: secrets and providers, sections A2 and S2. `env:NAME` or `file:PATH`; a file must be one that nobody else
can have read. A key that is written out is refused, and not repeated.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from skep.foundation.secret import Secret
from skep.providers.problems import ProviderError, usage

__all__ = ["check_key", "check_key_place", "read_key"]

_MAX_BYTES: Final = 65_536
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_OTHERS: Final = 0o026
"""Others may not read it; the group and others may not write it."""
_FORM: Final = "name where the key lies: `env:NAME` or `file:PATH`"


def check_key_place(place: str) -> str:
    """Return `place` if it names where a key lies.

    Raises:
        ProviderError: `usage`, without the text: it may be the key itself.
    """
    kind, _, rest = place.partition(":")
    if (kind == "env" and _ENV_NAME.fullmatch(rest)) or (kind == "file" and rest and "\0" not in rest):
        return place
    raise usage("the key is given neither as `env:NAME` nor as `file:PATH`", hint=_FORM)


def read_key(place: str, *, environ: Mapping[str, str], root: Path) -> Secret:
    """Return the key that lies at `place`.

    Args:
        root: Folder that a relative path starts from.

    Raises:
        ProviderError: `usage`, `auth` when there is no key, `unsafe_target` when others could have read it.
    """
    kind, _, rest = check_key_place(place).partition(":")
    if kind == "env":
        text = environ.get(rest, "")
        if not text:
            raise ProviderError(
                "auth", f"environment {rest} is not set", hint=f"set {rest}, or give another --key-ref"
            )
        return check_key(Secret(rest, text))
    path = root / Path(rest).expanduser()
    try:
        lines = _read_private(path).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        lines = ["", ""]
    if len(lines) > 1:
        raise usage(f"`{path}` is not one line of text", hint="write the key alone, on one line")
    return check_key(Secret(path.name, lines[0].strip() if lines else ""))


def check_key(secret: Secret) -> Secret:
    """Return `secret` if a header can carry it.

    Raises:
        ProviderError: `auth`.
    """
    if not _VISIBLE.fullmatch(secret.reveal()):
        raise ProviderError(
            "auth",
            f"the key `{secret.name}` is empty or holds a character that no key has",
            hint="write it anew, without spaces, quotes or line breaks",
        )
    return secret


def _read_private(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError as exc:
        raise ProviderError("auth", f"`{path}` is not there", hint="write the key to it, mode 0600") from exc
    except OSError as exc:
        raise ProviderError("unsafe_target", f"`{path}` cannot be opened: {exc.strerror}") from exc
    try:
        about = os.fstat(fd)
        mode = stat.S_IMODE(about.st_mode)
        if not stat.S_ISREG(about.st_mode):
            raise ProviderError("unsafe_target", f"`{path}` is not a regular file")
        if about.st_uid not in {0, os.geteuid()}:
            raise ProviderError("unsafe_target", f"`{path}` belongs to somebody else")
        if mode & _OTHERS:
            raise ProviderError(
                "unsafe_target",
                f"`{path}` has mode {mode:04o}: others can read or write it",
                hint=f"run `chmod 0600 {path}`, and renew the key",
            )
        data = os.read(fd, _MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MAX_BYTES:
        raise usage(f"`{path}` is over {_MAX_BYTES} bytes", hint="write the key alone, on one line")
    return data
