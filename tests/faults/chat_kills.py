"""Kill each kind of process at random moments while people chat; then ask what became of every message.

Run it by hand at release length: python tests/faults/chat_kills.py --chats 500
Every run prints its seed, so that it can be tried again; the schedule of kills follows from it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.history import check_chat_history
from support.chat_client import ChatClient, History
from support.installation import Installation

__all__ = ["Outcome", "run"]

VICTIMS: Final = ("connector", "gateway", "hive", "harness concierge", "harness scribe", "web")
PER_KIND_MAX: Final = 3
"""Deaths of one kind before `skep up` itself is killed too: it gives up on what dies too often."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found."""

    chats: int
    kills: Counter[str]
    problems: list[str]
    took_s: float
    seed: int


async def run(
    home: Path, *, chats: int, seed: int, people: int = 8, source: Path | None = None, say: Any = None
) -> Outcome:
    """Chat `chats` times from `people` conversations while processes die, and check the history."""
    began = time.monotonic()
    chance = random.Random(seed)
    history = History()
    installation = Installation(home, source=source)
    kills: Counter[str] = Counter()
    done: deque[int] = deque()
    try:
        installation.start()
        person = ChatClient(installation.chat_url, name="p0", history=history)
        await person.sign_in(installation.chat_once)
        conversations = [await person.conversation(f"talk {number}") for number in range(people)]
        todo = deque(range(chats))
        stop = asyncio.Event()

        async def talk(conversation: str) -> None:
            while todo:
                number = todo.popleft()
                message = await person.send(conversation, f"message number {number}", limit_s=240)
                await person.answered(message, limit_s=240)
                done.append(number)
                if say is not None and len(done) % 50 == 0:
                    say(f"{len(done)} of {chats} chats, {sum(kills.values())} kills")

        async with asyncio.TaskGroup() as group:
            killer = group.create_task(_kill_until(stop, installation, chance, kills, history))
            talks = [group.create_task(talk(conversation)) for conversation in conversations]
            await asyncio.gather(*talks)
            stop.set()
            await killer
        await asyncio.sleep(1.0)
        final = {conversation: await _all_messages(person, conversation) for conversation in conversations}
        await person.close()
    finally:
        await asyncio.to_thread(installation.end)
        (home.parent / f"{home.name}-history.jsonl").write_text(history.dump())
    problems = check_chat_history(history.events, final)
    return Outcome(chats, kills, problems, time.monotonic() - began, seed)


async def _kill_until(
    stop: asyncio.Event,
    installation: Installation,
    chance: random.Random,
    kills: Counter[str],
    history: History,
) -> None:
    since_start: Counter[str] = Counter()
    while not stop.is_set():
        try:
            async with asyncio.timeout(chance.uniform(0.2, 2.0)):
                await stop.wait()
        except TimeoutError:
            victim = chance.choice(VICTIMS)
        else:
            return
        if since_start[victim] >= PER_KIND_MAX:
            history.add("killer", "kill", kind="everything")
            kills["up"] += 1
            await asyncio.to_thread(installation.kill_up)
            await asyncio.to_thread(installation.start)
            since_start.clear()
        elif installation.kill(victim) is not None:
            history.add("killer", "kill", kind=victim)
            kills[victim] += 1
            since_start[victim] += 1


async def _all_messages(person: ChatClient, conversation: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    before = ""
    while page := await person.get(f"/api/conversations/{conversation}/messages?limit=100{before}"):
        messages = [*page, *messages]
        before = f"&before={page[0]['id']}"
    return messages


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    _say(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="skep-kills-") as folder:
        outcome = asyncio.run(run(Path(folder) / "home", chats=given.chats, seed=given.seed, say=_say))
    for problem in outcome.problems:
        _say(f"broken: {problem}")
    died = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.kills.items()))
    _say(f"{outcome.chats} chats, {sum(outcome.kills.values())} kills ({died}) in {outcome.took_s:.0f} s")
    verdict = f"{len(outcome.problems)} broken" if outcome.problems else "ok"
    _say(f"history checker: {verdict}; each message must be named by exactly one answer")
    return 1 if outcome.problems else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
