"""Who this gateway is to a connector: address, credentials, fronted identities.

Source: relay contract, section 12. Read again for each dial, so that what `skep up` or an enrolment wrote
meanwhile counts. Never logs or shows a secret.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from skep.foundation.errors import SettingError
from skep.foundation.log import get_logger
from skep.foundation.paths import Home
from skep.foundation.secret import Secret
from skep.foundation.settings import GatewaySettings
from skep.wire.relay.urls import relay_url

__all__ = ["Credentials", "Identity", "RelayIdentity"]

_log = get_logger(part="relay")

_ID: Final = "GATEWAY_RELAY_ID"
_SECRET: Final = "GATEWAY_RELAY_SECRET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What proves to the connector who dials."""

    gateway_id: str
    secret: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One account that the gateway fronts; empty `bot_id`: whichever the connector has."""

    platform: str
    bot_id: str = ""


class RelayIdentity:
    """Where the settings, the environment and the key file say who we are.

    Args:
        env: The environment; only `GATEWAY_RELAY_*` is read.
    """

    def __init__(self, settings: GatewaySettings, home: Home, *, env: Mapping[str, str]) -> None:
        self._settings: Final = settings
        self._home: Final = home
        self._env: Final = env
        self.identities: Final = _identities(env)

    def url(self) -> str | None:
        """Return the connector's address; our own one on this machine when none is set."""
        for text in (self._env.get("GATEWAY_RELAY_URL"), self._settings.relay_url):
            if text and (url := relay_url(text)):
                return url
        try:
            ports: object = json.loads(self._home.ports.read_bytes())
        except (OSError, ValueError):
            return None
        port = cast("dict[str, object]", ports).get("chat") if isinstance(ports, dict) else None
        return f"http://127.0.0.1:{port}" if isinstance(port, int) else None

    def credentials(self) -> Credentials | None:
        """Return the pinned pair, else the enrolled one.

        Raises:
            SettingError: The file with the enrolled pair cannot be read, or others can read it.
        """
        pinned = _pair(self._env)
        if pinned is not None:
            return pinned
        return _pair(_read_env_file(self._home.root / self._settings.credentials))


def _pair(values: Mapping[str, str]) -> Credentials | None:
    gateway_id, secret = values.get(_ID, "").strip(), values.get(_SECRET, "").strip()
    if not gateway_id or not secret:
        return None
    return Credentials(gateway_id=gateway_id, secret=Secret(_SECRET, secret))


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise SettingError(
                f"the secret file `{path.name}` can be read by others",
                hint=f"chmod 600 {path}",
                code="gateway.secret_readable",
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingError(
            f"the secret file `{path.name}` cannot be read",
            hint=f"give its owner the right to read {path}",
            code="gateway.secret_unreadable",
        ) from exc
    pairs = (line.strip().removeprefix("export ").partition("=") for line in lines)
    return {name.strip(): value.strip().strip("'\"") for name, equals, value in pairs if equals}


def _identities(env: Mapping[str, str]) -> tuple[Identity, ...]:
    """Return what the environment fronts; nothing named: one identity `relay`, for all there is."""
    names = env.get("GATEWAY_RELAY_PLATFORMS", "")
    bot_ids = _bot_ids(env.get("GATEWAY_RELAY_BOT_IDS", ""))
    if not names and (single := env.get("GATEWAY_RELAY_PLATFORM", "")):
        _log.warning("singular_names_read", use="GATEWAY_RELAY_PLATFORMS and GATEWAY_RELAY_BOT_IDS")
        names = single
        bot_ids = bot_ids or {single.strip().lower(): env.get("GATEWAY_RELAY_BOT_ID", "")}
    platforms = list(dict.fromkeys(name.strip().lower() for name in names.split(",") if name.strip()))
    return tuple(Identity(platform=name, bot_id=bot_ids.get(name, "")) for name in platforms) or (
        Identity(platform="relay"),
    )


def _bot_ids(text: str) -> dict[str, str]:
    """Return bot ids by platform out of `{platform: {"botId": …}}`; bad JSON means empty ids."""
    try:
        parsed: object = json.loads(text or "{}")
    except ValueError:
        _log.warning("bot_ids_not_json", name="GATEWAY_RELAY_BOT_IDS")
        return {}
    if not isinstance(parsed, dict):
        return {}
    return {
        name.strip().lower(): str(cast("dict[str, Any]", account).get("botId") or "")
        for name, account in cast("dict[str, object]", parsed).items()
        if isinstance(account, dict)
    }
