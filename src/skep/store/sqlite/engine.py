"""The embedded engine: one writer thread with group commit, and a few readers.

Source: hive, sections 3.1 and 4.

Callers hand in operations, functions of a transaction object `Tx`. The writer thread takes all that
wait (at most 512), runs them in one `BEGIN IMMEDIATE`, commits once, and resolves all their futures
with one call into the event loop. One that fails undoes nothing else: the batch is then run again,
each operation inside a savepoint of its own. A result is given back only after COMMIT under
`synchronous=FULL`; the one exception is `early`, for what is harmless to lose.

An operation must depend on nothing but its transaction and change nothing else: it runs in the
writer thread, and it may run twice. Operations of one kind (`write_each`) that wait together run as one,
so that their rows are written together.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, Final, Generic, Protocol, Self, TypeVar

import apsw

from skep.foundation.errors import BusyError, SkepError
from skep.store.errors import DatabaseDamagedError, StoreClosedError, StoreUnavailableError
from skep.store.migrations import Migration
from skep.store.sqlite.driver import Db
from skep.store.sqlite.files import (
    OpenOptions,
    close_writer,
    connect_reader,
    connect_writer,
    lock_file,
    prepare_file,
)

__all__ = ["BATCH_MAX", "OpenOptions", "SqliteEngine", "Tx"]

BATCH_MAX: Final = 512
"""Most operations that share one commit. Hive, section 4.1."""
QUEUE_MAX: Final = 5_000
"""Operations that may wait before callers that allow it are refused. Hive, section 4.5."""
CHECKPOINT_PAGES: Final = 8 * 1024 * 1024 // 4096
"""Length of the log above which the writer copies it into the database. Hive, section 4.3."""
IDLE_S: Final = 0.2
"""How long the writer waits for work before it uses the pause to copy the log."""
LAZY_S: Final = 0.003
"""How long an operation that is in no hurry waits for another one."""
FORGET_AFTER: Final = 20_000
"""Operations after which a transaction object drops what it remembers, so that it stays small."""
READERS: Final = 2

T = TypeVar("T")
ItemT = TypeVar("ItemT")


class Tx(Protocol):
    """What the engine asks of a transaction class; it is made once per connection.

    Attributes:
        signals: What to tell `on_commit` once this operation is durable. The engine empties it; an
            operation that fails has told nothing.
    """

    signals: list[Any]

    def forget(self) -> None:
        """Drop what was remembered of the database: work was undone, or somebody else may have written."""
        ...


TxT = TypeVar("TxT", bound=Tx)


class _Work(Generic[TxT]):
    """One operation, and who waits for it.

    Attributes:
        run: The operation; nothing when it is one of a kind.
        many: What does all operations of its kind; `item` is this one.
    """

    __slots__ = ("early", "error", "future", "item", "many", "result", "run")

    def __init__(
        self,
        future: asyncio.Future[Any],
        early: bool,  # noqa: FBT001 - private, and by position for speed
        run: Callable[[TxT], Any] | None,
        many: Callable[[TxT, Sequence[Any]], Sequence[Any]] | None = None,
        item: Any = None,
    ) -> None:
        self.future = future
        self.early = early
        self.run = run
        self.many = many
        self.item = item
        self.result: Any = None
        self.error: BaseException | None = None

    def do(self, tx: TxT) -> None:
        """Run it alone."""
        if self.run is not None:
            self.result = self.run(tx)
        elif self.many is not None:
            (self.result,) = self.many(tx, (self.item,))


_BROKEN_DISK: Final = (apsw.FullError, apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.NoMemError)
_BROKEN_READ: Final = (apsw.IOError, apsw.CantOpenError, apsw.NoMemError)
_DAMAGED: Final = (apsw.CorruptError, apsw.NotADBError)


class SqliteEngine(Generic[TxT]):
    """One SQLite database, owned by this process. Open it with `open`."""

    def __init__(
        self,
        path: Path,
        *,
        tx: Callable[[Db], TxT],
        on_commit: Callable[[Sequence[Any]], None] | None,
        options: OpenOptions,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.path: Final = path
        self._make_tx: Final = tx
        self._on_commit: Final = on_commit
        self._options: Final = options
        self._loop: Final = loop
        self._queue: Final[deque[_Work[TxT] | None]] = deque()
        self._wake: Final[SimpleQueue[None]] = SimpleQueue()
        self._is_idle = False
        self._lazy: list[_Work[TxT]] = []
        self._lazy_timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._wal_pages = 0
        self._remembered = 0
        self._local: Final = threading.local()
        self._reader_connections: Final[list[Db]] = []
        self._readers: Final = ThreadPoolExecutor(READERS, thread_name_prefix=f"{path.stem}-reader")
        self._writer: Final = threading.Thread(
            target=self._write_loop, name=f"{path.stem}-writer", daemon=True
        )
        self._db: Db
        self._lock: BinaryIO
        self._tx: TxT
        self._execute: Callable[[str], object]
        self.commits = 0
        """Commits so far. For tests of batching, and for metrics."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        migrations: Sequence[Migration],
        tx: Callable[[Db], TxT],
        on_commit: Callable[[Sequence[Any]], None] | None = None,
        options: OpenOptions | None = None,
    ) -> Self:
        """Open the database at `path`, made and migrated as needed.

        Args:
            path: The file; its directory exists.
            migrations: All known, by number.
            tx: Makes the transaction object of a connection.
            on_commit: Takes the signals of a committed batch, in the event loop.
            options: How strict to be, and where.

        Raises:
            DatabaseDamagedError: The file is not a whole database.
            DatabaseNewerError: A newer version wrote it.
            DatabaseForeignError: Its migrations are not ours.
            LibraryTooOldError: SQLite is older than 3.51.3.
            NetworkFilesystemError: The file would lie on a network filesystem.
            StoreUnavailableError: The disk is full or cannot be written.
        """
        chosen = options or OpenOptions()
        engine = cls(path, tx=tx, on_commit=on_commit, options=chosen, loop=asyncio.get_running_loop())
        await _in_thread(partial(engine._start, migrations), name=f"{path.stem}-open")
        return engine

    def write(
        self,
        op: Callable[[TxT], T],
        *,
        early: bool = False,
        lazy: bool = False,
        may_refuse: bool = False,
    ) -> asyncio.Future[T]:
        """Return a future of what `op` returns, resolved when it is on stable storage.

        An operation that raises changes nothing, and the future raises what it raised. A caller that
        is cancelled does not undo its operation.

        Args:
            op: Runs in the writer thread; alone in what it undoes when it fails.
            early: Give the result before the commit. Only for what is harmless to lose.
            lazy: Wait a moment (`LAZY_S`) for another operation, to share its commit.
            may_refuse: Refuse when too much waits. Never for what people and operators send.

        Raises:
            BusyError: Too much waits, and `may_refuse`.
            StoreClosedError: The store is closed.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        work = _Work[TxT](future, early, op)
        if lazy and not self._closing:
            self._put_off(work)
        else:
            self._put(work, may_refuse=may_refuse)
        return future

    def write_each(
        self,
        many: Callable[[TxT, Sequence[ItemT]], Sequence[T]],
        item: ItemT,
        *,
        early: bool = False,
        may_refuse: bool = False,
    ) -> asyncio.Future[T]:
        """Do as `write` for one of a kind: `many` takes all items that wait, and returns a result for each.

        Items of one kind keep their order. Among kinds there is none, until an operation that is no such
        item: who needs one waits for the result of the first.

        Args:
            many: The same object each time. When it raises, each item is tried alone.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(_Work(future, early, None, many, item), may_refuse=may_refuse)
        return future

    def _put(self, work: _Work[TxT], *, may_refuse: bool) -> None:
        if self._closing:
            raise StoreClosedError(f"`{self.path.name}` is closed")
        if may_refuse and len(self._queue) > QUEUE_MAX:
            raise BusyError("too much waits to be written", retry_after_s=0.25)
        if self._lazy:
            self._add_lazy()
        self._add(work)

    def _put_off(self, work: _Work[TxT]) -> None:
        """Keep an operation until another one comes, or the moment is over."""
        if not self._lazy:
            self._lazy_timer = self._loop.call_later(LAZY_S, self._add_lazy)
        self._lazy.append(work)

    def _add_lazy(self) -> None:
        """Hand over what was put off."""
        if self._lazy_timer is not None:
            self._lazy_timer.cancel()
            self._lazy_timer = None
        lazy, self._lazy = self._lazy, []
        for work in lazy:
            self._add(work)

    async def read(self, op: Callable[[TxT], T]) -> T:
        """Return what `op` returns, run on a connection that cannot write.

        It sees one state of the database: all that was committed before, nothing half.
        """
        if self._closing:
            raise StoreClosedError(f"`{self.path.name}` is closed")
        return await self._loop.run_in_executor(self._readers, self._read, op)

    @property
    def waiting(self) -> int:
        """Operations that wait for the writer."""
        return len(self._queue)

    async def close(self) -> None:
        """Run what waits, copy the log into the database, and close. Safe to call twice."""
        self._closing = True
        self._add_lazy()
        await _in_thread(self._stop, name=f"{self.path.stem}-close")

    # Opening and closing, in a helper thread.

    def _start(self, migrations: Sequence[Migration]) -> None:
        self._lock = lock_file(self.path)
        try:
            prepare_file(self.path, migrations=migrations, options=self._options)
            self._open_writer()
        except apsw.Error as exc:
            self._lock.close()
            raise _as_store_error(self.path, exc) from exc
        except BaseException:
            self._lock.close()
            raise
        self._writer.start()

    def _open_writer(self) -> None:
        self._db = connect_writer(self.path, options=self._options)
        self._db.set_wal_hook(self._wal_grew)
        self._tx = self._make_tx(self._db)
        self._execute = self._db.cursor().execute

    def _stop(self) -> None:
        self._readers.shutdown(wait=True)
        while self._reader_connections:
            self._reader_connections.pop().close()
        if self._writer.is_alive():
            self._add(None)
            self._writer.join()
        self._lock.close()

    def _wal_grew(self, _db: Any, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    # Reading, in a reader thread.

    def _read(self, op: Callable[[TxT], T]) -> T:
        db: Db | None = getattr(self._local, "db", None)
        if db is None:
            db = connect_reader(self.path, options=self._options)
            self._local.db, self._local.tx = db, self._make_tx(db)
            self._reader_connections.append(db)
        try:
            db.execute("BEGIN")
            try:
                self._local.tx.forget()
                return op(self._local.tx)
            finally:
                db.execute("ROLLBACK")
        except (*_BROKEN_READ, *_DAMAGED) as exc:
            raise _as_store_error(self.path, exc) from exc

    # Writing, in the writer thread.

    def _write_loop(self) -> None:
        stopping = False
        while not stopping:
            batch, stopping = self._take()
            if batch:
                self._run(batch)
            if self._wal_pages and (self._wal_pages > CHECKPOINT_PAGES or not batch):
                self._checkpoint()
        close_writer(self._db, self.path)

    def _take(self) -> tuple[list[_Work[TxT]], bool]:
        """Return what waits, at most `BATCH_MAX`, and whether to stop after it."""
        queue = self._queue
        self._is_idle = True
        try:
            if not queue:  # looked at after the flag was set: whoever adds now wakes us
                self._wake.get(timeout=IDLE_S if self._wal_pages else None)
        except Empty:
            return [], False
        finally:
            self._is_idle = False
        batch: list[_Work[TxT]] = []
        while queue and len(batch) < BATCH_MAX:
            work = queue.popleft()
            if work is None:
                return batch, True
            batch.append(work)
        return batch, False

    def _add(self, work: _Work[TxT] | None) -> None:
        """Hand something to the writer; `None`: stop. It is woken only when it sleeps."""
        self._queue.append(work)
        if self._is_idle:
            self._is_idle = False
            self._wake.put(None)

    def _run(self, batch: list[_Work[TxT]]) -> None:
        """Run `batch` in one transaction, and tell the loop what came of it."""
        signals: list[Any] = []
        self._remembered += len(batch)
        if self._remembered > FORGET_AFTER:
            self._remembered = 0
            self._tx.forget()
        try:
            self._begin()
            if not self._all_went_well(batch, signals):
                for work in batch:
                    self._run_one(work, signals)
            early = [work for work in batch if work.early]
            if early:
                self._tell(partial(_resolve, early))
            self._commit()
        except apsw.Error as exc:
            self._roll_back()
            error = _as_store_error(self.path, exc)
            for work in batch:
                work.error = error
            signals = []
        self._tell(partial(self._finish, batch, signals))

    def _all_went_well(self, batch: list[_Work[TxT]], signals: list[Any]) -> bool:
        """Run the operations one after the other; when one fails, undo them all and return `False`.

        Nearly always none does, and a savepoint around each costs a sixth of its time.
        """
        tx = self._tx
        try:
            for kind in _kinds(batch):
                first = kind[0]
                if len(kind) == 1 or first.many is None:
                    first.do(tx)
                    continue
                results = first.many(tx, [work.item for work in kind])
                for work, result in zip(kind, results, strict=True):
                    work.result = result
        except (*_BROKEN_DISK, *_DAMAGED):
            raise  # not an operation's fault: the whole batch fails
        except BaseException:  # noqa: BLE001 - it comes again in its savepoint, and is handed to its caller
            tx.signals.clear()
            tx.forget()
            if self._db.in_transaction:
                self._execute("ROLLBACK")
            self._begin()
            return False
        signals += tx.signals
        tx.signals.clear()
        return True

    def _run_one(self, work: _Work[TxT], signals: list[Any]) -> None:
        """Run one operation inside its savepoint: its failure undoes nothing else."""
        execute, tx = self._execute, self._tx
        execute("SAVEPOINT op")
        try:
            work.do(tx)
        except (*_BROKEN_DISK, *_DAMAGED):
            raise  # not this operation's fault: the whole batch fails
        except BaseException as exc:  # noqa: BLE001 - handed to the caller
            execute("ROLLBACK TO op")
            work.error = exc
            tx.signals.clear()
            tx.forget()
        else:
            if tx.signals:
                signals += tx.signals
                tx.signals.clear()
        execute("RELEASE op")

    def _begin(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        self._execute("COMMIT")
        self.commits += 1

    def _roll_back(self) -> None:
        """Undo the batch; when even that fails, open the database again."""
        self._tx.signals.clear()
        self._tx.forget()
        try:
            if self._db.in_transaction:
                self._execute("ROLLBACK")
        except apsw.Error:
            self._db.close(True)
            self._reopen()

    def _reopen(self) -> None:
        try:
            self._open_writer()
        except (apsw.Error, SkepError):
            # Each batch fails until the disk is back: `BEGIN` on a closed connection raises.
            return

    def _checkpoint(self) -> None:
        """Copy the log into the database. A disk that refuses is asked again later."""
        self._wal_pages = 0
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            return

    def _tell(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it everybody who waited
            self._loop.call_soon_threadsafe(what)

    # In the event loop again.

    def _finish(self, batch: list[_Work[TxT]], signals: list[Any]) -> None:
        _resolve(batch)
        if signals and self._on_commit is not None:
            self._on_commit(signals)


async def _in_thread(work: Callable[[], None], *, name: str) -> None:
    """Run blocking work in a thread that is gone afterwards; the loop's own helper threads stay for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - handed to the caller
            error = exc
        with suppress(RuntimeError):  # the loop is gone, and with it the caller
            loop.call_soon_threadsafe(tell, error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    await future
    thread.join()


def _kinds(batch: Sequence[_Work[TxT]]) -> Iterator[list[_Work[TxT]]]:
    """Gather items of one kind up to the next operation that is none; each of those stands alone."""
    kinds: dict[Any, list[_Work[TxT]]] = {}
    for work in batch:
        if work.many is None:
            yield from kinds.values()
            kinds.clear()
            yield [work]
        elif work.many in kinds:
            kinds[work.many].append(work)
        else:
            kinds[work.many] = [work]
    yield from kinds.values()


def _resolve(batch: list[Any]) -> None:
    for work in batch:
        future = work.future
        if future.done():  # cancelled, or told early
            continue
        if work.error is None:
            future.set_result(work.result)
        else:
            future.set_exception(work.error)


def _as_store_error(path: Path, exc: apsw.Error) -> SkepError:
    name = path.name
    if isinstance(exc, _DAMAGED):
        return DatabaseDamagedError(
            f"`{name}` is damaged", hint="keep the file, and restore a backup: `skep restore`"
        )
    if isinstance(exc, apsw.FullError):
        return StoreUnavailableError(
            f"cannot write `{name}`: the disk is full",
            hint="free some space; nothing was stored, and work goes on by itself",
        )
    if isinstance(exc, apsw.BusyError):
        return StoreUnavailableError(f"cannot write `{name}`: another process holds it")
    return StoreUnavailableError(
        f"cannot write `{name}`: the disk reports an error ({type(exc).__name__})",
        hint="look at the disk; nothing was stored, and work goes on by itself when it is back",
    )
