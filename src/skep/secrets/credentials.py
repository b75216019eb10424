"""Where the credential of a store comes from: the first source that is there, named in the report.

Source: secrets and providers, section A2. In order: a file, the service manager's credential folder, an
inherited file descriptor, an environment variable. Never the value of a flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skep.foundation.private_files import MAX_CREDENTIAL_BYTES, OTHERS, read_all, read_private
from skep.foundation.secret import Secret
from skep.secrets.manifest import AgeStore, EnvStore, FileStore, InfisicalStore, SopsStore, Store, VaultStore
from skep.secrets.problems import SecretError, usage

__all__ = ["Credential", "credential_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The credential of a store, and the source it came from.

    Attributes:
        is_weak: It came by a source that other programs of the same user can read.
    """

    secret: Secret
    source: str
    is_weak: bool = False


def credential_of(store: Store, *, environ: Mapping[str, str]) -> Credential | None:
    """Return the credential that `store` needs; `None` for a kind that needs none.

    Raises:
        SecretError: `auth` when no source has one; `unsafe_target` or `usage` for a bad one.
    """
    match store:
        case EnvStore() | FileStore():
            return None
        case AgeStore() | SopsStore():
            name, forbidden, is_file = "SKEP_AGE_IDENTITY", 0o177, True
        case InfisicalStore(auth="universal"):
            name, forbidden, is_file = "INFISICAL_CLIENT_SECRET", OTHERS, False
        case InfisicalStore():
            name, forbidden, is_file = "INFISICAL_TOKEN", OTHERS, False
        case VaultStore(auth="approle"):
            name, forbidden, is_file = "VAULT_SECRET_ID", OTHERS, False
        case VaultStore():
            name, forbidden, is_file = "VAULT_TOKEN", OTHERS, False
    name = store.credential or name
    data, source = _find(name, store.credential_file, environ, forbidden)
    text = data.decode("utf-8", "replace") if is_file else _one_line(data, what=source)
    return Credential(secret=Secret(name, text), source=source, is_weak=source.startswith("environment"))


def _find(name: str, named: str | None, environ: Mapping[str, str], forbidden: int) -> tuple[bytes, str]:
    for path in (named, environ.get(f"{name}_FILE")):
        if path:
            data = _read(Path(path), forbidden)
            return data, f"file {path}"
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / name
        if path.exists():
            data = _read(path, forbidden)
            return data, f"credential {name} of the service manager"
    if fd := environ.get(f"{name}_FD"):
        return _from_descriptor(name, fd), f"file descriptor {name}_FD"
    if value := environ.get(name):
        return value.encode("utf-8", "surrogateescape"), f"environment {name}"
    raise SecretError(
        "auth",
        f"there is no credential `{name}`",
        hint=f"write it to a file of mode 0600 and set `{name}_FILE` or `credential_file`",
    )


def _read(path: Path, forbidden: int) -> bytes:
    return read_private(path, max_bytes=MAX_CREDENTIAL_BYTES, forbidden=forbidden, refused=SecretError)


def _from_descriptor(name: str, fd: str) -> bytes:
    if not fd.isdecimal() or int(fd) < 3 or int(fd) > 65_535:
        raise usage(f"`{name}_FD` is not the number of an inherited file descriptor")
    return read_all(int(fd), max_bytes=MAX_CREDENTIAL_BYTES, what=f"{name}_FD", refused=SecretError)


def _one_line(data: bytes, *, what: str) -> str:
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
