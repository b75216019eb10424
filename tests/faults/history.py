"""The checker: reads only what clients recorded and what the system says at the end.

Knows nothing of how Skep works. Each finding is one broken promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from support.chat_client import Event

__all__ = ["check_chat_history"]

_RANK = {"stored": 0, "delivered": 1, "seen": 2}


def check_chat_history(events: Iterable[Event], final: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return what was broken.

    Args:
        events: What the clients saw.
        final: Per conversation, all its messages at the end, oldest first.
    """
    seen = list(events)
    problems: list[str] = []
    problems += _nothing_lost(seen, final)
    problems += _answered_once(final)
    problems += _in_order(seen, final)
    problems += _ticks_only_go_on(seen)
    problems += _events_once(seen)
    return problems


def _own(message: dict[str, Any]) -> bool:
    return message["from"]["kind"] == "person"


def _nothing_lost(seen: list[Event], final: dict[str, list[dict[str, Any]]]) -> list[str]:
    kept = Counter(message["id"] for messages in final.values() for message in messages if _own(message))
    stored = {event.facts["message"] for event in seen if event.what == "stored"}
    sent = {event.facts["id"] for event in seen if event.what == "send"}
    acked = {event.facts["id"] for event in seen if event.what == "stored"}
    problems = [f"stored message {message} is lost" for message in stored - set(kept)]
    problems += [f"message {message} is there {count} times" for message, count in kept.items() if count > 1]
    problems += [f"sent {client_id} was never stored" for client_id in sent - acked]
    if len(kept) != len(stored):
        problems.append(f"{len(stored)} messages were stored, {len(kept)} are there")
    return problems


def _answered_once(final: dict[str, list[dict[str, Any]]]) -> list[str]:
    problems: list[str] = []
    for messages in final.values():
        named = Counter(answered for message in messages for answered in message.get("answers") or ())
        problems += [
            f"message {message['id']} is named by {named[message['id']]} answers"
            for message in messages
            if _own(message) and named[message["id"]] != 1
        ]
    return problems


def _in_order(seen: list[Event], final: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Messages of one sender stand in the order in which they were acknowledged; so do their answers."""
    place = {
        message["id"]: (conversation, number)
        for conversation, messages in final.items()
        for number, message in enumerate(messages)
    }
    problems: list[str] = []
    last: dict[tuple[str, str], int] = {}
    for event in seen:
        if event.what == "stored" and event.facts["message"] in place:
            conversation, number = place[event.facts["message"]]
            if number < last.get((event.who, conversation), -1):
                problems.append(f"message {event.facts['message']} overtook an earlier one")
            last[event.who, conversation] = number
    for messages in final.values():
        order = {message["id"]: number for number, message in enumerate(messages) if _own(message)}
        newest = -1
        for message in messages:
            answered = [order[name] for name in message.get("answers") or () if name in order]
            if answered and min(answered) < newest:
                problems.append(f"answer {message['id']} overtook an earlier one")
            newest = max([newest, *answered])
    return problems


def _ticks_only_go_on(seen: list[Event]) -> list[str]:
    problems: list[str] = []
    best: dict[tuple[str, str], int] = {}
    for event in seen:
        if event.what == "state" and event.facts["state"] in _RANK:
            key = (event.who, event.facts["message"])
            rank = _RANK[event.facts["state"]]
            if rank < best.get(key, 0):
                problems.append(f"message {event.facts['message']} went back to {event.facts['state']}")
            best[key] = max(rank, best.get(key, 0))
    return problems


def _events_once(seen: list[Event]) -> list[str]:
    """Each client gets its numbered events in order, none twice, none left out."""
    problems: list[str] = []
    last: dict[str, int] = {}
    for event in seen:
        if event.what == "event" and event.facts["kind"] != "stored":
            n = event.facts["n"]
            if n <= last.get(event.who, 0):
                problems.append(f"{event.who} got event {n} twice")
            last[event.who] = max(n, last.get(event.who, 0))
    return problems
