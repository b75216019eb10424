"""Identifiers and secrets: UUIDv7 for what is sorted by time, random bits for what must not be guessed."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading

__all__ = [
    "fingerprint",
    "random_token",
    "uuid7",
]


def uuid7(now_ms: int) -> str:
    """Return a UUIDv7 as text: sortable by time, 74 random bits (RFC 9562, section 5.7)."""
    time, chance = f"{now_ms & 0xFFFF_FFFF_FFFF:012x}", _chance.digits(20)
    variant = "89ab"[int(chance[3], 16) & 3]
    return f"{time[:8]}-{time[8:]}-7{chance[:3]}-{variant}{chance[4:7]}-{chance[7:19]}"


def random_token(bits: int = 128) -> str:
    """Return `bits` random bits as URL-safe text."""
    return secrets.token_urlsafe(bits // 8)


def fingerprint(text: str) -> bytes:
    """Return the SHA-256 of `text`: how one-time codes and session handles are kept."""
    return hashlib.sha256(text.encode()).digest()


class _Chance(threading.local):
    """Random digits of the system, asked for many at once: each call gives the interpreter lock away."""

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def digits(self, count: int) -> str:
        """Return `count` random hex digits, never the same ones twice."""
        at = self._at
        if at + count > len(self._digits):
            self._digits, at = os.urandom(2_000).hex(), 0
        self._at = at + count
        return self._digits[at : at + count]


_chance = _Chance()
