"""The message half of the daemon: its sockets for the gateway and for the agents, in one object.

Source: control protocol, sections 2, 4, 6, 7 and 8; hive, sections 5 to 8.
It owns `door.sock`, and per agent `pump.sock` and `hive.sock`; the scheduler; the sweeps; and the
state of running turns. It starts no process and answers no operator: the rest of the daemon does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

from skep.broker.broker import Broker, OnChange
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.paths import Home
from skep.foundation.rpc import Call, Connection, Listener
from skep.foundation.settings import HiveSettings
from skep.foundation.tasks import Backoff, TaskSet
from skep.hive.door.door import Door
from skep.hive.door.relays import Relays
from skep.hive.door.team import team_of
from skep.hive.ports import Agents, Emit, NoWatch, RunningTurn, Watch
from skep.hive.progress import ProgressHub
from skep.hive.pump import AgentPump, LeaseCalls
from skep.hive.scheduler import Scheduler
from skep.hive.tools.service import ToolService
from skep.hive.turns import Leases
from skep.wire.control import DOOR, PUMP, TOOLS
from skep.wire.control.base import NoArgs
from skep.wire.control.operator import RelayRow
from skep.wire.control.tools import ToolCallArgs, ToolCallInTurnArgs, ToolResult, ToolSpecs

__all__ = ["Messages"]

_SWEEP_MAX_S: Final = 1.0
_TEAM_EVERY_S: Final = 1.0
_DOOR_IN_FLIGHT: Final = 1_024

_log = get_logger(part="messages")


class Messages:
    """The message half. Make it, `start` it, `add_agent` each agent, `close` it.

    Args:
        broker: Over the open store; closed by whoever opened it.
        agents: Which agents there are.
        emit: Takes hive events of kinds `turn` and `relay`.
        watch: Told of pumps and turns; may be set later, before `start`.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        home: Home,
        clock: Clock,
        agents: Agents,
        emit: Emit,
        settings: HiveSettings,
        watch: Watch | None = None,
    ) -> None:
        self.watch: Watch = watch or NoWatch()
        self._broker: Final = broker
        self._home: Final = home
        self._clock: Final = clock
        self._agents: Final = agents
        self._tasks: Final = TaskSet(on_error=_failed)
        self._hub: Final = ProgressHub(clock=clock, emit=lambda data: emit("turn", data))
        self._leases: Final = Leases()
        self._calls: Final = LeaseCalls(
            broker=broker,
            clock=clock,
            hub=self._hub,
            leases=self._leases,
            tasks=self._tasks,
            watch=lambda: self.watch,
        )
        self._relays: Final = Relays(clock=clock, hub=self._hub, tasks=self._tasks, emit=emit)
        self._door: Final = Door(
            broker=broker,
            clock=clock,
            agents=agents,
            calls=self._calls,
            relays=self._relays,
            settings=settings,
        )
        self._tools: Final = ToolService(
            broker=broker,
            clock=clock,
            agents=agents,
            hub=self._hub,
            leases=self._leases,
            tasks=self._tasks,
        )
        self._rooms: Final[dict[str, _AgentRoom]] = {}
        self._bells: Final = ExitStack()
        self._scheduler: Scheduler | None = None
        self._door_listener: Listener | None = None
        self._told_before: OnChange | None = None

    async def start(self, *, gateway_uid: int | None = None) -> None:
        """Listen on the door; start scheduler and sweeps. Agents are added one by one."""
        self._door_listener = Listener(
            DOOR,
            self._door.handlers(),
            uids=_uids(gateway_uid),
            in_flight=_DOOR_IN_FLIGHT,
            epoch=self._broker.epoch,
            on_close=self._door_gone,
        )
        await self._door_listener.start(self._home.door_socket)
        self._scheduler = Scheduler(
            clock=self._clock,
            fire=self._broker.fire_due,
            changed=self._bells.enter_context(self._broker.doorbells.listen("reminders")),
            name="reminders",
        )
        self._scheduler.start()
        self._told_before = self._broker.on_change
        self._broker.on_change = self._changed
        self._tasks.spawn(self._sweep(), name="sweeps")
        self._tasks.spawn(self._tell_team(), name="team")

    async def drain(self, grace_s: float) -> None:
        """Tell each pump that the daemon stops, and let what they have end for `grace_s`.

        No caller is taken any more; those that are there can end and store what they have. What runs on is
        cut off by `close` and redelivered at the next start: it is not told to stop, because a turn that is
        stopped is over.
        """
        self._calls.is_stopping = True
        for room in self._rooms.values():
            room.refuse_pumps()
        if self._door_listener is not None:
            self._door_listener.refuse_callers()
        self._relays.wake()
        await self._until_quiet(grace_s)

    async def close(self) -> None:
        """Close every socket, end every task; nothing of this half is alive afterwards."""
        if self._scheduler is not None:
            await self._scheduler.close()
            self._broker.on_change = self._told_before
        self._bells.close()
        for name in tuple(self._rooms):
            await self.remove_agent(name)
        if self._door_listener is not None:
            await self._door_listener.close()
        await self._tasks.close()
        self._hub.close()

    async def add_agent(self, name: str, *, uid: int | None = None, granting: bool = True) -> None:
        """Listen on the pump and tool sockets of `name`.

        Args:
            uid: Who may connect, when the agent has a user of its own.
            granting: Whether leases are granted from the start; see `set_granting`.
        """
        room = _AgentRoom(
            pump=AgentPump(name=name, calls=self._calls, agents=self._agents, granting=granting),
            tools=self._tools,
            clock=self._clock,
            epoch=self._broker.epoch,
            uid=uid,
        )
        self._rooms[name] = room
        await room.start(self._home)

    async def remove_agent(self, name: str) -> None:
        """Close the sockets of `name`; its leases end."""
        room = self._rooms.pop(name, None)
        if room is not None:
            await room.close()

    def set_granting(self, name: str, *, granting: bool) -> None:
        """Grant leases to the pump of `name`, or stop (draining, or waiting for adoption)."""
        self._rooms[name].pump.set_granting(granting=granting)

    def is_busy(self, name: str) -> bool:
        """Return whether `name` holds a lease."""
        return bool(self._leases.of_agent(name))

    async def end_leases(self, name: str) -> int:
        """End all leases of `name`, whose process is known to be gone; return how many."""
        for held in self._leases.of_agent(name):
            self._calls.lost(held)
        return len(await self._broker.end_leases(mailbox=f"agent:{name}"))

    def running_turns(self, name: str | None = None) -> tuple[RunningTurn, ...]:
        """Return what runs now, oldest first."""
        running = (held.running for held in self._leases.all())
        return tuple(turn for turn in running if turn is not None and name in (None, turn.agent))

    def turn_states(self) -> tuple[dict[str, Any], ...]:
        """Return the newest state of each running turn, as `emit("turn", …)` got it: for a new subscriber."""
        return self._hub.events()

    def relays(self) -> tuple[RelayRow, ...]:
        """Return each relay that the gateway dials, as it said last; `away` when the gateway is gone."""
        return self._relays.rows()

    def gateway_attached(self) -> bool:
        """Return whether a gateway is connected and has attached."""
        return self._relays.is_attached

    def pump_at(self, name: str) -> int | None:
        """Return when the pump of `name` was last heard, in UTC milliseconds, in this boot epoch."""
        room = self._rooms.get(name)
        return room.pump.pump_at if room else None

    def tools_at(self, name: str) -> int | None:
        """Return when a tool of `name` was last heard, in UTC milliseconds; never counts as health."""
        room = self._rooms.get(name)
        return room.tools_at if room else None

    async def _sweep(self) -> None:
        """End what ran out, as often as the broker says; a store that refuses is asked again."""
        backoff = Backoff()
        while True:
            try:
                swept = await self._broker.sweep()
            except SkepError as error:
                _log.warning("sweep_delayed", code=error.wire_code)
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            self._calls.lost_by_sweep(swept.lost)
            await asyncio.sleep(min(max(swept.next_in_ms / 1000, 0.01), _SWEEP_MAX_S))

    async def _tell_team(self) -> None:
        """Tell gateways how the agents are, at most once a second: how many wait changes with each message."""
        while True:
            if self._relays.is_attached:
                try:
                    team = await team_of(self._broker, self._agents, is_busy=self.is_busy)
                    self._relays.tell(team)
                except SkepError as error:
                    _log.debug("team_not_told", code=error.code)
            await asyncio.sleep(_TEAM_EVERY_S)

    async def _until_quiet(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                while len(self._leases):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return

    def _changed(self, kind: str, data: Mapping[str, Any]) -> None:
        """Stop the turn that an interrupt waits for; pass everything on."""
        if kind == "interrupt" and (held := self._leases.of_lane(data["lane"])) is not None:
            Leases.cancel(held, "interrupt")
        if self._told_before is not None:
            self._told_before(kind, data)

    def _door_gone(self, connection: Connection) -> None:
        self._relays.gone(connection)
        self._calls.connection_gone(connection)


class _AgentRoom:
    """The two sockets of one agent."""

    def __init__(
        self, *, pump: AgentPump, tools: ToolService, clock: Clock, epoch: int, uid: int | None
    ) -> None:
        self.pump: Final = pump
        self.tools_at: int | None = None
        self._tools: Final = tools
        self._clock: Final = clock
        self._pump_listener: Final = Listener(
            PUMP,
            {**pump.handlers(), "tool.list": self._list, "tool.call": self._call_in_turn},
            uids=_uids(uid),
            epoch=epoch,
            on_close=pump.gone,
        )
        self._tool_listener: Final = Listener(
            TOOLS,
            {"tool.list": self._list_outside, "tool.call": self._call_by_lane},
            uids=_uids(uid),
            epoch=epoch,
        )

    async def start(self, home: Home) -> None:
        """Listen on both."""
        pump_path, tool_path = home.pump_socket(self.pump.name), home.hive_socket(self.pump.name)
        pump_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._pump_listener.start(pump_path)
        await self._tool_listener.start(tool_path)

    def refuse_pumps(self) -> None:
        """Take no pump any more; the one that waits for leases hears at once why it gets none."""
        self._pump_listener.refuse_callers()
        self.pump.wake()

    async def close(self) -> None:
        """Close both."""
        await self._tool_listener.close()
        await self._pump_listener.close()

    async def _list(self, call: Call, args: NoArgs) -> ToolSpecs:
        return self._tools.list()

    async def _list_outside(self, call: Call, args: NoArgs) -> ToolSpecs:
        self.tools_at = self._clock.now_ms()
        return self._tools.list()

    async def _call_in_turn(self, call: Call, args: ToolCallInTurnArgs) -> ToolResult:
        return await self._tools.call_in_turn(self.pump.name, args)

    async def _call_by_lane(self, call: Call, args: ToolCallArgs) -> ToolResult:
        self.tools_at = self._clock.now_ms()
        return await self._tools.call_by_lane(self.pump.name, args)


def _uids(uid: int | None) -> frozenset[int] | None:
    return None if uid is None else frozenset({uid})


def _failed(error: BaseException) -> None:
    _log.error("task_failed", exc_info=error)
