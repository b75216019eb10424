"""Doorbells inside one process.

Source: hive, section 5.1. A bell carries no content and may be lost: who waits looks again at least
every 5 s. Used from the event loop alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["POLL_S", "Doorbells"]

POLL_S: Final = 5.0
"""Longest time between two looks at the store, bell or no bell."""


class Doorbells:
    """Bells by name; ringing one wakes everybody who listens for it."""

    def __init__(self) -> None:
        self._listeners: Final[dict[str, set[asyncio.Event]]] = {}

    def ring(self, names: Iterable[str]) -> None:
        """Wake who listens for any of `names`."""
        for name in names:
            for event in self._listeners.get(name, ()):
                event.set()

    @contextmanager
    def listen(self, *names: str, event: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """Give an event (or use `event`) that is set when one of `names` rings. The listener clears it."""
        if event is None:
            event = asyncio.Event()
        for name in names:
            self._listeners.setdefault(name, set()).add(event)
        try:
            yield event
        finally:
            for name in names:
                rest = self._listeners[name]
                rest.discard(event)
                if not rest:
                    del self._listeners[name]

    def names(self) -> frozenset[str]:
        """Return what is listened for."""
        return frozenset(self._listeners)
