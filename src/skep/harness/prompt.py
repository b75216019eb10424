"""Envelopes as the model sees them: data in a block, never instructions.

Source: hive, sections 2.2 and 6.2. Body text is untrusted: the block's own delimiter is taken
out of it, and it never stands in the system prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from skep.wire.control.envelope import Effect, Envelope, Pending

__all__ = ["queue_hint", "render", "render_envelope"]

_OPEN: Final = "<<<envelope"
_CLOSE: Final = ">>>"
_DELIMITER: Final = re.compile(r"<<<|>>>")
_LINE_BREAKS: Final = re.compile(r"[\r\n\u0085\u2028\u2029\v\f]+")


def render(envelopes: Sequence[Envelope], pending: Pending) -> str:
    """Return the text that starts a turn: one block per envelope, then the hint of what waits."""
    blocks = [render_envelope(envelope) for envelope in envelopes]
    hint = queue_hint(pending)
    return "\n\n".join([*blocks, hint] if hint else blocks)


def render_envelope(envelope: Envelope) -> str:
    """Return one envelope as a block: facts first, then the body."""
    facts: dict[str, object] = {
        "id": envelope.id,
        "kind": envelope.kind,
        "from": envelope.from_,
        "at_ms": envelope.created_at,
    }
    if envelope.origin and (name := envelope.origin.get("name")):
        facts["name"] = name
    if envelope.in_reply_to:
        facts["in_reply_to"] = envelope.in_reply_to
    if envelope.choices:
        facts["choices"] = " | ".join(envelope.choices)
    if envelope.redelivered:
        facts["redelivered"] = f"attempt {envelope.attempt}"
    if envelope.prior_effects:
        facts["already_sent"] = "; ".join(map(_effect, envelope.prior_effects))
    if envelope.hint:
        facts["hint"] = envelope.hint
    lines = [f"{name}: {_one_line(str(value))}" for name, value in facts.items()]
    return "\n".join([_OPEN, *lines, "", _neutral(envelope.body), _CLOSE])


def queue_hint(pending: Pending) -> str:
    """Return the exact sentence that tells of what else waits, or nothing."""
    if pending.lane:
        return f"(+{pending.lane} more queued; consider draining before acting)"
    if pending.other_lanes:
        return f"(+{pending.other_lanes} queued in other conversations)"
    return ""


def _effect(effect: Effect) -> str:
    return f"{effect.kind} {effect.id}: {effect.text}"


def _neutral(text: str) -> str:
    return _DELIMITER.sub(lambda found: "\u200b".join(found[0]), text)


def _one_line(text: str) -> str:
    return _neutral(_LINE_BREAKS.sub(" ", text))
