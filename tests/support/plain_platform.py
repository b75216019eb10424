"""A platform that does what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from skep.connector.platform import Target
from skep.store.sqlite.connector import ConnectorTx, TakenRow
from skep.wire.relay.actions import Action, Hints, Result
from skep.wire.relay.descriptor import Descriptor
from skep.wire.relay.team import AgentHere

__all__ = ["FakePlatform"]


@dataclass
class FakePlatform:
    """Answers what it is told to, and counts."""

    name: str = "fake"
    bot_ids: tuple[str, ...] = ("bot",)
    is_exact: bool = False
    repeats_safely: bool = False
    results: list[Result] = field(default_factory=list[Result])
    calls: int = 0
    running: int = 0
    said: list[str] = field(default_factory=list[str])
    gate: asyncio.Event | None = None

    def descriptor(self, bot_id: str, *, is_skep: bool) -> Descriptor:
        return Descriptor(
            contract_version=1,
            platform=self.name,
            label=self.name,
            max_message_length=4096,
            supports_draft_streaming=False,
            supports_edit=False,
            supports_threads=False,
            markdown_dialect="plain",
            len_unit="chars",
            bot_id=bot_id,
        )

    async def perform(self, action: Action, target: Target, hints: Hints) -> Result:
        self.calls += 1
        self.running += 1
        assert self.running == 1
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        self.running -= 1
        self.said.append(getattr(action, "content", ""))
        return self.results.pop(0)

    def delivered(self, tx: ConnectorTx, taken: Sequence[TakenRow]) -> None: ...

    def agents_here(self, tenant: str, instance: str, agents: Sequence[AgentHere]) -> None: ...

    def given_up(self, tx: ConnectorTx, taken: TakenRow) -> None: ...
