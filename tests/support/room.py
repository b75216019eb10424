"""The web chat's page, signed in, and the gateway that answers it: each state lasts as long as a test looks at it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Locator, Page, WebSocketRoute, expect

from support.browser import Visit, visiting
from support.edge import Edge, FakeGateway
from support.waiting import MS

__all__ = ["Agents", "Room", "agent", "sign_in", "ticks", "visiting_room"]


class Agents:
    """Who can be written to, as the pages hear it: from here alone, after `ready` and each time it is told anew.

    All else that the server says and hears passes.
    """

    def __init__(self, *agents: dict[str, Any]) -> None:
        self._agents = agents
        self._lines: list[WebSocketRoute] = []

    async def install(self, context: BrowserContext) -> None:
        """Stand between every page of `context` and its server."""
        await context.route_web_socket("**/api/socket", self._route)

    def tell(self, *agents: dict[str, Any]) -> None:
        """Say that these are the agents now."""
        self._agents = agents
        for line in self._lines:
            self._say(line)

    def _route(self, line: WebSocketRoute) -> None:
        server = line.connect_to_server()

        def down(data: str | bytes) -> None:
            kind = json.loads(data)["t"]
            if kind == "agents":
                return
            line.send(data)
            if kind == "ready":
                self._lines.append(line)
                self._say(line)

        async def closed(code: int | None, reason: str | None) -> None:
            if line in self._lines:
                self._lines.remove(line)
            await line.close(code=code, reason=reason)

        server.on_message(down)
        server.on_close(closed)

    def _say(self, line: WebSocketRoute) -> None:
        if self._agents:
            line.send(json.dumps({"t": "agents", "agents": self._agents}))


def agent(name: str, state: str = "idle", waiting: int = 0, *, role: str = "agent") -> dict[str, Any]:
    """Return an agent as pages hear of it."""
    return {"name": name, "role": role, "state": state, "waiting": waiting}


@dataclass
class Room:
    """A browser that is signed in, and the gateway that answers it."""

    edge: Edge
    gateway: FakeGateway
    browser: Browser
    visit: Visit
    inbound: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def page(self) -> Page:
        """The first tab."""
        return self.visit.page

    async def write(self, text: str, *, place: str = "#talk") -> None:
        """Type words and send them: in the conversation, or in the thread that is open, `.side`."""
        await self.page.locator(place).get_by_role("textbox").fill(text)
        await self.page.keyboard.press("Enter")

    async def heard(self, *, within: float = 5_000 * MS) -> dict[str, Any]:
        """Return the next message that reached the gateway, acknowledged: it is in the hive."""
        frame = await self.gateway.hear("inbound", within=within)
        await self.gateway.ack(frame)
        self.inbound.append(frame)
        return frame["event"]

    async def do(self, event: dict[str, Any], op: str, **fields: Any) -> None:
        """Do something where `event` was said."""
        metadata = {"scope_id": "local", "agent": "scout", **fields.pop("metadata", {})}
        if event["source"]["thread_id"] is not None:
            metadata["thread_id"] = event["source"]["thread_id"]
        chat_id = event["source"]["chat_id"]
        result = await self.gateway.do({"op": op, "chat_id": chat_id, "metadata": metadata, **fields})
        assert result["success"], result

    async def begin(self, event: dict[str, Any]) -> None:
        """A turn begins with `event`."""
        await self.do(event, "seen", message_ids=[event["message_id"]])
        await self.do(event, "typing")

    async def draft(self, event: dict[str, Any], text: str) -> None:
        """The answer to `event` reads so far."""
        key = f"r:{event['message_id']}"
        await self.do(event, "draft", draft_id=1, content=text, final=False, metadata={"idem": key})

    async def answer(self, event: dict[str, Any], text: str) -> None:
        """The answer to `event` is whole."""
        key = {"idem": f"r:{event['message_id']}", "answers": [event["message_id"]]}
        await self.do(event, "draft", draft_id=1, content=text, final=True, metadata=key)
        await self.do(event, "typing", content="")


@asynccontextmanager
async def visiting_room(edge: Edge, browser: Browser, **options: Any) -> AsyncIterator[Room]:
    """Yield somebody who is signed in, and a gateway; nothing that the page did was refused."""
    gateway = await edge.gateway()
    async with visiting(browser, **options) as visit:
        await sign_in(edge, visit)
        yield Room(edge=edge, gateway=gateway, browser=browser, visit=visit)
        assert await visit.refusals() == []


async def sign_in(edge: Edge, visit: Visit) -> None:
    """Open the page by a one-time link."""
    await visit.page.goto(f"{edge.url}/#once={await edge.code()}")
    await expect(visit.page.locator(".chat")).to_be_visible()


def ticks(page: Page) -> Locator:
    """What stands below the person's own words, oldest first."""
    return page.locator(".own .state")
