"""Addresses of a connector, all made from one configured base URL.

Source: relay contract, section 2.1. What cannot work (a query string, a scheme in upper case) is
kept as it is, so that the dial fails visibly. Pure.
"""

from __future__ import annotations

__all__ = ["dial_url", "enroll_url", "http_base", "media_url", "policy_url", "provision_url", "relay_url"]

_PATH = "/relay"


def relay_url(text: str) -> str | None:
    """Return the base URL in `text` as it is kept, or `None`: no relay."""
    return text.strip().rstrip("/") or None


def dial_url(url: str) -> str:
    """Return the WebSocket address that the gateway dials. Idempotent."""
    url = _with_scheme(url.strip(), {"https://": "wss://", "http://": "ws://"}).rstrip("/")
    return url if url.endswith(_PATH) else url + _PATH


def http_base(url: str) -> str:
    """Return the base of all HTTP addresses, without `/relay`."""
    url = _with_scheme(url.strip().rstrip("/"), {"wss://": "https://", "ws://": "http://"})
    return url.removesuffix(_PATH)


def provision_url(url: str) -> str:
    """Return where a gateway provisions itself."""
    return f"{http_base(url)}/relay/provision"


def policy_url(url: str) -> str:
    """Return where a gateway posts its relevance policy."""
    return f"{http_base(url)}/relay/policy"


def enroll_url(url: str) -> str:
    """Return where a gateway enrols."""
    return f"{http_base(url)}/relay/enroll"


def media_url(url: str, media_id: str = "") -> str:
    """Return where media is put, or got when `media_id` is given."""
    return f"{http_base(url)}/relay/media" + (f"/{media_id}" if media_id else "")


def _with_scheme(url: str, schemes: dict[str, str]) -> str:
    for old, new in schemes.items():
        if url.startswith(old):
            return new + url.removeprefix(old)
    return url
