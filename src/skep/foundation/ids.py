"""Identifiers and secrets: UUIDv7 for what is sorted by time, random bits for what must not be guessed."""

from __future__ import annotations

import hashlib
import os
import secrets
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
    value = int.from_bytes(os.urandom(10), "big")
    number = (
        (now_ms & 0xFFFF_FFFF_FFFF) << 80
        | 0x7 << 76
        | (value >> 64 & 0xFFF) << 64
        | 0b10 << 62
        | (value & 0x3FFF_FFFF_FFFF_FFFF)
    )
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def random_token(bits: int = 128) -> str:
    """Return `bits` random bits as URL-safe text."""
    return secrets.token_urlsafe(bits // 8)


def fingerprint(text: str) -> bytes:
    """Return the SHA-256 of `text`: how one-time codes and session handles are kept."""
    return hashlib.sha256(text.encode()).digest()


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
