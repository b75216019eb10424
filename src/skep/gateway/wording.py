"""From a lease or a turn to the actions that say it: pure.

Source: control protocol, sections 5.4, 5.5 and 7; relay contract, section 16.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from skep.wire.control.door import Turn
from skep.wire.control.envelope import Envelope, Route
from skep.wire.relay.actions import Action, Draft, Hints, Metadata, Prompt, PromptOption, Seen, Send, Typing
from skep.wire.relay.descriptor import Descriptor

__all__ = [
    "clear_typing",
    "draft",
    "draft_id",
    "final_action",
    "plain_action",
    "plain_text",
    "seen",
    "typing",
]

_BASE_36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def final_action(envelope: Envelope, route: Route, descriptor: Descriptor) -> Action:
    """Return what says `envelope` in its chat, as well as the connector can."""
    metadata = _hints(
        route,
        descriptor,
        notify=True,
        idem=envelope.reply_key,
        agent=envelope.agent,
        answers=route.answers,
        repeat=route.repeat,
    ).to_metadata()
    if envelope.kind == "ask" and envelope.choices and "prompt" in descriptor.ops:
        return Prompt(
            chat_id=route.chat_id,
            content=envelope.body,
            prompt_kind="choice",
            prompt_id=prompt_id(route.relay, envelope.delivery_id),
            options=tuple(
                PromptOption(id=str(number), label=choice)
                for number, choice in enumerate(envelope.choices, start=1)
            ),
            reply_to=route.reply_to,
            metadata=metadata,
            timeout_s=_open_for_s(envelope),
        )
    body = _with_choices(envelope)
    key = envelope.reply_key or ""
    if _can_draft(descriptor) and key.startswith("r:"):
        return Draft(
            chat_id=route.chat_id,
            draft_id=draft_id(key),
            content=body,
            final=True,
            metadata=_anchored(metadata, route),
        )
    return Send(chat_id=route.chat_id, content=body, reply_to=route.reply_to, metadata=metadata)


def plain_action(envelope: Envelope, route: Route, descriptor: Descriptor) -> Send:
    """Return the same as plain text, for a platform that refused the form."""
    metadata = _hints(
        route, descriptor, notify=True, idem=envelope.reply_key, agent=envelope.agent, answers=route.answers
    ).to_metadata()
    return Send(
        chat_id=route.chat_id,
        content=plain_text(_with_choices(envelope)),
        reply_to=route.reply_to,
        metadata=metadata,
    )


def draft(turn: Turn, descriptor: Descriptor) -> Draft | None:
    """Return the whole text so far, if it can be shown."""
    if not turn.text or not _can_draft(descriptor):
        return None
    hints = _hints(turn.route, descriptor, idem=turn.reply_key, agent=turn.agent, answers=turn.route.answers)
    return Draft(
        chat_id=turn.route.chat_id,
        draft_id=draft_id(turn.reply_key),
        content=turn.text,
        final=False,
        metadata=_anchored(hints.to_metadata(), turn.route),
    )


def seen(turn: Turn, descriptor: Descriptor) -> Seen | None:
    """Return that a turn has begun with its messages, if that can be shown."""
    if not turn.shown or not descriptor.skep or "seen" not in descriptor.ops:
        return None
    return Seen(
        chat_id=turn.route.chat_id,
        message_ids=turn.shown,
        metadata=_hints(turn.route, descriptor).to_metadata(),
    )


def typing(turn: Turn, descriptor: Descriptor) -> Typing | None:
    """Return that somebody writes, if that can be shown."""
    if "typing" not in descriptor.ops:
        return None
    hints = _hints(turn.route, descriptor, agent=turn.agent)
    return Typing(chat_id=turn.route.chat_id, metadata=hints.to_metadata())


def clear_typing(turn: Turn, descriptor: Descriptor) -> Typing | None:
    """Return that nobody writes any more; only a Skep connector clears on all platforms that can."""
    if not descriptor.skep or "typing" not in descriptor.ops:
        return None
    hints = _hints(turn.route, descriptor, agent=turn.agent)
    return Typing(chat_id=turn.route.chat_id, metadata=hints.to_metadata(), content="")


def draft_id(reply_key: str) -> int:
    """Return the number of the draft of `reply_key`: 52 bits, so that any JSON reader keeps it."""
    return int(hashlib.sha256(reply_key.encode()).hexdigest()[:13], 16)


def prompt_id(relay: str, delivery_id: int) -> str:
    """Return the id of a prompt: whose it is before the dot, which one after it."""
    digits = ""
    while delivery_id:
        delivery_id, digit = divmod(delivery_id, 36)
        digits = _BASE_36[digit] + digits
    return f"{hashlib.sha256(relay.encode()).hexdigest()[:4]}.{digits or '0'}"


def plain_text(markdown: str) -> str:
    """Return `markdown` without its marks, links written out."""
    text = re.sub(r"^[ \t]*(?:```|~~~)[^\n]*\n?", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"!?\[([^\]\n]*)\]\(([^)\s]+)\)", r"\1 (\2)", text)
    text = re.sub(r"^[ \t]{0,3}#{1,6}[ \t]+", "", text, flags=re.MULTILINE)
    text = re.sub(r"(\*\*|__|~~)(?=\S)(.+?)(?<=\S)\1", r"\2", text)
    text = re.sub(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])", r"\1", text)
    return re.sub(r"`([^`\n]+)`", r"\1", text)


def _can_draft(descriptor: Descriptor) -> bool:
    return bool(descriptor.skep) and "draft" in descriptor.ops


def _anchored(metadata: Metadata, route: Route) -> Metadata:
    """Return `metadata` with what a draft answers: it has no field of its own for it."""
    return metadata if route.reply_to is None else {**metadata, "message_id": route.reply_to}


def _open_for_s(envelope: Envelope) -> float | msgspec.UnsetType:
    """Return how long an ask is still open; nothing when it has no end."""
    if envelope.deadline_at is None:
        return msgspec.UNSET
    return max(1, envelope.deadline_at - envelope.created_at - envelope.age_ms) / 1000


def _with_choices(envelope: Envelope) -> str:
    if envelope.kind != "ask" or not envelope.choices:
        return envelope.body
    lines = (f"{number}. {choice}" for number, choice in enumerate(envelope.choices, start=1))
    return "\n".join([envelope.body, "", *lines])


def _hints(
    route: Route,
    descriptor: Descriptor,
    *,
    notify: bool = False,
    idem: str | None = None,
    agent: str | None = None,
    answers: tuple[str, ...] = (),
    repeat: bool = False,
) -> Hints:
    """Return the hints of an action; what only Skep's own ends know goes only to such an end."""
    is_skep = bool(descriptor.skep)
    return Hints(
        scope_id=route.scope_id,
        user_id=route.user_id,
        thread_id=route.thread_id,
        notify=notify,
        idem=idem if is_skep else None,
        agent=agent if is_skep else None,
        answers=answers if is_skep else (),
        repeat=repeat and is_skep,
    )
