"""Settings: flag, environment, `skep.toml`, default, in this order.

Source: control protocol, section 12. Read once, in `cli`, and passed down.
A setting that is not known is refused with its file, its line and the nearest name.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast, get_type_hints

import msgspec

from skep.foundation.errors import SettingError
from skep.foundation.paths import Home

__all__ = [
    "LIFE_FD",
    "ConnectorSettings",
    "GatewaySettings",
    "HiveSettings",
    "IdentitySettings",
    "LogSettings",
    "MemorySettings",
    "ProviderSettings",
    "Settings",
    "WebSettings",
    "child_environment",
    "default_home",
    "life_fd",
    "load",
    "origins",
    "parse_listen",
    "relay_environment",
]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ConnectorSettings(_Section, frozen=True):
    """`[connector]`: the edge."""

    listen: str = "127.0.0.1:7433"
    public_url: str | None = None
    store: str = "sqlite"
    bus: str = "local"
    buffer_events: int = 10_000
    buffer_mib: int = 256
    buffer_days: int = 7
    metrics: str | None = None
    dedupe_hours: int = 48
    web_days: int = 365
    web_per_minute: int = 30
    stock_settle_s: float = 3.0


class GatewaySettings(_Section, frozen=True):
    """`[gateway]`: the door's carrier."""

    relay_url: str | None = None
    credentials: str = "keys/gateway.env"


class HiveSettings(_Section, frozen=True):
    """`[hive]`: the broker. `quiet_ms` is by platform."""

    store: str = "sqlite"
    allow_old_sqlite: bool = False
    quiet_ms: dict[str, int] = msgspec.field(default_factory=lambda: {"default": 500, "web": 0})
    retention: dict[str, int] = msgspec.field(default_factory=dict[str, int])


class IdentitySettings(_Section, frozen=True):
    """`[identity]`: who is this."""

    mode: Literal["strict", "compat"] = "strict"
    honcho: str = "honcho.json"
    host: str = "hermes"


class MemorySettings(_Section, frozen=True):
    """`[memory]`: what we know of them."""

    provider: Literal["local", "honcho"] = "local"
    url: str | None = None
    key: str | None = None


class WebSettings(_Section, frozen=True):
    """`[web]`: the dashboard."""

    listen: str = "localhost:7434"
    public_url: str | None = None
    metrics: str | None = None


class ProviderSettings(_Section, frozen=True):
    """`[provider.NAME]`: one model endpoint."""

    api: Literal["openai", "anthropic"] = "openai"
    base_url: str | None = None
    key: str | None = None
    model: str | None = None


class LogSettings(_Section, frozen=True):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, by section."""

    connector: ConnectorSettings = ConnectorSettings()
    gateway: GatewaySettings = GatewaySettings()
    hive: HiveSettings = HiveSettings()
    identity: IdentitySettings = IdentitySettings()
    memory: MemorySettings = MemorySettings()
    web: WebSettings = WebSettings()
    provider: dict[str, ProviderSettings] = msgspec.field(default_factory=dict[str, ProviderSettings])
    log: LogSettings = LogSettings()


LIFE_FD: Final = "SKEP_LIFE_FD"
"""Environment variable with the number of that pipe's read end (control protocol, section 11)."""
_SECTIONS: Final = {name: type_ for name, type_ in get_type_hints(Settings).items() if name != "provider"}
_DEFAULTS: Final = Settings()
_NOT_BUILT: Final = (
    "connector.store",
    "connector.bus",
    "connector.metrics",
    "hive.store",
    "hive.retention",
    "identity.mode",
    "identity.honcho",
    "identity.host",
    "memory.provider",
    "memory.url",
    "memory.key",
    "web.metrics",
)
"""Settings that are specified, and have one value so far."""
_NOT_SETTINGS: Final = frozenset({"SKEP_HOME", LIFE_FD, "SKEP_CI", "SKEP_TEST_TIME_FACTOR"})


def default_home(env: Mapping[str, str] | None = None) -> Home:
    """Return `SKEP_HOME`, else `$XDG_DATA_HOME/skep`, else `~/.local/share/skep`."""
    env = os.environ if env is None else env
    if root := env.get("SKEP_HOME"):
        return Home(Path(root).expanduser())
    data = env.get("XDG_DATA_HOME") or "~/.local/share"
    return Home(Path(data).expanduser() / "skep")


def relay_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a gateway reads as Hermes does (relay contract, section 12)."""
    env = os.environ if env is None else env
    return {name: value for name, value in env.items() if name.startswith("GATEWAY_RELAY_")}


def child_environment(home: Home, *, keep: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the cleaned environment of a child: what a program needs, `SKEP_*`, and `keep`."""
    wanted = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "VIRTUAL_ENV", *keep}
    chosen = {
        name: value
        for name, value in os.environ.items()
        if name in wanted or (name.startswith("SKEP_") and name != LIFE_FD)
    }
    return {**chosen, "SKEP_HOME": str(home.root)}


def life_fd(env: Mapping[str, str] | None = None) -> int | None:
    """Return the read end of the pipe whose end means that `skep up` is gone, if there is one."""
    text = (os.environ if env is None else env).get(LIFE_FD, "")
    return int(text) if text.isdecimal() else None


def load(
    home: Home, *, flags: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings in force.

    Args:
        flags: By dotted name, `connector.listen`; `None` values count as not given.

    Raises:
        SettingError: Unknown name, wrong type or unreadable file; says where.
    """
    settings = _decode(_merged(home, flags=flags or {}, env=os.environ if env is None else env))
    _refuse_not_built(settings)
    return settings


def origins(
    home: Home, *, flags: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None
) -> list[tuple[str, object, str]]:
    """Return (dotted name, value, where it came from) of each setting."""
    merged = _merged(home, flags=flags or {}, env=os.environ if env is None else env)
    values = cast("dict[str, dict[str, Any]]", msgspec.to_builtins(_decode(merged)))
    rows: list[tuple[str, object, str]] = []
    for section, keys in values.items():
        for key, value in keys.items():
            if section == "provider":
                rows.append((f"{section}.{key}", value, "skep.toml"))
            else:
                rows.append((f"{section}.{key}", value, merged.get((section, key), (None, "default"))[1]))
    return rows


def parse_listen(listen: str, name: str) -> tuple[str, int]:
    """Return (host, port) of `HOST:PORT`.

    Raises:
        SettingError: Not of that form; `name` is the setting's.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise SettingError(
            f"`{name}` is `{listen}`, not HOST:PORT", hint=f'set `{name}` to, say, "127.0.0.1:7433"'
        )
    return host.strip("[]"), int(port)


_Merged = dict[tuple[str, str], tuple[object, str]]


def _merged(home: Home, *, flags: Mapping[str, object], env: Mapping[str, str]) -> _Merged:
    merged: _Merged = {}
    for (section, key), value, where in _from_file(home.config):
        merged[section, key] = (value, where)
    for name, text in env.items():
        if name.startswith("SKEP_") and name not in _NOT_SETTINGS:
            section, key = _env_target(name)
            if section:
                merged[section, key] = (_env_value(section, key, text), f"environment {name}")
    for dotted, value in flags.items():
        if value is not None:
            section, _, key = dotted.partition(".")
            merged[section, key] = (value, "flag")
    return merged


def _decode(merged: _Merged) -> Settings:
    tree: dict[str, dict[str, object]] = {}
    for (section, key), (value, _) in merged.items():
        tree.setdefault(section, {})[key] = value
    quiet = tree.get("hive", {}).get("quiet_ms")
    if isinstance(quiet, dict):
        tree["hive"]["quiet_ms"] = {**HiveSettings().quiet_ms, **cast("dict[str, object]", quiet)}
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as exc:
        problem, _, path = str(exc).partition(" - at `$.")
        section, _, key = path.rstrip("`").partition(".")
        where = merged.get((section, key.split(".")[0].split("[")[0]), (None, "settings"))[1]
        raise SettingError(
            f"`{section}.{key}` ({where}): {problem[:1].lower()}{problem[1:]}",
            hint="see the settings in docs/reference/settings.md",
        ) from exc


def _from_file(path: Path) -> Iterator[tuple[tuple[str, str], object, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingError(f"`{path}` cannot be read: {exc}", hint="mend or remove the file") from exc
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingError(f"`{path}` is not TOML: {exc}", hint="mend the line named above") from exc
    for section, keys in tree.items():
        if section not in _SECTIONS and section != "provider":
            raise _unknown(path, text, section, None, (*_SECTIONS, "provider"))
        if not isinstance(keys, dict):
            raise SettingError(f"`{path}`: `{section}` is not a section", hint=f"write `[{section}]`")
        for key, value in cast("dict[str, object]", keys).items():
            if section != "provider" and key not in _keys(section):
                raise _unknown(path, text, section, key, _keys(section))
            yield (section, key), value, f"{path.name}:{_line_of(text, section, key)}"


def _refuse_not_built(settings: Settings) -> None:
    """Refuse a setting that would be read and change nothing."""
    for dotted in _NOT_BUILT:
        section, _, key = dotted.partition(".")
        default = getattr(getattr(_DEFAULTS, section), key)
        if getattr(getattr(settings, section), key) != default:
            raise SettingError(
                f"`{dotted}` cannot be changed yet: only its default is built",
                hint=f"remove `{dotted}`",
                code="setting.not_built",
            )


def _keys(section: str) -> tuple[str, ...]:
    return cast("type[_Section]", _SECTIONS[section]).__struct_fields__


def _unknown(path: Path, text: str, section: str, key: str | None, known: tuple[str, ...]) -> SettingError:
    wrong = section if key is None else key
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    return SettingError(
        f"`{path}` line {_line_of(text, section, key)}: no "
        + (f"section `[{section}]`" if key is None else f"setting `{section}.{key}`"),
        hint=f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}",
        code="setting.unknown",
    )


def _line_of(text: str, section: str, key: str | None) -> int:
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([\w.-]+)", line):
            current = header[1].split(".")[0]
            if current == section and (key is None or f"[{section}.{key}" in line.replace(" ", "")):
                return number
        elif key is not None and current == section and re.match(rf'\s*"?{re.escape(key)}"?\s*[.=]', line):
            return number
    return 1


def _env_target(name: str) -> tuple[str, str]:
    section, _, key = name.removeprefix("SKEP_").lower().partition("_")
    if section not in _SECTIONS:
        return "", ""
    if key not in _keys(section):
        near = difflib.get_close_matches(key, _keys(section), n=1, cutoff=0.5)
        raise SettingError(
            f"environment {name}: no setting `{section}.{key}`",
            hint=f"did you mean SKEP_{section.upper()}_{near[0].upper()}?" if near else "unset it",
            code="setting.unknown",
        )
    return section, key


def _env_value(section: str, key: str, text: str) -> object:
    kind = get_type_hints(_SECTIONS[section])[key]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    if kind is bool:
        return {"1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)
    if getattr(kind, "__origin__", None) is dict:
        try:
            return tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            return text
    return text
