"""The web chat as a platform: what gateways can do in it.

Source: control protocol, section 13; platforms, sections 4.7 and 7; relay contract, section 16.
Its messages lie in our own store, so a send is exact: it is inserted by its key, and a repeat finds it.
The id of an answer follows from its key, so that drafts, the final text and a retried turn are one
message whoever restarted in between.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, cast

import msgspec

from skep.connector.platform import Target
from skep.connector.platforms.web import payloads, prompts
from skep.connector.platforms.web.hub import AtWork, DraftText, Hub
from skep.connector.platforms.web.payloads import (
    MessageEvent,
    MessageState,
    Speaker,
    SpeakerKind,
    State,
    WebMessage,
)
from skep.foundation.clock import Clock
from skep.foundation.ids import uuid7
from skep.store.sqlite.connector import ConnectorStore, ConnectorTx, MessageRow, NewMessage, TakenRow
from skep.wire.relay.actions import (
    Action,
    Draft,
    Edit,
    GetChatInfo,
    Hints,
    Prompt,
    Result,
    Seen,
    Send,
    Typing,
)
from skep.wire.relay.descriptor import Descriptor
from skep.wire.relay.frames import SKEP
from skep.wire.relay.team import AgentHere

__all__ = ["MAX_ANSWER_BYTES", "SITE", "WEB", "WebPlatform", "new_id", "retell", "to_message"]

WEB: Final = "web"
SITE: Final = "local"
"""Scope, namespace of account ids, and the one bot account."""
MAX_ANSWER_BYTES: Final = 256 * 1024
"""Longest answer that is taken, in bytes of UTF-8. It is shown whole: a page has no limit to split for."""

_PUBLIC_OPS: Final = ("send", "edit", "typing", "get_chat_info", "prompt")
_SKEP_OPS: Final = (*_PUBLIC_OPS, "draft", "seen")
_SYSTEM: Final = frozenset({"system", "operator", "reminder"})


class _Entry(msgspec.Struct, frozen=True):
    """`platform.toml`, as descriptors need it."""

    name: str
    label: str
    max_message_length: int
    emoji: str
    platform_hint: str
    pii_safe: bool


def _load_entry() -> _Entry:
    text = Path(__file__).with_name("platform.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Entry)


class WebPlatform:
    """The web chat of this connector."""

    def __init__(self, store: ConnectorStore, hub: Hub, clock: Clock) -> None:
        self.name: Final = WEB
        self.bot_ids: Final = (SITE,)
        self.is_exact: Final = True
        self.repeats_safely: Final = True
        self._store: Final = store
        self._hub: Final = hub
        self._clock: Final = clock
        self._entry: Final = _load_entry()

    def descriptor(self, bot_id: str, *, is_skep: bool) -> Descriptor:
        """Return what can be done here."""
        return Descriptor.from_entry(
            self._entry,
            len_unit="chars",
            supported_ops=_SKEP_OPS if is_skep else _PUBLIC_OPS,
            supports_edit=True,
            supports_threads=True,
            supports_context=True,
            markdown_dialect="gfm",
            bot_id=bot_id if is_skep else "",
            skep=SKEP if is_skep else 0,
        )

    async def perform(self, action: Action, target: Target, hints: Hints) -> Result:
        """Do `action`, or say why not.

        Raises:
            StoreUnavailableError: Nothing was done.
        """
        match action:
            case Send():
                return await self._say(target, hints, hints.idem, action.content, reply_to=action.reply_to)
            case Prompt():
                return await self._ask(target, hints, action)
            case Draft(final=True):
                return await self._say(target, hints, _draft_key(action, hints), action.content)
            case Draft():
                return await self._draft(target, hints, _draft_key(action, hints), action.content)
            case Typing():
                at_work = AtWork(target.chat.chat_id, _speaker(hints).name, hints.thread_id)
                self._hub.typing(_account(target), at_work, is_on=action.content != "")
                return Result(success=True)
            case Seen():
                return await self._store.write(partial(self._seen, target, action.message_ids))
            case Edit():
                return await self._edit(target, action)
            case GetChatInfo():
                return await self._info(target)
            case _:
                return Result(error=f"unsupported op: {action.op}", code="unsupported")

    def delivered(self, tx: ConnectorTx, taken: Sequence[TakenRow]) -> None:
        """The messages are in the hive: their second tick."""
        moved: dict[str, list[str]] = {}
        for row in taken:
            account = tx.web_delivered(row.message_id)
            if account is not None:
                moved.setdefault(account, []).append(row.message_id)
        for account, messages in moved.items():
            first = tx.web_next_n(account, count=len(messages))
            states = [State(message=m, state="delivered", n=n) for n, m in enumerate(messages, first)]
            for state in states:
                tx.put_web_event(account, state.n, message=state.message, state=state.state)
            tx.signals.append(partial(self._hub.publish_all, account, first, states))

    def agents_here(self, tenant: str, instance: str, agents: Sequence[AgentHere]) -> None:
        """Tell the tabs of everybody whom this gateway serves."""
        self._hub.team((tenant, instance), payloads.Agents(agents=tuple(agents)))

    def given_up(self, tx: ConnectorTx, taken: TakenRow) -> None:
        """The message will never get there: say so where it stands, and in words. A choice is open again."""
        asked = prompts.asked_by(taken.message_id)
        row = tx.web_message(asked or taken.message_id)
        owner = tx.web_conversation(row.conversation) if row is not None else None
        if row is None or owner is None:
            return
        if row.prompt is not None:
            what = "Your choice"
            prompt = msgspec.structs.replace(prompts.decode(row.prompt), chosen=None, chosen_at=None)
            tx.set_web_prompt(row.message, prompts.encode(prompt))
            retell(tx, self._hub, owner[0], row.message)
        elif tx.web_failed(row.message) is not None:
            what = "This message"
            self._tell_state(tx, row.conversation, row.message, "failed")
        else:
            return
        notice = NewMessage(
            message=new_id("m", self._clock),
            conversation=row.conversation,
            kind="system",
            name="Skep",
            text=f"{what} could not be delivered: nothing took it in time, or too much was waiting.",
            at=self._clock.now_ms(),
            n=tx.web_next_n(owner[0]),
            reply_to=row.message,
            thread=row.thread,
        )
        self._put(tx, owner[0], notice)

    async def _ask(self, target: Target, hints: Hints, action: Prompt) -> Result:
        prompt = prompts.prompt_of(action, now_ms=self._clock.now_ms())
        if prompt is None:
            return Result(error="the choices cannot be shown", code="bad_format")
        return await self._say(
            target, hints, hints.idem, action.content, reply_to=action.reply_to, prompt=prompt
        )

    async def _say(
        self,
        target: Target,
        hints: Hints,
        key: str | None,
        content: str,
        *,
        reply_to: str | None = None,
        prompt: payloads.Prompt | None = None,
    ) -> Result:
        if not content.strip():
            return Result(error="the text is empty", code="bad_format")
        if len(content.encode()) > MAX_ANSWER_BYTES:
            return Result(error=f"the text is over {MAX_ANSWER_BYTES} bytes", code="too_long")
        message = _message_id(target, key) if key is not None else new_id("m", self._clock)
        speaker = _speaker(hints)
        row = NewMessage(
            message=message,
            conversation=target.chat.chat_id,
            kind=speaker.kind,
            name=speaker.name,
            text=content,
            at=self._clock.now_ms(),
            n=0,
            reply_to=reply_to or (hints.answers[-1] if hints.answers else None),
            thread=hints.thread_id,
            answers=_texts.encode(hints.answers).decode() if hints.answers else None,
            gateway_id=target.gateway_id,
            idem=key,
            prompt_id=prompt.id if prompt is not None else None,
            prompt=prompts.encode(prompt) if prompt is not None else None,
        )
        said = await self._store.write(partial(self._insert, target, row, hints.answers))
        return Result(success=True, message_id=said)

    def _insert(self, target: Target, row: NewMessage, answers: tuple[str, ...], tx: ConnectorTx) -> str:
        """Keep an answer, unless its key was used: return its id, or the first one's."""
        if row.idem is not None:
            said = tx.web_said(target.gateway_id, row.idem)
            if said is not None:
                return said[0]
        if row.thread is not None and not tx.web_thread_begun(row.conversation, row.thread):
            row = row._replace(thread=None)  # a person begins a thread; elsewhere nobody would see it
        account = _account(target)
        for message in answers:  # what it answers counts as seen
            tx.web_seen(message, conversation=row.conversation)
        self._put(tx, account, row._replace(n=tx.web_next_n(account)))
        tx.web_heard_in(row.conversation, now_ms=row.at)
        return row.message

    def _put(self, tx: ConnectorTx, account: str, row: NewMessage) -> None:
        tx.put_web_message(account, row)
        event = MessageEvent(n=row.n, conversation=row.conversation, message=to_message(row.row))
        tx.signals.append(partial(self._hub.publish, account, row.n, event, finished=row.message))

    async def _draft(self, target: Target, hints: Hints, key: str, content: str) -> Result:
        """Show the text so far; after the final text there is nothing left to show."""
        message = _message_id(target, key)
        account = _account(target)
        live = self._hub.live(account)
        if live is None or message not in live.drafts:
            is_finished = live is not None and message in live.finished
            if is_finished or await self._store.read(lambda tx: tx.web_said(target.gateway_id, key)):
                return Result(success=True, message_id=message)
        draft = DraftText(target.chat.chat_id, _speaker(hints).name, content, hints.thread_id)
        self._hub.draft(account, message, draft)
        return Result(success=True, message_id=message)

    def _seen(self, target: Target, message_ids: tuple[str, ...], tx: ConnectorTx) -> Result:
        conversation = target.chat.chat_id
        for message in message_ids:
            if tx.web_seen(message, conversation=conversation) is not None:
                self._tell_state(tx, conversation, message, "seen")
        return Result(success=True)

    def _tell_state(
        self, tx: ConnectorTx, conversation: str, message: str, state: Literal["delivered", "seen", "failed"]
    ) -> None:
        owner = tx.web_conversation(conversation)
        if owner is not None:
            n = tx.web_next_n(owner[0])
            tx.put_web_event(owner[0], n, message=message, state=state)
            event = State(message=message, state=state, n=n)
            tx.signals.append(partial(self._hub.publish, owner[0], n, event))

    async def _edit(self, target: Target, action: Edit) -> Result:
        if not action.content.strip():
            return Result(error="the text is empty", code="bad_format")
        if len(action.content.encode()) > MAX_ANSWER_BYTES:
            return Result(error=f"the text is over {MAX_ANSWER_BYTES} bytes", code="too_long")
        return await self._store.write(partial(self._change, target, action))

    def _change(self, target: Target, action: Edit, tx: ConnectorTx) -> Result:
        """Change the words of a message that this gateway wrote: the same message, a new event."""
        if not tx.edit_web_message(
            action.message_id,
            conversation=target.chat.chat_id,
            gateway_id=target.gateway_id,
            text=action.content,
        ):
            return Result(error="no such message of this connection", code="not_found_message")
        retell(tx, self._hub, _account(target), action.message_id)
        return Result(success=True, message_id=action.message_id)

    async def _info(self, target: Target) -> Result:
        conversation = target.chat.chat_id
        known = await self._store.read(lambda tx: tx.web_conversation(conversation))
        title = known[1] if known else None
        return Result(success=True, chat_info={"name": title or "", "type": "dm"})


def new_id(kind: Literal["c", "m"], clock: Clock) -> str:
    """Return an id that no other database repeats: the hive outlives this one."""
    return f"{kind}_{uuid7(clock.now_ms()).replace('-', '')}"


def retell(tx: ConnectorTx, hub: Hub, account: str, message: str) -> None:
    """Tell the tabs of `account` a message as it is now: the same message, a new event."""
    row = tx.web_message(message)
    if row is not None:
        n = tx.web_next_n(account)
        tx.put_web_event(account, n, message=message, state=None)
        event = MessageEvent(n=n, conversation=row.conversation, message=to_message(row))
        tx.signals.append(partial(hub.publish, account, n, event))


def to_message(row: MessageRow) -> WebMessage:
    """Return a stored message as tabs see it."""
    return WebMessage(
        id=row.message,
        from_=Speaker(kind=cast("SpeakerKind", row.kind), name=row.name),
        text=row.text,
        reply_to=row.reply_to,
        answers=_texts_decoder.decode(row.answers) if row.answers else (),
        at=row.at,
        thread=row.thread,
        state=cast("MessageState | None", row.state),
        client_id=row.client_id,
        prompt=prompts.decode(row.prompt) if row.prompt is not None else None,
    )


def _account(target: Target) -> str:
    """Return whose conversation this is: a direct chat has one person, its author."""
    return target.chat.user_id or ""


def _speaker(hints: Hints) -> Speaker:
    name = hints.agent or "agent"
    return Speaker(kind="system" if name in _SYSTEM else "agent", name="Skep" if name == "system" else name)


def _draft_key(action: Draft, hints: Hints) -> str:
    return hints.idem or f"draft:{action.draft_id}"


def _message_id(target: Target, key: str) -> str:
    return "m_" + hashlib.sha256(f"{target.gateway_id}\n{key}".encode()).hexdigest()[:32]


_texts: Final = msgspec.json.Encoder()
_texts_decoder: Final = msgspec.json.Decoder(tuple[str, ...])
