"""One tab: a WebSocket of somebody who is signed in.

Source: control protocol, section 13. What is durable is sent in the order of its numbers, from memory when the
tab keeps up and from the store when it does not; drafts and typing are sent as the difference to what
this tab has shown. One writer per tab: while it waits for a slow one, the state behind it goes on.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import msgspec
from aiohttp import WSMsgType, web

from skep.connector.interrupts import Interrupts
from skep.connector.platforms.web.accounts import Session
from skep.connector.platforms.web.corked import send_all
from skep.connector.platforms.web.hub import AtWork, DraftText, Hub, Live
from skep.connector.platforms.web.inbox import Inbox, Own
from skep.connector.platforms.web.payloads import (
    Choose,
    Draft,
    MessageEvent,
    Problem,
    Read,
    Ready,
    Reset,
    Resume,
    Send,
    State,
    Stop,
    Stored,
    Typing,
    decode_incoming,
    encode,
)
from skep.connector.platforms.web.platform import SITE, WEB, to_message
from skep.foundation.clock import Clock
from skep.foundation.errors import RefusedError, SkepError, TryAgainError, WireError
from skep.foundation.log import get_logger
from skep.foundation.tasks import TaskSet
from skep.store.sqlite.connector import ConnectorStore, EventRow

__all__ = ["CLOSE_SIGNED_OUT", "MAX_REPLAY", "TabSocket"]

CLOSE_SIGNED_OUT: Final = 4401
MAX_REPLAY: Final = 2_000
"""Events that are replayed to a tab; behind more than that, it reloads over HTTP."""
SENDS_MAX: Final = 1_024
"""Messages of one tab that may be on their way to the disk."""
CORKED_MAX: Final = 256
"""Messages to a tab that go in one write, at most."""
DRAFT_EVERY_S: Final = 0.1
_PAGE: Final = 200
_ANSWERS_MAX: Final = 64

_log = get_logger(part="web")


class TabSocket:
    """Serves one tab until it is gone."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        session: Session,
        *,
        store: ConnectorStore,
        hub: Hub,
        inbox: Inbox,
        interrupts: Interrupts,
        clock: Clock,
    ) -> None:
        self._socket: Final = socket
        self._request: Final = request
        self._session: Final = session
        self._store: Final = store
        self._hub: Final = hub
        self._inbox: Final = inbox
        self._interrupts: Final = interrupts
        self._clock: Final = clock
        self._news: Final = asyncio.Event()
        self._tasks: Final = TaskSet(on_error=self._failed)
        self._own: Final = Own(answers={})
        self._answers: Final[list[bytes]] = []
        self._out: list[bytes] = []
        self._sends: Final[set[asyncio.Future[Stored | None]]] = set()
        self._live: Live | None = None
        self._cursor = 0
        self._drafts: Final[dict[str, str]] = {}
        self._typing: Final[set[AtWork]] = set()
        self._served: tuple[str, str] | None = None
        self._team: bytes | None = None
        self._drafts_at_ms = 0
        self._draft_timer: asyncio.TimerHandle | None = None

    @property
    def handle(self) -> bytes:
        """Hash of the session that opened it."""
        return self._session.handle

    def wake(self) -> None:
        """Something is new."""
        self._news.set()

    def sign_out(self) -> None:
        """Close: the session is over."""
        self._tasks.spawn(self._socket.close(code=CLOSE_SIGNED_OUT, message=b"signed out"))

    async def serve(self) -> None:
        """Hear the tab until it hangs up."""
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    continue  # binary is not spoken here
                await self._hear(message.data)
        finally:
            if self._draft_timer is not None:
                self._draft_timer.cancel()
            self._hub.leave(self._session.account, self)
            await self._tasks.close()

    # What the tab says.

    async def _hear(self, data: bytes) -> None:
        client_id: str | None = None
        try:
            said = decode_incoming(data)
            if isinstance(said, Resume):
                await self._resume(said.n)
                return
            if self._live is None:
                raise WireError("the first message is not `resume`", code="web.resume_first")
            if self._sends and not isinstance(said, Send):
                await asyncio.wait(self._sends)  # what was said before counts before
            match said:
                case Send():
                    client_id = said.id
                    await self._keep(said)
                case Stop():
                    await self._stop(said)
                case Read():
                    await self._read(said.conversation)
                case Choose():
                    client_id = said.prompt
                    await self._inbox.choose(self._session, said)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            problem = WireError("the message is not one of this socket's", code="web.bad_message")
            self._answer(_problem(problem, client_id))
        except SkepError as error:
            self._answer(_problem(error, client_id))

    async def _keep(self, said: Send) -> None:
        """Have words stored; hear on meanwhile, up to a bound."""
        if len(self._sends) >= SENDS_MAX:
            await asyncio.wait(self._sends, return_when=asyncio.FIRST_COMPLETED)
        sending = self._inbox.send(self._session, said, self._own)
        self._sends.add(sending)
        sending.add_done_callback(partial(self._kept, said.id))

    def _kept(self, client_id: str, sending: asyncio.Future[Stored | None]) -> None:
        self._sends.discard(sending)
        if sending.cancelled():
            return
        error = sending.exception()
        if error is None:
            if (stored := sending.result()) is not None:
                self._answer(stored)
        elif isinstance(error, SkepError):
            self._answer(_problem(error, client_id))
        else:
            self._failed(error)

    async def _resume(self, n: int) -> None:
        """Go on after event `n`; too far behind, or from another database, the tab starts afresh."""
        if self._live is not None:
            raise WireError("`resume` was said before", code="web.resume_first")
        account = self._session.account
        live = self._hub.join(account, self)
        row, self._served = await self._store.read(
            lambda tx: (tx.web_account(account), tx.binding(WEB, SITE, account))
        )
        if row is None:
            raise WireError("no such account", code="web.not_found")
        live.n = max(live.n, row.n)
        if n < 0:
            n = live.n
        elif n > live.n or live.n - n > MAX_REPLAY:
            n = live.n
            self._answer(Reset(n=n))
        self._cursor = n
        self._live = live
        self._tasks.spawn(self._write(live))

    async def _stop(self, said: Stop) -> None:
        await self._check_own(said.conversation)
        self._hub.typing_off(self._session.account, said.conversation, said.thread)
        await self._interrupts.stop(
            tenant=self._session.tenant, platform=WEB, chat_id=said.conversation, thread_id=said.thread
        )

    async def _read(self, conversation: str) -> None:
        await self._check_own(conversation)
        await self._store.write(lambda tx: tx.read_web_conversation(conversation))

    async def _check_own(self, conversation: str) -> None:
        owner = await self._store.read(lambda tx: tx.web_conversation(conversation))
        if owner is None or owner[0] != self._session.account:
            raise RefusedError("no such conversation", code="web.not_found")

    def _answer(self, what: object) -> None:
        if len(self._answers) < _ANSWERS_MAX:  # a tab that floods and does not read loses answers
            self._answers.append(encode(what))
        if self._live is None:
            self._tasks.spawn(self._answer_now())
        self._news.set()

    # What the tab is told.

    async def _write(self, live: Live) -> None:
        """Tell the tab what is new, for ever."""
        await self._catch_up(live)
        self._answer(Ready(n=self._cursor))
        while True:
            self._news.clear()
            await self._catch_up(live)
            self._take_answers()
            self._tell_drafts(live)
            self._tell_typing(live)
            self._tell_team()
            await self._flush()
            await self._news.wait()

    async def _catch_up(self, live: Live) -> None:
        """Send every event up to the newest one."""
        while self._cursor < live.n:
            n = self._cursor + 1
            event = live.event(n)
            if event is None:
                await self._catch_up_from_store(live)
                continue
            self._cursor = n
            self._out.append(self._own.answers.pop(n, event))
            if self._drafts:
                self._forget_finished(live)
            if len(self._out) >= CORKED_MAX:
                await self._flush()

    async def _catch_up_from_store(self, live: Live) -> None:
        after, account = self._cursor, self._session.account
        rows = await self._store.read(lambda tx: tx.web_events(account, after=after, limit=_PAGE))
        for row in rows:
            self._cursor = row.n
            self._out.append(self._own.answers.pop(row.n, None) or encode(_event(row)))
            self._drafts.pop(row.message.message, None)
        await self._flush()
        if not rows:
            self._cursor = live.n  # swept away long ago

    def _forget_finished(self, live: Live) -> None:
        """A message has replaced its draft in the tab; so there is nothing left to clear."""
        for message in [message for message in self._drafts if message in live.finished]:
            del self._drafts[message]

    def _take_answers(self) -> None:
        self._out += self._answers
        self._answers.clear()

    async def _answer_now(self) -> None:
        self._take_answers()
        await self._flush()

    def _tell_drafts(self, live: Live) -> None:
        """Send what each draft has that this tab has not shown, at most every 0.1 s."""
        if not live.drafts and not self._drafts:
            return
        wait_s = DRAFT_EVERY_S - (self._clock.monotonic_ms() - self._drafts_at_ms) / 1000
        if wait_s > 0:
            if self._draft_timer is None:
                self._draft_timer = asyncio.get_running_loop().call_later(wait_s, self._drafts_due)
            return
        changed = [(m, draft) for m, draft in live.drafts.items() if self._drafts.get(m) != draft.text]
        for message, draft in changed:
            step = _step(message, draft, self._drafts.get(message, ""))
            self._drafts[message] = draft.text
            self._drafts_at_ms = self._clock.monotonic_ms()
            self._out.append(encode(step))
        for message in [message for message in self._drafts if message not in live.drafts]:
            del self._drafts[message]

    def _drafts_due(self) -> None:
        self._draft_timer = None
        self._news.set()

    def _tell_typing(self, live: Live) -> None:
        now = set(live.typing)
        for key in now ^ self._typing:
            typing = Typing(conversation=key.conversation, agent=key.agent, on=key in now, thread=key.thread)
            self._out.append(encode(typing))
        self._typing.clear()
        self._typing.update(now)

    def _tell_team(self) -> None:
        team = self._hub.team_of(self._served)
        if team is not None and team is not self._team:
            self._team = team
            self._out.append(team)

    async def _flush(self) -> None:
        """Send what there is, and wait until the tab keeps up."""
        messages, self._out = self._out, []
        await send_all(self._socket, self._request, messages)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, (ConnectionError, SkepError)):
            # Gone, or the store is: the tab dials again and resumes.
            self._tasks.spawn(self._socket.close(code=1011))
        else:
            _log.error("tab_failed", exc_info=error)
            self._tasks.spawn(self._socket.close(code=1011))


def _step(message: str, draft: DraftText, shown: str) -> Draft:
    """Return what turns `shown` into the draft's text."""
    text = draft.text
    at = len(shown)
    if not text.startswith(shown):
        at = next(
            (i for i, (a, b) in enumerate(zip(shown, text, strict=False)) if a != b), min(at, len(text))
        )
    return Draft(
        conversation=draft.conversation,
        message=message,
        agent=draft.agent,
        at=at,
        add=text[at:],
        thread=draft.thread,
    )


def _event(row: EventRow) -> MessageEvent | State:
    match row.told:
        case "delivered" | "seen" | "failed":
            return State(message=row.message.message, state=row.told, n=row.n)
        case _:
            return MessageEvent(
                n=row.n, conversation=row.message.conversation, message=to_message(row.message)
            )


def _problem(error: SkepError, client_id: str | None) -> Problem:
    return Problem(
        ok=False,
        code=error.code,
        problem=error.problem,
        hint=error.hint,
        id=client_id,
        retry_after_ms=int(error.retry_after_s * 1000) if isinstance(error, TryAgainError) else None,
    )
