"""Progress of running turns: ticks, typing and the text so far, where the connector can show them.

Source: control protocol, section 7. Never queued: one waiting state per turn, replaced by the next;
dropped whenever the relay is down.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from skep.foundation.log import get_logger
from skep.foundation.tasks import TaskSet
from skep.gateway import wording
from skep.gateway.dialer import Account, RelayLink
from skep.gateway.errors import AmbiguousError, NotSentError
from skep.wire.control.door import Turn
from skep.wire.relay.actions import Action

__all__ = ["Streaming"]

TYPING_EVERY_S: Final = 4.0

_OVER: Final = frozenset({"ended", "dropped"})

_log = get_logger(part="streaming")


class Streaming:
    """The turns that are shown at the moment."""

    def __init__(self, link: RelayLink, tasks: TaskSet) -> None:
        self._link: Final = link
        self._tasks: Final = tasks
        self._shown: dict[str, _Shown] = {}

    def __len__(self) -> int:
        return len(self._shown)

    def take(self, turn: Turn) -> None:
        """Show `turn`; an older state that still waits is dropped."""
        shown = self._shown.get(turn.turn_id)
        if shown is not None:
            shown.replace(turn)
            return
        shown = _Shown(turn)
        self._shown[turn.turn_id] = shown
        self._tasks.spawn(self._show(shown))

    def relay_changed(self) -> None:
        """Look again at each turn: what could not be shown may be shown now."""
        for shown in self._shown.values():
            shown.is_new.set()

    def forget(self) -> None:
        """End all that is shown: the daemon went away, and tells what still runs when it is back."""
        for shown in self._shown.values():
            shown.drop()

    async def _show(self, shown: _Shown) -> None:
        """Say what changed since the last state, and that somebody writes, until the turn is over."""
        now = asyncio.get_running_loop().time
        said: str | None = None
        is_seen, type_at = False, now()
        try:
            while True:
                shown.is_new.clear()
                turn = shown.newest
                account = self._link.account(turn.route)
                if account is None:  # the relay is down: progress is dropped
                    if turn.state in _OVER:
                        return
                    await shown.changed(within_s=TYPING_EVERY_S)
                    continue
                if turn.state in _OVER:
                    self._post(account, wording.clear_typing(turn, account.descriptor))
                    return
                if not is_seen:
                    self._post(account, wording.seen(turn, account.descriptor))
                    is_seen = True
                if now() >= type_at:
                    self._post(account, wording.typing(turn, account.descriptor))
                    type_at = now() + TYPING_EVERY_S
                if turn.text != said:
                    said = turn.text
                    await self._ask(account, wording.draft(turn, account.descriptor))
                await shown.changed(within_s=type_at - now())
        finally:
            del self._shown[shown.newest.turn_id]

    def _post(self, account: Account, action: Action | None) -> None:
        if action is not None:
            self._link.post(action, platform=account.platform, bot_id=account.bot_id)

    async def _ask(self, account: Account, action: Action | None) -> None:
        """Ask and wait, so that at most one draft of a turn is on its way."""
        if action is None:
            return
        try:
            result = await self._link.request(action, platform=account.platform, bot_id=account.bot_id)
        except (NotSentError, AmbiguousError):
            return
        if not result.success:
            _log.debug("draft_not_shown", code=result.code)


class _Shown:
    """The newest state of one turn."""

    __slots__ = ("is_new", "newest")

    def __init__(self, turn: Turn) -> None:
        self.newest = turn
        self.is_new = asyncio.Event()

    def replace(self, turn: Turn) -> None:
        if self.newest.state not in _OVER and (turn.seq >= self.newest.seq or turn.state in _OVER):
            self.newest = turn
            self.is_new.set()

    def drop(self) -> None:
        self.replace(msgspec.structs.replace(self.newest, state="dropped"))

    async def changed(self, *, within_s: float) -> None:
        """Wait for another state, or until it is time to say again that somebody writes."""
        try:
            async with asyncio.timeout(max(within_s, 0.0)):
                await self.is_new.wait()
        except TimeoutError:
            return
