"""Sign-in of operators under concurrency; control protocol, sections 9 and 11."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from skep.broker.broker import Broker
from skep.foundation.clock import ManualClock
from skep.foundation.errors import BusyError, SignInAgainError
from skep.hive.auth import Auth
from skep.store.ports import HiveTx
from support.waiting import eventually

T = TypeVar("T")

pytestmark = pytest.mark.anyio


class SlowStore:
    """A store that takes its time: to write, and to answer a read whose truth may have changed by then."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.late = asyncio.Event()
        self.late.set()
        self.writes = asyncio.Event()
        self.writes.set()
        self.reading = 0

    async def transact(self, op: Callable[[HiveTx], T], *, may_refuse: bool = False) -> T:
        """Write when it is time."""
        await self.writes.wait()
        return await self._broker.transact(op, may_refuse=may_refuse)

    async def view(self, op: Callable[[HiveTx], T]) -> T:
        """Read at once, and answer when it is time."""
        found = await self._broker.view(op)
        self.reading += 1
        await self.late.wait()
        return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SlowStore]:
    """An empty store."""
    broker = await Broker.open(tmp_path / "hive.db", clock=ManualClock())
    yield SlowStore(broker)
    await broker.close()


async def test_a_code_is_spent_once_however_many_try_at_once(store: SlowStore) -> None:
    """Of fifty who have the link, one signs in."""
    auth = Auth(store, clock=ManualClock())
    code = await auth.new_code(ttl_s=900)
    outcomes = await asyncio.gather(*(auth.login(code) for _ in range(50)), return_exceptions=True)

    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1
    assert all(isinstance(outcome, (tuple, SignInAgainError, BusyError)) for outcome in outcomes)


async def test_a_session_that_is_looked_up_while_it_ends_stays_ended(store: SlowStore) -> None:
    """Signing out counts for a call that had read the session just before."""
    auth = Auth(store, clock=ManualClock())
    handle, session = await auth.login(await auth.new_code(ttl_s=900))
    store.late.clear()
    store.writes.clear()
    ending = asyncio.ensure_future(auth.logout(session))
    await asyncio.sleep(0)  # it is forgotten in memory, and still on disk
    looking = asyncio.ensure_future(auth.session(handle))
    await eventually(lambda: store.reading == 1)
    store.writes.set()
    await ending
    store.late.set()
    with pytest.raises(SignInAgainError):
        await looking
    with pytest.raises(SignInAgainError):
        await auth.session(handle)


async def test_guesses_cost_little_memory(store: SlowStore) -> None:
    """Ten thousand wrong codes are slowed down and not kept."""
    auth = Auth(store, clock=ManualClock())
    outcomes = await asyncio.gather(
        *(auth.login(f"wrong-{n}") for n in range(10_000)), return_exceptions=True
    )

    assert isinstance(outcomes[-1], BusyError)
    assert outcomes[-1].retry_after_s == 60
    _, session = await auth.login(await auth.new_code(ttl_s=900))  # a right one is always taken
    assert session.operator == "operator:local"
