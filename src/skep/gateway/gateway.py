"""The gateway as a whole: one link, one door, and what goes between them.

Source: control protocol, sections 4 to 7; relay contract, section 12.1. Whatever is away, the gateway
starts, says so once, and goes on trying; it ends only when it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.paths import Home
from skep.foundation.rpc import CallError, ConnectionLostError
from skep.foundation.settings import Settings, relay_environment
from skep.foundation.tasks import Backoff, TaskSet
from skep.gateway.dialer import RelayLink
from skep.gateway.door import Door
from skep.gateway.identity import RelayIdentity
from skep.gateway.inbox import Inbox
from skep.gateway.interrupts import Interrupts
from skep.gateway.outbox import Outbox
from skep.gateway.streaming import Streaming
from skep.wire.control.door import (
    AGENTS,
    ATTACH,
    TURN,
    AgentsHere,
    AttachArgs,
    FrontedPlatform,
    Turn,
)
from skep.wire.relay.frames import Agents, Inbound, InterruptInbound

__all__ = ["Gateway", "run_gateway"]

RELAY: Final = "local"
"""Name of the one relay that the configuration knows."""
DRAIN_S: Final = 4.0
"""How long messages that are on their way may take at a stop, in seconds."""

_log = get_logger(part="gateway")


async def run_gateway(
    settings: Settings,
    home: Home,
    clock: Clock,
    stop: asyncio.Event,
    *,
    env: Mapping[str, str] | None = None,
) -> int | None:
    """Carry events and answers until `stop` is set.

    Args:
        env: Where `GATEWAY_RELAY_*` is read; by default the process's environment.

    Raises:
        SettingError: The file with the credentials cannot be used.
    """
    env = relay_environment() if env is None else env
    identity = RelayIdentity(settings.gateway, home, env=env)
    identity.credentials()  # a secret that others can read stops the start
    await Gateway(identity, home, clock).run(stop)
    return None


class Gateway:
    """One gateway process. Takes what the link gives (`LinkHandler`)."""

    def __init__(self, identity: RelayIdentity, home: Home, clock: Clock) -> None:
        self._tasks: Final = TaskSet(on_error=_unexpected)
        self.link: Final = RelayLink(identity, self, clock=clock, name=RELAY)
        self.door: Final = Door(
            home.door_socket,
            events={TURN.name: self._on_turn, AGENTS.name: self._on_agents},
            on_open=self._changed_now,
            on_lost=self._on_daemon_lost,
        )
        self.inbox: Final = Inbox(
            self.door, self._tasks, relay=RELAY, clock=clock, acknowledge=self.link.acknowledge
        )
        self.outbox: Final = Outbox(self.door, self.link, self._tasks)
        self.streaming: Final = Streaming(self.link, self._tasks)
        self.interrupts: Final = Interrupts(self.door, self._tasks, relay=RELAY)
        self._changed = asyncio.Event()
        self._team = Agents(agents=())

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; then finish what is on its way, and close."""
        try:
            async with asyncio.TaskGroup() as group:
                leasing = group.create_task(self.outbox.run())
                others = [
                    group.create_task(work)
                    for work in (self.door.run(), self.link.run(), self.outbox.renew(), self._attach())
                ]
                await stop.wait()
                leasing.cancel()
                await self._finish()
                for task in others:
                    task.cancel()
        finally:
            self.inbox.close()
            await self._tasks.close()
        _log.info("gateway_stopped")

    # What the link gives.

    @property
    def is_full(self) -> bool:
        """Whether the daemon has as many events to take as may wait."""
        return self.inbox.is_full

    async def room(self) -> None:
        """Wait until the daemon has taken one."""
        await self.inbox.room()

    def on_inbound(self, frame: Inbound) -> None:
        """Take an event."""
        self.inbox.take(frame)

    def on_interrupt(self, frame: InterruptInbound) -> None:
        """Take a stop."""
        self.interrupts.take(frame)

    def on_state(self) -> None:
        """Tell the daemon how the link is now."""
        self._changed_now()
        self.streaming.relay_changed()
        if self._team.agents:
            self._tell_team()

    # The rest.

    def _changed_now(self) -> None:
        self._changed.set()

    def _on_daemon_lost(self) -> None:
        self.streaming.forget()
        away = tuple(msgspec.structs.replace(agent, state="away") for agent in self._team.agents)
        self._set_team(Agents(agents=away))

    def _on_turn(self, data: msgspec.Raw) -> None:
        try:
            turn = _turn_decoder.decode(data)
        except msgspec.DecodeError as error:
            _log.error("turn_not_read", problem=str(error))
            return
        self.streaming.take(turn)

    def _on_agents(self, data: msgspec.Raw) -> None:
        try:
            here = _agents_decoder.decode(data)
        except msgspec.DecodeError as error:
            _log.error("agents_not_read", problem=str(error))
            return
        self._set_team(Agents(agents=here.agents))

    def _set_team(self, team: Agents) -> None:
        if team != self._team:
            self._team = team
            self._tell_team()

    def _tell_team(self) -> None:
        """Tell a connector of ours which agents are here; another one knows no such frame."""
        if any(account.descriptor.skep for account in self.link.accounts):
            self.link.send(self._team)

    async def _attach(self) -> None:
        """Tell the daemon the state of the link, at each change and after each connect."""
        backoff = Backoff()
        while True:
            await self._changed.wait()
            await self.door.wait_open()
            self._changed.clear()
            try:
                await self.door.call(ATTACH, self._attachment())
            except (CallError, ConnectionLostError) as error:
                _log.warning("not_attached", code=error.code)
                self._changed.set()
                await asyncio.sleep(backoff.next_s())
            else:
                backoff.reset()

    def _attachment(self) -> AttachArgs:
        return AttachArgs(
            relay=RELAY,
            state=self.link.state,
            detail=self.link.detail,
            descriptors=tuple(
                FrontedPlatform(
                    platform=account.platform,
                    bot_id=account.bot_id,
                    max_message_length=account.descriptor.max_message_length,
                    len_unit=account.descriptor.len_unit,
                    markdown_dialect=account.descriptor.markdown_dialect,
                    supported_ops=account.descriptor.ops,
                )
                for account in self.link.accounts
            ),
        )

    async def _finish(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await self.outbox.drain()
        except TimeoutError:
            _log.warning("messages_left", note="the daemon keeps them")
        await self.link.go_idle()


_turn_decoder: Final = msgspec.json.Decoder(Turn)
_agents_decoder: Final = msgspec.json.Decoder(AgentsHere)


def _unexpected(error: BaseException) -> None:
    code = error.code if isinstance(error, SkepError) else "skep.internal"
    _log.error("task_failed", code=code, exc_info=error)
