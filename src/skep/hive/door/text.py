"""What a person wrote, as the door reads it: cut to size, commands, `@name`.

Source: control protocol, section 4. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

__all__ = ["COMMANDS", "MAX_BODY_BYTES", "Command", "cut_body", "read_command", "read_mention"]

MAX_BODY_BYTES: Final = 64 * 1024
"""Longest body of a message, in bytes of UTF-8."""

COMMANDS: Final = {
    "stop": "stop what the agent is doing in this chat",
    "agent": "`/agent NAME`: choose who answers in this chat",
    "agents": "show which agents there are",
    "whoami": "show how you are known here",
    "help": "show this",
}

_COMMAND: Final = re.compile(r"/([a-z][a-z_-]{0,31})(?:@\S+)?(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)
_MENTION: Final = re.compile(r"@([a-z][a-z0-9-]{0,31})(?![\w@.-])[\s,:]*", re.IGNORECASE)
_NOTE_ROOM: Final = 40
_JOINERS: Final = frozenset("\u200d\u200c")
_SEARCH_BACK: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command and the words after it, which are never a prompt."""

    name: str
    words: str = ""


def read_command(text: str) -> Command | None:
    """Return the command that `text` is; an unknown one is ordinary text."""
    found = _COMMAND.fullmatch(text.strip()) if "/" in text else None
    if found is None or (name := found[1].lower()) not in COMMANDS:
        return None
    return Command(name=name, words=(found[2] or "").strip())


def read_mention(text: str) -> tuple[str, str] | None:
    """Return the name after a leading `@`, and the text after it."""
    text = text.lstrip()
    found = _MENTION.match(text) if text.startswith("@") else None
    return (found[1].lower(), text[found.end() :]) if found is not None else None


def cut_body(text: str, *, max_bytes: int = MAX_BODY_BYTES) -> tuple[str, int]:
    """Return `text` cut to `max_bytes` between two graphemes, and how many bytes are missing.

    What is cut ends with a line that says so; it counts towards `max_bytes`.
    """
    if len(text) * 4 <= max_bytes:
        return text, 0
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text, 0
    kept = data[: max_bytes - _NOTE_ROOM].decode("utf-8", "ignore")
    end = len(kept)
    floor = max(1, end - _SEARCH_BACK)
    while end > floor and not _is_boundary(text, end):
        end -= 1
    kept = text[:end]
    missing = len(data) - len(kept.encode())
    return f"{kept}\n[cut: {missing} more bytes]", missing


def _is_boundary(text: str, at: int) -> bool:
    """Return whether a grapheme ends before `text[at]` (the main rules of UAX 29)."""
    before, after = text[at - 1], text[at]
    if before == "\r" and after == "\n":
        return False
    if after in _JOINERS or before == "\u200d" or _extends(after):
        return False
    if _is_regional(before) and _is_regional(after):
        return _regionals_before(text, at) % 2 == 0
    return not (_is_hangul(before) and _is_hangul_part(after))


def _extends(char: str) -> bool:
    code = ord(char)
    return (
        unicodedata.category(char) in ("Mn", "Me", "Mc")
        or 0x1F3FB <= code <= 0x1F3FF
        or 0xE0020 <= code <= 0xE007F
    )


def _is_regional(char: str) -> bool:
    return 0x1F1E6 <= ord(char) <= 0x1F1FF


def _regionals_before(text: str, at: int) -> int:
    count = 0
    while count < at and _is_regional(text[at - 1 - count]):
        count += 1
    return count


def _is_hangul(char: str) -> bool:
    code = ord(char)
    return 0x1100 <= code <= 0x11FF or 0xAC00 <= code <= 0xD7A3


def _is_hangul_part(char: str) -> bool:
    code = ord(char)
    return 0x1160 <= code <= 0x11FF
