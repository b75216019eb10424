"""The message half of the daemon: its sockets for the gateway and for the agents, in one object.

Source: control protocol, sections 2, 4, 6, 7 and 8; hive, sections 5 to 8.
It owns `door.sock`, and per agent `pump.sock` and `hive.sock`; the scheduler; the sweeps; and the
state of running turns. It starts no process and answers no operator: the rest of the daemon does.
"""

from __future__ import annotations

from typing import Any

from skep.foundation.clock import Clock
from skep.foundation.paths import Home
from skep.foundation.settings import HiveSettings
from skep.hive.ports import Agents, Emit, NoWatch, RunningTurn, Watch
from skep.wire.control.operator import RelayRow

__all__ = ["Messages"]


class Messages:
    """The message half. Make it, `start` it, `add_agent` each agent, `close` it.

    Args:
        broker: `skep.broker.broker.Broker` over the open store.
        boot_epoch: Of this start, told to callers in `hello`.
        agents: Which agents there are.
        emit: Takes hive events (kinds `delivery`, `ask`, `reminder`, `turn`, `relay`).
        watch: Told of pumps and turns; may be set later, before `start`.
    """

    def __init__(
        self,
        *,
        broker: Any,
        boot_epoch: int,
        home: Home,
        clock: Clock,
        agents: Agents,
        emit: Emit,
        settings: HiveSettings,
        watch: Watch | None = None,
    ) -> None:
        self.watch: Watch = watch or NoWatch()

    async def start(self) -> None:
        """Listen on the door; start scheduler and sweeps. Agents are added one by one."""
        raise NotImplementedError

    async def drain(self, grace_s: float) -> None:
        """Grant no more leases, let running turns end for `grace_s`, then cancel them."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close every socket, end every task; nothing of this half is alive afterwards."""
        raise NotImplementedError

    async def add_agent(self, name: str, *, uid: int | None = None, granting: bool = True) -> None:
        """Listen on the pump and tool sockets of `name`.

        Args:
            uid: Who may connect, when the agent has a user of its own.
            granting: Whether leases are granted from the start; see `set_granting`.
        """
        raise NotImplementedError

    async def remove_agent(self, name: str) -> None:
        """Close the sockets of `name`; its leases end."""
        raise NotImplementedError

    def set_granting(self, name: str, *, granting: bool) -> None:
        """Grant leases to the pump of `name`, or stop (draining, or waiting for adoption)."""
        raise NotImplementedError

    def cancel_turns(self, name: str, *, reason: str) -> int:
        """Tell the running turns of `name` to stop; return how many."""
        raise NotImplementedError

    async def end_leases(self, name: str) -> int:
        """End all leases of `name`, whose process is known to be gone; return how many."""
        raise NotImplementedError

    def running_turns(self, name: str | None = None) -> tuple[RunningTurn, ...]:
        """Return what runs now, oldest first."""
        raise NotImplementedError

    def turn_states(self) -> tuple[dict[str, Any], ...]:
        """Return the newest state of each running turn, as `emit("turn", …)` got it: for a new subscriber."""
        raise NotImplementedError

    def relays(self) -> tuple[RelayRow, ...]:
        """Return each relay that the gateway dials, as it said last; `away` when the gateway is gone."""
        raise NotImplementedError

    def gateway_attached(self) -> bool:
        """Return whether a gateway is connected and has attached."""
        raise NotImplementedError

    def pump_at(self, name: str) -> int | None:
        """Return when the pump of `name` was last heard, in UTC milliseconds, in this boot epoch."""
        raise NotImplementedError

    def tools_at(self, name: str) -> int | None:
        """Return when a tool of `name` was last heard, in UTC milliseconds; never counts as health."""
        raise NotImplementedError

    def reminders_changed(self) -> None:
        """Look at the reminders again: one was added or cancelled elsewhere."""
        raise NotImplementedError
