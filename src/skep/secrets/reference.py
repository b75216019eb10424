"""References: `[store!]PATH:KEY[#FIELD][@VERSION]`.

Source: secrets and providers, section A2. Pure: nothing is asked of a store before a reference is right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from skep.secrets.problems import usage

__all__ = ["Reference", "check_env_name", "check_path", "parse_reference"]

_STORE: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
_ENV_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_FORM: Final = "write it as `/path:KEY`, for example `/home-platform/providers:OLLAMA_CLOUD_API_KEY`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where one value lies.

    Attributes:
        store: Name of the store in the manifest; `None` for its only one.
        path: Folder, from `/`, without a slash at its end.
        key: Name of the secret in the folder.
        field: Part of a secret that has several (Vault).
        version: `None` for the newest.
    """

    path: str
    key: str
    store: str | None = None
    field: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        store = f"{self.store}!" if self.store else ""
        field = f"#{self.field}" if self.field else ""
        version = f"@{self.version}" if self.version else ""
        return f"{store}{self.path}:{self.key}{field}{version}"

    @property
    def segments(self) -> tuple[str, ...]:
        """The folders on the way, from the top."""
        return tuple(self.path[1:].split("/")) if self.path != "/" else ()

    @property
    def url_key(self) -> str:
        """`key` as one segment of a URL."""
        return quote(self.key, safe="")


def parse_reference(text: str) -> Reference:
    """Return the reference that `text` is.

    Raises:
        SecretError: `usage`; the text is not quoted where it may hold more than a name.
    """
    store: str | None = None
    rest = text
    if "!" in text:
        store, _, rest = text.partition("!")
        _expect(_STORE, store, "store name")
    path, colon, key = rest.rpartition(":")
    if not colon:
        raise usage("a reference has no `:` between its path and its key", hint=_FORM)
    version: str | None = None
    if "@" in key:
        key, _, version = key.partition("@")
        _expect(_VERSION, version, "version")
    field: str | None = None
    if "#" in key:
        key, _, field = key.partition("#")
        _expect(_KEY, field, "field")
    _expect(_KEY, key, "key")
    return Reference(
        store=store, path=check_path(path), key=key, field=field, version=int(version) if version else None
    )


def check_path(path: str) -> str:
    """Return `path` if it names a folder of a store.

    Raises:
        SecretError: `usage`.
    """
    if path == "/":
        return path
    if not path.startswith("/"):
        raise usage("the path of a reference does not start with `/`", hint=_FORM)
    for segment in path[1:].split("/"):
        _expect(_SEGMENT, segment, "segment of the path")
    return path


def check_env_name(name: str) -> str:
    """Return `name` if an environment variable may be called so.

    Raises:
        SecretError: `usage`.
    """
    if not _ENV_NAME.fullmatch(name):
        # Not repeated: somebody may have put a key where its name belongs.
        raise usage("the name of a variable is not of the allowed form", hint="use A to Z, 0 to 9 and `_`")
    return name


def _expect(form: re.Pattern[str], text: str, what: str) -> None:
    if not form.fullmatch(text):
        raise usage(f"the {what} of a reference is not of the allowed form", hint=_FORM)
