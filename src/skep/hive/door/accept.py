"""Events of platforms, each taken whole or not at all.

Source: control protocol, sections 4 and 5; hive, sections 2 and 8.1; relay contract, section 16.
Runs in the writer thread: it may use its transaction and what it is handed, and nothing else. Events that wait
together are taken together.
The author comes from the event's account alone; no field of a frame changes whose person it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from skep.broker import asks, ops, people
from skep.broker.errors import ClosedError, NotAllowedError, NotFoundError
from skep.broker.rules import Rules
from skep.broker.types import SYSTEM, Actor, Chat, ChatSeen, Draft, IntakeKey
from skep.hive.door.commands import admits, agent_of_chat, run_command
from skep.hive.door.text import MAX_BODY_BYTES, Command, cut_body, read_mention
from skep.hive.ports import Agents
from skep.identity.people import Person, account_of, resolve
from skep.store.ports import HiveTx, Row
from skep.wire.control.door import AcceptResult
from skep.wire.relay.event import MessageEvent, PromptResponse, context_text

__all__ = ["Arrival", "accept_all", "intake_key", "refuse"]

_NAME_MAX: Final = 200
_NUMBER_MAX: Final = 4
_LABEL_MAX: Final = 200
_BASE_36: Final = re.compile(r"[0-9a-z]{1,12}")


class Arrival(msgspec.Struct, frozen=True):
    """An event, and what the loop knows of it.

    Attributes:
        key: Of table `intake`.
        raw: The event as it came.
        command: That its text is.
        runs: Whether a turn of its session runs now.
        quiet_ms: How long its lane waits for more of the same burst.
    """

    relay: str
    key: IntakeKey
    raw: msgspec.Raw
    event: MessageEvent
    session: str
    command: Command | None
    runs: bool
    quiet_ms: int


def intake_key(relay: str, event: MessageEvent, *, buffer_id: str | None) -> IntakeKey:
    """Return the key of an event; one of an edit has its time, and one of a deletion says so."""
    source = event.source
    message = event.edit_of or event.message_id or buffer_id
    if message is None:
        raise ValueError("event has neither `message_id` nor a buffer id")
    if event.message_type == "edited":
        message = f"{message}:e:{event.edited_at or 0}"
    elif event.message_type == "deleted":
        message = f"{message}:d"
    return IntakeKey(message, f"{relay}:{source.platform}:{source.scope_id or ''}:{source.chat_id}")


def accept_all(rules: Rules, agents: Agents, tx: HiveTx, arrivals: Sequence[Arrival]) -> list[AcceptResult]:
    """Take events, in order: a repeat is known by its key, whatever it was."""
    keys = [(arrival.key.event, arrival.key.place) for arrival in arrivals]
    known: dict[IntakeKey, str | None] = {
        IntakeKey(event, place): message for event, place, message in tx.many("intake_known", keys)
    }
    batch = _Batch(tx, rules, agents, ops.Post(tx, rules))
    taken: list[tuple[IntakeKey, AcceptResult]] = []
    results: list[AcceptResult] = []
    for arrival in arrivals:
        if arrival.key in known:
            accepted = AcceptResult(outcome="duplicate", message_id=known[arrival.key])
        else:
            accepted = batch.accept(arrival)
            known[arrival.key] = accepted.message_id
            taken.append((arrival.key, accepted))
        results.append(accepted)
    batch.post.flush()
    people.keep_intake(tx, rules, taken)
    return results


def refuse(
    tx: HiveTx, *, rules: Rules, key: IntakeKey, relay: str, event: msgspec.Raw, reason: str
) -> AcceptResult:
    """Keep an event that cannot be read or broke something, with the dead letters."""
    known = people.intake(tx, key)
    if known is not None:
        return AcceptResult(outcome="duplicate", message_id=known.message_id)
    refused = AcceptResult(outcome="refused", reason=reason)
    people.keep_refused(tx, rules, key, relay=relay, event=as_text(event), reason=reason)
    people.keep_intake(tx, rules, ((key, refused),))
    return refused


def as_text(event: msgspec.Raw) -> str:
    """Return the bytes of an event as text, whatever they are."""
    return bytes(event).decode("utf-8", "replace")


class _Batch(msgspec.Struct, frozen=True):
    """What events that are taken together have in common.

    Attributes:
        post: Messages that are written together at the end; flushed before anything that must come after them.
    """

    tx: HiveTx
    rules: Rules
    agents: Agents
    post: ops.Post

    def accept(self, arrival: Arrival) -> AcceptResult:
        """Take one event that did not come before."""
        tx, rules, source = self.tx, self.rules, arrival.event.source
        account = account_of(source)
        if account is None:
            return self._refuse(arrival, "the event names no author")
        person = resolve(tx, account, name=source.user_name, at=rules.time.stamp())
        if person.is_blocked:
            return self._refuse(arrival, "the person is blocked")
        chat = people.see_chat(tx, rules, _seen(arrival, person))
        return _Heard(self, arrival, chat, person).handle()

    def _refuse(self, arrival: Arrival, reason: str) -> AcceptResult:
        event = as_text(arrival.raw)
        people.keep_refused(self.tx, self.rules, arrival.key, relay=arrival.relay, event=event, reason=reason)
        return AcceptResult(outcome="refused", reason=reason)


class _Heard(msgspec.Struct, frozen=True):
    """An event of a person who may write, in a chat."""

    batch: _Batch
    arrival: Arrival
    chat: Chat
    person: Person

    def handle(self) -> AcceptResult:
        """Do what the event says: answer an ask, run a command, or tell an agent."""
        event = self.arrival.event
        if event.message_type == "deleted":
            return AcceptResult(outcome="handled")
        if event.prompt_response is not None:
            return self._answer_prompt(event.prompt_response)
        if self.arrival.command is not None:
            return self._run(self.arrival.command)
        if (asked := self._asked_by_reply()) is not None:
            return self._answer(*asked)
        return self._store()

    def _run(self, command: Command) -> AcceptResult:
        text = run_command(
            self.batch.tx,
            command,
            agents=self.batch.agents,
            chat=self.chat,
            person=self.person,
            name=self.arrival.event.source.user_name,
            runs=self.arrival.runs,
        )
        return self._say(text)

    def _store(self) -> AcceptResult:
        """Hand the message to the agent that it is for."""
        arrival, chat, event = self.arrival, self.chat, self.arrival.event
        agent, text = _agent_and_text(self.batch.agents, chat, event.text)
        card = self.batch.agents.get(agent)
        if card is None or not admits(card, self.person):
            return self._say(f"**{agent}** does not take messages from you.")
        body, missing = cut_body(_with_context(event, text))
        draft = Draft(
            to=f"agent:{agent}",
            body=body,
            session=arrival.session,
            in_reply_to=self._replied_to(),
            origin=_origin(arrival, chat),
            chat=chat.id,
            platform_id=event.message_id,
            quiet_ms=arrival.quiet_ms,
        )
        try:
            sent = self.batch.post.send(self._actor(), draft)
        except NotAllowedError:
            return self._say(f"**{agent}** does not take messages from you.")
        if missing:
            self._tell(f"Your message was too long: the last {missing} bytes of it were cut.", answers=())
        return AcceptResult(outcome="stored", message_id=sent.id)

    def _answer_prompt(self, response: PromptResponse) -> AcceptResult:
        """A pressed button answers the ask that it belongs to."""
        mark, _, number = response.prompt_id.partition(".")
        relay = self.arrival.relay
        is_ours = mark == hashlib.sha256(relay.encode()).hexdigest()[:4] and _BASE_36.fullmatch(number)
        ask = self.batch.tx.one("door_ask_of_delivery", int(number, 36)) if is_ours else None
        if ask is None or ask[1] != self.person.principal:
            return self._say("There is no such question to you.")
        chosen = _chosen(_choices(ask), response.option_id) or response.label or response.option_id
        return self._answer(ask[0], chosen)

    def _asked_by_reply(self) -> tuple[str, str] | None:
        """Return the ask that the text answers, and with what.

        A reply to a question answers it; so does a number or a label, the newest one with choices.
        """
        tx, principal = self.batch.tx, self.person.principal
        if not asks.has_open(tx, principal):
            return None
        text = self.arrival.event.text.strip()
        replied = self._replied_to()
        ask = tx.one("door_ask", replied) if replied is not None else None
        if ask is not None and ask[1:3] == (principal, "open"):
            return ask[0], _chosen(_choices(ask), text) or text
        ask = tx.one("door_newest_ask", principal, self.chat.id) if len(text) <= _LABEL_MAX else None
        if ask is None or (chosen := _chosen(_choices(ask), text)) is None:
            return None
        return ask[0], chosen

    def _answer(self, ask_id: str, text: str) -> AcceptResult:
        body, _ = cut_body(text)
        self.batch.post.flush()
        try:
            sent = asks.answer(
                self.batch.tx,
                self.batch.rules,
                self._actor(),
                ask_id,
                body,
                chat=self.chat.id,
                platform_id=self.arrival.event.message_id,
            )
        except (ClosedError, NotFoundError):
            return self._say("That question is closed already.")
        return AcceptResult(outcome="handled", message_id=sent.id)

    def _say(self, text: str) -> AcceptResult:
        """Answer the event itself, without a turn."""
        message_id = self.arrival.event.message_id
        said = self._tell(text, answers=(message_id,) if message_id else ())
        return AcceptResult(outcome="handled", message_id=said)

    def _tell(self, text: str, *, answers: tuple[str, ...]) -> str:
        draft = Draft(to=self.person.principal, body=text, kind="system", chat=self.chat.id, answers=answers)
        return ops.send(self.batch.tx, self.batch.rules, SYSTEM, draft).id

    def _replied_to(self) -> str | None:
        """Return our message that the event replies to."""
        replied = self.arrival.event.reply_to_message_id
        return None if replied is None else people.answered_message(self.batch.tx, self.chat.id, replied)

    def _actor(self) -> Actor:
        return Actor(principal=self.person.principal, role="person")


def _agent_and_text(agents: Agents, chat: Chat, text: str) -> tuple[str, str]:
    """Return who is to answer and what is said to them: `@name`, the chat's agent, the default."""
    mention = read_mention(text)
    if mention is not None and agents.get(mention[0]) is not None:
        return mention[0], mention[1] or text
    return agent_of_chat(agents, chat), text


def _with_context(event: MessageEvent, text: str) -> str:
    """Return the text with what was said around it, if both fit."""
    body = text or (event.media[0].caption if event.media else None) or f"[{event.message_type}]"
    context = context_text(event) if event.context else None
    if context is None or len(context.encode()) + len(body.encode()) + 2 > MAX_BODY_BYTES:
        return body
    return f"{context}\n\n{body}"


def _seen(arrival: Arrival, person: Person) -> ChatSeen:
    source = arrival.event.source
    return ChatSeen(
        arrival.relay,
        source.platform,
        source.bot_id or "",
        source.chat_id,
        source.scope_id or "",
        source.thread_id or "",
        source.chat_type,
        source.user_id or "",
        person.id,
    )


class _Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the agent may know of where a message comes from."""

    platform: str
    relay: str
    chat_id: str
    chat_type: str
    chat_name: str | None = None
    name: str | None = None
    message_id: str | None = None
    edit_of: str | None = None


def _origin(arrival: Arrival, chat: Chat) -> _Origin:
    event, source = arrival.event, arrival.event.source
    return _Origin(
        chat.platform,
        chat.relay,
        chat.chat_id,
        chat.chat_type,
        source.chat_name,
        source.user_name[:_NAME_MAX] if source.user_name else None,
        event.message_id,
        event.edit_of,
    )


def _choices(ask: Row) -> tuple[str, ...]:
    return msgspec.json.decode(ask[3], type=tuple[str, ...]) if ask[3] else ()


def _chosen(choices: tuple[str, ...], text: str) -> str | None:
    """Return the choice that `text` names, by number or by label."""
    if text.isdecimal() and len(text) <= _NUMBER_MAX and 0 < int(text) <= len(choices):
        return choices[int(text) - 1]
    return next((choice for choice in choices if choice.casefold() == text.casefold()), None)
