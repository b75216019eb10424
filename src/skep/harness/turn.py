"""A running turn as its runtime sees it: what came, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from skep.foundation.clock import Clock
from skep.foundation.ids import uuid7
from skep.foundation.rpc import Caller
from skep.harness.prompt import render
from skep.wire.control import pump, tools
from skep.wire.control.envelope import Envelope, Lease, Pending

__all__ = ["AgentSetup", "Runtime", "Turn"]

MAX_TEXT: Final = 64 * 1024
"""Longest text of one turn that is shown while it runs, in characters."""


class AgentSetup(Protocol):
    """What a runtime may know of its agent."""

    @property
    def agent(self) -> str:
        """Its name."""
        ...

    @property
    def role(self) -> str:
        """`agent` or `manager`."""
        ...


class Runtime(Protocol):
    """What turns envelopes into an answer."""

    async def run(self, turn: Turn) -> str | None:
        """Run one turn; return the answer, or `None` when nobody is to be answered.

        Cancelled when the turn is stopped: what `turn.say` had shown is kept as the answer.
        """
        ...


class Turn:
    """One turn over one lease.

    Attributes:
        text: What has been said so far.
        prompt: The envelopes as a model would see them.
    """

    def __init__(
        self, caller: Caller, lease: Lease, *, turn_id: str, setup: AgentSetup, clock: Clock
    ) -> None:
        self.turn_id: Final = turn_id
        self.lease: Final = lease
        self.setup: Final = setup
        self.envelopes: Final = list(lease.envelopes)
        self.pending: Pending = lease.pending
        self.prompt: Final = render(lease.envelopes, lease.pending)
        self.text = ""
        self.tool_calls = 0
        self._caller = caller
        self._clock = clock
        self._shown_at_ms = clock.monotonic_ms()
        self._seq = 0

    @property
    def head(self) -> Envelope:
        """The envelope that began the turn."""
        return self.envelopes[0]

    @property
    def silent_ms(self) -> int:
        """How long the turn has shown nothing: no text, no tool, no beat."""
        return self._clock.monotonic_ms() - self._shown_at_ms

    def say(self, text: str) -> None:
        """Show `text` after what was shown so far."""
        at = len(self.text)
        self.text += text
        self._shown_at_ms = self._clock.monotonic_ms()
        if at + len(text) <= MAX_TEXT:
            self._progress(kind="text", at=at, add=text)

    def beat(self) -> None:
        """Tell that the turn is alive though nothing is said."""
        self._progress(kind="beat")

    async def tool(self, name: str, **args: Any) -> dict[str, Any]:
        """Call a tool of the hive and return its result.

        Raises:
            CallError: The tool refused; the code is the tool's.
        """
        self.tool_calls += 1
        call_id = f"{self.turn_id}:{self.tool_calls}"
        self._progress(kind="tool", name=name, state="started")
        try:
            answer = await self._caller.call(
                tools.TOOL_CALL_IN_TURN,
                tools.ToolCallInTurnArgs(turn_id=self.turn_id, call_id=call_id, name=name, args=args),
            )
        except BaseException:
            self._progress(kind="tool", name=name, state="failed")
            raise
        self._progress(kind="tool", name=name, state="ended")
        return answer.result

    async def memory(self, envelope: Envelope) -> pump.MemoryContextResult:
        """Return what is known of the author of `envelope`."""
        return await self._caller.call(
            pump.MEMORY_CONTEXT, pump.MemoryContextArgs(delivery_id=envelope.delivery_id)
        )

    async def more(self, limit: int = 10) -> Sequence[Envelope]:
        """Take further envelopes of this conversation into the turn."""
        taken = await self._caller.call(
            pump.MORE,
            pump.MoreArgs(lease_id=self.lease.lease_id, fence=self.lease.fence, max=limit),
        )
        self.envelopes.extend(taken.envelopes)
        self.pending = taken.pending
        return taken.envelopes

    def _progress(self, **facts: Any) -> None:
        self._seq += 1
        self._shown_at_ms = self._clock.monotonic_ms()
        self._caller.notify(pump.PROGRESS, pump.ProgressArgs(turn_id=self.turn_id, seq=self._seq, **facts))


def new_turn_id(now_ms: int) -> str:
    """Return an id for a turn."""
    return f"t-{uuid7(now_ms)}"
