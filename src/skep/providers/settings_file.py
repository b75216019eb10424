"""Write one provider into `skep.toml`, and leave everything else there as it is, comments included.

Source: secrets and providers, section B1. The file is replaced whole, or not at all. No key is ever written.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from skep.foundation.errors import SettingError
from skep.providers.problems import ProviderError, usage

__all__ = ["check_provider_name", "write_provider"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_provider_name(name: str) -> str:
    """Return `name` if a provider may be called so.

    Raises:
        ProviderError: `usage`.
    """
    if not _NAME.fullmatch(name):
        raise usage("that is no name for a provider", hint="use a to z, 0 to 9, `-`, `_` and `.`")
    return name


def write_provider(file: Path, name: str, fields: Mapping[str, str | None], *, replace: bool = False) -> None:
    """Write `[provider.NAME]` with those of `fields` that are set.

    Raises:
        SettingError: The file is not TOML.
        ProviderError: `usage` when there is one of that name and it is not to be replaced; `write_failed`.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        document: Any = tomlkit.parse(text)
    except (OSError, UnicodeDecodeError, TOMLKitError) as exc:
        raise SettingError(f"`{file}` cannot be read as TOML", hint="mend it, then try again") from exc
    if "provider" not in document:
        document["provider"] = tomlkit.table(is_super_table=True)
    section: Any = document["provider"]
    known = cast("Mapping[str, object]", section)
    if name in known and not replace:
        raise usage(f"there is a provider `{name}`", hint="give `--replace`, or another name")
    table: Any = known.get(name, tomlkit.table())
    for key, value in fields.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    section[name] = table
    _replace(file, tomlkit.dumps(document).encode())


def _replace(file: Path, data: bytes) -> None:
    """Put `data` in the place of `file`, with the mode that it has; 0600 for a new one."""
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    temporary = ""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with open(fd, "wb") as out:
            os.fchmod(fd, mode)
            out.write(data)
            out.flush()
            os.fsync(fd)
        Path(temporary).replace(file)
    except OSError as exc:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise ProviderError("write_failed", f"`{file}` cannot be written: {exc.strerror}") from exc
