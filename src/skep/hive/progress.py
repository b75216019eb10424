"""Progress of running turns: one newest state per turn, shown to whoever watches.

Source: control protocol, section 7. Never durable. No hop queues progress: per turn there is one
state, replaced by the next; a subscriber that does not read costs a set of turn ids and no text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from skep.foundation.clock import Clock
from skep.hive.ports import RunningTurn
from skep.wire.control.door import Turn
from skep.wire.control.envelope import Route
from skep.wire.control.pump import ProgressArgs

__all__ = ["MAX_TEXT_BYTES", "MIN_GAP_MS", "ProgressHub", "Subscriber"]

MAX_TEXT_BYTES: Final = 64 * 1024
MIN_GAP_MS: Final = 100
"""Least time between two states of one turn."""
_MAX_ENDED: Final = 1024
"""Ends kept for a subscriber that does not read; the oldest are dropped first."""


TurnState = Literal["started", "text", "tool", "ended", "dropped"]


class Subscriber(Protocol):
    """Somebody on a connection: it is asked before each state whether it reads."""

    @property
    def is_writable(self) -> bool:
        """Whether a state that is shown now would leave, not wait."""
        ...

    def show(self, turn: Turn) -> None:
        """Send `turn`."""
        ...

    def fell_behind(self) -> None:
        """Something waits: `ProgressHub.catch_up` is to be called when it reads again."""
        ...


@dataclass(slots=True, kw_only=True)
class _State:
    turn_id: str
    agent: str
    lane: int
    session: str
    started_at: int
    route: Route | None
    reply_key: str | None
    shown: tuple[str, ...]
    state: TurnState = "started"
    text: str | None = None
    text_bytes: int = 0
    tool: str | None = None
    progress_seq: int = -1
    seq: int = 0
    shown_at: int | None = None
    timer: asyncio.TimerHandle | None = None

    def as_turn(self) -> Turn | None:
        if self.route is None or self.reply_key is None:
            return None
        return Turn(
            turn_id=self.turn_id,
            seq=self.seq,
            state=self.state,
            agent=self.agent,
            route=self.route,
            reply_key=self.reply_key,
            text=self.text,
            tool=self.tool,
            shown=self.shown,
        )

    def as_event(self) -> dict[str, Any]:
        return {
            "turn_id": self.turn_id,
            "seq": self.seq,
            "state": self.state,
            "agent": self.agent,
            "lane": self.lane,
            "session": self.session,
            "started_at": self.started_at,
            "text": self.text,
            "tool": self.tool,
        }


class ProgressHub:
    """The states of all running turns.

    Args:
        emit: Takes each state for the operator's pages, as a plain dict.
    """

    def __init__(self, *, clock: Clock, emit: Callable[[dict[str, Any]], None]) -> None:
        self._clock: Final = clock
        self._emit: Final = emit
        self._turns: Final[dict[str, _State]] = {}
        self._behind: Final[dict[Subscriber, dict[str, _State]]] = {}
        self._waiting: Final[dict[str, _State]] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def started(
        self,
        turn: RunningTurn,
        *,
        route: Route | None,
        reply_key: str | None,
        shown: tuple[str, ...],
    ) -> None:
        """A turn has begun; `route` and `reply_key` when its answer goes to a chat."""
        state = _State(
            turn_id=turn.turn_id,
            agent=turn.agent,
            lane=turn.lane,
            session=turn.session,
            started_at=turn.started_at,
            route=route,
            reply_key=reply_key,
            shown=shown,
        )
        self._turns[turn.turn_id] = state
        self._changed(state)

    def took_more(self, turn_id: str, platform_ids: tuple[str, ...]) -> None:
        """Further messages of the chat went into the turn: they are seen, and answered by it."""
        state = self._turns.get(turn_id)
        if state is None or not platform_ids:
            return
        state.shown = (*state.shown, *platform_ids)
        self._changed(state)

    def progressed(self, progress: ProgressArgs) -> None:
        """Take what the harness tells; an unknown turn or an old `seq` is ignored."""
        state = self._turns.get(progress.turn_id)
        if state is None or progress.seq <= state.progress_seq:
            return
        state.progress_seq = progress.seq
        if progress.kind == "text":
            if _append(state, progress.at, progress.add):
                state.state = "text"
                self._changed(state)
        elif progress.kind == "tool":
            state.state, state.tool = "tool", f"{progress.name}: {progress.state}"[:200]
            self._changed(state)

    def ended(self, turn_id: str, *, dropped: bool = False) -> None:
        """The turn is over, or its state is `dropped` because its lease was lost."""
        state = self._turns.pop(turn_id, None)
        if state is None:
            return
        state.state = "dropped" if dropped else "ended"
        state.text = state.tool = None  # the answer itself says it all; a waiting end costs no text
        self._changed(state)

    def events(self) -> tuple[dict[str, Any], ...]:
        """Return the newest state of each running turn, as `emit` takes them."""
        return tuple(state.as_event() for state in self._turns.values())

    def subscribe(self, subscriber: Subscriber) -> None:
        """Show the state of each running turn now, and each change from here on."""
        self._behind.setdefault(subscriber, {})
        for state in self._turns.values():
            self._show(subscriber, state)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Show it nothing more."""
        self._behind.pop(subscriber, None)

    def catch_up(self, subscriber: Subscriber) -> None:
        """Show what it missed while it did not read: the newest state of each turn, no more."""
        behind = self._behind.get(subscriber)
        while behind and subscriber.is_writable:
            turn_id = next(iter(behind))
            self._show(subscriber, behind.pop(turn_id))

    def is_behind(self, subscriber: Subscriber) -> bool:
        """Return whether something waits until `subscriber` reads again."""
        return bool(self._behind.get(subscriber))

    def close(self) -> None:
        """Forget everything; no timer is left."""
        for state in self._waiting.values():
            if state.timer is not None:
                state.timer.cancel()
        self._waiting.clear()
        self._turns.clear()
        self._behind.clear()

    def _changed(self, state: _State) -> None:
        if state.timer is not None:
            return
        now = self._clock.monotonic_ms()
        wait_ms = 0 if state.shown_at is None else state.shown_at + MIN_GAP_MS - now
        if wait_ms <= 0:
            self._publish(state)
            return
        self._waiting[state.turn_id] = state
        state.timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._publish, state)

    def _publish(self, state: _State) -> None:
        self._waiting.pop(state.turn_id, None)
        state.timer = None
        state.shown_at = self._clock.monotonic_ms()
        state.seq += 1
        self._emit(state.as_event())
        for subscriber in self._behind:
            self._show(subscriber, state)

    def _show(self, subscriber: Subscriber, state: _State) -> None:
        turn = state.as_turn()
        if turn is None:
            return
        behind = self._behind[subscriber]
        if subscriber.is_writable:
            behind.pop(state.turn_id, None)
            subscriber.show(turn)
        else:
            if not behind:
                subscriber.fell_behind()
            behind[state.turn_id] = state
            while len(behind) > _MAX_ENDED + len(self._turns):
                del behind[next(iter(behind))]


def _append(state: _State, at: int, add: str) -> bool:
    """Write `add` at character `at`; return whether the text changed.

    A gap (progress was dropped on the way) is not filled: the text stays a true beginning.
    """
    text = state.text or ""
    if at > len(text) or (not add and at == len(text)):
        return False
    if at < len(text):
        text = text[:at]
        state.text_bytes = len(text.encode())
    room = MAX_TEXT_BYTES - state.text_bytes
    data = add.encode("utf-8", "replace")
    if len(data) > room:
        add = data[:room].decode("utf-8", "ignore")
        data = add.encode()
    if not add and text == state.text:
        return False
    state.text = text + add
    state.text_bytes += len(data)
    return True
