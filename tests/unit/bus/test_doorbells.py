"""skep.bus.doorbells: they wake who listens, and keep nothing."""

from __future__ import annotations

import asyncio

from skep.bus.doorbells import Doorbells


async def test_bell_wakes_everybody_who_listens_for_it() -> None:
    """And nobody else."""
    bells = Doorbells()
    with bells.listen("a") as one, bells.listen("a", "b") as two, bells.listen("c") as other:
        bells.ring(["a", "a"])

        assert one.is_set()
        assert two.is_set()
        assert not other.is_set()


async def test_bell_that_nobody_hears_is_gone() -> None:
    """The truth is the store: who listens later looks there."""
    bells = Doorbells()
    bells.ring(["a"])
    with bells.listen("a") as event:
        assert not event.is_set()


async def test_listener_leaves_nothing_behind() -> None:
    """Names are forgotten with their last listener."""
    bells = Doorbells()
    own = asyncio.Event()
    with bells.listen("a", "b", event=own) as event:
        assert event is own
        assert bells.names() == {"a", "b"}
    assert bells.names() == frozenset()
    bells.ring(["a"])
    assert not own.is_set()
