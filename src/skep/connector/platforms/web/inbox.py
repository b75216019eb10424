"""A person's words in the web chat, on their way in.

Source: control protocol, section 13. The message and its delivery are one transaction: `stored` means that
both are on disk. The same `id` again in the same conversation gets the same answer and changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from skep.connector.intake import Intake, Taken
from skep.connector.limits import Bucket
from skep.connector.platform import Inbound
from skep.connector.platforms.web import prompts
from skep.connector.platforms.web.accounts import Session
from skep.connector.platforms.web.hub import Hub
from skep.connector.platforms.web.payloads import (
    MAX_TEXT_BYTES,
    Choose,
    MessageEvent,
    Send,
    Stored,
    encode,
)
from skep.connector.platforms.web.platform import SITE, WEB, new_id, retell, to_message
from skep.foundation.clock import Clock
from skep.foundation.errors import BusyError, RefusedError, WireError
from skep.store.sqlite.connector import ConnectorTx, NewMessage
from skep.wire.relay import event as relay
from skep.wire.relay.event import SessionSource

__all__ = ["Inbox", "Own"]

MESSAGES_PER_MINUTE: Final = 30
TITLE_FROM_CHARS: Final = 60


@dataclass(slots=True)
class Own:
    """What one socket sent itself: it sees `stored` where the other tabs see the message."""

    answers: dict[int, bytes]


class Inbox:
    """Takes what people write."""

    def __init__(
        self,
        intake: Intake,
        hub: Hub,
        clock: Clock,
        *,
        per_minute: int = MESSAGES_PER_MINUTE,
    ) -> None:
        self._intake: Final = intake
        self._hub: Final = hub
        self._clock: Final = clock
        self._per_minute: Final = per_minute
        self._buckets: Final[dict[str, Bucket]] = {}
        self.last_event_at: int | None = None

    def send(self, session: Session, said: Send, own: Own) -> asyncio.Future[Stored | None]:
        """Keep `said` and hand it on. What is sent first is kept first, without waiting in between.

        Returns:
            A future, done when it is on disk: the answer when it was sent before; `None` when the
            answer is an event, in `own`.

        Raises:
            WireError: Too long, empty, or (by the future) not of this account.
            RefusedError: By the future: nobody here answers this account.
            BusyError: Too many messages in the last minute.
            StoreUnavailableError: By the future: not stored; to be sent again.
        """
        size = len(said.text.encode())
        if size > MAX_TEXT_BYTES:
            raise WireError(
                f"the text has {size} bytes, {MAX_TEXT_BYTES} are the most",
                hint="send it in parts",
                code="web.too_large",
            )
        if not said.text.strip():
            raise WireError("the text is empty", code="web.empty")
        self._spend(session.account)
        now_ms = self._clock.now_ms()
        self.last_event_at = now_ms
        event = _event(session, said, message=new_id("m", self._clock))
        inbound = Inbound.of(event, dedupe_key=None)  # the message's own row tells a repeat
        return self._intake.write(partial(self._keep, session, said, inbound, own, now_ms))

    def _keep(
        self, session: Session, said: Send, inbound: Inbound, own: Own, now_ms: int, tx: ConnectorTx
    ) -> Stored | None:
        owner = tx.web_conversation(said.conversation)
        if owner is None or owner[0] != session.account:
            raise WireError("no such conversation", code="web.not_found")
        sent = tx.web_sent(said.conversation, said.id)
        if sent is not None:
            return Stored(id=said.id, message=sent[0], n=sent[1])
        if said.thread is not None and (about := _about(tx, said.conversation, said.thread)):
            event = _event(session, said, message=inbound.message_id, context=about)
            inbound = Inbound.of(event, dedupe_key=None)
        self._take(inbound, tx)
        row = NewMessage(
            message=inbound.message_id,
            conversation=said.conversation,
            kind="person",
            name=session.name,
            text=said.text,
            at=now_ms,
            n=tx.web_next_n(session.account),
            reply_to=said.reply_to,
            thread=said.thread,
            client_id=said.id,
            state="stored",
        )
        seq = tx.put_web_message(session.account, row)
        title = _title(said.text) if owner[1] is None else None
        tx.web_said_in(said.conversation, seq=seq, title=title, now_ms=now_ms)
        tx.signals.append(partial(self._publish, session.account, row, own))
        return None

    async def choose(self, session: Session, said: Choose) -> None:
        """Take a press on a choice; one that was taken before changes nothing.

        Raises:
            WireError: There is no such choice, or it is no longer open.
            RefusedError: Nobody here answers this account.
            BusyError: Too many messages in the last minute.
            StoreUnavailableError: Not stored; to be pressed again.
        """
        self._spend(session.account)
        self.last_event_at = self._clock.now_ms()
        await self._intake.write(partial(self._press, session, said, self.last_event_at))

    def _press(self, session: Session, said: Choose, now_ms: int, tx: ConnectorTx) -> None:
        owner = tx.web_conversation(said.conversation)
        row = tx.web_prompt(said.conversation, said.prompt)
        if owner is None or owner[0] != session.account or row is None or row.prompt is None:
            raise WireError("no such question", code="web.not_found")
        prompt = prompts.decode(row.prompt)
        option = next((option for option in prompt.options if option.id == said.option), None)
        if option is None:
            raise WireError("no such choice", code="web.not_found")
        if prompt.chosen == option.id:
            return
        if prompt.chosen is not None or (prompt.until is not None and prompt.until <= now_ms):
            raise WireError("this is no longer open", hint="write what you want instead", code="web.not_open")
        source = _source(session, said.conversation)
        self._take(Inbound.of(prompts.press(row, prompt, option, source), dedupe_key=None), tx)
        chosen = msgspec.structs.replace(prompt, chosen=option.id, chosen_at=now_ms)
        tx.set_web_prompt(row.message, prompts.encode(chosen))
        retell(tx, self._hub, session.account, row.message)

    def _take(self, inbound: Inbound, tx: ConnectorTx) -> None:
        if self._intake.take(inbound, tx) is Taken.UNBOUND:
            raise RefusedError(
                "nobody answers this account here",
                hint="ask whoever runs this Skep to invite you again",
                code="web.not_bound",
            )

    def _publish(self, account: str, row: NewMessage, own: Own) -> None:
        client_id = row.client_id or ""
        own.answers[row.n] = encode(Stored(id=client_id, message=row.message, n=row.n))
        event = MessageEvent(n=row.n, conversation=row.conversation, message=to_message(row.row))
        self._hub.publish(account, row.n, event)

    def _spend(self, account: str) -> None:
        bucket = self._buckets.get(account)
        if bucket is None:
            bucket = self._buckets[account] = Bucket(
                per_minute=self._per_minute, burst=self._per_minute, clock=self._clock
            )
        wait_s = bucket.spend()
        if wait_s:
            raise BusyError(
                f"more than {self._per_minute} messages in a minute",
                hint="wait a little",
                code="web.rate_limited",
                retry_after_s=wait_s,
            )


def _event(
    session: Session, said: Send, *, message: str, context: tuple[relay.MessageEvent, ...] = ()
) -> relay.MessageEvent:
    """Return the message as gateways get it."""
    return relay.MessageEvent(
        text=said.text,
        message_id=message,
        reply_to_message_id=said.reply_to,
        context=context,
        source=_source(session, said.conversation, message=message, thread=said.thread),
    )


def _about(tx: ConnectorTx, conversation: str, thread: str) -> tuple[relay.MessageEvent, ...]:
    """Return what a thread is about, for its first reply: whoever answers there knows nothing else of it.

    Raises:
        WireError: Nothing was said there, and no message of the conversation itself is called so.
    """
    if tx.web_thread_begun(conversation, thread):
        return ()
    first = tx.web_message(thread)
    if first is None or first.conversation != conversation or first.thread is not None:
        raise WireError("no such thread", hint="write in the conversation itself", code="web.not_found")
    source = SessionSource(platform=WEB, chat_id=conversation, chat_type="dm", user_name=first.name)
    return (relay.MessageEvent(text=first.text, message_id=thread, source=source),)


def _source(
    session: Session, conversation: str, *, message: str | None = None, thread: str | None = None
) -> SessionSource:
    return SessionSource(
        platform=WEB,
        chat_id=conversation,
        chat_type="dm",
        user_id=session.account,
        user_name=session.name,
        thread_id=thread,
        scope_id=SITE,
        message_id=message,
        bot_id=SITE,
        user_ns=SITE,
    )


def _title(text: str) -> str:
    """Return a name for a conversation that has none: its first words."""
    line = text.strip().splitlines()[0]
    return line if len(line) <= TITLE_FROM_CHARS else line[: TITLE_FROM_CHARS - 1].rstrip() + "…"
