"""Words of a person through the web chat: the way in with a chat's own server in front of it.

What is written and shown there (messages, ticks, events of a tab) is a platform's work; the figure is for the
reader, beside that of `bench.events`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
import msgspec

from bench.frames import TEXT
from bench.websocket import NearSocket, dial

__all__ = ["WARM_S", "ChatEnd", "chat_end"]

WARM_S: Final = 0.5
_ENDS_WITHIN_S: Final = 10.0


class _Told(msgspec.Struct):
    """What of a web chat event is needed here."""

    t: str
    id: str = ""
    message: Any = None
    state: str = ""
    problem: str = ""


_told: Final = msgspec.json.Decoder(_Told)


class ChatEnd:
    """A socket of the chat; what it says comes to `delivered` when the hive has it."""

    def __init__(self, conversations: list[bytes]) -> None:
        self._conversations: Final = conversations
        self._socket: NearSocket
        self._count = 0
        self._number = 0
        self._is_feeding = False
        self._problems: Final[list[str]] = []
        self._by_id: Final[dict[str, int]] = {}
        self._by_message: Final[dict[str, int]] = {}
        self._early: Final[set[str]] = set()
        self._idle: Final = asyncio.Event()

    async def open(self, port: int, token: str) -> None:
        """Open the socket."""
        self._socket = await dial(port, "/api/socket", token=token, on_message=self._hear)
        self._socket.send(b'{"t":"resume","n":-1}')
        await asyncio.sleep(0.2)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    async def rate(self, *, span_s: float) -> float:
        """Return messages a second, one in flight per conversation."""
        self._is_feeding = True
        for place in range(len(self._conversations)):
            self._say(place)
        await asyncio.sleep(WARM_S)
        before = self._count
        await asyncio.sleep(span_s)
        done = self._count - before
        self._idle.clear()
        self._is_feeding = False
        async with asyncio.timeout(_ENDS_WITHIN_S):
            await self._idle.wait()
        if self._problems:
            raise RuntimeError(f"the chat refused: {self._problems[0]}")
        return done / span_s

    def _say(self, place: int) -> None:
        self._number += 1
        client_id = f"b-{self._number}"
        self._by_id[client_id] = place
        self._socket.send(
            b'{"t":"send","id":"%b","conversation":"%b","reply_to":null,"text":"%b"}'
            % (client_id.encode(), self._conversations[place], TEXT.encode())
        )

    def _hear(self, data: bytes) -> None:
        """Take one event; a message that is in the hive makes room for the next."""
        told = _told.decode(data)
        if told.t == "stored":
            place = self._by_id.pop(told.id)
            if told.message in self._early:
                self._early.discard(told.message)
                self._arrived(place)
            else:
                self._by_message[told.message] = place
        elif told.t == "state" and told.state == "delivered":
            place = self._by_message.pop(told.message, None)
            if place is None:
                self._early.add(told.message)
            else:
                self._arrived(place)
        elif told.t == "error" or told.state == "failed":
            self._problems.append(told.problem or told.state)

    def _arrived(self, place: int) -> None:
        self._count += 1
        if self._is_feeding:
            self._say(place)
        elif not self._by_id and not self._by_message:
            self._idle.set()


async def chat_end(port: int, code: str, *, conversations: int) -> ChatEnd:
    """Sign in with a one-time code and return an open socket."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        async with http.post("/api/session", json={"once": code, "bearer": True}) as answer:
            token: str = (await answer.json())["token"]
        http.headers["Authorization"] = f"Bearer {token}"
        made: list[bytes] = []
        for number in range(conversations):
            async with http.post("/api/conversations", json={"title": f"bench {number}"}) as answer:
                made.append((await answer.json())["id"].encode())
    end = ChatEnd(made)
    await end.open(port, token)
    return end
