"""Take secrets out of text that leaves for a terminal, a log or a report.

A second line of defence: what is secret is kept out of such text in the first place.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MASK", "redact"]

MASK: Final = "***"

_PATTERNS: Final = (
    re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{8,}"),
    re.compile(r"(?i)(#once=)[\w-]+"),
    re.compile(
        r"(?i)((?:secret|token|password|passwd|api[_-]?key|authorization)[\"']?\s*[:=]\s*[\"']?)[^\s\"',}]{4,}"
    ),
    re.compile(r"()\b(?:sk|pk|ghp|gho|xox[abps])[-_][\w-]{12,}"),
)


def redact(text: str, *, known: tuple[str, ...] = ()) -> str:
    """Return `text` with `known` secrets, and what looks like one, as `***`."""
    for secret in known:
        if secret:
            text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text
