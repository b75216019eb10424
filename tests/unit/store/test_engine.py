"""skep.store.sqlite: group commit, refusals at opening, and disks that fail; hive, sections 3.1 and 4."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from skep.foundation.errors import BusyError, SkepError
from skep.store.errors import (
    DatabaseDamagedError,
    DatabaseForeignError,
    DatabaseInUseError,
    DatabaseNewerError,
    LibraryTooOldError,
    NetworkFilesystemError,
    StoreClosedError,
    StoreUnavailableError,
)
from skep.store.migrations import Migration
from skep.store.sqlite import engine as engine_module
from skep.store.sqlite.driver import Db, connect
from skep.store.sqlite.engine import OpenOptions, SqliteEngine
from skep.store.sqlite.files import filesystem_of

STEPS = (
    Migration(
        number=1, name="0001_pre_a.sql", sql="CREATE TABLE a(x INTEGER PRIMARY KEY, y)", checksum="one"
    ),
)


class Tx:
    """One table."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self.signals: list[Any] = []
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1

    def add(self, x: int) -> int:
        self.db.execute("INSERT INTO a(x) VALUES(?)", (x,))
        self.signals.append(x)
        return x

    def all(self) -> list[int]:
        return [row[0] for row in self.db.execute("SELECT x FROM a ORDER BY x")]


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteEngine[Tx]]:
    """Open a store with one table, and close it."""
    on_commit = options.pop("on_commit", None)
    store = await SqliteEngine[Tx].open(
        path, migrations=STEPS, tx=Tx, on_commit=on_commit, options=OpenOptions(log_bytes=0, **options)
    )
    try:
        yield store
    finally:
        await store.close()


async def _held(store: SqliteEngine[Tx]) -> tuple[threading.Event, asyncio.Future[bool]]:
    """Keep the writer busy until the event is set, so that what follows becomes one batch."""
    begun, go = threading.Event(), threading.Event()

    def wait(_: Tx) -> bool:
        begun.set()
        return go.wait(5)

    future = store.write(wait)
    await asyncio.to_thread(begun.wait, 5)
    return go, future


async def test_wp_01_what_waits_shares_one_commit(tmp_path: Path) -> None:
    """A thousand operations that wait cost two commits, not a thousand: 512 each at most."""
    async with opened(tmp_path / "a.db") as store:
        go, first = await _held(store)
        rest = [store.write(lambda tx, n=n: tx.add(n)) for n in range(1_000)]
        go.set()
        await asyncio.gather(first, *rest)

        assert store.commits == 3
        assert await store.read(lambda tx: len(tx.all())) == 1_000


async def test_wp_02_one_that_fails_leaves_the_other_49(tmp_path: Path) -> None:
    """A failing operation undoes what it did, and nothing else."""

    def fails(tx: Tx) -> None:
        tx.add(1_000)
        raise SkepError("no")

    told: list[Any] = []
    async with opened(tmp_path / "a.db", on_commit=told.extend) as store:
        go, first = await _held(store)
        work = [store.write(lambda tx, n=n: tx.add(n)) for n in range(25)]
        bad = store.write(fails)
        work += [store.write(lambda tx, n=n: tx.add(n)) for n in range(25, 49)]
        go.set()
        with pytest.raises(SkepError):
            await bad
        await asyncio.gather(first, *work)

        assert store.commits == 2
        assert await store.read(lambda tx: tx.all()) == list(range(49))
        assert told == list(range(49))


def _add_each(tx: Tx, numbers: Sequence[int]) -> list[int]:
    """Add numbers; -1 cannot be added."""
    for x in numbers:
        if x == -1:
            raise SkepError("no")
        tx.add(x)
    return [x * 10 + len(numbers) for x in numbers]


async def test_wp_02_operations_of_one_kind_that_wait_run_as_one(tmp_path: Path) -> None:
    """Each gets its own result, in order, whatever stood between them; an operation of no kind divides them."""
    async with opened(tmp_path / "a.db") as store:
        go, first = await _held(store)
        before = [store.write_each(_add_each, n) for n in range(3)]
        alone = store.write(lambda tx: tx.all())
        after = [store.write_each(_add_each, n) for n in range(3, 5)]
        go.set()
        await first

        assert await asyncio.gather(*before) == [3, 13, 23]
        assert await alone == [0, 1, 2]
        assert await asyncio.gather(*after) == [32, 42]


async def test_wp_02_one_of_a_kind_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """The 49 beside it are committed, each alone, and what was remembered is forgotten."""
    seen: list[int] = []
    async with opened(tmp_path / "a.db") as store:
        before = await store.write(lambda tx: tx.forgotten)
        go, first = await _held(store)
        work = [store.write_each(_add_each, n) for n in range(25)]
        bad = store.write_each(_add_each, -1)
        work += [store.write_each(_add_each, n) for n in range(25, 49)]
        go.set()
        await first
        with pytest.raises(SkepError):
            await bad
        assert await asyncio.gather(*work) == [n * 10 + 1 for n in range(49)]
        seen = await store.read(lambda tx: tx.all())
        assert await store.write(lambda tx: tx.forgotten) == before + 2

    assert seen == list(range(49))


async def test_what_is_remembered_is_dropped_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two batches, after so many operations: a long run stays small."""
    monkeypatch.setattr(engine_module, "FORGET_AFTER", 10)
    async with opened(tmp_path / "a.db") as store:
        before = await store.write(lambda tx: tx.forgotten)
        for n in range(30):
            await store.write(lambda tx, n=n: tx.add(n))

        assert await store.write(lambda tx: tx.forgotten) - before == 2


class _Faulty(apsw.VFS):
    """The file layer of the system, with syncs and writes that are watched and can be made to fail."""

    def __init__(self, name: str) -> None:
        self.fail_sync: type[Exception] | None = None
        self.fail_write: type[Exception] | None = None
        self.before_sync: Callable[[], None] = lambda: None
        self.syncs = 0
        super().__init__(name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - the driver's name
        return _FaultyFile(self, name, flags)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, vfs: _Faulty, name: Any, flags: list[int]) -> None:
        self._faults = vfs
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - as above
        self._faults.before_sync()
        if self._faults.fail_sync is not None:
            raise self._faults.fail_sync
        super().xSync(flags)
        self._faults.syncs += 1

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - as above
        if self._faults.fail_write is not None:
            raise self._faults.fail_write
        super().xWrite(data, offset)  # pyright: ignore[reportUnknownMemberType] - the driver's type


@contextmanager
def faulty() -> Iterator[_Faulty]:
    """Give a file layer whose syncs and writes can be watched and made to fail."""
    vfs = _Faulty("faulty")
    try:
        yield vfs
    finally:
        vfs.unregister()


async def test_wp_03_no_result_before_the_sync(tmp_path: Path) -> None:
    """While the disk syncs, nobody has been told; only a lease may be told before."""
    with faulty() as vfs:
        async with opened(tmp_path / "a.db", vfs="faulty") as store:
            at_sync, go = threading.Event(), threading.Event()

            def wait() -> None:
                at_sync.set()
                assert go.wait(5)

            vfs.before_sync = wait
            stored = store.write(lambda tx: tx.add(1))
            lease = store.write(lambda _: "early", early=True)
            await asyncio.to_thread(at_sync.wait, 5)
            for _ in range(10):
                await asyncio.sleep(0)
            told = (stored.done(), lease.done())
            syncs = vfs.syncs
            go.set()
            vfs.before_sync = lambda: None

            assert await stored == 1
            assert not told[0]
            assert vfs.syncs > syncs
            assert await lease == "early"


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("at", ["fail_sync", "fail_write"])
async def test_m9_failing_disk_acks_nothing_and_recovers(
    tmp_path: Path, at: str, error: type[Exception]
) -> None:
    """Nothing of the batch is acked or stored; when space returns, work goes on."""
    path = tmp_path / "a.db"
    with faulty() as vfs:
        async with opened(path, vfs="faulty") as store:
            await store.write(lambda tx: tx.add(1))
            setattr(vfs, at, error)
            tries = [store.write(lambda tx, n=n: tx.add(n)) for n in (2, 3)]
            for result in await asyncio.gather(*tries, return_exceptions=True):
                assert isinstance(result, StoreUnavailableError)
                assert "a.db" in result.problem
            assert await store.read(lambda tx: tx.all()) == [1]

            setattr(vfs, at, None)
            await store.write(lambda tx: tx.add(4))

            assert await store.read(lambda tx: tx.all()) == [1, 4]
    async with opened(path) as store:
        assert await store.read(lambda tx: tx.all()) == [1, 4]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small filesystem: needs root")
async def test_m9_full_disk_for_real(tmp_path: Path) -> None:
    """A tmpfs that fills up: refused clearly, whole afterwards, and going on when space returns."""
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no mounts here")
    try:
        async with opened(small / "a.db") as store:
            await store.write(lambda tx: tx.add(1))
            ballast = small / "ballast"
            with ballast.open("wb", buffering=0) as file:
                while True:
                    try:
                        file.write(bytes(4096))
                    except OSError:
                        break
            acked = 0
            with pytest.raises(StoreUnavailableError, match="full"):
                for n in range(2, 500):
                    await store.write(
                        lambda tx, n=n: tx.db.execute("INSERT INTO a VALUES(?, ?)", (n, "x" * 900))
                    )
                    acked = n
            ballast.unlink()
            await store.write(lambda tx: tx.add(1_000))
            kept = await store.read(lambda tx: tx.all())
            assert kept == [1, *range(2, acked + 1), 1_000]
            assert await store.read(lambda tx: tx.db.execute("PRAGMA integrity_check").get) == "ok"
    finally:
        subprocess.run(["umount", str(small)], check=False)


async def _make(path: Path, count: int = 200) -> bytes:
    async with opened(path) as store:
        for start in range(0, count, 50):
            await asyncio.gather(
                *(
                    store.write(lambda tx, n=n: tx.db.execute("INSERT INTO a VALUES(?, ?)", (n, "x" * 500)))
                    for n in range(start, start + 50)
                )
            )
    return path.read_bytes()


def _garbage(data: bytes) -> bytes:
    return b"not a database" * (len(data) // 14)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _empty(data: bytes) -> bytes:
    return data[:0]


def _scratched(data: bytes) -> bytes:
    return data[:4096] + b"\xff" * 8192 + data[12288:]


@pytest.mark.parametrize("harm", [_garbage, _cut, _empty, _scratched])
async def test_damaged_database_is_refused_and_never_recreated(
    tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    """The file is left as it is, and the error names it."""
    path = tmp_path / "a.db"
    harmed = harm(await _make(path))
    path.write_bytes(harmed)

    with pytest.raises(DatabaseDamagedError, match=r"a\.db"):
        async with opened(path):
            pass

    assert path.read_bytes() == harmed


async def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """An older version does not touch what a newer one wrote."""
    path = tmp_path / "a.db"
    await _make(path)
    with pytest.raises(DatabaseNewerError):
        await SqliteEngine[Tx].open(path, migrations=(), tx=Tx, options=OpenOptions(log_bytes=0))


async def test_foreign_database_is_refused(tmp_path: Path) -> None:
    """Tables that we did not make are not ours to change."""
    path = tmp_path / "a.db"
    foreign = connect(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs=None)
    foreign.execute("CREATE TABLE theirs(x)")
    foreign.close()

    with pytest.raises(DatabaseForeignError):
        async with opened(path):
            pass


async def test_old_library_is_refused_unless_allowed(tmp_path: Path) -> None:
    """Before 3.51.3 the log can be corrupted."""
    with pytest.raises(LibraryTooOldError, match=r"3\.51\.2"):
        async with opened(tmp_path / "a.db", library=(3, 51, 2)):
            pass
    async with opened(tmp_path / "a.db", library=(3, 51, 2), allow_old_library=True):
        pass


async def test_network_filesystem_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log needs shared memory."""

    def on_a_share(_path: Path) -> str:
        return "nfs4"

    monkeypatch.setattr("skep.store.sqlite.files.filesystem_of", on_a_share)
    with pytest.raises(NetworkFilesystemError, match="nfs4"):
        async with opened(tmp_path / "a.db"):
            pass


def test_filesystem_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    """`/mnt/a b/c` is on the share that is mounted at `/mnt/a b`."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime - ext4 /dev/a rw\n"
        "23 22 0:9 / /mnt/a\\040b rw shared:1 - nfs4 host:/x rw\n"
        "24 22 0:9 / /mnt/a\\040bc rw - xfs /dev/b rw\n"
    )

    assert filesystem_of(Path("/mnt/a b/c"), mounts=mounts) == "nfs4"
    assert filesystem_of(Path("/mnt/a"), mounts=mounts) == "ext4"
    assert filesystem_of(Path("/x"), mounts=tmp_path / "nothing") is None


async def test_database_belongs_to_one_process(tmp_path: Path) -> None:
    """A second opening is refused while the first lasts."""
    async with opened(tmp_path / "a.db"):
        with pytest.raises(DatabaseInUseError):
            async with opened(tmp_path / "a.db"):
                pass
    async with opened(tmp_path / "a.db"):
        pass


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Database, log and index: 0600."""
    async with opened(tmp_path / "a.db") as store:
        await store.write(lambda tx: tx.add(1))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    assert set(modes) >= {"a.db", "a.db-wal", "a.db-shm"}
    assert set(modes.values()) == {0o600}


async def test_log_has_its_length_from_the_first_start(tmp_path: Path) -> None:
    """Commits overwrite blocks that are there, and the log never ends up shorter."""
    path = tmp_path / "a.db"
    options = OpenOptions(log_bytes=1024 * 1024)
    for n in range(2):
        store = await SqliteEngine[Tx].open(path, migrations=STEPS, tx=Tx, options=options)
        await store.write(lambda tx, n=n: tx.add(n))
        assert (tmp_path / "a.db-wal").stat().st_size == 1024 * 1024
        assert await store.read(lambda tx: tx.all()) == list(range(n + 1))
        await store.close()


async def test_log_of_a_removed_database_does_not_reach_the_new_one(tmp_path: Path) -> None:
    """Deleting the database alone gives an empty one."""
    path = tmp_path / "a.db"
    async with opened(path) as store:
        await store.write(lambda tx: tx.add(1))
        log = (tmp_path / "a.db-wal").read_bytes()
    path.unlink()
    (tmp_path / "a.db-wal").write_bytes(log)

    async with opened(path) as store:
        assert await store.read(lambda tx: tx.all()) == []


async def test_log_is_copied_into_the_database_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above its bound, and in pauses: so it does not grow for ever."""
    monkeypatch.setattr(engine_module, "CHECKPOINT_PAGES", 8)
    async with opened(tmp_path / "a.db") as store:
        for n in range(200):
            await store.write(lambda tx, n=n: tx.db.execute("INSERT INTO a VALUES(?, ?)", (n, "x" * 2_000)))

        assert (tmp_path / "a.db-wal").stat().st_size < 40 * 4096
        assert (tmp_path / "a.db").stat().st_size > 50 * 4096


async def test_reader_cannot_write(tmp_path: Path) -> None:
    """Readers have connections of their own, that refuse."""
    async with opened(tmp_path / "a.db") as store:
        with pytest.raises(apsw.ReadOnlyError):
            await store.read(lambda tx: tx.db.execute("INSERT INTO a VALUES(1, 1)").fetchall())


async def test_reader_sees_one_state(tmp_path: Path) -> None:
    """What is committed during a read does not show in it."""
    async with opened(tmp_path / "a.db") as store:
        await store.write(lambda tx: tx.add(1))
        begun, go = threading.Event(), threading.Event()

        def twice(tx: Tx) -> tuple[list[int], list[int]]:
            before = tx.all()
            begun.set()
            go.wait(5)
            return before, tx.all()

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(store.read(twice))
            await asyncio.to_thread(begun.wait, 5)
            await store.write(lambda tx: tx.add(2))
            go.set()

        assert reading.result() == ([1], [1])


async def test_overload_refuses_only_who_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents get `busy` with a time; people and operators are never refused for load."""
    monkeypatch.setattr(engine_module, "QUEUE_MAX", 3)
    async with opened(tmp_path / "a.db") as store:
        go, first = await _held(store)
        work = [store.write(lambda tx, n=n: tx.add(n)) for n in range(6)]
        with pytest.raises(BusyError) as raised:
            store.write(lambda tx: tx.add(99), may_refuse=True)
        assert raised.value.retry_after_s > 0
        go.set()
        await asyncio.gather(first, *work)


async def test_close_stores_what_waits_and_then_refuses(tmp_path: Path) -> None:
    """Nothing accepted is lost at a stop; afterwards no thread is left."""
    threads = threading.active_count()
    async with opened(tmp_path / "a.db") as store:
        work = [store.write(lambda tx, n=n: tx.add(n)) for n in range(100)]
        await store.close()
        assert await asyncio.gather(*work) == list(range(100))
        with pytest.raises(StoreClosedError):
            store.write(lambda tx: tx.add(1))
        with pytest.raises(StoreClosedError):
            await store.read(lambda tx: tx.all())
    assert not [t for t in threading.enumerate() if t.name.startswith("a-")]
    assert threading.active_count() == threads


async def test_cancelled_caller_disturbs_nobody(tmp_path: Path) -> None:
    """Its operation is stored all the same: a repeat must be safe."""
    async with opened(tmp_path / "a.db") as store:
        go, first = await _held(store)
        gone, kept = store.write(lambda tx: tx.add(1)), store.write(lambda tx: tx.add(2))
        gone.cancel()
        go.set()
        await asyncio.gather(first, kept)

        assert await store.read(lambda tx: tx.all()) == [1, 2]
