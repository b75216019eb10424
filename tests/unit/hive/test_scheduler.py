"""skep.hive.scheduler, against hive, sections 8.3 and 8.4."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from skep.foundation.clock import SYSTEM_CLOCK, Clock, ManualClock
from skep.foundation.errors import TryAgainError
from skep.hive.scheduler import Scheduler
from support.waiting import MS, eventually


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    more: bool = False
    next_due_at: int | None = None


class Store:
    """Things that are due, by time."""

    def __init__(self, *due: int) -> None:
        self.due = sorted(due)
        self.fired: list[int] = []
        self.looks = 0
        self.broken = 0

    async def fire(self) -> Left:
        """Take up to two of what is due."""
        self.looks += 1
        if self.broken:
            self.broken -= 1
            raise TryAgainError("the disk is full")
        now = self.clock.now_ms()
        batch = [at for at in self.due if at <= now][:2]
        self.due = self.due[len(batch) :]
        self.fired += batch
        return Left(more=any(at <= now for at in self.due), next_due_at=self.due[0] if self.due else None)

    clock: Clock = SYSTEM_CLOCK


def make(store: Store) -> tuple[Scheduler, asyncio.Event]:
    """Return a scheduler over `store`, and the bell that wakes it."""
    changed = asyncio.Event()
    return Scheduler(clock=store.clock, fire=store.fire, changed=changed, name="test"), changed


async def test_what_is_due_is_fired_in_batches_until_none_is() -> None:
    """Also what fell due before the start."""
    store = Store(1, 2, 3, 4, 5)
    scheduler, _ = make(store)

    scheduler.start()
    await eventually(lambda: store.fired == [1, 2, 3, 4, 5])
    await scheduler.close()

    assert store.looks == 3


async def test_it_sleeps_until_the_next_is_due() -> None:
    """Not before, and soon after."""
    at = SYSTEM_CLOCK.now_ms() + 150
    store = Store(at)
    scheduler, _ = make(store)

    scheduler.start()
    await eventually(lambda: store.fired == [at], within=1_000 * MS)
    late_ms = SYSTEM_CLOCK.now_ms() - at
    await scheduler.close()

    assert late_ms >= 0
    assert store.looks <= 3


async def test_a_bell_makes_it_look_again() -> None:
    """Something was added that is due sooner."""
    store = Store()
    scheduler, changed = make(store)
    scheduler.start()
    await eventually(lambda: store.looks == 1)

    store.due.append(1)
    changed.set()

    await eventually(lambda: store.fired == [1])
    await scheduler.close()


async def test_re_05_a_clock_that_is_set_forward_fires_what_is_due_now() -> None:
    """Within the time between two looks at the clocks."""
    store = Store()
    store.clock = clock = ManualClock()
    store.due.append(clock.now_ms() + 3_600_000)
    scheduler, _ = make(store)
    scheduler.start()
    await eventually(lambda: store.looks == 1)

    clock.jump(3_600_000)

    await eventually(lambda: len(store.fired) == 1, within=2_500 * MS)
    await scheduler.close()


async def test_a_store_that_refuses_is_asked_again() -> None:
    """With a growing pause, for ever."""
    store = Store(1)
    store.broken = 2
    scheduler, _ = make(store)

    scheduler.start()
    await eventually(lambda: store.fired == [1], within=3_000 * MS)
    await scheduler.close()

    assert store.looks == 3


async def test_re_02_close_ends_a_task_that_never_runs_out_of_work() -> None:
    """After the batch that runs."""
    store = Store(*range(100_000))
    scheduler, _ = make(store)
    scheduler.start()
    await eventually(lambda: len(store.fired) > 10)

    async with asyncio.timeout(2):
        await scheduler.close()

    fired = len(store.fired)
    await asyncio.sleep(0.02)
    assert len(store.fired) == fired < 100_000
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "test"]
