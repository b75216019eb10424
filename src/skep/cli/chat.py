"""`skep chat`: the web chat's own API from a terminal, so that it goes the same way.

Source: control protocol, section 13.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from skep.cli import client
from skep.cli.output import NotReachableError, make_app, print_json, run_app, run_async
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.errors import SkepError, WireError
from skep.foundation.ids import uuid7
from skep.foundation.paths import Home
from skep.foundation.settings import default_home
from skep.wire.control import connector

if TYPE_CHECKING:
    import aiohttp

__all__ = ["run"]

CONVERSATION: Final = "Terminal"

app = make_app('Write to an agent from the terminal.\n\nExample: skep chat "hello"')


class NoAnswerError(SkepError):
    """No answer came in time; the message is stored all the same."""

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
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(base))
        token = (await _post(http, "/api/session", {"once": made.code, "bearer": True}))["token"]
        http.headers["Authorization"] = f"Bearer {token}"
        stack.push_async_callback(_sign_out, http)
        conversation = await _conversation(http)
        socket = await stack.enter_async_context(http.ws_connect("/api/socket", compress=0))
        line = await _Line.open(socket, conversation)
        reader = await stack.enter_async_context(asyncio.TaskGroup())
        reading = reader.create_task(line.read())
        try:
            if text is not None:
                answer = await line.ask(text, timeout_s=timeout_s, show=None)
                if as_json:
                    print_json({"message": line.last_sent, "answer": answer})
                else:
                    typer.echo(answer["text"])
            else:
                await _interactive(line, timeout_s)
        finally:
            reading.cancel()
    return 0


async def _interactive(line: _Line, timeout_s: float) -> None:
    typer.echo(
        "Write and press Enter; Ctrl-D leaves. `help` shows what the built-in agents understand.", err=True
    )
    line.print_unasked = True
    loop = asyncio.get_running_loop()
    while True:
        text = (await loop.run_in_executor(None, _read_line)).rstrip("\n")
        if text == "\x04":
            return
        if text.strip():
            try:
                await line.ask(text, timeout_s=timeout_s, show=_write)
                _write("\n")
            except NoAnswerError as error:
                typer.echo(f"({error.problem})", err=True)


def _read_line() -> str:
    sys.stderr.write("> ")
    sys.stderr.flush()
    return sys.stdin.readline() or "\x04"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@dataclass
class _Line:
    """The socket of one conversation: what was sent, and what came back."""

    socket: aiohttp.ClientWebSocketResponse
    conversation: str
    print_unasked: bool = False
    last_sent: str | None = None
    _stored: dict[str, asyncio.Future[str]] = field(default_factory=dict[str, "asyncio.Future[str]"])
    _answers: dict[str, asyncio.Future[dict[str, Any]]] = field(
        default_factory=dict[str, "asyncio.Future[dict[str, Any]]"]
    )
    _early: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])
    _drafts: asyncio.Queue[tuple[int, str]] = field(default_factory=asyncio.Queue[tuple[int, str]])

    @classmethod
    async def open(cls, socket: aiohttp.ClientWebSocketResponse, conversation: str) -> _Line:
        await socket.send_json({"t": "resume", "n": -1})
        async for frame in socket:
            if json.loads(frame.data).get("t") == "ready":
                return cls(socket, conversation)
        raise NotReachableError("the connector hung up", hint="run `skep status`")

    async def ask(self, text: str, *, timeout_s: float, show: Any) -> dict[str, Any]:
        """Send `text` and return the message that answers it."""
        client_id = uuid7(SYSTEM_CLOCK.now_ms())
        loop = asyncio.get_running_loop()
        stored = self._stored[client_id] = loop.create_future()
        await self.socket.send_json(
            {"t": "send", "id": client_id, "conversation": self.conversation, "text": text, "reply_to": None}
        )
        shown = 0
        try:
            async with asyncio.timeout(timeout_s):
                sent = self.last_sent = await stored
                answer = self._answers[sent] = loop.create_future()
                if early := self._early.pop(sent, None):
                    answer.set_result(early)
                while not answer.done():
                    draft = asyncio.ensure_future(self._drafts.get())
                    await asyncio.wait({draft, answer}, return_when=asyncio.FIRST_COMPLETED)
                    if not draft.done():
                        draft.cancel()
                    elif show is not None and draft.result()[0] == shown:
                        show(draft.result()[1])
                        shown += len(draft.result()[1])
        except TimeoutError as exc:
            raise NoAnswerError(
                f"no answer within {timeout_s:g} s; the message is kept and will be answered",
                hint="see `skep status`, or wait longer with --timeout",
            ) from exc
        if show is not None:
            show(answer.result()["text"][shown:])
        return answer.result()

    async def read(self) -> None:
        """Take what comes until the socket ends."""
        async for frame in self.socket:
            self._take(json.loads(frame.data))
        lost = NotReachableError("the connector hung up", hint="run `skep status`; what was stored is kept")
        for future in (*self._stored.values(), *self._answers.values()):
            if not future.done():
                future.set_exception(lost)

    def _take(self, event: dict[str, Any]) -> None:
        match event.get("t"):
            case "stored":
                if (stored := self._stored.get(event["id"])) and not stored.done():
                    stored.set_result(event["message"])
            case "draft" if event.get("conversation") == self.conversation:
                self._drafts.put_nowait((event["at"], event["add"]))
            case "message" if event.get("conversation") == self.conversation:
                self._take_message(event["message"])
            case "error":
                if (stored := self._stored.get(event.get("id", ""))) and not stored.done():
                    stored.set_exception(
                        WireError(event["problem"], hint=event.get("hint", ""), code=event["code"])
                    )
            case _:
                pass

    def _take_message(self, message: dict[str, Any]) -> None:
        if message["from"]["kind"] != "agent" and not message.get("answers"):
            return
        for answered in message.get("answers") or ():
            future = self._answers.get(answered)
            if future is None:
                self._early[answered] = message
            elif not future.done():
                future.set_result(message)
        if not message.get("answers") and self.print_unasked:
            _write(f"\n{message['from'].get('name', '')}: {message['text']}\n> ")


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
    async with http.delete("/api/session"):
        pass
