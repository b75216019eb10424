"""The rehearsal runtime: answers without a model, so that the whole way can be seen and tested.

It is honest about what it is, and it understands a few plain requests. Each of them goes the same
way as a real agent's: tools of the hive, envelopes, turns.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from skep.foundation.rpc import CallError
from skep.harness.turn import Turn
from skep.wire.control.envelope import Envelope

__all__ = ["Rehearsal"]

_WORD_S: Final = 0.008
"""Pause between words: an answer is seen to stream, and is still quick."""
_SLOW_WORD_S: Final = 0.5
_SLOW_WORDS: Final = 40
_ASK_WAIT_S: Final = 20
_THREADS_SHOWN: Final = 10
_SESSIONS_KEPT: Final = 1_000
_UNIT: Final = "s|secs?|seconds?|m|mins?|minutes?|h|hours?"
_UNITS_S: Final = {"s": 1, "second": 1, "sec": 1, "m": 60, "minute": 60, "min": 60, "h": 3600, "hour": 3600}

Act = Callable[[Turn, "re.Match[str]"], Awaitable[str]]


class Rehearsal:
    """Answers plain requests; the first pattern that fits wins.

    Remembers, of each conversation, which threads it has seen since it started, and nothing else.
    """

    def __init__(self) -> None:
        self._threads: Final[dict[str, deque[str]]] = {}

    async def run(self, turn: Turn) -> str | None:
        """Answer each person's message, say what a reminder is for (or do it), count words when asked."""
        head = turn.head
        if head.kind == "reminder":
            return await _carry_out_reminder(turn, head)
        if head.kind == "answer":
            return await _take_answer(turn, head)
        if head.from_.startswith("agent:"):
            return _answer_agent(head)
        if head.kind in ("system", "receipt"):
            return None
        answers = [await self._answer(turn, envelope) for envelope in list(turn.envelopes)]
        text = "\n\n".join(answers)
        if not turn.text:
            await _stream(turn, text)
        return text

    async def _answer(self, turn: Turn, envelope: Envelope) -> str:
        seen = self._threads.pop(envelope.session, None) or deque[str](maxlen=_THREADS_SHOWN)
        self._threads[envelope.session] = seen  # the one that was used last stays longest
        if len(self._threads) > _SESSIONS_KEPT:
            del self._threads[next(iter(self._threads))]
        if envelope.thread not in seen:
            seen.append(envelope.thread)
        text = " ".join(_words_of(envelope).split())
        try:
            if _SHOW_MESSAGES.fullmatch(text):
                return await _show_messages(turn, seen)
            for pattern, act in _REQUESTS:
                if found := pattern.fullmatch(text):
                    return await act(turn, found)
        except CallError as error:
            hint = f" {error.hint}" if error.hint else ""
            return f"That did not work: {error.problem}.{hint} (`{error.wire_code}`)"
        return _echo(turn, envelope)


def _words_of(envelope: Envelope) -> str:
    """Return what the person wrote, without what was said around it before."""
    body = envelope.body
    return body.rpartition("\n\n")[2] if body.startswith("[Recent channel messages]\n") else body


def _echo(turn: Turn, envelope: Envelope) -> str:
    words = len(_words_of(envelope).split())
    again = "\n\nI was interrupted before and begin again." if envelope.redelivered else ""
    return (
        f"I am **{turn.setup.agent}**, and I answer without a model, so I only understand a few plain "
        f"requests. Your message of {words} word{'s' if words != 1 else ''} is stored, and it reached me "
        f"the same way it would reach a real agent. Write `help` to see what I can do.{again}"
    )


async def _help(turn: Turn, _: re.Match[str]) -> str:
    return (
        f"I am **{turn.setup.agent}**. I answer without a model, so that you can see how everything works "
        "before you add one. I understand:\n\n"
        "- `who am I`: how you are known here\n"
        "- `remind me in 10 seconds to stretch`\n"
        "- `let me choose: tea, coffee or water`: a question with buttons\n"
        "- `ask scribe to count the words in: the bees came home`\n"
        "- `tell everybody the kettle is on`\n"
        "- `show my messages`: what this conversation holds\n"
        "- `what is waiting`: open asks, reminders and queues\n"
        "- `slow`: a long answer, to try the stop button on\n\n"
        "Commands work everywhere: `/stop`, `/whoami`, `/agents`, `/agent NAME`, `/help`. "
        "Begin a message with `@scribe` to write to another agent."
    )


async def _who_am_i(turn: Turn, _: re.Match[str]) -> str:
    known = await turn.memory(turn.head)
    origin = turn.head.origin or {}
    platform = origin.get("platform", "here")
    name = origin.get("name")
    noted = known.text or "Nothing is noted yet."
    memory = "Memory does not answer right now." if known.degraded else noted
    return (
        f"You are `{turn.head.from_}`"
        + (f", called {name}," if name else "")
        + f" and you write on {platform}. {memory}"
    )


async def _remind(turn: Turn, found: re.Match[str]) -> str:
    amount, unit, what = int(found["amount"]), found["unit"].lower().removesuffix("s") or "s", found["what"]
    in_s = amount * _UNITS_S[unit]
    made = await turn.tool("remind", in_s=in_s, body=f"Remind {turn.head.from_} to {what}")
    reminders = f"{made['open']} of {made['limit']} reminders are open"
    return f"I will remind you in {amount} {found['unit']} to {what}. ({reminders}.)"


async def _let_choose(turn: Turn, found: re.Match[str]) -> str:
    choices = [choice for part in re.split(r",|;|\bor\b", found["choices"]) if (choice := part.strip(" .?!"))]
    await turn.tool("ask", to=turn.head.from_, question="Which one?", choices=choices)
    return "The choice is yours: press one, or write its number."


async def _ask(turn: Turn, found: re.Match[str]) -> str:
    agent, question = found["agent"], found["question"]
    turn.say(f"Asking {agent}. ")
    asked = await turn.tool("ask", to=f"agent:{agent}", question=question, wait_s=_ASK_WAIT_S)
    answer = asked.get("answer")
    if answer:
        rest = f"**{agent}** says: {answer}"
    else:
        rest = f"{agent} has not answered yet; I will tell you when it does."
    await _stream(turn, rest)
    return turn.text


async def _tell_everybody(turn: Turn, found: re.Match[str]) -> str:
    sent = await turn.tool("send", to="*", body=found["what"])
    count = sent["recipients"]
    return f"I told {count} other agent{'s' if count != 1 else ''}: {found['what']}"


async def _show_messages(turn: Turn, threads: Iterable[str]) -> str:
    lines: list[str] = []
    for thread in threads:
        shown = await turn.tool("thread", id=thread, limit=20)
        lines += [f"- {_short_name(row['from'])}: {_first_line(row['body'])}" for row in shown["messages"]]
    return "Since I started, this conversation held:\n\n" + "\n".join(lines)


async def _what_is_waiting(turn: Turn, _: re.Match[str]) -> str:
    asks = (await turn.tool("list_my_asks"))["asks"]
    reminders = (await turn.tool("list_my_reminders"))["reminders"]
    agents = (await turn.tool("agents"))["agents"]
    lines = [
        f"- {len(asks)} open ask{'s' if len(asks) != 1 else ''}",
        f"- {len(reminders)} open reminder{'s' if len(reminders) != 1 else ''}",
        *(f"- {row['name']}: {row['state']}, {row['queue']} waiting" for row in agents),
    ]
    return "Waiting now:\n\n" + "\n".join(lines)


async def _slow(turn: Turn, _: re.Match[str] | None = None) -> str:
    turn.say("This answer takes its time; stop it whenever you like.\n\n")
    for number in range(1, _SLOW_WORDS + 1):
        await asyncio.sleep(_SLOW_WORD_S)
        turn.say(f"{number} ")
    turn.say("\n\nThat was all of it.")
    return turn.text


async def _carry_out_reminder(turn: Turn, head: Envelope) -> str | None:
    found = _REMINDER.search(head.body)
    if found is None:
        return None
    whom, what = found["whom"], found["what"]
    said = f"You asked me to remind you to {what}"
    is_slow = _SLOW.fullmatch(what) is not None
    if is_slow:
        said = f"{said}. I can do that myself and begin now; `/stop` stops me."
    await turn.tool("send", to=whom, body=said, idem=f"reminded:{head.id}")
    if is_slow:
        await turn.tool("send", to=whom, body=await _slow(turn), idem=f"done:{head.id}")
    return f"Reminded {whom}."


async def _take_answer(turn: Turn, head: Envelope) -> str | None:
    """Say what came of an ask whose turn has ended: to whoever answered it, or to the person who waits."""
    if head.from_.startswith("person:"):
        text = f"You chose **{head.body}**."
        await _stream(turn, text)
        return text
    shown = await turn.tool("thread", id=head.thread, limit=100)
    people = [row["from"] for row in shown["messages"] if row["from"].startswith("person:")]
    if not people:
        return None
    body = f"**{_short_name(head.from_)}** says: {head.body}"
    await turn.tool("send", to=people[-1], body=body, idem=f"passed-on:{head.id}")
    return f"Passed on to {people[-1]}."


def _answer_agent(head: Envelope) -> str | None:
    if head.kind != "ask":
        return None
    if found := re.search(r"count the words in:?\s*(.*)", head.body, re.IGNORECASE | re.DOTALL):
        count = len(found[1].split())
        return f"That is {count} word{'s' if count != 1 else ''}."
    words = len(head.body.split())
    return f"I noted your {words} words. I answer without a model, so counting is what I am good at."


async def _stream(turn: Turn, text: str) -> None:
    for word in re.findall(r"\S+\s*|\s+", text):
        turn.say(word)
        await asyncio.sleep(_WORD_S)


def _short_name(principal: str) -> str:
    return principal.partition(":")[2] if principal.startswith("agent:") else principal


def _first_line(body: Any) -> str:
    line = " ".join(str(body).split())
    return line if len(line) <= 120 else f"{line[:119]}…"


def _request(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"{pattern}[.!?]*", re.IGNORECASE | re.DOTALL)


_REMINDER: Final = re.compile(r"Remind (?P<whom>person:\d+) to (?P<what>.+)", re.DOTALL)
_SLOW: Final = _request(r"(?:a )?slow(?: answer| one)?(?: please)?|count slowly.*")
_SHOW_MESSAGES: Final = _request(r"show (?:me )?my messages")
_REQUESTS: Final[tuple[tuple[re.Pattern[str], Act], ...]] = (
    (_request(r"(?:help|what can you do)"), _help),
    (_request(r"who am i"), _who_am_i),
    (_request(rf"remind me in (?P<amount>\d{{1,6}}) ?(?P<unit>{_UNIT}) to (?P<what>.+)"), _remind),
    (_request(r"let me choose:? (?P<choices>.+)"), _let_choose),
    (_request(r"ask @?(?P<agent>[a-z][a-z0-9-]{0,31})(?:,| to)? (?P<question>.+)"), _ask),
    (_request(r"tell every(?:body|one)(?: that|:)? (?P<what>.+)"), _tell_everybody),
    (_request(r"what(?:'s| is) waiting"), _what_is_waiting),
    (_SLOW, _slow),
)
