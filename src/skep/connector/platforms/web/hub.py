"""What is live in the web chat: tabs, drafts and who is typing.

Source: control protocol, sections 7 and 13. The store is the truth; here is only its newest part, so that a tab
that keeps up needs no read, and what is never durable. A tab holds no queue: it knows what it has shown
and is told the difference, so a slow one costs a bounded amount and slows nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from skep.connector.platforms.web.payloads import Agents, encode

__all__ = ["AtWork", "DraftText", "Hub", "Live", "Tab"]

RECENT_EVENTS: Final = 1_024
"""Events of an account that are held in memory, encoded."""
DRAFTS_MAX: Final = 32
FINISHED_MAX: Final = 64
TYPING_FOR_S: Final = 8.0
"""How long somebody counts as typing: a gateway repeats it every 4 s."""


class DraftText(NamedTuple):
    """An answer that is being written."""

    conversation: str
    agent: str
    text: str
    thread: str | None = None


class AtWork(NamedTuple):
    """Somebody at work, and where."""

    conversation: str
    agent: str
    thread: str | None = None


class Tab(Protocol):
    """One socket of a person."""

    @property
    def handle(self) -> bytes:
        """Hash of the session that opened it."""
        ...

    def wake(self) -> None:
        """Something is new."""
        ...

    def sign_out(self) -> None:
        """Close: the session is over."""
        ...


class Live:
    """What is live for one account.

    Attributes:
        n: Newest event that is on disk, as far as is known here.
    """

    def __init__(self) -> None:
        self.n = 0
        self.tabs: Final[set[Tab]] = set()
        self.drafts: Final[dict[str, DraftText]] = {}
        self.typing: Final[dict[AtWork, asyncio.TimerHandle]] = {}
        self.finished: Final[deque[str]] = deque(maxlen=FINISHED_MAX)
        self._recent: Final[dict[int, bytes]] = {}

    def event(self, n: int) -> bytes | None:
        """Return event `n` if it is held."""
        return self._recent.get(n)

    def hold(self, n: int, event: bytes) -> None:
        """Take an event that is on disk now."""
        self._recent[n] = event
        self._recent.pop(n - RECENT_EVENTS, None)
        self.n = max(self.n, n)

    def wake(self) -> None:
        """Tell every tab that something is new."""
        for tab in self.tabs:
            tab.wake()


class Hub:
    """The live accounts."""

    def __init__(self) -> None:
        self._accounts: Final[dict[str, Live]] = {}
        self._teams: Final[dict[tuple[str, str], bytes]] = {}

    def live(self, account: str) -> Live | None:
        """Return what is live for `account`, if anything is."""
        return self._accounts.get(account)

    def join(self, account: str, tab: Tab) -> Live:
        """Add a tab. Its owner then asks the store for the newest event, and tells `Live.n`."""
        live = self._open(account)
        live.tabs.add(tab)
        return live

    def leave(self, account: str, tab: Tab) -> None:
        """Remove a tab."""
        live = self._accounts.get(account)
        if live is not None:
            live.tabs.discard(tab)
            if not live.tabs and not live.drafts and not live.typing:
                del self._accounts[account]

    def sign_out(self, handle: bytes) -> None:
        """Close every tab of a session."""
        for tab in [tab for tab in self._tabs() if tab.handle == handle]:
            tab.sign_out()

    def handles(self) -> set[bytes]:
        """Return the sessions that have tabs."""
        return {tab.handle for tab in self._tabs()}

    def publish(self, account: str, n: int, event: object, *, finished: str | None = None) -> None:
        """Show an event that is on disk. `finished`: it is the final form of this draft."""
        live = self._accounts.get(account)
        if live is None:
            return
        live.hold(n, encode(event))
        if finished is not None:
            live.drafts.pop(finished, None)
            live.finished.append(finished)
        live.wake()

    def publish_all(self, account: str, first: int, events: Sequence[object]) -> None:
        """Show events that are on disk, numbered from `first`."""
        live = self._accounts.get(account)
        if live is not None:
            for n, event in enumerate(events, first):
                live.hold(n, encode(event))
            live.wake()

    def draft(self, account: str, message: str, draft: DraftText) -> None:
        """Show the text so far of an answer. The oldest goes when there are too many."""
        live = self._open(account)
        live.drafts[message] = draft
        if len(live.drafts) > DRAFTS_MAX:
            del live.drafts[next(iter(live.drafts))]
        live.wake()

    def typing(self, account: str, key: AtWork, *, is_on: bool) -> None:
        """Show that somebody is at work, for a while, or no longer."""
        live = self._accounts.get(account)
        if live is None:
            return  # nobody looks
        timer = live.typing.pop(key, None)
        if timer is not None:
            timer.cancel()
        if is_on:
            loop = asyncio.get_running_loop()
            live.typing[key] = loop.call_later(TYPING_FOR_S, self._typing_over, live, key)
        if is_on is (timer is None):
            live.wake()

    def typing_off(self, account: str, conversation: str, thread: str | msgspec.UnsetType | None) -> None:
        """Nobody is at work any more in this conversation; with a `thread`, or `None`: in that part of it."""
        live = self._accounts.get(account)
        for key in list(live.typing) if live is not None else ():
            if key.conversation == conversation and thread in (msgspec.UNSET, key.thread):
                self.typing(account, key, is_on=False)

    def team(self, served: tuple[str, str], agents: Agents) -> None:
        """Show to everybody who is served by a gateway (tenant, instance) which agents there are."""
        self._teams[served] = encode(agents)
        for live in self._accounts.values():
            live.wake()

    def team_of(self, served: tuple[str, str] | None) -> bytes | None:
        """Return the event that says so, as it was shown last."""
        return self._teams.get(served) if served is not None else None

    def close(self) -> None:
        """Forget everything; tabs close by themselves."""
        for live in self._accounts.values():
            for timer in live.typing.values():
                timer.cancel()
        self._accounts.clear()

    def _open(self, account: str) -> Live:
        live = self._accounts.get(account)
        if live is None:
            live = self._accounts[account] = Live()
        return live

    def _typing_over(self, live: Live, key: AtWork) -> None:
        live.typing.pop(key, None)
        live.wake()

    def _tabs(self) -> list[Tab]:
        return [tab for live in self._accounts.values() for tab in live.tabs]
