"""HTTP to a server of somebody else: the client, and what is judged alike wherever it is used.

Source: secrets and providers, sections A3 and B1. No redirect is followed, no certificate goes unchecked, no proxy
or password file of the environment is used, and no compressed answer is asked for. Limits on time and size are the
caller's, who also keeps to himself what the library raises: it holds the request with its credential.
"""

from __future__ import annotations

import ssl
from typing import Final, Literal

import httpx

from skep import __version__

__all__ = ["Unreached", "as_request_id", "is_encoded", "make_client", "why_unreached"]

Unreached = Literal["tls", "name", "connection"]
"""Which part of reaching a server failed."""

_REQUEST_ID: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def make_client(
    *, trust: ssl.SSLContext, timeout: httpx.Timeout | float, limits: httpx.Limits
) -> httpx.AsyncClient:
    """Return a client, to be entered."""
    return httpx.AsyncClient(
        verify=trust,
        trust_env=False,
        follow_redirects=False,
        timeout=timeout,
        limits=limits,
        headers={"user-agent": f"skep/{__version__}", "accept-encoding": "identity"},
    )


def is_encoded(response: httpx.Response) -> bool:
    """Return whether the answer is compressed, though that was not asked for."""
    return response.headers.get("content-encoding", "identity") != "identity"


def why_unreached(error: httpx.TransportError) -> Unreached:
    """Return which part of reaching the server failed."""
    text = str(error).lower()
    if "certificate" in text or "ssl" in text or "tls" in text:
        return "tls"
    if "name or service" in text or "getaddrinfo" in text or "name resolution" in text or "nodename" in text:
        return "name"
    return "connection"


def as_request_id(found: object) -> str | None:
    """Return `found` if it is the id that a server gives a request, and nothing that could hide more."""
    if isinstance(found, str) and 0 < len(found) <= 64 and _REQUEST_ID.issuperset(found):
        return found
    return None
