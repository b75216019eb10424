"""Every message of a person is answered once, whatever dies on the way; reliability, M1, M3 and M5."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from faults.chat_kills import run
from faults.history import check_chat_history
from faults.lengths import IS_RELEASE, at_length, new_seed, record
from support.chat_client import Event


@pytest.mark.timeout(1_800)
async def test_every_message_is_named_by_exactly_one_answer(tmp_path: Path) -> None:
    """Connector, gateway, daemon, harnesses, dashboard and `skep up` itself are killed while people chat."""
    seed = new_seed("chat_kills")
    pause_s = (0.2, 2.0) if IS_RELEASE else (0.2, 0.8)
    chats = at_length(merge=50, release=500)
    outcome = await run(tmp_path / "home", chats=chats, seed=seed, pause_s=pause_s)
    record("chat_kills", seed, (tmp_path / "home-history.jsonl").read_text())

    assert outcome.problems == []
    assert outcome.kills.total() > 0


def _person(message_id: str) -> dict[str, object]:
    return {"id": message_id, "from": {"kind": "person"}, "text": "hello"}


def _answer(message_id: str, *answers: str) -> dict[str, object]:
    return {"id": message_id, "from": {"kind": "agent"}, "text": "hello yourself", "answers": list(answers)}


SENT = [
    Event(at=0, who="p", what="send", facts={"id": "w1"}),
    Event(at=1, who="p", what="stored", facts={"id": "w1", "message": "m1"}),
    Event(at=2, who="p", what="send", facts={"id": "w2"}),
    Event(at=3, who="p", what="stored", facts={"id": "w2", "message": "m2"}),
]
BROKEN = {
    "lost": ([_person("m1"), _answer("a1", "m1")], "stored message m2 is lost"),
    "doubled": (
        [_person("m1"), _person("m1"), _person("m2"), _answer("a1", "m1", "m2")],
        "m1 is there 2 times",
    ),
    "unanswered": ([_person("m1"), _person("m2"), _answer("a1", "m1")], "m2 is named by 0 answers"),
    "answered twice": (
        [_person("m1"), _person("m2"), _answer("a1", "m1", "m2"), _answer("a2", "m2")],
        "m2 is named by 2 answers",
    ),
    "answers out of order": (
        [_person("m1"), _person("m2"), _answer("a2", "m2"), _answer("a1", "m1")],
        "answer a1 overtook an earlier one",
    ),
    "messages out of order": (
        [_person("m2"), _person("m1"), _answer("a1", "m1", "m2")],
        "m2 overtook an earlier one",
    ),
}


@pytest.mark.parametrize(("final", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_the_checker_sees(final: list[dict[str, object]], problem: str) -> None:
    """Each promise that it checks, broken by hand, is named."""
    found = check_chat_history(SENT, {"c": final})

    assert [line for line in found if problem in line], found


def test_the_checker_sees_ticks_and_events() -> None:
    """A tick that goes back, an event that comes twice; and nothing where all is well."""
    final = {"c": [_person("m1"), _person("m2"), _answer("a1", "m1", "m2")]}
    back = [
        Event(at=at, who="p", what="state", facts={"message": "m1", "state": state})
        for at, state in enumerate(("seen", "delivered"))
    ]
    twice = [Event(at=at, who="p", what="event", facts={"n": 7, "kind": "message"}) for at in range(2)]

    assert check_chat_history(SENT, final) == []
    assert Counter(check_chat_history([*SENT, *back, *twice], final)) == Counter(
        ["message m1 went back to delivered", "p got event 7 twice"]
    )
