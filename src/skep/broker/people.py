"""People's events and chats as rows of the hive, changed in the same transaction as envelopes.

Source: control protocol, sections 4 and 5. Who a person *is* decides the package `identity`.
"""

from __future__ import annotations

from skep.broker.rules import Rules
from skep.broker.types import Chat, ChatSeen, Intake
from skep.store.ports import HiveTx

__all__ = ["answered_message", "bind_agent", "intake", "keep_intake", "keep_refused", "see_chat"]


def intake(tx: HiveTx, key: str) -> Intake | None:
    """Return what became of the event with this key, if it came before."""
    row = tx.one("intake_get", key)
    return Intake(outcome=row[0], message_id=row[1], reason=row[2]) if row else None


def keep_intake(tx: HiveTx, rules: Rules, key: str, taken: Intake) -> None:
    """Keep what became of an event, in the transaction that acts on it."""
    tx.run("intake_put", key, taken.outcome, taken.message_id, taken.reason, rules.time.stamp())


def keep_refused(tx: HiveTx, rules: Rules, key: str, *, relay: str, event: str, reason: str) -> None:
    """Keep an event that will never be taken, for the operator."""
    tx.run("refused_put", key, relay, event, reason, rules.time.stamp())


def see_chat(tx: HiveTx, rules: Rules, seen: ChatSeen) -> Chat:
    """Return the chat of an event, made or brought up to date; note that its person writes there."""
    now = rules.time.stamp()
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
    if seen.person is not None:
        tx.run("chat_person_put", row[0], seen.person, now)
    return Chat(
        id=row[0],
        relay=row[1],
        platform=row[2],
        bot_id=row[3],
        scope_id=row[4],
        chat_id=row[5],
        thread_id=row[6],
        chat_type=row[7],
        user_id=row[8],
        agent=row[9],
        last_seen=row[10],
    )


def bind_agent(tx: HiveTx, chat_id: int, agent: str | None) -> None:
    """Let this agent answer in a chat; `None`: the default one."""
    tx.run("chat_bind", chat_id, agent)


def answered_message(tx: HiveTx, chat_id: int, platform_id: str) -> str | None:
    """Return the id of our message that the platform calls `platform_id`: what a person replies to."""
    row = tx.one("said_get", chat_id, platform_id)
    return row[0] if row else None
