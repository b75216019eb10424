"""Taking in: in batches, with what is remembered in memory, and ahead of the disk; platforms, section 1."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from skep.connector.intake import Taken
from skep.foundation.errors import SkepError
from skep.store.migrations import load_migrations
from skep.store.sqlite import connector
from skep.store.sqlite.connector import ConnectorStore, ConnectorTx, open_connector
from support.buffer import INSTANCE, TENANT, FakeReceiver, Rig, an_event
from support.edge import running_edge
from support.waiting import eventually


class _UndoneError(Exception):
    """An operation fails."""


def _receiver(rig: Rig, *, is_skep: bool = True) -> FakeReceiver:
    """Return a socket that gets everything."""
    receiver = FakeReceiver(is_skep_one=is_skep)
    rig.attach(receiver)
    return receiver


# Batches.


async def test_batch_keeps_its_order_and_is_one_commit(rig: Rig) -> None:
    """What two calls bring in one turn of the loop, too."""
    receiver = _receiver(rig)
    before = rig.store.commits
    names = [f"n{i:02}" for i in range(50)]
    first = rig.intake.accept_all([an_event(name) for name in names[:30]])
    second = rig.intake.accept_all([an_event(name, chat="d") for name in names[30:]])
    assert [await first, await second] == [[Taken.STORED] * 30, [Taken.STORED] * 20]
    assert rig.store.commits == before + 1
    await eventually(lambda: receiver.texts == names)


async def test_event_that_cannot_be_stored_takes_no_other_with_it(rig: Rig) -> None:
    """Its key is no text that a database takes; the 49 others come in, in order."""
    receiver = _receiver(rig)
    events = [an_event(f"n{i:02}") for i in range(50)]
    events[17] = an_event("n17", key="\ud800")
    taken = await rig.intake.accept_all(events)
    assert [i for i, one in enumerate(taken) if one is Taken.UNFIT] == [17]
    assert taken.count(Taken.STORED) == 49
    await eventually(lambda: receiver.texts == [f"n{i:02}" for i in range(50) if i != 17])
    assert await rig.waiting() == 49


async def test_repeats_and_strangers_in_a_batch_are_told_apart(rig: Rig) -> None:
    """Each gets the answer that it would get alone."""
    receiver = _receiver(rig)
    await rig.accept("old")
    events = [an_event("new"), an_event("old"), an_event("foreign", user="stranger"), an_event("new")]
    taken = await rig.intake.accept_all(events)
    assert taken == [Taken.STORED, Taken.DUPLICATE, Taken.UNBOUND, Taken.DUPLICATE]
    await eventually(lambda: receiver.texts == ["old", "new"])


async def test_closed_store_refuses_the_whole_batch(rig: Rig) -> None:
    """So that the platform tries again."""
    await rig.store.close()
    with pytest.raises(SkepError):
        await rig.accept("one")


async def test_old_keys_are_forgotten_and_young_ones_are_not(rig: Rig) -> None:
    """Wherever they lie in the table."""
    old = [f"{i % 7}-{i}" for i in range(1_200)]
    await rig.store.write(lambda tx: tx.take_all_in(old, now_ms=rig.clock.now_ms()))
    rig.clock.advance(1_000)
    young = [f"{i % 7}-{i}" for i in range(1_200, 1_220)]
    await rig.store.write(lambda tx: tx.take_all_in(young, now_ms=rig.clock.now_ms()))
    rig.clock.advance(1)
    await rig.intake.expire(500)
    now_ms = rig.clock.now_ms() + 1
    left = await rig.store.read(lambda tx: tx.old_intake(after="", before_ms=now_ms, limit=2_000))
    assert left == sorted(young)


# What is remembered.


async def _rebind(rig: Rig, instance: str) -> None:
    def rebind(tx: ConnectorTx) -> None:
        tx.drop_instance(TENANT, INSTANCE)
        tx.bind("web", "local", "owner", tenant=TENANT, instance=instance, now_ms=0)

    await rig.store.write(rebind)


async def test_author_who_is_bound_anew_is_known_at_once(rig: Rig) -> None:
    """Also by the next operation of the same commit, and their chat with them."""
    for name in ("a", "b"):
        await rig.accept(name)
    rebound = asyncio.ensure_future(_rebind(rig, "gw-other"))
    await asyncio.sleep(0)
    await rig.accept("c")
    await rebound
    waiting = await rig.store.read(lambda tx: tx.buffered())
    assert [(row.instance, row.events) for row in waiting] == [("gw-other", 1)]
    chats = await rig.store.read(lambda tx: tx.chats(TENANT, platform="web", chat_id="c"))
    assert [chat.instance for chat in chats] == ["gw-other"]


async def test_binding_that_was_undone_is_not_remembered(rig: Rig) -> None:
    """Neither one that was added nor one that was taken away."""

    def fail(tx: ConnectorTx) -> None:
        tx.bind("web", "local", "stranger", tenant=TENANT, instance=INSTANCE, now_ms=0)
        assert rig.intake.take(an_event("foreign", user="stranger"), tx) is Taken.STORED
        tx.drop_instance(TENANT, INSTANCE)
        assert rig.intake.take(an_event("lost"), tx) is Taken.UNBOUND
        raise _UndoneError

    await rig.accept("own 1")
    with pytest.raises(_UndoneError):
        await rig.store.write(fail)
    assert await rig.accept("foreign", user="stranger") is Taken.UNBOUND
    assert await rig.accept("own 2") is Taken.STORED


async def test_chat_knows_who_wrote_last(rig: Rig) -> None:
    """With two authors in turn, also in one batch."""
    await rig.store.write(
        lambda tx: tx.bind("web", "local", "guest", tenant=TENANT, instance=INSTANCE, now_ms=0)
    )
    await rig.accept("a")
    await rig.intake.accept_all([an_event("b", user="guest"), an_event("c")])
    (chat,) = await rig.store.read(lambda tx: tx.chats(TENANT, platform="web", chat_id="c"))
    assert chat.user_id == "owner"


async def test_chat_belongs_to_the_instance_that_heard_it_last(rig: Rig) -> None:
    """Two people of one tenant, bound to two gateways, in turn."""
    await rig.store.write(
        lambda tx: tx.bind("web", "local", "guest", tenant=TENANT, instance="gw-other", now_ms=0)
    )
    for name, user in (("a", "owner"), ("b", "guest"), ("c", "owner")):
        await rig.accept(name, user=user)
    (chat,) = await rig.store.read(lambda tx: tx.chats(TENANT, platform="web", chat_id="c"))
    assert (chat.user_id, chat.instance) == ("owner", INSTANCE)


# Ids.


async def test_ids_never_repeat_when_an_operation_is_undone(rig: Rig) -> None:
    """An id that was handed out is spent."""
    receiver = _receiver(rig)

    def undone(tx: ConnectorTx) -> None:
        rig.intake.take(an_event("undone"), tx)
        raise _UndoneError

    given: list[str] = []
    for name in ("a", "b", "c"):
        with pytest.raises(_UndoneError):
            await rig.store.write(undone)
        await rig.accept(name)
        await eventually(lambda: len(receiver.in_flight) == 1)
        given += receiver.in_flight
        rig.ack(receiver, *receiver.in_flight)
    numbers = [int(one.removeprefix("m-")) for one in given]
    assert numbers == sorted(set(numbers))
    assert numbers[2] - numbers[0] >= 4


async def test_ids_never_repeat_after_a_restart(tmp_path: Path) -> None:
    """Though nothing is left in the table that tells how far they came."""
    given: list[str] = []
    secrets: dict[str, str] = {}
    for start in range(3):
        async with running_edge(tmp_path / "home") as edge:
            edge.secrets = secrets
            gateway = await edge.gateway()
            who = await edge.bearer()
            conversation = await edge.conversation(who)
            tab = await edge.ready_tab(who)
            await tab.send(conversation, f"text {start}")
            frame = await gateway.hear("inbound")
            await gateway.ack(frame)
            await tab.hear("state")
            given.append(frame["bufferId"])
            secrets = edge.secrets
    marks, numbers = zip(*(one.split("-") for one in given), strict=True)
    assert len(set(marks)) == 1
    assert [int(one) for one in numbers] == sorted({int(one) for one in numbers})


async def test_buffer_of_the_first_schema_is_kept(tmp_path: Path) -> None:
    """What waits goes out in its order, and before what is new."""
    path = tmp_path / "connector.db"
    migrations = load_migrations(Path(connector.__file__).with_name("migrations") / "connector")
    old = await ConnectorStore.open(path, migrations=migrations[:1], tx=ConnectorTx)

    def fill(tx: ConnectorTx) -> None:
        tx.take_in("a key", now_ms=5)
        tx.deliver([(number, TENANT, INSTANCE, "web", f"m-{number}", b"{}", 0) for number in (3, 9)])

    await old.write(fill)
    await old.close()
    store = await open_connector(path)
    try:
        waiting = await store.read(lambda tx: tx.deliveries(TENANT, INSTANCE, after=0, limit=9))
        assert waiting == [(3, b"{}"), (9, b"{}")]
        assert not await store.write(lambda tx: tx.take_in("a key", now_ms=6))
        assert [await store.write(ConnectorTx.next_start) for _ in range(2)] == [1, 2]
    finally:
        await store.close()


# Ahead of the disk.


class _Held:
    """A commit that waits: what is accepted is written, and not on disk until `go`."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._go = threading.Event()

    async def accept(self, text: str, *, ends_with: Callable[[], None]) -> asyncio.Future[list[Taken]]:
        """Take one event in, and let its commit wait; `ends_with` is the last that runs before it."""
        first = threading.Event()
        store = self._rig.store
        store.write(lambda tx: first.wait(5))
        await eventually(lambda: store.waiting == 0)
        taken = self._rig.intake.accept_all([an_event(text)])
        await eventually(lambda: store.waiting == 1)

        def wait(tx: ConnectorTx) -> None:
            assert self._go.wait(5)
            ends_with()

        store.write(wait).add_done_callback(lambda done: done.exception())
        first.set()
        return taken

    def go(self) -> None:
        """Let it go on."""
        self._go.set()


def _well() -> None:
    """The commit succeeds."""


def _full() -> None:
    """The disk is full."""
    raise apsw.FullError


def _undone_once() -> Callable[[], None]:
    """The first time another operation of the commit fails, so that all of it is run again."""
    failed: list[bool] = []

    def fail() -> None:
        if not failed:
            failed.append(True)
            raise _UndoneError

    return fail


async def test_skep_gateway_has_an_event_before_it_is_on_disk_and_the_platform_its_answer_after(
    rig: Rig,
) -> None:
    """And an acknowledgement that comes so early is not lost."""
    receiver = _receiver(rig)
    await rig.accept("known")
    await eventually(lambda: receiver.texts == ["known"])
    rig.ack(receiver, *receiver.in_flight)
    await eventually(lambda: rig.deliveries.buffered(TENANT, INSTANCE) == 0)
    held = _Held(rig)
    taken = await held.accept("early", ends_with=_well)
    await eventually(lambda: receiver.texts == ["known", "early"])
    assert not taken.done()
    assert rig.ack(receiver, *receiver.in_flight) == 1
    held.go()
    assert await taken == [Taken.STORED]
    await eventually(lambda: rig.deliveries.buffered(TENANT, INSTANCE) == 0)
    assert await rig.waiting() == 0
    await rig.accept("next")
    await eventually(lambda: receiver.texts == ["known", "early", "next"])


async def test_stock_gateway_has_an_event_only_when_it_is_on_disk(rig: Rig) -> None:
    """It cannot tell a repeat; neither can anybody in a chat that is new."""
    receiver = _receiver(rig, is_skep=False)
    await rig.accept("known")
    await eventually(lambda: receiver.texts == ["known"])
    held = _Held(rig)
    seen: list[str] = []
    taken = await held.accept("late", ends_with=lambda: seen.extend(receiver.texts))
    held.go()
    await taken
    assert seen == ["known"]
    await eventually(lambda: receiver.texts == ["known", "late"])


async def test_chat_that_is_not_on_disk_is_not_told_of(rig: Rig) -> None:
    """An answer could come before the chat is known, and be declined."""
    receiver = _receiver(rig)
    held = _Held(rig)
    seen: list[str] = []
    taken = await held.accept("first", ends_with=lambda: seen.extend(receiver.texts))
    held.go()
    await taken
    assert seen == []
    await eventually(lambda: receiver.texts == ["first"])


async def test_event_whose_commit_failed_comes_again_under_another_id(rig: Rig) -> None:
    """The platform is refused, and repeats it; whoever had it early finds the same message id."""
    receiver = _receiver(rig)
    await rig.accept("known")
    await eventually(lambda: receiver.texts == ["known"])
    held = _Held(rig)
    taken = await held.accept("again", ends_with=_full)
    await eventually(lambda: receiver.texts == ["known", "again"])
    held.go()
    with pytest.raises(SkepError):
        await taken
    assert await rig.waiting() == 1
    assert await rig.accept("again") is Taken.STORED
    await eventually(lambda: receiver.texts == ["known", "again", "again"])
    assert len(receiver.in_flight) == 3
    rig.ack(receiver, *receiver.in_flight)
    await asyncio.sleep(0)
    assert await rig.waiting() == 0


async def test_event_that_is_written_twice_is_stored_once_and_under_another_id(rig: Rig) -> None:
    """Another operation of its commit failed; nothing of the lane is passed over."""
    receiver = _receiver(rig)
    await rig.accept("known")
    held = _Held(rig)
    taken = await held.accept("twice", ends_with=_undone_once())
    await eventually(lambda: receiver.texts == ["known", "twice"])
    held.go()
    assert await taken == [Taken.STORED]
    await rig.accept("next")
    await eventually(lambda: receiver.texts[-1] == "next")
    assert receiver.texts.count("twice") in (1, 2)
    assert await rig.waiting() == 3
    rig.ack(receiver, *receiver.in_flight)
    await asyncio.sleep(0)
    assert await rig.waiting() == 0


async def test_socket_that_is_lost_before_the_commit_loses_nothing(rig: Rig) -> None:
    """The next one gets it from the table."""
    receiver = _receiver(rig)
    await rig.accept("known")
    held = _Held(rig)
    taken = await held.accept("early", ends_with=_well)
    await eventually(lambda: receiver.texts == ["known", "early"])
    rig.deliveries.detach(receiver, tenant=TENANT, instance=INSTANCE)
    again = _receiver(rig)
    held.go()
    await taken
    await eventually(lambda: again.texts == ["known", "early"])


async def test_what_must_wait_for_its_commit_is_not_overtaken(rig: Rig) -> None:
    """A platform's own transaction and a batch behind it, of one lane in one commit."""
    receiver = _receiver(rig)
    await rig.accept("known")
    first = threading.Event()
    rig.store.write(lambda tx: first.wait(5))
    await eventually(lambda: rig.store.waiting == 0)
    own = rig.intake.write(lambda tx: rig.intake.take(an_event("own"), tx))
    batch = rig.intake.accept_all([an_event("batch")])
    await eventually(lambda: rig.store.waiting == 2)
    first.set()
    assert [await own, *await batch] == [Taken.STORED, Taken.STORED]
    await eventually(lambda: receiver.texts == ["known", "own", "batch"])
