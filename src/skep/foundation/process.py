"""A process of Skep: set up once, stopped by a signal or by the end of who started it.

Source: control protocol, section 11. Each child holds the read end of a pipe; end of file means
that `skep up` is gone, so `kill -9` of it leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from skep.foundation.log import get_logger
from skep.foundation.settings import life_fd

__all__ = ["STOP_LIMIT_S", "collect_rarely", "run_service"]

STOP_LIMIT_S: Final = 9.0
"""A process that has not stopped by then ends itself."""

GC_YOUNG: Final = 10_000
"""New objects between two looks of the garbage collector; Python's own 700 is for small programs."""

_log = get_logger(part="process")


def run_service(work: Callable[[asyncio.Event], Awaitable[int | None]]) -> int:
    """Run `work(stop)` until it returns; `stop` is set by SIGTERM, SIGINT or the end of the pipe.

    Returns:
        The exit code: what `work` returned, 0 for nothing.
    """
    import uvloop

    async def main() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _ask_to_stop, stop)
        if (life := life_fd()) is not None:
            _watch_life(loop, life, stop)
        collect_rarely()
        return await work(stop) or 0

    return uvloop.run(main())


def collect_rarely() -> None:
    """Set the garbage collector up for a process that serves: looking through all again and again costs much.

    What was imported stays, and is not looked at.
    """
    gc.freeze()
    gc.set_threshold(GC_YOUNG)


def _watch_life(loop: asyncio.AbstractEventLoop, fd: int, stop: asyncio.Event) -> None:
    def wait_for_end() -> None:
        # Nothing is ever written; a blocking read returns when the last writer is gone.
        try:
            while os.read(fd, 1):
                pass
        except OSError:
            pass
        _call_soon(loop, _ask_to_stop, stop)

    threading.Thread(target=wait_for_end, name="life", daemon=True).start()


def _call_soon(loop: asyncio.AbstractEventLoop, act: Callable[..., Any], *args: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(act, *args)


def _ask_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        return
    stop.set()
    watchdog = threading.Timer(STOP_LIMIT_S, _give_up)
    watchdog.daemon = True
    watchdog.start()


def _give_up() -> None:
    _log.error("stop_took_too_long", limit_s=STOP_LIMIT_S)
    os._exit(70)
