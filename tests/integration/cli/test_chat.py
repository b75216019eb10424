"""`skep chat` as a process, against a made-up connector; control protocol, section 13."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from skep.foundation.paths import Home
from skep.foundation.rpc import Call, Handler, Listener
from skep.wire.control import CONNECTOR, connector
from support.waiting import MS, eventually

pytestmark = pytest.mark.anyio


TEA_OR_COFFEE = {"id": "p", "options": [{"id": "1", "label": "tea"}, {"id": "2", "label": "coffee"}]}


class Edge:
    """The web chat's API and the connector's socket; what it does with a message is in its text."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.said: list[str] = []
        self.signed_out = 0
        self._url = ""
        self._number = 0
        self._tabs: set[web.WebSocketResponse] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Edge]:
        """Serve while the body runs."""
        handlers: dict[str, Handler] = dict.fromkeys(CONNECTOR.methods, self._code)
        listener = Listener(CONNECTOR, handlers)
        await listener.start(self.home.connector_socket)
        app = web.Application()
        app.router.add_post("/api/session", self._sign_in)
        app.router.add_delete("/api/session", self._sign_out)
        app.router.add_get("/api/conversations", self._conversations)
        app.router.add_get("/api/socket", self._socket)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await self.hang_up()
            await runner.cleanup()
            await listener.close()

    async def hang_up(self) -> None:
        """Close every tab, as a connector that stops does."""
        for tab in list(self._tabs):
            await tab.close()

    async def say(self, text: str, *, answers: list[str] | None = None, **facts: object) -> None:
        """Send an agent's message to every tab."""
        self._number += 1
        message = {
            "id": f"a{self._number}",
            "from": {"kind": "agent", "name": "concierge"},
            "text": text,
            "answers": answers or [],
            "at": 1,
            **facts,
        }
        await self._tell({"t": "message", "n": self._number, "conversation": "c1", "message": message})

    async def _tell(self, event: dict[str, Any]) -> None:
        for tab in self._tabs:
            await tab.send_json(event)

    async def _code(self, _call: Call, _args: Any) -> connector.WebCodeResult:
        return connector.WebCodeResult(code="x", url=f"{self._url}/#once=x")

    async def _sign_in(self, _request: web.Request) -> web.Response:
        return web.json_response({"token": "t"})

    async def _sign_out(self, _request: web.Request) -> web.Response:
        self.signed_out += 1
        return web.Response(status=204)

    async def _conversations(self, _request: web.Request) -> web.Response:
        return web.json_response([{"id": "c1", "title": "Terminal"}])

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        tab = web.WebSocketResponse()
        await tab.prepare(request)
        self._tabs.add(tab)
        async for frame in tab:
            if frame.type is WSMsgType.TEXT:
                await self._hear(json.loads(frame.data))
        self._tabs.discard(tab)
        return tab

    async def _hear(self, event: dict[str, Any]) -> None:
        if event["t"] == "resume":
            await self._tell({"t": "ready", "n": 0})
            return
        text = event["text"]
        self.said.append(text)
        message = f"m{len(self.said)}"
        if text == "too much":
            problem = {"code": "web.too_large", "problem": "the text is too long", "hint": "say less"}
            await self._tell({"t": "error", "id": event["id"], "ok": False, **problem})
            return
        await self._tell({"t": "stored", "id": event["id"], "message": message, "n": 1})
        match text:
            case "lost":
                await self._tell({"t": "state", "message": message, "state": "failed", "n": 2})
            case "silence":
                pass
            case "ask me":
                await self.say("Which one?", prompt=TEA_OR_COFFEE)
            case "2" if "ask me" in self.said:
                number = self.said.index("ask me") + 1
                await self.say("you chose coffee", answers=[f"m{number}", message])
            case "hang up":
                await self.hang_up()
            case "beside a thread":
                beside = {"t": "draft", "conversation": "c1", "message": "b", "thread": "m0"}
                await self._tell({**beside, "at": 0, "add": "in the thread"})
                await self.say("in the thread", answers=["m0"], thread="m0")
                await self.say("in the thread, unasked", thread="m0")
                await self.say("you said it", answers=[message])
            case _:
                draft = {"t": "draft", "conversation": "c1", "message": "a", "at": 0, "add": "you said "}
                await self._tell(draft)
                await self.say(f"you said {text}", answers=[message])


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A made-up connector of an empty installation."""
    home = Home(tmp_path)
    home.prepare()
    async with Edge(home).running() as edge:
        yield edge


async def test_a_question_is_answered_and_nothing_else_is_printed(edge: Edge) -> None:
    """Only the answer is on stdout; the session does not outlive the command."""
    assert await run(edge, "hello") == (0, "you said hello\n", "")
    assert edge.signed_out == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("lost",), 1, ("error: the message could not be delivered", "code: chat.no_answer")),
        (("too much",), 1, ("error: the text is too long", "hint: say less", "code: web.too_large")),
        (("--timeout", "0.2", "silence"), 1, ("error: no answer within 0.2 s", "code: chat.no_answer")),
        (("hang up",), 3, ("error: the connector hung up", "code: cli.not_reachable")),
        (("",), 2, ("error: there is nothing to say", "code: cli.usage")),
        ((" ",), 2, ("error: there is nothing to say", "code: cli.usage")),
        ((), 2, ("error: there is nothing to say", "code: cli.usage")),
    ],
)
async def test_what_goes_wrong_is_told_without_a_traceback(
    edge: Edge, words: tuple[str, ...], code: int, told: tuple[str, ...]
) -> None:
    """Problem, hint and code on stderr; nothing on stdout."""
    exit_code, stdout, stderr = await run(edge, *words)

    assert (exit_code, stdout) == (code, "")
    assert [line for line in told if line not in stderr] == []
    assert "Traceback" not in stderr


async def test_a_conversation_on_a_terminal(edge: Edge) -> None:
    """Answers, an empty line, a refusal, what nobody asked for, and Ctrl-D."""
    async with terminal(edge) as screen:
        await screen.type("one")
        await screen.shows("you said one\r\n> ")
        await screen.type("")
        await screen.type("too much")
        await screen.shows("error: the text is too long")
        await screen.type("lost")
        await screen.shows("could not be delivered")
        await edge.say("you asked me to remind you")
        await screen.shows("concierge: you asked me to remind you\r\n> ")
        await screen.type("two")
        await screen.shows("you said two\r\n> ")
        await screen.press(b"\x04")
        assert await screen.code() == 0

    assert edge.said == ["one", "too much", "lost", "two"]
    assert edge.signed_out == 1


async def test_whoever_answers_may_ask_first(edge: Edge) -> None:
    """The question is shown with its choices while the answer is waited for, and what is typed then is the reply."""
    async with terminal(edge) as screen:
        await screen.type("ask me")
        await screen.shows("concierge: Which one?\r\n1. tea\r\n2. coffee\r\n> ")
        await screen.type("2")
        await screen.shows("you chose coffee\r\n> ")
        await screen.type("two")
        await screen.shows("you said two\r\n> ")
        await edge.say("Which one?", prompt={**TEA_OR_COFFEE, "chosen": "2"})
        await screen.type("three")
        await screen.shows("you said three\r\n> ")

    assert edge.said == ["ask me", "2", "two", "three"]
    assert screen.text.count("Which one?") == 1


async def test_a_question_of_one_command_is_printed_with_its_choices(edge: Edge) -> None:
    """Before the answer: its number can be said by the next command."""
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run(edge, "silence"))
        await eventually(lambda: edge.said == ["silence"])
        await edge.say("Which one?", prompt=TEA_OR_COFFEE)
        await edge.say("say it", answers=["m1"])

    assert command.result() == (0, "Which one?\n1. tea\n2. coffee\n\nsay it\n", "")


async def test_what_is_said_in_threads_is_not_shown(edge: Edge) -> None:
    """Neither as an answer that is being written, nor as one, nor unasked."""
    async with terminal(edge) as screen:
        await screen.type("beside a thread")
        await screen.shows("you said it\r\n> ")
        await edge.say("in the thread, later", thread="m0")
        await edge.say("outside of it")
        await screen.shows("concierge: outside of it\r\n> ")
        assert "thread" not in screen.text.replace("beside a thread", "")


async def test_a_late_answer_is_still_shown(edge: Edge) -> None:
    """Who stopped waiting is told when it comes after all."""
    async with terminal(edge, "--timeout", "0.2") as screen:
        await screen.type("silence")
        await screen.shows("no answer within 0.2 s")
        await edge.say("here it is", answers=["m1"])
        await screen.shows("concierge: here it is\r\n> ")


@pytest.mark.parametrize("typed", ["", "silence"], ids=["at the prompt", "while waiting"])
async def test_ctrl_c_leaves_at_once(edge: Edge, typed: str) -> None:
    """No key is needed after it; the exit code says that it was interrupted."""
    async with terminal(edge) as screen:
        await screen.shows("> ")
        await screen.type(typed)
        await eventually(lambda: edge.said == [typed] * bool(typed))
        screen.process.send_signal(signal.SIGINT)
        assert await screen.code() == 130
        assert "Traceback" not in screen.text


async def test_a_connector_that_stops_ends_the_conversation(edge: Edge) -> None:
    """The prompt does not stay as if somebody listened."""
    async with terminal(edge) as screen:
        await screen.shows("> ")
        await edge.hang_up()
        assert await screen.code() == 3
        assert "error: the connector hung up" in screen.text


async def run(edge: Edge, *words: str) -> tuple[int | None, str, str]:
    """Run `skep chat` with `words` and an empty stdin; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command(*words),
        env=environment(edge),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


class Screen:
    """A terminal with `skep chat` in it."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process = process
        self.text = ""
        self._seen = 0
        self._descriptor = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    async def shows(self, wanted: str) -> None:
        """Wait until `wanted` is shown after what was waited for last."""

        def is_there() -> bool:
            at = self.text.find(wanted, self._seen)
            if at >= 0:
                self._seen = at + len(wanted)
            assert at >= 0, self.text[self._seen :]
            return True

        await eventually(is_there, within=10_000 * MS)

    async def type(self, line: str) -> None:
        """Type `line` and press Enter."""
        await self.press(f"{line}\n".encode())

    async def press(self, keys: bytes) -> None:
        """Press `keys`."""
        os.write(self._descriptor, keys)

    async def code(self) -> int:
        """Wait until the process has ended, without another key."""
        async with asyncio.timeout(5):
            return await self.process.wait()

    def close(self) -> None:
        """Take the terminal away."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65_536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self.text += data.decode()


@asynccontextmanager
async def terminal(edge: Edge, *words: str) -> AsyncIterator[Screen]:
    """Yield a terminal in which `skep chat` was begun."""
    ours, its = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command(*words), env=environment(edge), stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    screen = Screen(process, ours)
    try:
        yield screen
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        screen.close()


def command(*words: str) -> tuple[str, ...]:
    """Return the command line of `skep chat`."""
    return (sys.executable, "-m", "skep", "chat", *words)


def environment(edge: Edge) -> dict[str, str]:
    """Return what the command needs to find `edge`."""
    return {"PATH": os.environ["PATH"], "HOME": str(edge.home.root), "SKEP_HOME": str(edge.home.root)}
