"""Kill each kind of process at random moments while people chat; then ask what became of every message.

Run it by hand at release length: python tests/faults/chat_kills.py --chats 500
Every run prints its seed, so that it can be tried again; the schedule of kills follows from it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.history import check_chat_history
from support.chat_client import ChatClient, History
from support.installation import Installation

__all__ = ["Outcome", "run"]

AGENTS: Final = ("concierge", "scribe", "clerk", "porter")
VICTIMS: Final = ("connector", "gateway", "hive", "web", *(f"harness {name}" for name in AGENTS))
PER_KIND_MAX: Final = 3
"""Deaths of one kind before `skep up` itself is killed too: it gives up on what dies too often."""
HARNESS_MAX: Final = 2
HARNESS_WINDOW_S: Final = 600.0
"""The daemon gives a harness up after five deaths in ten minutes, and remembers them when it dies itself."""
LIMIT_S: Final = 240.0
MANY: Final = {"SKEP_CONNECTOR_WEB_PER_MINUTE": "100000"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found."""

    chats: int
    kills: Counter[str]
    problems: list[str]
    took_s: float
    seed: int


async def run(
    home: Path,
    *,
    chats: int,
    seed: int,
    people: int = 8,
    pause_s: tuple[float, float] = (0.2, 2.0),
    source: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Outcome:
    """Chat `chats` times from `people` conversations while processes die, and check the history.

    Args:
        home: Data directory.
        chats: How many messages, or bursts of them.
        seed: Decides who says what, and who is killed when.
        people: How many talk at once.
        pause_s: Between two kills, in seconds: at least, at most.
        source: Directory of the package to run, if not this one.
        say: Told of progress.

    The history is kept beside `home`, as `HOME-history.jsonl`.
    """
    began = time.monotonic()
    chance = random.Random(seed)
    history = History()
    home.mkdir(parents=True, exist_ok=True)
    (home / "agents.toml").write_text(_team())
    installation = Installation(home, source=source, extra_env=MANY)
    kills: Counter[str] = Counter()
    done: deque[int] = deque()
    try:
        installation.start()
        person = ChatClient(installation.chat_url, name="p0", history=history)
        await person.sign_in(installation.chat_once)
        conversations = [await person.conversation(f"talk {number}") for number in range(people)]
        todo = deque(range(chats))
        stop = asyncio.Event()

        async def talk(place: int) -> None:
            talker = _Talker(person, conversations[place], AGENTS[place % len(AGENTS)])
            while todo:
                number = todo.popleft()
                await talker.chat(chance.choices(list(_WAYS), list(_WAYS.values()))[0], number)
                done.append(number)
                if say is not None and len(done) % 50 == 0:
                    say(f"{len(done)} of {chats} chats, {sum(kills.values())} kills")

        async with asyncio.TaskGroup() as group:
            killer = group.create_task(_kill_until(stop, installation, chance, kills, history, pause_s))
            talks = [group.create_task(talk(place)) for place in range(people)]
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


_WAYS: Final = {"plain": 70, "burst": 10, "ask": 10, "stop": 4, "command": 6}
"""What a person does, and how often."""


@dataclass(frozen=True, slots=True)
class _Talker:
    """Somebody in one conversation."""

    person: ChatClient
    conversation: str
    agent: str

    async def chat(self, way: str, number: int) -> None:
        """Write, and wait until all of it is answered."""
        match way:
            case "burst":
                sent = [await self._send(f"@{self.agent} part {part} of {number}") for part in range(3)]
            case "ask":
                other = AGENTS[number % len(AGENTS)]
                sent = [
                    await self._send(f"@{self.agent} ask {other} to count the words in: one two {number}")
                ]
            case "stop":
                sent = [await self._send(f"@{self.agent} slow")]
                # Pressed again and again: a turn of 20 s would never end while the daemon lives for less.
                async with asyncio.timeout(LIMIT_S):
                    while sent[0] not in self.person.answers:
                        with suppress(TimeoutError):
                            await self.person.answered(sent[0], limit_s=1.5)
                        await self.person.stop(self.conversation)
            case "command":
                sent = [await self._send("/whoami")]
            case _:
                sent = [await self._send(f"@{self.agent} message number {number}")]
        for message in sent:
            await self.person.answered(message, limit_s=LIMIT_S)

    async def _send(self, text: str) -> str:
        return await self.person.send(self.conversation, text, limit_s=LIMIT_S)


async def _kill_until(
    stop: asyncio.Event,
    installation: Installation,
    chance: random.Random,
    kills: Counter[str],
    history: History,
    pause_s: tuple[float, float],
) -> None:
    since_start: Counter[str] = Counter()
    harness_deaths = {f"harness {name}": deque[float]() for name in AGENTS}
    while not stop.is_set():
        try:
            async with asyncio.timeout(chance.uniform(*pause_s)):
                await stop.wait()
        except TimeoutError:
            spared = {name for name, deaths in harness_deaths.items() if _is_spared(deaths)}
            victim = chance.choice([kind for kind in VICTIMS if kind not in spared])
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
            if victim in harness_deaths:
                harness_deaths[victim].append(time.monotonic())
            else:
                since_start[victim] += 1


def _is_spared(deaths: deque[float]) -> bool:
    while deaths and time.monotonic() - deaths[0] > HARNESS_WINDOW_S:
        deaths.popleft()
    return len(deaths) >= HARNESS_MAX


def _team() -> str:
    return 'default = "concierge"\n' + "".join(
        f'[agent.{name}]\nruntime = "rehearsal"\nrole = "{"agent" if number else "manager"}"\n'
        'people = "all"\nmax_parallel_lanes = 4\n'
        for number, name in enumerate(AGENTS)
    )


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
    parser.add_argument("--pause", type=float, nargs=2, default=(0.2, 2.0), help="seconds between kills")
    parser.add_argument(
        "--source", type=Path, help="directory that holds the package to run, if not this one"
    )
    parser.add_argument("--history", type=Path, help="where to keep what the clients saw")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    _say(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="skep-kills-") as folder:
        home = Path(folder) / "home"
        try:
            outcome = asyncio.run(
                run(
                    home,
                    chats=given.chats,
                    seed=given.seed,
                    pause_s=tuple(given.pause),
                    source=given.source,
                    say=_say,
                )
            )
        except BaseException:
            _say("".join(_tail(log) for log in sorted(home.glob("logs/*.log"))))
            raise
        finally:
            if given.history is not None:
                shutil.copyfile(home.parent / "home-history.jsonl", given.history)
    for problem in outcome.problems:
        _say(f"broken: {problem}")
    died = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.kills.items()))
    _say(f"{outcome.chats} chats, {sum(outcome.kills.values())} kills ({died}) in {outcome.took_s:.0f} s")
    verdict = f"{len(outcome.problems)} broken" if outcome.problems else "ok"
    _say(f"history checker: {verdict}; each message must be named by exactly one answer")
    return 1 if outcome.problems else 0


def _tail(log: Path) -> str:
    return f"--- {log.name}\n{log.read_text(errors='replace')[-3_000:]}\n"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
