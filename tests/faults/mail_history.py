"""The checker of mail: reads what senders and readers noted, and the tables as they are at the end.

Apart from the names of five columns it knows nothing of Skep.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["MailHistory", "Stored", "read_store"]

Fact = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store holds at the end: states of deliveries by message, answers by message."""

    states: dict[str, list[str]]
    answers: dict[str, int]
    is_whole: bool


def read_store(path: Path) -> Stored:
    """Read the tables of a hive that is not running."""
    db = sqlite3.connect(path)
    try:
        states: dict[str, list[str]] = defaultdict(list)
        for message, state in db.execute("SELECT message, state FROM delivery"):
            states[message].append(state)
        answers = dict(
            db.execute(
                "SELECT in_reply_to, count(*) FROM message "
                "WHERE sender LIKE 'agent:%' AND idem LIKE 'r:%' GROUP BY in_reply_to"
            )
        )
        whole = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        db.close()
    return Stored(states=dict(states), answers=answers, is_whole=whole)


class MailHistory:
    """What everybody noted, in the order in which it happened.

    Args:
        facts: Lines of all journals, each with its `who`.
    """

    def __init__(self, facts: list[Fact]) -> None:
        self.facts = sorted(facts, key=lambda fact: fact["at"])
        self.sent = [fact["message"] for fact in self.facts if fact["what"] == "sent"]

    def lost(self, store: Stored) -> list[str]:
        """M1: acknowledged, and neither stored nor handled by anybody."""
        shown = {held["message"] for fact in self.facts if fact["what"] == "shown" for held in fact["held"]}
        problems = [] if store.is_whole else ["the store is damaged"]
        problems += [
            f"{message} was acknowledged and is gone" for message in self.sent if message not in store.states
        ]
        problems += [
            f"{message} was acknowledged and never came to a turn"
            for message in self.sent
            if message in store.states and message not in shown
        ]
        return problems

    def unmarked(self) -> list[str]:
        """M3: shown to a turn before, and given out again without a mark."""
        shown: set[int] = set()
        problems: list[str] = []
        for fact in self.facts:
            if fact["what"] == "lease":
                problems += [
                    f"delivery {held['delivery']} came again without its mark"
                    for held in fact["held"]
                    if held["delivery"] in shown and not held["again"]
                ]
            elif fact["what"] == "shown":
                shown.update(held["delivery"] for held in fact["held"])
        return problems

    def answered(self, store: Stored) -> list[str]:
        """M3: handled, and without exactly one answer of its turn."""
        heads = {fact["held"][0]["message"] for fact in self.facts if fact["what"] == "done"}
        return [
            f"{message} has {store.answers.get(message, 0)} answers"
            for message in heads
            if store.answers.get(message, 0) != 1
        ]

    def delivered_unread(self, store: Stored) -> list[str]:
        """M4: marked as delivered to a reader, and no turn has seen it."""
        shown = {held["message"] for fact in self.facts if fact["what"] == "shown" for held in fact["held"]}
        known = {fact["message"] for fact in self.facts if fact["what"] == "sent"}
        return [
            f"{message} is `{state}` without a turn"
            for message, states in store.states.items()
            if message in known
            for state in states
            if state in ("done", "leased", "shown") and message not in shown
        ]

    def inversions(self) -> list[str]:
        """M5: handed out after something behind it was done; or numbered against its sender's order."""
        done: dict[tuple[str, int], int] = {}
        place: dict[str, tuple[int, int]] = {}
        problems: list[str] = []
        for fact in self.facts:
            if fact["what"] not in ("lease", "done"):
                continue
            key = (fact["who"], fact["lane"])
            for held in fact["held"]:
                if fact["what"] == "done":
                    done[key] = max(done.get(key, 0), held["seq"])
                elif held["seq"] < done.get(key, 0):
                    problems.append(f"lane {key} went back from {done[key]} to {held['seq']}")
                place[held["message"]] = (fact["lane"], held["seq"])
        last: dict[tuple[str, int], int] = {}
        for fact in self.facts:
            if fact["what"] == "sent" and "number" in fact and fact["message"] in place:
                lane, seq = place[fact["message"]]
                if seq <= last.get((fact["who"], lane), 0):
                    problems.append(f"{fact['who']} {fact['number']} overtook an earlier one")
                last[fact["who"], lane] = seq
        return problems
