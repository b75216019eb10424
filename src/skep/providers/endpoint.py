"""One model behind one address, and how long it may take to answer.

Source: secrets and providers, section B1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from skep.foundation.secret import Secret
from skep.providers.presets import Api
from skep.providers.problems import usage

__all__ = ["LIMITS", "Endpoint", "Limits", "check_base_url"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much: of one request."""

    connect_s: float = 5.0
    first_byte_s: float = 60.0
    stall_s: float = 30.0
    total_s: float = 120.0
    body_bytes: int = 4 * 1_048_576


LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to ask, for which model, with which key."""

    base_url: str
    model: str
    api: Api = "openai"
    key: Secret | None = None

    @property
    def host(self) -> str:
        """Host and port, for a report."""
        return urlsplit(self.base_url).netloc

    @property
    def sends_key_in_clear(self) -> bool:
        """The key goes over a network that others can listen on."""
        parts = urlsplit(self.base_url)
        is_here = parts.hostname in {"localhost", "::1"} or (parts.hostname or "").startswith("127.")
        return self.key is not None and parts.scheme == "http" and not is_here


def check_base_url(text: str) -> str:
    """Return `text` without a slash at its end, if it is the address of an endpoint.

    Raises:
        ProviderError: `usage`. The address is not repeated: it may hold a password.
    """
    try:
        parts = urlsplit(text.strip())
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise usage("the base URL is not an address", hint="for example https://ollama.com/v1") from None
    if not is_good or any(character.isspace() or not character.isprintable() for character in text.strip()):
        raise usage("the base URL is not an http or https address", hint="for example https://ollama.com/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise usage(
            "the base URL holds more than an address",
            hint="leave user, password and query out; a key is given by --key-ref",
        )
    return text.strip().rstrip("/")
