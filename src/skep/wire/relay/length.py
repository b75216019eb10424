"""How long a text is, in the unit that a descriptor names.

Source: relay contract, section 5: `chars` are code points, `utf16` are UTF-16 units, anything else
counts as `chars`. One table for both ends. Pure.
"""

from __future__ import annotations

__all__ = ["fitting", "text_length"]


def text_length(text: str, unit: str) -> int:
    """Return the length of `text` in `unit`."""
    if unit == "utf16" and not text.isascii():
        return len(text.encode("utf-16-le", "surrogatepass")) // 2
    return len(text)


def fitting(text: str, limit: int, unit: str) -> int:
    """Return how many code points from the start of `text` fit into `limit` of `unit`.

    A code point is never cut, so up to one unit of room may stay unused.
    """
    if unit != "utf16" or text.isascii():
        return min(len(text), limit)
    room = limit
    for index, char in enumerate(text):
        room -= 2 if ord(char) > 0xFFFF else 1
        if room < 0:
            return index
    return len(text)
