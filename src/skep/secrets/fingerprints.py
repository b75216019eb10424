"""The key of this host's fingerprints.

Source: secrets and providers, section S2.5. A bare hash would let a short secret be guessed; under a random
key of this host a fingerprint says no more than "the same as before", and compares on this host only.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from skep.foundation.private_files import read_private
from skep.secrets.problems import SecretError

__all__ = ["KEY_BYTES", "fingerprint_key"]

KEY_BYTES: Final = 32


def fingerprint_key(path: Path) -> tuple[bytes, bool]:
    """Return the key in `path`, made at first use, and whether it is kept.

    A folder that cannot be written gives a key for this run alone: old and new still compare.

    Raises:
        SecretError: `unsafe_target`: others could have read it.
    """
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        if not path.exists():
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, secrets.token_bytes(KEY_BYTES))
                os.fsync(fd)
            finally:
                os.close(fd)
            try:
                with suppress(FileExistsError):
                    os.link(fresh, path)  # the first of two wins, and the file is never half written
            finally:
                fresh.unlink()
    if not path.exists():
        return secrets.token_bytes(KEY_BYTES), False
    key = read_private(path, max_bytes=KEY_BYTES, forbidden=0o077, refused=SecretError)
    return (key, True) if len(key) == KEY_BYTES else (secrets.token_bytes(KEY_BYTES), False)
