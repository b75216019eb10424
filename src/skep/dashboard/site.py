"""Which requests are ours: the name we answer to, and the rules for what may change something.

Source: reliability, section 3.2; control protocol, section 11 ("two names, two cookie jars").
Pure: takes headers, returns facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from skep.foundation.errors import SettingError

__all__ = ["HEADERS", "Site"]

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "manifest-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "Skep",
}
"""On every answer."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The names of this dashboard.

    Attributes:
        hosts: Values of `Host` that are ours; any other is answered 421.
        origins: Values of `Origin` that are ours.
        is_tls: The public address is https: cookies are `Secure`, and HSTS is sent.
    """

    hosts: frozenset[str]
    origins: frozenset[str]
    is_tls: bool = False

    @classmethod
    def at(cls, host: str, port: int, *, public_url: str | None = None) -> Site:
        """Return the site that listens on `host` and `port`, known outside as `public_url`.

        Raises:
            SettingError: `public_url` is not an http or https address.
        """
        hosts, origins = _names("http", host, port)
        if public_url is None:
            return cls(hosts=hosts, origins=origins)
        try:
            parts = urlsplit(public_url)
            public_port = parts.port or _DEFAULT_PORTS[parts.scheme]
        except (ValueError, KeyError) as exc:
            raise _bad_public_url() from exc
        if not parts.hostname or parts.username is not None:
            raise _bad_public_url()
        more_hosts, more_origins = _names(parts.scheme, parts.hostname, public_port)
        return cls(hosts=hosts | more_hosts, origins=origins | more_origins, is_tls=parts.scheme == "https")

    @property
    def cookie(self) -> str:
        """Name of the session cookie."""
        return "__Host-skep_dashboard" if self.is_tls else "skep_dashboard"

    def is_host(self, host: str) -> bool:
        """Return whether a `Host` header names this site."""
        return host.lower() in self.hosts

    def is_same_origin(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request was made by our own page.

        The browser says so (`Sec-Fetch-Site`); an old one tells the origin. A request with neither
        is not from a page, and only a page has the cookie.
        """
        fetch_site = headers.get("Sec-Fetch-Site")
        if fetch_site is not None:
            return fetch_site == "same-origin"
        return headers.get("Origin", "").lower() in self.origins


def _names(scheme: str, host: str, port: int) -> tuple[frozenset[str], frozenset[str]]:
    name = f"[{host}]" if ":" in host else host.lower()
    hosts = {f"{name}:{port}"}
    if port == _DEFAULT_PORTS[scheme]:
        hosts.add(name)
        return frozenset(hosts), frozenset({f"{scheme}://{name}"})
    return frozenset(hosts), frozenset(f"{scheme}://{each}" for each in hosts)


def _bad_public_url() -> SettingError:
    return SettingError(
        "`web.public_url` is not an http or https address",
        hint='set `web.public_url` to, say, "https://skep.example"',
    )
