"""Questions with choices in the web chat: what is kept of them, and what a press becomes.

Source: control protocol, sections 7 and 13; relay contract, sections 6.1 and 7. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from skep.connector.platforms.web.payloads import Option, Prompt
from skep.store.sqlite.connector import MessageRow
from skep.wire.relay import actions
from skep.wire.relay.event import MessageEvent, PromptResponse, SessionSource

__all__ = ["asked_by", "decode", "encode", "press", "prompt_of"]

OPTIONS_MAX: Final = 20
LABEL_MAX: Final = 200
_MESSAGE: Final = "m_"
_PRESS: Final = "p_"

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Prompt)


def prompt_of(action: actions.Prompt, *, now_ms: int) -> Prompt | None:
    """Return the choices of `action`, or nothing when they could not be shown or told apart."""
    ids = [option.id for option in action.options]
    labels = [option.label.strip() for option in action.options]
    if not 0 < len(ids) <= OPTIONS_MAX or len(set(ids)) < len(ids) or not all(ids):
        return None
    if not action.prompt_id or not all(0 < len(label) <= LABEL_MAX for label in labels):
        return None
    wait_s = action.timeout_s
    return Prompt(
        id=action.prompt_id,
        options=tuple(Option(id=id_, label=label) for id_, label in zip(ids, labels, strict=True)),
        until=now_ms + int(wait_s * 1000) if isinstance(wait_s, int | float) and wait_s > 0 else None,
    )


def encode(prompt: Prompt) -> str:
    """Return `prompt` as it is kept."""
    return _encoder.encode(prompt).decode()


def decode(kept: str) -> Prompt:
    """Return what was kept."""
    return _decoder.decode(kept)


def press(row: MessageRow, prompt: Prompt, option: Option, source: SessionSource) -> MessageEvent:
    """Return the event of a press on a choice of `row`: there is one for each message, so its id follows from it.

    Args:
        source: Of the person's words in that conversation; its message id is set here.
    """
    message = _PRESS + row.message.removeprefix(_MESSAGE)
    return MessageEvent(
        text=f"/{option.id}",
        message_type="command",
        message_id=message,
        reply_to_message_id=row.message,
        source=msgspec.structs.replace(source, message_id=message, thread_id=row.thread),
        prompt_response=PromptResponse(
            prompt_id=prompt.id, option_id=option.id, label=option.label, prompt_message_id=row.message
        ),
    )


def asked_by(message: str) -> str | None:
    """Return the message whose choices the event `message` pressed, if it is a press."""
    return _MESSAGE + message.removeprefix(_PRESS) if message.startswith(_PRESS) else None
