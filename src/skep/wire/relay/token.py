"""Channel tokens: how a gateway proves who it is, with nothing but `hmac` and `hashlib`.

Source: relay contract, section 9. `base64url_nopad(payload ":" exp ":" sig)`, the signature being the
lower-case hex HMAC-SHA256 of `payload ":" exp` under the UTF-8 bytes of the secret.
Stricter than the oldest client where that is lenient: canonical decimal `exp`, no blanks in the
signature, no empty payload, no foreign characters, ids of at most 128 characters. Pure: no clock.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "TOKEN_TTL_S",
    "Check",
    "Verdict",
    "check_token",
    "mint_token",
    "peek_gateway_id",
    "verify_delivery",
]

TOKEN_TTL_S: Final = 300
"""Life of a token that is minted for one dial or one POST, in seconds."""
MAX_AHEAD_S: Final = 24 * 3600
"""How far `exp` may lie ahead on the upgrade lane, in seconds."""
MAX_ID_CHARS: Final = 128

_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_EXP: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SIG: Final = re.compile(r"[0-9a-f]{64}")
_NOBODY: Final = "0" * 64
"""Tried when no secret is known, so that an unknown id costs the same work."""


class Verdict(enum.Enum):
    """What a token is worth."""

    VALID = enum.auto()
    EXPIRED = enum.auto()
    """Rightly signed, but too old: the sender's clock is slow, or the token waited."""
    REFUSED = enum.auto()
    """Malformed, unknown or wrongly signed. All alike, so that the answer tells nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The verdict on one token.

    Attributes:
        gateway_id: Payload of the token; empty unless it was rightly signed.
    """

    verdict: Verdict
    gateway_id: str = ""


_REFUSED: Final = Check(verdict=Verdict.REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    payload: str
    exp: str
    sig: str


def mint_token(payload: str, *, secret: str, now_s: int, ttl_s: int = TOKEN_TTL_S) -> str:
    """Return a token for `payload`; a `ttl_s` of 0 or less never expires."""
    signed = f"{payload}:{now_s + ttl_s if ttl_s > 0 else 0}"
    raw = f"{signed}:{_sign(signed, secret)}".encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def peek_gateway_id(token: str) -> str | None:
    """Return whose token this claims to be, unproved: only for finding the record."""
    parts = _take_apart(token)
    return parts.payload if parts else None


def check_token(token: str, *, secrets: Sequence[str], now_s: int, upgrade: bool = False) -> Check:
    """Return what `token` is worth. Blanks around it, as a header may have, are the caller's to strip.

    Args:
        secrets: Those of the gateway's record, newest first; empty ones are skipped.
        now_s: Unix time in seconds.
        upgrade: The token came with an upgrade: it must expire, within 24 hours.
    """
    parts = _take_apart(token)
    if parts is None:
        return _REFUSED
    signed = f"{parts.payload}:{parts.exp}"
    is_signed = False
    for secret in [secret for secret in secrets if secret] or [_NOBODY]:
        is_signed |= hmac.compare_digest(_sign(signed, secret), parts.sig)
    exp = int(parts.exp)
    if not is_signed or not any(secrets):
        return _REFUSED
    if upgrade and not 0 < exp <= now_s + MAX_AHEAD_S:
        return _REFUSED
    if exp and now_s > exp:
        return Check(verdict=Verdict.EXPIRED, gateway_id=parts.payload)
    return Check(verdict=Verdict.VALID, gateway_id=parts.payload)


def verify_delivery(
    body: bytes, *, timestamp: str, signature: str, keys: Sequence[str], now_s: int, max_skew_s: int = 300
) -> bool:
    """Return whether a signed HTTP delivery (superseded by the socket) is genuine.

    The signature covers `timestamp "." body` over the literal bytes.
    """
    if not _EXP.fullmatch(timestamp) or not _SIG.fullmatch(signature):
        return False
    if abs(now_s - int(timestamp)) > max_skew_s:
        return False
    signed = timestamp.encode() + b"." + body
    is_signed = False
    for key in keys:
        if key:
            mac = hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
            is_signed |= hmac.compare_digest(mac, signature)
    return is_signed


def _sign(text: str, secret: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _take_apart(token: str) -> _Parts | None:
    if not _ALPHABET.fullmatch(token):
        return None
    bare = token.rstrip("=")
    try:
        text = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    payload, *rest = text.rsplit(":", 2)
    if len(rest) != 2 or not 0 < len(payload) <= MAX_ID_CHARS:
        return None
    exp, sig = rest
    if not _EXP.fullmatch(exp) or not _SIG.fullmatch(sig):
        return None
    return _Parts(payload=payload, exp=exp, sig=sig)
