"""The pump: takes leases and drives turns.

Source: hive, sections 5 and 6; control protocol, section 6. A transient socket error never ends
it; any other end of it ends the process, so that an agent that looks alive takes its mail.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from skep import __version__
from skep.foundation.clock import Clock
from skep.foundation.errors import SkepError
from skep.foundation.log import get_logger
from skep.foundation.paths import Home
from skep.foundation.rpc import Caller, CallError, ConnectionLostError, connect
from skep.foundation.tasks import Backoff, TaskSet, sleep_or
from skep.harness.runtimes import make_runtime
from skep.harness.turn import Runtime, Turn, new_turn_id
from skep.wire.control import pump
from skep.wire.control.base import NoArgs
from skep.wire.control.envelope import Lease

__all__ = ["EXIT_NO_DAEMON", "Pump"]

EXIT_NO_DAEMON: Final = 75
"""Exit code when no daemon was there for `NO_DAEMON_LIMIT_S`."""
NO_DAEMON_LIMIT_S: Final = 60.0
_WAIT_MS: Final = 10_000
_ALIVE_EVERY_S: Final = 5.0
_STOP_GRACE_S: Final = 5.0
_SILENT_LIMIT_S: Final = 600.0
"""A turn that shows nothing for so long (no text, no tool, no beat) has failed."""
_MAX_REPLY_BYTES: Final = 900_000
_EARLY_KEPT: Final = 256
_STOPPED: Final = "(stopped)"

_log = get_logger(part="pump")


class Pump:
    """Runs the turns of one agent until `stop` is set.

    Args:
        runtimes: Makes the runtime of this name.
        grace_s: Running turns have so long to end when `stop` is set.
    """

    def __init__(
        self,
        *,
        agent: str,
        home: Home,
        clock: Clock,
        stop: asyncio.Event,
        runtimes: Callable[[str], Runtime] = make_runtime,
        grace_s: float = _STOP_GRACE_S,
    ) -> None:
        self._agent: Final = agent
        self._home: Final = home
        self._clock: Final = clock
        self._stop: Final = stop
        self._runtimes: Final = runtimes
        self._grace_s: Final = grace_s
        self._harness_id: Final = f"h-{os.getpid()}-{clock.now_ms():x}"
        self._running: Final[dict[str, asyncio.Task[None]]] = {}
        self._work: Final[dict[str, asyncio.Future[str | None]]] = {}
        self._stopped_early: Final[deque[str]] = deque(maxlen=_EARLY_KEPT)
        self._freed = asyncio.Event()
        self._tasks: Final = TaskSet(on_error=_log_fault)

    async def run(self) -> int:
        """Serve the daemon, whoever it is, until stopped; return the exit code."""
        backoff = Backoff()
        away_since_ms = self._clock.monotonic_ms()
        while not self._stop.is_set():
            try:
                caller = await self._dial()
            except ConnectionLostError:
                if self._clock.monotonic_ms() - away_since_ms > NO_DAEMON_LIMIT_S * 1000:
                    _log.error("daemon_away", limit_s=NO_DAEMON_LIMIT_S)
                    return EXIT_NO_DAEMON
            except CallError as error:
                if not _is_passing(error):
                    _log.error("pump_refused", code=error.wire_code)
                    return 1
            else:
                try:
                    await self._serve(caller, backoff)
                except (ConnectionLostError, CallError) as error:
                    if isinstance(error, CallError) and not _is_passing(error):
                        _log.error("pump_refused", code=error.wire_code)
                        return 1
                    _log.warning("daemon_lost", code=error.wire_code)
                finally:
                    await self._abandon()
                    caller.close()
                away_since_ms = self._clock.monotonic_ms()
            await sleep_or(self._stop, backoff.next_s())
        return 0

    async def _dial(self) -> Caller:
        return await connect(
            self._home.pump_socket(self._agent), role="harness", events={"cancel": self._cancelled}
        )

    async def _serve(self, caller: Caller, backoff: Backoff) -> None:
        """Run turns until this process or the daemon stops; raises when the daemon refuses or goes away."""
        setup = await caller.call(
            pump.HELLO,
            pump.HelloArgs(harness_id=self._harness_id, harness_version=__version__),
        )
        backoff.reset()
        runtime = self._runtimes(setup.runtime)
        _log.info("pump_started", agent=setup.agent, runtime=setup.runtime, epoch=setup.boot_epoch)
        taking = self._tasks.spawn(self._take(caller, runtime, setup))
        lost = self._tasks.spawn(caller.wait_closed())
        stopped = self._tasks.spawn(self._stop.wait())
        try:
            await asyncio.wait({taking, lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                taking.result()
            if lost.done():
                raise ConnectionLostError("the daemon hung up")
            taking.cancel()  # what it may still bring is given back when the socket closes
            await self._finish(lost)
        finally:
            for task in (taking, lost, stopped):
                task.cancel()

    async def _take(self, caller: Caller, runtime: Runtime, setup: pump.HelloResult) -> None:
        """Take leases until the daemon stops; what is refused for now is asked for again."""
        backoff = Backoff()
        while True:
            try:
                await caller.call(pump.ALIVE, NoArgs())
                free = setup.max_parallel_lanes - len(self._running)
                if free <= 0:
                    await self._lane_freed()
                    continue
                found = await caller.call(
                    pump.NEXT,
                    pump.NextArgs(wait_ms=_WAIT_MS, lanes=free),
                    timeout_s=_WAIT_MS / 1000 + 10,
                )
            except CallError as error:
                if error.wire_code == "shutting_down":
                    _log.info("daemon_stopping")
                    return
                if not _is_passing(error):
                    raise
                _log.warning("mail_delayed", code=error.wire_code)
                await asyncio.sleep(max(backoff.next_s(), (error.retry_after_ms or 0) / 1000))
                continue
            backoff.reset()
            for lease in found.leases:
                self._begin(caller, runtime, setup, lease)

    async def _lane_freed(self) -> None:
        """Wait until a turn has ended, or until it is time to say again that this loop lives."""
        self._freed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_ALIVE_EVERY_S):
                await self._freed.wait()

    def _begin(self, caller: Caller, runtime: Runtime, setup: pump.HelloResult, lease: Lease) -> None:
        task = self._tasks.spawn(self._turn(caller, runtime, setup, lease))
        self._running[lease.lease_id] = task
        task.add_done_callback(lambda _: self._ended(lease.lease_id))

    def _ended(self, lease_id: str) -> None:
        self._running.pop(lease_id, None)
        self._freed.set()

    def _cancelled(self, data: msgspec.Raw) -> None:
        cancel = msgspec.json.decode(data, type=pump.Cancel)
        self._stop_work(cancel.lease_id, cancel.reason)

    def _stop_work(self, lease_id: str, reason: str) -> None:
        # The runtime alone is cancelled: a turn that already tells its end goes on telling it.
        work = self._work.get(lease_id)
        if work is None:
            self._stopped_early.append(lease_id)  # the word came with the lease, or before its start
        elif not work.done():
            _log.info("turn_stopped", reason=reason)
            work.cancel()

    async def _turn(self, caller: Caller, runtime: Runtime, setup: pump.HelloResult, lease: Lease) -> None:
        turn = Turn(caller, lease, turn_id=new_turn_id(self._clock.now_ms()), setup=setup, clock=self._clock)
        began_ms = self._clock.monotonic_ms()
        outcome: pump.Outcome = "ok"
        reply: str | None = None
        renewal = self._tasks.spawn(self._renew(caller, turn, every_s=setup.lease_ttl_ms / 3000))
        try:
            await caller.call(
                pump.STARTED,
                pump.StartedArgs(lease_id=lease.lease_id, fence=lease.fence, turn_id=turn.turn_id),
            )
            work = self._work[lease.lease_id] = self._tasks.spawn(runtime.run(turn))
            if lease.lease_id in self._stopped_early:
                work.cancel()
            async with asyncio.timeout(setup.turn_limit_s):
                reply = await work
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the daemon or this process goes away: the lease is lost, not ended
            if turn.silent_ms > _SILENT_LIMIT_S * 1000:
                outcome = "error"
                _log.warning("turn_failed", turn_id=turn.turn_id, code="silent")
            else:
                outcome = "cancelled"
                reply = f"{turn.text.rstrip()}\n\n{_STOPPED}".lstrip()
        except ConnectionLostError:
            return
        except CallError as error:
            if error.wire_code == "stale_lease":
                return
            outcome = "error"
            _log.warning("turn_failed", turn_id=turn.turn_id, code=error.wire_code)
        except Exception as error:  # noqa: BLE001 - whatever a runtime throws ends this turn and no other
            outcome = "error"
            _log.error("turn_failed", turn_id=turn.turn_id, exc_info=error)
        finally:
            renewal.cancel()
            self._work.pop(lease.lease_id, None)
        stats = {"ms": self._clock.monotonic_ms() - began_ms, "tool_calls": turn.tool_calls}
        await self._tell_end(
            caller,
            pump.EndedArgs(
                lease_id=lease.lease_id,
                fence=lease.fence,
                turn_id=turn.turn_id,
                outcome=outcome,
                reply=pump.Reply(body=_fitting(reply)) if reply is not None else None,
                stats=stats,
            ),
        )
        _log.info("turn_finished", turn_id=turn.turn_id, outcome=outcome, **stats)

    async def _tell_end(self, caller: Caller, end: pump.EndedArgs) -> None:
        backoff = Backoff()
        while True:
            try:
                await caller.call(pump.ENDED, end)
            except ConnectionLostError:
                return
            except CallError as error:
                if not error.is_worth_repeating:
                    _log.warning("turn_end_refused", turn_id=end.turn_id, code=error.wire_code)
                    return
                await asyncio.sleep(backoff.next_s())
            else:
                return

    async def _renew(self, caller: Caller, turn: Turn, *, every_s: float) -> None:
        """Keep the lease while the turn shows that it lives; a turn that lost it is stopped."""
        lease = turn.lease
        wait_s = every_s
        while True:
            await asyncio.sleep(wait_s)
            if turn.silent_ms > _SILENT_LIMIT_S * 1000:
                self._stop_work(lease.lease_id, "silent")
                return
            try:
                renewed = await caller.call(
                    pump.RENEW, pump.RenewArgs(lease_id=lease.lease_id, fence=lease.fence)
                )
            except ConnectionLostError:
                return
            except CallError as error:
                if not _is_passing(error):
                    self._stop_work(lease.lease_id, error.wire_code)
                    return
                wait_s = min(every_s, 1.0)
                continue
            wait_s = every_s
            if renewed.cancel is not None:
                self._stop_work(lease.lease_id, renewed.cancel)

    async def _finish(self, lost: asyncio.Task[None]) -> None:
        """Let running turns end for a moment, while the daemon is there; what does not is redelivered."""
        try:
            async with asyncio.timeout(self._grace_s):
                while self._running and not lost.done():
                    await asyncio.wait({lost, *self._running.values()}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return

    async def _abandon(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_passing(error: CallError) -> bool:
    """Return whether nobody here must act: asking again may go through."""
    return error.is_worth_repeating or error.wire_code in ("conflict", "internal")


def _fitting(reply: str) -> str:
    """Return as much of `reply` as one frame takes; the daemon cuts to the length of a message, and says so."""
    while len(msgspec.json.encode(reply)) > _MAX_REPLY_BYTES:
        reply = reply[: len(reply) // 2]
    return reply


def _log_fault(error: BaseException) -> None:
    if not isinstance(error, SkepError):  # those are told where they are awaited
        _log.error("pump_task_failed", exc_info=error)
