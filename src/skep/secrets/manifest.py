"""The manifest: which secrets come from which stores, and into which files.

Source: secrets and providers, sections A2 and A5. It holds names only: a value has no place in it.
Everything is checked before a store is asked. Nothing here reads a secret.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from skep.secrets.problems import SecretError, usage
from skep.secrets.reference import Reference, check_env_name, check_path, parse_reference

__all__ = [
    "AgeStore",
    "Dialect",
    "EnvStore",
    "FileStore",
    "InfisicalStore",
    "Manifest",
    "NetworkStore",
    "SopsStore",
    "Store",
    "Target",
    "TargetKey",
    "VaultStore",
    "load_manifest",
]

Dialect = Literal["portable", "shell", "python-dotenv", "docker-raw", "systemd", "json", "dir"]

MAX_MANIFEST_BYTES: Final = 1_048_576
MODES: Final = frozenset({0o400, 0o600, 0o440, 0o640})
DIR_MODES: Final = frozenset({0o700, 0o710, 0o711, 0o750, 0o751, 0o755})
_STORE_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_RESERVED: Final = re.compile(
    r"PATH|IFS|ENV|BASH_ENV|NODE_OPTIONS|LD_.*|PYTHON.*|GIT_.*|SSL_CERT_.*|.*_PROXY", re.ASCII
)


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Store(_Part, frozen=True, kw_only=True, tag_field="kind"):
    """What every store has.

    Attributes:
        credential: Name of the credential, by which its source is looked for; `None`: the kind's own.
        credential_file: File that holds the credential; the first source that is tried.
    """

    credential: str | None = None
    credential_file: str | None = None


class NetworkStore(_Store, frozen=True, kw_only=True):
    """A store behind HTTPS.

    Attributes:
        site: Its address, without a path of the API.
        ca_file: Certificates to trust besides those of the system.
        allow_http: Speak plain HTTP to another machine; this machine needs no permission.
        timeout_s: Longest time for one request, from its first byte out to its last byte in.
    """

    site: str
    ca_file: str | None = None
    allow_http: bool = False
    timeout_s: float = 30.0


class InfisicalStore(NetworkStore, frozen=True, kw_only=True, tag="infisical"):
    """Infisical, by its HTTP API."""

    project: str
    environment: str
    auth: Literal["token", "universal"] = "token"
    client_id: str | None = None
    organization: str | None = None
    api: Literal["auto", "v4", "v3"] = "auto"


class VaultStore(NetworkStore, frozen=True, kw_only=True, tag="vault"):
    """HashiCorp Vault or OpenBao, a key-value engine."""

    mount: str = "secret"
    kv: Literal[1, 2] = 2
    auth: Literal["token", "approle"] = "token"
    role_id: str | None = None
    namespace: str | None = None


class EnvStore(_Store, frozen=True, kw_only=True, tag="env"):
    """The environment of this process, for CI: `/:NAME`."""


class FileStore(_Store, frozen=True, kw_only=True, tag="file"):
    """A plain file: `/:NAME`, in JSON also `/folder:NAME`."""

    path: str
    format: Literal["dotenv", "json"] = "dotenv"


class AgeStore(_Store, frozen=True, kw_only=True, tag="age"):
    """The same, encrypted with age; the credential is the identity."""

    path: str
    format: Literal["dotenv", "json"] = "dotenv"


class SopsStore(_Store, frozen=True, kw_only=True, tag="sops"):
    """The same, encrypted with sops, which must be installed; the credential is an age identity."""

    path: str


Store = InfisicalStore | VaultStore | EnvStore | FileStore | AgeStore | SopsStore


class TargetKey(_Part, frozen=True, kw_only=True):
    """One variable of a target.

    Attributes:
        default: Text that is written when an optional key is missing; no secret.
        references: Let the store expand references to other secrets in the value.
        allow_empty: An empty value is right.
    """

    env: str
    ref: str
    required: bool = True
    default: str | None = None
    references: bool = False
    allow_empty: bool = False

    @property
    def reference(self) -> Reference:
        """`ref`, taken apart."""
        return parse_reference(self.ref)


class Target(_Part, frozen=True, kw_only=True):
    """One file, or one folder of files, that is written.

    Attributes:
        name: What `--target` calls it; without one, the name of the file.
        interpolation: Whether the reader of a python-dotenv file expands `${NAME}`.
        restart: The command that makes its readers read it again; shown, never run.
    """

    path: str
    key: tuple[TargetKey, ...]
    name: str = ""
    dialect: Dialect = "portable"
    mode: str | int = "0600"
    dir_mode: str | int = "0700"
    owner: str | None = None
    group: str | None = None
    create_parent: bool = False
    allow_reserved: tuple[str, ...] = ()
    interpolation: bool = True
    restart: str | None = None

    @property
    def mode_bits(self) -> int:
        """`mode` as the system writes it."""
        return _bits(self.mode, "mode")

    @property
    def dir_mode_bits(self) -> int:
        """`dir_mode` as the system writes it."""
        return _bits(self.dir_mode, "dir_mode")


class Manifest(_Part, frozen=True, kw_only=True):
    """Stores by name, and targets in their order."""

    store: dict[str, Store]
    target: tuple[Target, ...] = ()

    def store_of(self, reference: Reference) -> str:
        """Return the name of the store that `reference` means."""
        if reference.store is None:
            if len(self.store) != 1:
                raise usage(
                    "a reference names no store, and there are several",
                    subject=str(reference),
                    hint=f"write `{next(iter(self.store), 'store')}!{reference}`",
                )
            return next(iter(self.store))
        if reference.store not in self.store:
            raise usage(
                f"there is no store `{reference.store}`",
                subject=str(reference),
                hint=f"stores: {', '.join(self.store)}",
            )
        return reference.store


def load_manifest(path: Path, *, allow_world_readable: bool = False) -> Manifest:
    """Return the manifest in the file `path`, with paths made absolute from its folder.

    Raises:
        SecretError: `usage`, or `unsafe_target` for a mode that must not be.
    """
    manifest = _decode(path)
    if not manifest.store:
        raise usage(f"`{path}` names no store", hint="add a `[store.NAME]`")
    for name in manifest.store:
        if not _STORE_NAME.fullmatch(name):
            raise usage("the name of a store is not of the allowed form", hint="use a-z, 0-9, `_`, `-`")
    folder = path.absolute().parent
    stores = {name: _absolute_store(store, folder) for name, store in manifest.store.items()}
    for store in stores.values():
        _check_store(store)
    targets = tuple(
        msgspec.structs.replace(
            target, path=str(folder / target.path), name=target.name or _last(target.path)
        )
        for target in manifest.target
    )
    manifest = Manifest(store=stores, target=targets)
    for target in targets:
        _check_target(manifest, target, allow_world_readable=allow_world_readable)
    for what in ("name", "path"):
        named = [getattr(target, what) for target in targets]
        if len(set(named)) != len(named):
            raise usage(f"two targets have the same {what}", hint=f"give each its own `{what}`")
    return manifest


def _decode(path: Path) -> Manifest:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as exc:
        raise usage(f"`{path}` cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_MANIFEST_BYTES:
        raise usage(f"`{path}` is over {MAX_MANIFEST_BYTES} bytes")
    try:
        return msgspec.convert(tomllib.loads(data.decode()), Manifest)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        where = re.search(r"\(at .*\)|$", str(exc))
        raise usage(f"`{path}` is not TOML {where[0] if where else ''}".rstrip()) from exc
    except msgspec.ValidationError as exc:
        problem, _, place = str(exc).partition(" - at ")
        # A value of the file is not repeated: somebody may have put a key where its name belongs.
        problem = re.sub(r"'[^']*'", "of another kind", problem)
        raise usage(f"`{path}`: {problem[:1].lower()}{problem[1:]}{f' at {place}' if place else ''}") from exc


def _check_store(store: Store) -> None:
    if store.credential is not None:
        check_env_name(store.credential)
    if not isinstance(store, NetworkStore):
        return
    site = urlsplit(store.site)
    try:
        is_plain = bool(site.hostname) and site.port != 0
    except ValueError:
        is_plain = False
    if not is_plain or site.scheme not in {"http", "https"} or site.query or site.fragment or site.username:
        raise usage(
            "the `site` of a store is not a plain address", hint="write `https://host` or `https://host/path`"
        )
    if (
        site.scheme == "http"
        and site.hostname not in {"127.0.0.1", "::1", "localhost"}
        and not store.allow_http
    ):
        raise usage("the `site` of a store is plain HTTP", hint="use https, or set `allow_http = true`")
    if not 0 < store.timeout_s <= 600:
        raise usage("`timeout_s` is not between 0 and 600")
    if isinstance(store, VaultStore):
        check_path(f"/{store.mount}")


def _check_target(manifest: Manifest, target: Target, *, allow_world_readable: bool) -> None:
    if not target.key:
        raise usage(f"target `{target.name}` has no `[[target.key]]`")
    _check_modes(target, allow_world_readable=allow_world_readable)
    seen: set[str] = set()
    for key in target.key:
        check_env_name(key.env)
        if key.env in seen:
            raise usage(f"`{key.env}` is twice in target `{target.name}`")
        seen.add(key.env)
        if _RESERVED.fullmatch(key.env) and key.env not in target.allow_reserved:
            raise usage(
                f"`{key.env}` changes how programs load or talk",
                hint=f'if it must be, add `allow_reserved = ["{key.env}"]` to the target',
            )
        if key.default is not None and key.required:
            raise usage(f"`{key.env}` has a default and is required", hint="set `required = false`")
        reference = key.reference
        store = manifest.store[manifest.store_of(reference)]
        if reference.field and not isinstance(store, VaultStore):
            raise usage("only Vault has fields", subject=str(reference))
        if reference.version and not (
            isinstance(store, InfisicalStore) or (isinstance(store, VaultStore) and store.kv == 2)
        ):
            raise usage("this store has no versions", subject=str(reference))


def _check_modes(target: Target, *, allow_world_readable: bool) -> None:
    bits = target.mode_bits
    if bits & ~0o644 or not bits & 0o400:
        raise SecretError(
            "unsafe_target",
            f"mode {bits:04o} of target `{target.name}` is never allowed",
            where=target.path,
            hint="use 0600, 0400, or 0640 with a `group`",
        )
    if bits & 0o007 and not allow_world_readable:
        raise SecretError(
            "unsafe_target",
            f"mode {bits:04o} of target `{target.name}` lets everybody read it",
            where=target.path,
            hint="use 0600, or 0640 with a `group`",
        )
    if bits & 0o040 and target.group is None:
        raise usage(f"mode {bits:04o} of target `{target.name}` names no `group`", hint="add `group`")
    if target.dir_mode_bits not in DIR_MODES:
        raise SecretError(
            "unsafe_target",
            f"dir_mode {target.dir_mode_bits:04o} of target `{target.name}` is not allowed",
            where=target.path,
            hint="use 0700, 0710 or 0750",
        )


def _bits(mode: str | int, what: str) -> int:
    if isinstance(mode, int):
        return mode
    if not re.fullmatch(r"(?:0o)?[0-7]{3,5}", mode):
        raise usage(f"`{what}` is not an octal mode", hint='write, for example, "0640"')
    return int(mode.removeprefix("0o"), 8)


def _absolute_store(store: Store, folder: Path) -> Store:
    changes = {
        name: str(folder / Path(value).expanduser())
        for name in ("credential_file", "ca_file", "path")
        if (value := getattr(store, name, None)) is not None
    }
    return msgspec.structs.replace(store, **changes)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
