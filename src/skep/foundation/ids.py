"""Identifiers and secrets: UUIDv7 for what is sorted by time, random bits for what must not be guessed."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from typing import NewType

__all__ = [
    "AgentName",
    "MessageId",
    "PersonId",
    "Principal",
    "Secret",
    "fingerprint",
    "random_token",
    "uuid7",
]

AgentName = NewType("AgentName", str)
MessageId = NewType("MessageId", str)
PersonId = NewType("PersonId", int)
Principal = NewType("Principal", str)
"""`person:<n>`, `agent:<name>`, `operator:<id>`, `system`, `reminder`, `chat:<n>`, or `*`."""


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


class Secret:
    """Text that must not be shown: `repr` and `str` give `***`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself; call it only where it leaves for its one destination."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and secrets.compare_digest(
            self._value.encode(), other._value.encode()
        )

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)
