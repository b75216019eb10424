"""`skep chat`: the web chat's own API from a terminal, so that it goes the same way.

Source: control protocol, section 13.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar

import typer

from skep.cli import client
from skep.cli.output import NotReachableError, make_app, print_error, print_json, run_app, run_async
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.errors import SettingError, SkepError, WireError
from skep.foundation.ids import uuid7
from skep.foundation.paths import Home
from skep.foundation.settings import default_home
from skep.foundation.tasks import TaskSet
from skep.wire.control import connector

if TYPE_CHECKING:
    import aiohttp

__all__ = ["run"]

T = TypeVar("T")

CONVERSATION: Final = "Terminal"

app = make_app('Write to an agent from the terminal.\n\nExample: skep chat "hello"')


class NoAnswerError(SkepError):
    """No answer came in time (the message is stored all the same), or none will come."""

    code = "chat.no_answer"


@app.command()
def chat(
    words: Annotated[
        list[str] | None, typer.Argument(help="What to say; nothing: talk interactively")
    ] = None,
    *,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer")] = 120.0,
    link: Annotated[bool, typer.Option("--link", help="Print a link that signs a browser in, once")] = False,
    account: Annotated[str, typer.Option(help="Account of the web chat to write as")] = "owner",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program")] = False,
) -> int:
    """Ask, print the answer, and leave; without words, talk until Ctrl-D.

    Example: skep chat "remind me in 10 seconds to stretch"
    """
    home = default_home()
    if link:
        typer.echo(run_async(_code(home, account)).url)
        return 0
    text = " ".join(words) if words else None
    if text is None and not sys.stdin.isatty():
        text = sys.stdin.read().strip()
    if text is not None and not text.strip():
        raise SettingError("there is nothing to say", hint='run `skep chat "hello"`', code="cli.usage")
    return run_async(_talk(home, account, text, timeout_s=timeout, as_json=as_json))


def run(name: str, words: list[str]) -> int:
    """Run `skep chat`."""
    return run_app(app, name, words)


async def _code(home: Home, account: str) -> connector.WebCodeResult:
    async with client.connector(home) as caller:
        return await caller.call(connector.WEB_CODE, connector.WebCodeArgs(account=account))


async def _talk(home: Home, account: str, text: str | None, *, timeout_s: float, as_json: bool) -> int:
    import aiohttp

    made = await _code(home, account)
    base = made.url.partition("/#")[0]
    try:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession(base))
            token = (await _post(http, "/api/session", {"once": made.code, "bearer": True}))["token"]
            http.headers["Authorization"] = f"Bearer {token}"
            stack.push_async_callback(_sign_out, http)
            conversation = await _conversation(http)
            socket = await stack.enter_async_context(http.ws_connect("/api/socket", compress=0))
            line = await _Line.open(socket, conversation)
            tasks = TaskSet(on_error=line.fail)
            stack.push_async_callback(tasks.close)
            tasks.spawn(line.read())
            if text is None:
                await _interactive(line, timeout_s)
                return 0
            answer = await line.ask(text, timeout_s=timeout_s)
            if as_json:
                print_json({"message": line.last_sent, "answer": answer})
            else:
                for question in line.unshown_questions:
                    typer.echo(f"{_words(question)}\n")
                typer.echo(_words(answer))
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as exc:
        raise _hung_up() from exc
    return 0


async def _interactive(line: _Line, timeout_s: float) -> None:
    typer.echo(
        "Write and press Enter; Ctrl-D leaves. `help` shows what the built-in agents understand.", err=True
    )
    line.show_question = _write_unasked
    with _Keyboard() as keyboard:
        while True:
            _prompt()
            line.show_unasked = _write_unasked
            text = await line.unless_lost(keyboard.line())
            line.show_unasked = None
            if text is None:
                return
            if not text.strip():
                continue
            try:
                await _ask(line, keyboard, text, timeout_s)
                _write("\n")
            except NotReachableError:
                raise
            except SkepError as error:
                print_error(error)


async def _ask(line: _Line, keyboard: _Keyboard, text: str, timeout_s: float) -> None:
    """Send `text` and show its answer. Whoever answers may ask first: what is typed then is the reply."""
    replies = asyncio.ensure_future(_reply(line, keyboard))
    try:
        await line.ask(text, timeout_s=timeout_s, show=_write)
    finally:
        replies.cancel()
        await asyncio.gather(replies, return_exceptions=True)


async def _reply(line: _Line, keyboard: _Keyboard) -> None:
    while True:
        await line.was_questioned.wait()
        text = await keyboard.line()
        if text is None:
            keyboard.end()
            return
        if text.strip():
            line.was_questioned.clear()
            await line.say(text)


class _Keyboard:
    """Lines typed at the terminal. No thread waits for one, so Ctrl-C leaves at once."""

    def __init__(self) -> None:
        self._fd: Final = sys.stdin.fileno()
        self._loop: Final = asyncio.get_running_loop()
        self._typed: Final[asyncio.Queue[str | None]] = asyncio.Queue()
        self._rest = b""

    def __enter__(self) -> Self:
        self._loop.add_reader(self._fd, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._fd)

    async def line(self) -> str | None:
        """Return the next line, or `None` after Ctrl-D."""
        return await self._typed.get()

    def end(self) -> None:
        """Let the next line be none."""
        self._typed.put_nowait(None)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65_536)
        except OSError:  # the terminal is gone
            data = b""
        if not data:
            self._loop.remove_reader(self._fd)
            self._typed.put_nowait(None)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._typed.put_nowait(line.decode(errors="replace"))


def _prompt() -> None:
    sys.stderr.write("> ")
    sys.stderr.flush()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _write_unasked(message: dict[str, Any]) -> None:
    _write(f"\n{message['from'].get('name', '')}: {_words(message)}\n")
    _prompt()


def _words(message: dict[str, Any]) -> str:
    """Return the text of a message, and its choices: their number, written, is an answer."""
    prompt: dict[str, Any] = message.get("prompt") or {}
    options: list[dict[str, str]] = prompt.get("options", [])
    return "\n".join(
        [
            message["text"],
            *(f"{number}. {option['label']}" for number, option in enumerate(options, start=1)),
        ]
    )


def _hung_up() -> NotReachableError:
    return NotReachableError("the connector hung up", hint="run `skep status`; what was stored is kept")


Show = Callable[[str], None]
"""Takes what is to be written next of an answer."""


@dataclass
class _Line:
    """The socket of one conversation: what was sent, and what came back.

    Attributes:
        last_sent: Id of our newest message that is stored.
        show_unasked: Takes a message that answers nothing we wait for; else it waits until there is one.
        show_question: Takes one with choices at once, also while an answer is waited for.
        was_questioned: One was shown, and nothing was replied yet.
    """

    socket: aiohttp.ClientWebSocketResponse
    conversation: str
    last_sent: str | None = None
    show_question: Callable[[dict[str, Any]], None] | None = None
    was_questioned: asyncio.Event = field(default_factory=asyncio.Event)
    _show_unasked: Callable[[dict[str, Any]], None] | None = None
    _unasked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _asked: _Asked | None = None
    _given_up: set[str] = field(default_factory=set[str])
    _replies: set[str] = field(default_factory=set[str])
    _lost: asyncio.Future[SkepError] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @classmethod
    async def open(cls, socket: aiohttp.ClientWebSocketResponse, conversation: str) -> _Line:
        """Return the line, once the connector is ready to tell what happens from now on."""
        await socket.send_json({"t": "resume", "n": -1})
        async for frame in socket:
            if json.loads(frame.data).get("t") == "ready":
                return cls(socket, conversation)
        raise _hung_up()

    @property
    def show_unasked(self) -> Callable[[dict[str, Any]], None] | None:
        """Who is shown what nobody asked for."""
        return self._show_unasked

    @show_unasked.setter
    def show_unasked(self, show: Callable[[dict[str, Any]], None] | None) -> None:
        self._show_unasked = show
        while show is not None and self._unasked:
            show(self._unasked.pop(0))

    @property
    def unshown_questions(self) -> list[dict[str, Any]]:
        """What nobody asked for and has choices, not shown yet."""
        return [message for message in self._unasked if message.get("prompt")]

    async def ask(self, text: str, *, timeout_s: float, show: Show | None = None) -> dict[str, Any]:
        """Send `text` and return the message that answers it.

        Raises:
            NoAnswerError: None came in time, or none will come.
            WireError: The connector did not take the message.
            NotReachableError: The connector hung up.
        """
        asked = self._asked = _Asked(uuid7(SYSTEM_CLOCK.now_ms()), show)
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(asked.id, text)
                answer = await self.unless_lost(asked.answer)
        except TimeoutError as exc:
            if asked.message is not None:
                self._given_up.add(asked.message)
            raise NoAnswerError(
                f"no answer within {timeout_s:g} s; the message is kept and will be answered",
                hint="see `skep status`, or wait longer with --timeout",
            ) from exc
        finally:
            self._asked = None
        asked.finish(_words(answer))
        return answer

    async def say(self, text: str) -> None:
        """Send `text` and wait for nothing; what answers it comes unasked."""
        client_id = uuid7(SYSTEM_CLOCK.now_ms())
        self._replies.add(client_id)
        await self._send(client_id, text)

    async def _send(self, client_id: str, text: str) -> None:
        sending = {"t": "send", "id": client_id, "conversation": self.conversation, "text": text}
        await self.socket.send_json(sending | {"reply_to": None})

    async def unless_lost(self, wanted: Awaitable[T]) -> T:
        """Return what `wanted` gives; raise when the line is lost before that."""
        waiting = asyncio.ensure_future(wanted)
        try:
            await asyncio.wait({waiting, self._lost}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise self._lost.result()
            return waiting.result()
        finally:
            waiting.cancel()

    async def read(self) -> None:
        """Take what comes until the socket ends."""
        async for frame in self.socket:
            self._take(json.loads(frame.data))
        self.fail(_hung_up())

    def fail(self, error: BaseException) -> None:
        """Let whoever waits know that nothing more comes."""
        if not self._lost.done():
            self._lost.set_result(error if isinstance(error, SkepError) else _hung_up())

    def _take(self, event: dict[str, Any]) -> None:
        asked = self._asked
        match event.get("t"):
            case "stored" if asked is not None and event["id"] == asked.id:
                asked.message = self.last_sent = event["message"]
            case "stored" if event["id"] in self._replies:
                self._given_up.add(event["message"])
            case "error" if event.get("id") in self._replies:
                print_error(WireError(event["problem"], hint=event.get("hint", ""), code=event["code"]))
            case "error" if asked is not None and event.get("id") == asked.id:
                asked.fail(WireError(event["problem"], hint=event.get("hint", ""), code=event["code"]))
            case "state" if asked is not None and event["state"] == "failed":
                asked.state_failed(event["message"])
            case "draft" if asked is not None and self._is_here(event, event):
                asked.draft(event["at"], event["add"])
            case "message" if self._is_here(event, event["message"]):
                self._take_message(event["message"])
            case _:
                pass

    def _is_here(self, event: dict[str, Any], said: dict[str, Any]) -> bool:
        """Return whether it was said in our conversation itself: its threads are the page's."""
        return event.get("conversation") == self.conversation and not said.get("thread")

    def _take_message(self, message: dict[str, Any]) -> None:
        answers: list[str] = message.get("answers") or []
        prompt: dict[str, Any] = message.get("prompt") or {}
        if prompt.get("chosen"):
            return  # told again, because somebody chose elsewhere
        if self._asked is not None and self._asked.message in answers:
            self._asked.succeed(message)
        elif self._given_up.intersection(answers) or (not answers and message["from"]["kind"] == "agent"):
            self._given_up.difference_update(answers)
            if prompt and self._show_unasked is None and self.show_question is not None:
                self.show_question(message)
                self.was_questioned.set()
            elif self._show_unasked is not None:
                self._show_unasked(message)
            else:
                self._unasked.append(message)


class _Asked:
    """One message of ours on its way to its answer."""

    def __init__(self, client_id: str, show: Show | None) -> None:
        self.id: Final = client_id
        self.message: str | None = None
        self.answer: Final[asyncio.Future[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        self._show: Final = show
        self._shown = ""

    def draft(self, at: int, add: str) -> None:
        """Show what follows what is shown; a draft that changed its mind waits for the answer."""
        if self._show is not None and at == len(self._shown):
            self._show(add)
            self._shown += add

    def finish(self, text: str) -> None:
        """Show what is missing of the answer."""
        if self._show is not None:
            is_same = text.startswith(self._shown)
            self._show(text[len(self._shown) :] if is_same else f"\n{text}")

    def succeed(self, message: dict[str, Any]) -> None:
        """Take the answer."""
        if not self.answer.done():
            self.answer.set_result(message)

    def state_failed(self, message: str) -> None:
        """Take the word that a message will never get there."""
        if message == self.message:
            self.fail(
                NoAnswerError(
                    "the message could not be delivered: nothing took it in time, or too much was waiting",
                    hint="run `skep status`, then send it again",
                )
            )

    def fail(self, error: SkepError) -> None:
        """End the wait for the answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


async def _conversation(http: aiohttp.ClientSession) -> str:
    async with http.get("/api/conversations") as answer:
        for row in await answer.json():
            if row["title"] == CONVERSATION:
                return row["id"]
    return (await _post(http, "/api/conversations", {"title": CONVERSATION}))["id"]


async def _post(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with http.post(path, json=body) as answer:
        fields = await answer.json()
        if answer.status >= 400:
            raise WireError(fields["problem"], hint=fields.get("hint", ""), code=fields["code"])
        return fields


async def _sign_out(http: aiohttp.ClientSession) -> None:
    import aiohttp

    with suppress(aiohttp.ClientError, TimeoutError):  # it runs out by itself
        async with http.delete("/api/session", timeout=aiohttp.ClientTimeout(total=client.PROBE_S)):
            pass
