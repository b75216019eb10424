"""Secrets at rest: sealed with a key that is not in the database.

Source: control protocol, section 11 (`keys/connector.key`); docs/architecture.md. AES-256-GCM; the name of
what is sealed is authenticated with it, so that a sealed value cannot be moved to another row.
A key that is missing beside a database is never made anew: what it sealed would be lost in silence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from skep.foundation.errors import SettingError

__all__ = ["KEY_BYTES", "Seal", "load_key"]

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Seal:
    """Seals and opens small secrets."""

    def __init__(self, key: bytes) -> None:
        self._cipher: Final = AESGCM(key)

    def close(self, secret: str, *, name: str) -> bytes:
        """Return `secret` sealed under `name`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), name.encode())

    def open(self, sealed: bytes, *, name: str) -> str:
        """Return what was sealed under `name`.

        Raises:
            SettingError: Sealed with another key, under another name, or damaged.
        """
        try:
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except InvalidTag as exc:
            raise SettingError(
                "`keys/connector.key` does not open the secrets in `connector.db`",
                hint="restore the key that belongs to this database from a backup",
                code="connector.wrong_key",
            ) from exc
        return opened.decode()


def load_key(path: Path, *, database: Path) -> bytes:
    """Return the key in `path`; a first start, with neither key nor database, makes one.

    Raises:
        SettingError: Missing beside a database, not 32 bytes, or readable by others.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        if database.exists():
            raise SettingError(
                f"`{path}` is missing, but `{database.name}` is there and sealed with it",
                hint=f"restore the key, or move `{database.name}` away to start afresh",
                code="connector.key_missing",
            ) from None
        return _make_key(path)
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_mode & 0o077:
            raise SettingError(
                f"`{path}` can be read by others", hint=f"chmod 600 {path}", code="connector.key_open"
            )
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise SettingError(
            f"`{path}` does not hold {KEY_BYTES} bytes",
            hint="restore the key from a backup",
            code="connector.key_damaged",
        )
    return key


def _make_key(path: Path) -> bytes:
    """Write a new key so that it is whole on disk or not there at all."""
    key = os.urandom(KEY_BYTES)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(fd)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
