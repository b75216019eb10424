"""A person at the web chat: sends with ids of its own, resumes after each cut, keeps a history.

Written against the web chat API (control protocol, section 13), apart from the code it checks.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

__all__ = ["ChatClient", "Event", "History"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a client saw, and when (monotonic seconds)."""

    at: float
    who: str
    what: str
    facts: dict[str, Any]


@dataclass(slots=True)
class History:
    """What all clients saw, in the order in which they saw it."""

    events: list[Event] = field(default_factory=list[Event])

    def add(self, who: str, what: str, **facts: Any) -> None:
        """Note one event."""
        self.events.append(Event(time.monotonic(), who, what, facts))

    def dump(self) -> str:
        """Return it as JSON lines."""
        return "".join(
            json.dumps({"at": event.at, "who": event.who, "what": event.what, **event.facts}) + "\n"
            for event in self.events
        )


class ChatClient:
    """One tab of one account, over a bearer session.

    Attributes:
        states: Newest state of each message of ours.
        messages: All messages seen, by id.
        answers: For each message of ours, the ids of the messages that name it.
    """

    def __init__(self, url: str, *, name: str, history: History) -> None:
        self.url = url
        self.name = name
        self.history = history
        self.last_n = 0
        self.states: dict[str, str] = {}
        self.messages: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, list[str]] = {}
        self.drafts: dict[str, str] = {}
        self._token = ""
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._unstored: dict[str, dict[str, Any]] = {}
        self._stored: dict[str, str] = {}
        self._changed = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None

    async def sign_in(self, once: str) -> None:
        """Exchange a one-time code for a session."""
        self._http = aiohttp.ClientSession(self.url)
        async with self._http.post("/api/session", json={"once": once, "bearer": True}) as answer:
            assert answer.status == 200, await answer.text()
            self._token = (await answer.json())["token"]
        self._http.headers["Authorization"] = f"Bearer {self._token}"
        self._reading = asyncio.ensure_future(self._keep_reading())

    async def share(self, other: ChatClient) -> None:
        """Use the session of `other`: another tab of the same account."""
        self._token = other._token
        self._http = aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {self._token}"})
        self._reading = asyncio.ensure_future(self._keep_reading())

    async def close(self) -> None:
        """Leave."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def conversation(self, title: str) -> str:
        """Begin a conversation and return its id."""
        while True:
            try:
                made = await self.post("/api/conversations", {"title": title})
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.1)
            else:
                return made["id"]

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST and return the JSON answer."""
        assert self._http is not None
        async with self._http.post(path, json=body) as answer:
            return await answer.json()

    async def get(self, path: str) -> Any:
        """GET until it works, and return the JSON answer."""
        assert self._http is not None
        while True:
            try:
                async with self._http.get(path) as answer:
                    return await answer.json()
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.1)

    async def send(self, conversation: str, text: str, *, limit_s: float = 120) -> str:
        """Send `text`, again after each cut, until it is stored; return its message id."""
        client_id = str(uuid.uuid4())
        frame = {"t": "send", "id": client_id, "conversation": conversation, "text": text, "reply_to": None}
        self._unstored[client_id] = frame
        self.history.add(self.name, "send", id=client_id, conversation=conversation)
        await self._write(frame)
        await self.until(lambda: client_id in self._stored, limit_s=limit_s)
        return self._stored[client_id]

    async def stop(self, conversation: str) -> None:
        """Press the stop button."""
        await self._write({"t": "stop", "conversation": conversation})

    async def answered(self, message: str, *, limit_s: float = 120) -> dict[str, Any]:
        """Wait until `message` is answered and return the answer."""
        await self.until(lambda: message in self.answers, limit_s=limit_s)
        return self.messages[self.answers[message][0]]

    async def until(self, check: Any, *, limit_s: float) -> None:
        """Wait until `check()` holds."""
        async with asyncio.timeout(limit_s), self._changed:
            await self._changed.wait_for(check)

    async def cut(self) -> None:
        """Break the line; it is dialled again and resumed."""
        if self._socket is not None:
            await self._socket.close(code=1001)

    async def _keep_reading(self) -> None:
        assert self._http is not None
        while True:
            try:
                async with self._http.ws_connect("/api/socket", heartbeat=5) as socket:
                    await socket.send_json({"t": "resume", "n": self.last_n})
                    self._socket = socket
                    for frame in list(self._unstored.values()):
                        await socket.send_json(frame)
                    async for message in socket:
                        await self._take(json.loads(message.data))
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            self._socket = None
            self.history.add(self.name, "cut")
            await asyncio.sleep(0.1)

    async def _write(self, frame: dict[str, Any]) -> None:
        if self._socket is not None:
            try:
                await self._socket.send_json(frame)
            except (aiohttp.ClientError, OSError):
                return

    async def _take(self, event: dict[str, Any]) -> None:
        kind = event["t"]
        if (n := event.get("n")) is not None and kind != "ready":
            self.history.add(self.name, "event", n=n, kind=kind, last=self.last_n)
            if n <= self.last_n and kind != "stored":
                return
            self.last_n = max(self.last_n, n)
        if kind == "stored":
            self._unstored.pop(event["id"], None)
            if event["id"] not in self._stored:
                self.history.add(self.name, "stored", id=event["id"], message=event["message"])
            self._stored[event["id"]] = event["message"]
        elif kind == "state":
            self.history.add(self.name, "state", message=event["message"], state=event["state"])
            self.states[event["message"]] = event["state"]
        elif kind == "draft":
            text = self.drafts.get(event["message"], "")
            self.drafts[event["message"]] = text[: event["at"]] + event["add"]
        elif kind == "message":
            message = event["message"]
            first = message["id"] not in self.messages
            self.messages[message["id"]] = message
            self.drafts.pop(message["id"], None)
            for answered in message.get("answers") or ():
                self.history.add(
                    self.name, "answer", message=message["id"], answers=answered, text=message["text"]
                )
                if first or message["id"] not in self.answers.get(answered, []):
                    self.answers.setdefault(answered, []).append(message["id"])
        elif kind == "error":
            self.history.add(self.name, "error", code=event["code"], id=event.get("id"))
        async with self._changed:
            self._changed.notify_all()
