"""The key of an endpoint: where it lies is written down, the key itself never is.

Source: secrets and providers, sections A2 and S2. `env:NAME` or `file:PATH`; a file must be one that nobody else
can have read. A key that is written out is refused, and not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from skep.foundation.private_files import MAX_CREDENTIAL_BYTES, read_private
from skep.foundation.secret import Secret
from skep.providers.problems import ProviderError, usage

__all__ = ["check_key", "check_key_place", "read_key"]

_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
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
        lines = _read(path).decode("utf-8").splitlines()
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


def _read(path: Path) -> bytes:
    try:
        return read_private(path, max_bytes=MAX_CREDENTIAL_BYTES, refused=ProviderError)
    except ProviderError as error:
        if error.outcome != "not_found":
            raise
        raise ProviderError("auth", error.problem, hint="write the key to it, mode 0600") from error
