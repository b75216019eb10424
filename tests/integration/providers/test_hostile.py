"""An endpoint that means no good: the right class, bounded time and memory, nothing leaked.

Source: secrets and providers, section B7.4, and the bad input of part B.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from skep.providers.endpoint import Limits
from skep.providers.smoke import Plan
from support.hostile import HOSTILE, Hostile, hostile
from support.smoking import run_provider, smoke

SHORT = Limits(connect_s=1, first_byte_s=0.4, stall_s=0.4, total_s=0.8)
KEY = "canary-key-Qw72-0123456789"

CHAT = {
    "nothing": ("error", "other", "connection", 23),
    "forever": ("error", "timeout", "read", 24),
    "head, then forever": ("error", "timeout", "read", 24),
    "a byte at a time": ("error", "timeout", "total", 24),
    "100 MB": ("error", "other", "malformed", 27),
    "cut": ("error", "other", "malformed", 27),
    "a page": ("error", "other", "malformed", 27),
    "empty": ("error", "other", "malformed", 27),
    "an empty object": ("error", "other", "malformed", 27),
    "nested deep": ("error", "other", "malformed", 27),
    "nested deep in an error": ("fail", "other", "bad_request", 1),
    "not UTF-8": ("error", "other", "malformed", 27),
    "names twice": ("error", "other", "malformed", 27),
    "packed": ("error", "other", "malformed", 27),
    "redirect to metadata": ("error", "other", "redirect", 27),
    "not HTTP": ("error", "other", "connection", 23),
}
STREAM = {
    "endless events": ("error", "other", "malformed", 27),
    "comments only": ("error", "timeout", "read", 24),
    "events that are not JSON": ("error", "other", "malformed", 27),
    "events not UTF-8": ("error", "other", "malformed", 27),
    "an error among events": ("error", "rate", "limit", 25),
    "a page": ("error", "other", "malformed", 27),
    "forever": ("error", "timeout", "read", 24),
}


@pytest.mark.parametrize(("name", "expected"), CHAT.items())
async def test_b7_4_chat_with(name: str, expected: tuple[str, str, str, int]) -> None:
    """The class of the fault, within the limits of time and size."""
    start = time.monotonic()
    async with hostile(HOSTILE[name]) as server:
        found = await smoke(
            server.base_url, "m", Plan(checks=frozenset({"chat_completion"})), key=KEY, limits=SHORT
        )

    check = found.checks["chat_completion"]
    assert (check.status, check.kind, check.detail, found.report.exit_code) == expected
    assert time.monotonic() - start < 3
    assert server.sent_bytes < 16 * 1_048_576  # the rest was never taken


@pytest.mark.parametrize(("name", "expected"), STREAM.items())
async def test_b7_4_stream_with(name: str, expected: tuple[str, str, str, int]) -> None:
    """An endless stream ends, a silent one is late, and an error inside is seen."""
    async with hostile(HOSTILE[name]) as server:
        found = await smoke(
            server.base_url, "m", Plan(checks=frozenset({"streaming"})), key=KEY, limits=SHORT
        )

    check = found.checks["streaming"]
    assert (check.status, check.kind, check.detail, found.report.exit_code) == expected


@pytest.mark.parametrize("name", ["100 MB", "packed", "redirect to metadata", "a page", "nothing", "cut"])
async def test_b7_4_the_openai_library_is_held_to_the_same_limits(name: str) -> None:
    """What goes through the library is bounded too, and is never a pass."""
    async with hostile(HOSTILE[name]) as server:
        found = await smoke(server.base_url, "m", Plan(checks=frozenset({"sdk_chat"})), key=KEY, limits=SHORT)

    assert found.checks["sdk_chat"].status == "error"
    assert server.sent_bytes < 16 * 1_048_576


async def test_b1_no_redirect_is_followed_and_nothing_is_asked_twice() -> None:
    """One request went out, and the key with it to nowhere else."""
    async with hostile(HOSTILE["redirect to metadata"]) as server:
        await smoke(server.base_url, "m", Plan(checks=frozenset({"chat_completion"})), key=KEY, limits=SHORT)

    assert len(server.requests) == 1


async def test_b1_a_connection_that_the_server_gives_up_while_it_is_idle_spoils_no_question() -> None:
    """It promises to keep it, answers nothing more on it, and hangs up: the next question is answered all the same."""
    body = b'{"model":"m","choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}'
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"

    async def give_up(server: Hostile, writer: asyncio.StreamWriter) -> None:
        await server.send(writer, head.encode() + body)
        await asyncio.sleep(0.2)

    async with hostile(give_up) as server:
        found = await smoke(
            server.base_url, "m", Plan(checks=frozenset({"models", "chat_completion"})), key=KEY, limits=SHORT
        )

    assert found.lines["chat_completion"] == "chat_completion=pass model=m"
    assert len(server.requests) == 2


async def test_s2_escape_codes_do_not_reach_the_terminal() -> None:
    """What a server calls its model is one printable word."""
    async with hostile(HOSTILE["escape codes"]) as server:
        found = await smoke(server.base_url, "m", Plan(checks=frozenset({"chat_completion"})), limits=SHORT)

    line = found.lines["chat_completion"]
    assert line.isprintable()
    assert found.checks["chat_completion"].data["model_differs"]


async def test_b7_4_forever_ends_for_the_program(tmp_path: Path) -> None:
    """An endpoint that never answers ends the command in the time that is given to it."""
    start = time.monotonic()
    async with hostile(HOSTILE["forever"]) as server:
        done = await run_provider(
            tmp_path, ["test", "--base-url", server.base_url, "--model", "m", "--timeout", "0.5"]
        )

    assert (done.returncode, done.stdout.splitlines()[0]) == (24, "models=error class=timeout detail=total")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "echo",
    [
        f'{{"error": {{"message": "Bad key {KEY}", "code": 401}}}}',
        f'{{"error": {{"message": "no", "metadata": {{"raw": "{{\\"message\\": \\"{KEY}\\"}}"}}}}}}',
        f"refused: {KEY}",
        f'{{"model": "{KEY}", "choices": [{{"message": {{"content": "{KEY}"}}, "finish_reason": "stop"}}]}}',
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_a8_1_a_key_that_is_echoed_is_not_printed(tmp_path: Path, echo: str, status: str) -> None:
    """In the error, in what is wrapped in it, in the name of the model, in the header: nowhere in what is said."""

    async def behave(server: Hostile, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nx-request-id: {KEY}\r\ncontent-length: {len(echo)}\r\n"
        await server.send(
            writer, f"{head}content-type: application/json\r\nconnection: close\r\n\r\n{echo}".encode()
        )

    async with hostile(behave) as server:
        words = ["test", "--base-url", server.base_url, "--model", "m", "--key-ref", "env:K", "--keep-text"]
        done = await run_provider(
            tmp_path, [*words, "--json", "--checks", "chat,json,stream"], environ={"K": KEY}
        )

    assert KEY not in done.stdout + done.stderr
    assert json.loads(done.stdout)["checks"]
    assert any(f"authorization: bearer {KEY}".lower() in request.lower() for request in server.requests)
