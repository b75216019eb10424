"""Stores on this machine: the environment, a plain file, a file encrypted with age or sops.

Source: secrets and providers, section A3.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import msgspec

from skep.foundation.private_files import read_private
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.secrets.backend import Fetched, Presence, Probe
from skep.secrets.credentials import Credential
from skep.secrets.dialects import parse_dotenv
from skep.secrets.manifest import AgeStore, EnvStore, FileStore, SopsStore
from skep.secrets.problems import SecretError, usage
from skep.secrets.reference import Reference

__all__ = ["Local"]

MAX_STORE_BYTES: Final = 1_048_576
SOPS_LIMIT_S: Final = 20.0


class Local:
    """A tree of texts that was read once, when it was opened."""

    can_describe = True

    def __init__(
        self,
        name: str,
        store: EnvStore | FileStore | AgeStore | SopsStore,
        credential: Credential | None,
        *,
        redactor: Redactor,
        environ: Mapping[str, str],
    ) -> None:
        self._name = name
        self._store = store
        self._credential = credential
        self._redactor = redactor
        self._environ = environ
        self._tree: Mapping[str, object] = {}
        self.where = name if isinstance(store, EnvStore) else f"{name} ({store.path})"

    async def __aenter__(self) -> Self:
        self._tree = await self._load()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tree = {}

    async def fetch(self, reference: Reference, *, references: bool = False) -> Fetched:
        """Return the value at `reference`; see `Backend`."""
        if references:
            raise usage("this store knows no references", subject=str(reference))
        value = self._at(reference)
        if value is None:
            raise SecretError(
                "not_found",
                f"{self.where}: `{reference}` is not there",
                where=self.where,
                subject=str(reference),
                hint="set the variable" if isinstance(self._store, EnvStore) else "check path and key",
            )
        if not isinstance(value, str):
            raise SecretError(
                "malformed", f"`{reference}` is not a text", where=self.where, subject=str(reference)
            )
        found = Secret(str(reference), value)
        self._redactor.add(found)
        return Fetched(secret=found)

    async def describe(self, reference: Reference) -> Presence:
        """Return whether `reference` is there; see `Backend`."""
        return "missing" if self._at(reference) is None else "present"

    async def names(self, path: str, *, recursive: bool) -> list[Reference]:
        """Return what lies in `path`; see `Backend`."""
        if isinstance(self._store, EnvStore):
            raise usage("the environment has no folders", hint="name its variables in a manifest")
        folder: object = self._tree
        for segment in path[1:].split("/") if path != "/" else ():
            folder = _inside(folder, segment)
        if not isinstance(folder, dict):
            raise SecretError(
                "not_found", f"{self.where}: `{path}` is not there", where=self.where, subject=path
            )
        return list(self._names(path, cast("dict[str, object]", folder), recursive=recursive))

    async def width(self, references: Sequence[Reference], *, folder: str | None) -> list[Probe]:
        """A file is readable whole or not at all: there is nothing wider to ask for."""
        return []

    def lifetime(self) -> float | None:
        """Nothing expires here."""
        return 1.0

    def _names(self, path: str, folder: dict[str, object], *, recursive: bool) -> list[Reference]:
        found: list[Reference] = []
        for key, value in folder.items():
            if not isinstance(value, dict):
                found.append(Reference(store=self._name, path=path, key=key))
            elif recursive:
                inner = cast("dict[str, object]", value)
                found += self._names(f"{path.rstrip('/')}/{key}", inner, recursive=True)
        return found

    def _at(self, reference: Reference) -> object:
        place: object = self._tree
        for segment in (*reference.segments, reference.key):
            place = _inside(place, segment)
        return place

    async def _load(self) -> Mapping[str, object]:
        store = self._store
        match store:
            case EnvStore():
                return dict(self._environ)
            case SopsStore():
                return self._parsed(await self._run_sops(store), "json")
            case FileStore():
                data = read_private(Path(store.path), max_bytes=MAX_STORE_BYTES, refused=SecretError)
                return self._parsed(data, store.format)
            case AgeStore():
                return self._parsed(self._decrypt(store), store.format)

    def _parsed(self, data: bytes, form: Literal["dotenv", "json"]) -> Mapping[str, object]:
        try:
            if form == "dotenv":
                return parse_dotenv(data.decode("utf-8-sig"))
            return msgspec.json.decode(data, type=dict[str, Any])
        except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
            pass
        except SecretError as error:
            raise SecretError("malformed", f"{self.where}: {error.problem}", where=self.where) from None
        raise SecretError("malformed", f"{self.where} is not {form}", where=self.where)

    def _decrypt(self, store: AgeStore) -> bytes:
        try:
            pyrage: Any = import_module("pyrage")  # it says nothing of its types
        except ImportError as exc:
            raise usage("age files need the library `pyrage`", hint="pip install 'skep[secrets]'") from exc
        # What is encrypted may be read by anybody; only its content is checked.
        data = read_private(Path(store.path), max_bytes=MAX_STORE_BYTES, forbidden=0o022, refused=SecretError)
        identity = cast("Credential", self._credential)
        lines = [line.strip() for line in identity.secret.reveal().splitlines()]
        try:
            keys = [
                pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")
            ]
        except pyrage.IdentityError:
            keys = []
        if not keys:
            raise SecretError(
                "auth",
                f"{identity.source} holds no age identity",
                where=self.where,
                hint="make one: `age-keygen -o FILE`",
            )
        failed = ""
        plain = b""
        try:
            plain = cast("bytes", pyrage.decrypt(data, keys))
        except pyrage.DecryptError as exc:
            failed = str(exc)
        if "No matching keys" in failed:
            raise SecretError(
                "auth",
                f"{self.where} is encrypted for another identity",
                where=self.where,
                hint="encrypt it anew",
            )
        if failed:
            raise SecretError("malformed", f"{self.where} is not a whole age file", where=self.where)
        if len(plain) > MAX_STORE_BYTES:
            raise SecretError("malformed", f"{self.where} is over {MAX_STORE_BYTES} bytes", where=self.where)
        return plain

    async def _run_sops(self, store: SopsStore) -> bytes:
        identity = cast("Credential", self._credential)
        # By a pipe: an environment can be read by others of the same user.
        key_fd, write_fd = os.pipe()
        os.write(write_fd, identity.secret.reveal().encode())
        os.close(write_fd)
        environ = {
            "PATH": self._environ.get("PATH", "/usr/bin:/bin"),
            "SOPS_AGE_KEY_FILE": f"/dev/fd/{key_fd}",
        }
        try:
            child = await asyncio.create_subprocess_exec(
                "sops",
                "--decrypt",
                "--output-type",
                "json",
                store.path,
                env=environ,
                pass_fds=(key_fd,),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError as exc:
            raise usage("`sops` is not installed", hint="install sops, or use an age file") from exc
        finally:
            os.close(key_fd)
        try:
            async with asyncio.timeout(SOPS_LIMIT_S):
                out, said = await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise SecretError("timeout", f"sops took over {SOPS_LIMIT_S:g} s", where=self.where) from None
        if child.returncode != 0:
            raise SecretError(
                "malformed",
                f"sops could not decrypt {store.path}",
                where=self.where,
                detail=self._redactor.scrub(said[:20_000].decode(errors="replace")),
            )
        if len(out) > MAX_STORE_BYTES:
            raise SecretError("malformed", f"{self.where} is over {MAX_STORE_BYTES} bytes", where=self.where)
        return out


def _inside(place: object, segment: str) -> object:
    return cast("dict[str, object]", place).get(segment) if isinstance(place, dict) else None
