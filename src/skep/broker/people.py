"""People's events and chats as rows of the hive, changed in the same transaction as envelopes.

Source: control protocol, sections 4 and 5. Who a person *is* decides the package `identity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from skep.broker.rules import Rules
from skep.broker.types import Chat, ChatSeen, Intake, IntakeKey
from skep.store.ports import HiveTx

__all__ = [
    "HEARD_EVERY_MS",
    "Outcome",
    "answered_message",
    "bind_agent",
    "intake",
    "keep_intake",
    "keep_refused",
    "see_chat",
]


HEARD_EVERY_MS: Final = 60_000
"""How often it is written down that somebody or some chat was heard from."""


def intake(tx: HiveTx, key: IntakeKey) -> Intake | None:
    """Return what became of the event with this key, if it came before."""
    row = tx.one("intake_get", key.event, key.place)
    return Intake(outcome=row[0], message_id=row[1], reason=row[2]) if row else None


class Outcome(Protocol):
    """What became of an event: `stored`, `handled` or `refused`."""

    @property
    def outcome(self) -> str: ...
    @property
    def message_id(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...


def keep_intake(tx: HiveTx, rules: Rules, taken: Sequence[tuple[IntakeKey, Outcome]]) -> None:
    """Keep what became of events, in the transaction that acts on them."""
    at = rules.time.stamp()
    tx.many(
        "intake_put",
        [(key.event, key.place, one.outcome, one.message_id, one.reason, at) for key, one in taken],
    )


def keep_refused(tx: HiveTx, rules: Rules, key: IntakeKey, *, relay: str, event: str, reason: str) -> None:
    """Keep an event that will never be taken, for the operator."""
    tx.run("refused_put", f"{key.place}:{key.event}", relay, event, reason, rules.time.stamp())


class _Heard(msgspec.Struct, frozen=True):
    """A chat as it was written down last, and when (UTC milliseconds)."""

    chat: Chat
    at: int


def see_chat(tx: HiveTx, rules: Rules, seen: ChatSeen) -> Chat:
    """Return the chat of an event, made or brought up to date; note that its person writes there.

    What would only move a time on is written once a minute, or when the person has been elsewhere meanwhile.
    """
    now = rules.time.stamp()
    heard: _Heard | None = tx.memo.get(seen)
    if heard is None or now - heard.at >= HEARD_EVERY_MS or tx.memo.get(("seen", heard.chat.id)) is not heard:
        heard = _put_chat(tx, seen, now)
    here = heard.chat.id
    if seen.person is not None and tx.memo.get(("writes in", seen.person)) != here:
        tx.run("chat_person_put", here, seen.person, now)
        tx.memo["writes in", seen.person] = here
    return heard.chat


def _put_chat(tx: HiveTx, seen: ChatSeen, now: int) -> _Heard:
    row = tx.one(
        "chat_put",
        seen.relay,
        seen.platform,
        seen.bot_id,
        seen.scope_id,
        seen.chat_id,
        seen.thread_id,
        seen.chat_type,
        seen.user_id,
        now,
    )
    assert row is not None
    heard = tx.memo[seen] = tx.memo["seen", row[0]] = _Heard(Chat(*row), now)
    if seen.person is not None:
        tx.memo.pop(("writes in", seen.person), None)
    return heard


def bind_agent(tx: HiveTx, chat_id: int, agent: str | None) -> None:
    """Let this agent answer in a chat; `None`: the default one."""
    tx.run("chat_bind", chat_id, agent)
    tx.forget()


def answered_message(tx: HiveTx, chat_id: int, platform_id: str) -> str | None:
    """Return the id of our message that the platform calls `platform_id`: what a person replies to."""
    row = tx.one("said_get", chat_id, platform_id)
    return row[0] if row else None
