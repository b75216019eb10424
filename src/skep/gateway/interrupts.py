"""Stops: a person stopped the turn of one session.

Source: relay contract, section 7.2; control protocol, section 4. Exactly the named session is cancelled.
"""

from __future__ import annotations

import asyncio
from typing import Final

from skep.foundation.log import get_logger
from skep.foundation.rpc import CallError, ConnectionLostError
from skep.foundation.tasks import Backoff, TaskSet
from skep.gateway.door import Door, is_worth_repeating
from skep.wire.control.door import INTERRUPT, InterruptArgs
from skep.wire.relay.frames import InterruptInbound

__all__ = ["Interrupts"]

PATIENCE_S: Final = 10.0
"""A stop that could not be handed over by then is dropped: the turn is another one, or over."""

_log = get_logger(part="interrupts")


class Interrupts:
    """Stops on their way to the daemon."""

    def __init__(self, door: Door, tasks: TaskSet, *, relay: str) -> None:
        self._door: Final = door
        self._tasks: Final = tasks
        self._relay: Final = relay

    def take(self, frame: InterruptInbound) -> None:
        """Hand a stop over, beside everything else."""
        self._tasks.spawn(self._hand_over(frame))

    async def _hand_over(self, frame: InterruptInbound) -> None:
        args = InterruptArgs(relay=self._relay, session_key=frame.session_key, chat_id=frame.chat_id)
        backoff = Backoff()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        result = await self._door.call(INTERRUPT, args)
                    except (CallError, ConnectionLostError) as error:
                        if not is_worth_repeating(error):
                            _log.warning("stop_refused", code=error.code)
                            return
                        await asyncio.sleep(backoff.next_s())
                    else:
                        _log.info("turns_stopped", count=result.cancelled)
                        return
        except TimeoutError:
            _log.warning("stop_dropped", after_s=PATIENCE_S)
