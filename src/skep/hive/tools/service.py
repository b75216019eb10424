"""Tools of agents: who calls is the socket, which conversation is the lane or the turn.

Source: hive, section 7; control protocol, section 8.1. While a turn lives, a repeated call (same
`call_id`) gets the answer of the first and does nothing again. Rights and limits are the broker's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from skep.broker.broker import Broker
from skep.broker.errors import InvalidArgumentError, NotFoundError, NoTurnError
from skep.broker.types import Actor, Draft, Envelope, Pending
from skep.foundation.clock import Clock
from skep.foundation.rpc import RpcError
from skep.foundation.tasks import TaskSet
from skep.hive.ports import Agents
from skep.hive.progress import ProgressHub
from skep.hive.pump import took_more
from skep.hive.tools import schemas
from skep.hive.turns import HeldLease, Leases
from skep.wire.control.base import Args, Result
from skep.wire.control.tools import ToolCallArgs, ToolCallInTurnArgs, ToolResult, ToolSpecs

__all__ = ["ToolService"]

_CALLS_KEPT: Final = 256
"""Answers kept for repeats in one turn; the oldest go first."""

_Run = Callable[[Actor, Any, str], Awaitable[Result]]


class ToolService:
    """All tools, for all agents."""

    def __init__(
        self,
        *,
        broker: Broker,
        clock: Clock,
        agents: Agents,
        hub: ProgressHub,
        leases: Leases,
        tasks: TaskSet,
    ) -> None:
        self._broker: Final = broker
        self._clock: Final = clock
        self._agents: Final = agents
        self._hub: Final = hub
        self._leases: Final = leases
        self._tasks: Final = tasks
        self._specs: ToolSpecs | None = None
        self._runs: Final[Mapping[str, _Run]] = {
            "send": self._send,
            "recv": self._recv,
            "recv_batch": self._recv_batch,
            "thread": self._thread,
            "ask": self._ask,
            "answer": self._answer,
            "list_my_asks": self._list_my_asks,
            "cancel_ask": self._cancel_ask,
            "remind": self._remind,
            "list_my_reminders": self._list_my_reminders,
            "cancel_reminder": self._cancel_reminder,
            "agents": self._list_agents,
            "whoami": self._whoami,
        }
        self._defs: Final = {tool.name: tool for tool in schemas.TOOLS_OF_AGENTS}

    def list(self) -> ToolSpecs:
        """Return all tools with their schemas."""
        if self._specs is None:
            self._specs = ToolSpecs(tools=tuple(map(schemas.describe, schemas.TOOLS_OF_AGENTS)))
        return self._specs

    async def call_by_lane(self, agent: str, call: ToolCallArgs) -> ToolResult:
        """Call a tool from the sandbox: `lane` says which conversation of `agent` it is.

        Raises:
            NotFoundError: The lane is not this agent's, or there is none.
        """
        held = self._leases.of_lane(call.lane)
        if held is None or held.agent != agent or held.turn_id is None:
            if not await self._owns(agent, call.lane):
                raise NotFoundError(f"no lane {call.lane}")
            held = None
        return await self._call(agent, call.lane, held, call)

    async def call_in_turn(self, agent: str, call: ToolCallInTurnArgs) -> ToolResult:
        """Call a tool from a runtime inside the harness.

        Raises:
            NoTurnError: That turn does not run, or is not this agent's.
        """
        held = self._leases.of_turn(call.turn_id)
        if held is None or held.agent != agent:
            raise NoTurnError("no such turn runs")
        return await self._call(agent, held.lane, held, call)

    async def _owns(self, agent: str, lane: int) -> bool:
        if not 0 < lane < 1 << 63:
            return False
        row = await self._broker.view(lambda tx: tx.one("lane", lane))
        return row is not None and row[1] == f"agent:{agent}"

    async def _call(
        self, agent: str, lane: int, held: HeldLease | None, call: ToolCallArgs | ToolCallInTurnArgs
    ) -> ToolResult:
        actor = Actor(
            principal=f"agent:{agent}",
            role=card.role if (card := self._agents.get(agent)) else "agent",
            lane=lane,
            turn_id=held.turn_id if held else None,
        )
        if held is None:
            return await self._run(actor, call)
        task = held.calls.get(call.call_id)
        if task is None or task.cancelled():
            while len(held.calls) >= _CALLS_KEPT:
                held.calls.pop(next(iter(held.calls)))
            task = self._tasks.spawn(self._run(actor, call))
            task.add_done_callback(_retrieve)
            held.calls[call.call_id] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise NoTurnError("the turn is over") from None
            raise  # the caller went away; whoever repeats the call gets the answer

    async def _run(self, actor: Actor, call: ToolCallArgs | ToolCallInTurnArgs) -> ToolResult:
        tool = self._defs.get(call.name)
        if tool is None:
            raise RpcError("unknown_method", f"no tool `{call.name[:64]}`", hint="see `tool.list`")
        try:
            args: Args = msgspec.convert(call.args, tool.args)
        except msgspec.ValidationError as exc:
            # msgspec names field and expected type; it never quotes the value.
            raise InvalidArgumentError(f"`{call.name}`: {exc}") from exc
        result = await self._runs[call.name](actor, args, call.call_id)
        return ToolResult(result=msgspec.to_builtins(result))

    # The tools.

    async def _send(self, actor: Actor, args: schemas.SendArgs, call_id: str) -> Result:
        sent = await self._broker.send(
            actor,
            Draft(
                to=args.to,
                body=args.body,
                in_reply_to=args.in_reply_to,
                session=args.session,
                urgency=args.urgency,
                idem=args.idem,
                not_before=args.not_before,
                deadline_at=self._deadline_at(args.deadline_s),
                attachments=args.attachments,
            ),
        )
        return schemas.SendResult(
            id=sent.id,
            thread=sent.thread,
            duplicate=sent.duplicate,
            reply_ignored=sent.reply_ignored,
            recipients=sent.recipients,
            recipient_state=sent.recipient_state,
        )

    async def _recv(self, actor: Actor, args: schemas.ReceiveArgs, call_id: str) -> Result:
        envelopes, pending = await self._take(actor, limit=1, wait_s=args.wait_s, call_id=call_id)
        return schemas.ReceiveResult(envelope=envelopes[0] if envelopes else None, pending=pending)

    async def _recv_batch(self, actor: Actor, args: schemas.ReceiveBatchArgs, call_id: str) -> Result:
        envelopes, pending = await self._take(actor, limit=args.max, wait_s=args.wait_s, call_id=call_id)
        return schemas.ReceiveBatchResult(envelopes=tuple(envelopes), pending=pending)

    async def _take(
        self, actor: Actor, *, limit: int, wait_s: float, call_id: str
    ) -> tuple[Sequence[Envelope], Pending]:
        if actor.turn_id is None or (held := self._leases.of_turn(actor.turn_id)) is None:
            raise NoTurnError("no turn runs in this conversation")
        envelopes, pending = await self._broker.recv(
            actor, limit=limit, wait_ms=int(wait_s * 1000), call_id=call_id
        )
        took_more(self._hub, held, envelopes)
        return envelopes, pending

    async def _thread(self, actor: Actor, args: schemas.ThreadArgs, call_id: str) -> Result:
        rows = await self._broker.thread(actor, args.id, limit=args.limit, before=args.before)
        return schemas.ThreadResult(messages=msgspec.convert(rows, tuple[schemas.ThreadLine, ...]))

    async def _ask(self, actor: Actor, args: schemas.AskArgs, call_id: str) -> Result:
        asked = await self._broker.ask(
            actor,
            to=args.to,
            question=args.question,
            choices=args.choices,
            deadline_ms=None if args.deadline_s is None else int(args.deadline_s * 1000),
            wait_ms=int(args.wait_s * 1000),
        )
        if asked.platform_id is not None and actor.turn_id is not None:
            self._hub.took_more(actor.turn_id, (asked.platform_id,))
        return msgspec.convert(
            {"id": asked.id, "state": asked.state, "answer": asked.answer}, schemas.AskResult
        )

    async def _answer(self, actor: Actor, args: schemas.AnswerArgs, call_id: str) -> Result:
        return schemas.AnswerResult(id=(await self._broker.answer(actor, args.id, args.body)).id)

    async def _list_my_asks(self, actor: Actor, args: schemas.ListAsksArgs, call_id: str) -> Result:
        rows = await self._broker.list_asks(actor, state=args.state)
        return msgspec.convert({"asks": rows}, schemas.AsksResult, from_attributes=True)

    async def _cancel_ask(self, actor: Actor, args: schemas.CancelArgs, call_id: str) -> Result:
        return schemas.StateResult(state=await self._broker.cancel_ask(actor, args.id))

    async def _remind(self, actor: Actor, args: schemas.RemindArgs, call_id: str) -> Result:
        if (args.in_s is None) == (args.at is None):
            raise InvalidArgumentError("`remind` takes `in_s` or `at`, one of them")
        reminder = await self._broker.remind(
            actor,
            body=args.body,
            in_ms=None if args.in_s is None else int(args.in_s * 1000),
            due_at=args.at,
            session=args.session,
            missed=args.missed,
            idem=args.idem,
        )
        return schemas.RemindResult(
            id=reminder.id, due_at=reminder.due_at, open=reminder.open, limit=reminder.limit
        )

    async def _list_my_reminders(self, actor: Actor, args: schemas.NoToolArgs, call_id: str) -> Result:
        rows = await self._broker.list_reminders(actor)
        return msgspec.convert({"reminders": rows}, schemas.RemindersResult, from_attributes=True)

    async def _cancel_reminder(self, actor: Actor, args: schemas.CancelArgs, call_id: str) -> Result:
        return schemas.StateResult(state=await self._broker.cancel_reminder(actor, args.id))

    async def _list_agents(self, actor: Actor, args: schemas.NoToolArgs, call_id: str) -> Result:
        queues = await self._broker.queues()
        lines: list[schemas.AgentLine] = []
        for name in self._agents.names():
            card, queue = self._agents.get(name), queues.get(f"agent:{name}")
            lines.append(
                schemas.AgentLine(
                    name=name,
                    role=card.role if card else "agent",
                    state=self._agents.state(name),
                    busy=sum(1 for held in self._leases.of_agent(name) if held.turn_id is not None),
                    queue=queue.ready if queue else 0,
                )
            )
        return schemas.AgentsResult(agents=tuple(lines))

    async def _whoami(self, actor: Actor, args: schemas.NoToolArgs, call_id: str) -> Result:
        name, settings = actor.principal.removeprefix("agent:"), self._broker.settings
        buckets = {
            act: {"burst": burst, "one_more_after_ms": int(refill_ms)}
            for act, (burst, refill_ms) in settings.buckets.items()
        }
        return schemas.WhoamiResult(
            name=name,
            role=actor.role,
            paths={"state": f"/agents/{name}/state", "shared": "/shared"},
            limits={**buckets, "open": {"asks": settings.asks_max, "reminders": settings.reminders_max}},
            boot_epoch=self._broker.epoch,
        )

    def _deadline_at(self, deadline_s: float | None) -> int | None:
        return None if deadline_s is None else self._clock.now_ms() + int(deadline_s * 1000)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the failure of a call whose caller went away: it is told to whoever repeats the call."""
    if not task.cancelled():
        task.exception()
