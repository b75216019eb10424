"""Opening a SQLite file: what is checked first, how it is made, and how its log is laid out.

Source: hive, sections 3.1 and 4.3. Blocking: the engine calls it from a thread.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import apsw

from skep.store.errors import (
    DatabaseDamagedError,
    DatabaseForeignError,
    DatabaseInUseError,
    LibraryTooOldError,
    NetworkFilesystemError,
)
from skep.store.migrations import Migration, plan
from skep.store.sqlite.driver import Db, connect

__all__ = [
    "MIN_LIBRARY",
    "OpenOptions",
    "check_library",
    "close_writer",
    "connect_reader",
    "connect_writer",
    "filesystem_of",
    "lock_file",
    "prepare_file",
]

MIN_LIBRARY: Final = (3, 51, 3)
"""From 3.7.0 until here, two connections that write or checkpoint at once could corrupt the log."""
LOG_BYTES: Final = 24 * 1024 * 1024
"""How long the log is made, so that commits overwrite blocks that the filesystem has allocated."""
CHECK_BYTES: Final = 64 * 1024 * 1024
"""Largest file that is checked in full at each start; a larger one only when it was not closed well."""

_LOG_HEAD_BYTES: Final = 32
_MAGIC: Final = b"SQLite format 3\0"
_NETWORK: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.davfs", "fuse.glusterfs",
    "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2",
    "orangefs", "smb3", "smbfs",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOptions:
    """How strict to be, and where.

    Attributes:
        allow_old_library: Open even with a SQLite that has the corruption race.
        synchronous: `FULL` where an answer means stored; `NORMAL` may lose the last second at power loss.
        log_bytes: Length that the log is given when it is made; 0 leaves it to SQLite.
        vfs: Name of the file layer; a test hands in one that fails on purpose.
        library: Version of SQLite, for the check.
    """

    allow_old_library: bool = False
    synchronous: str = "FULL"
    log_bytes: int = LOG_BYTES
    vfs: str | None = None
    library: tuple[int, ...] | None = None


def prepare_file(path: Path, *, migrations: Sequence[Migration], options: OpenOptions) -> None:
    """Check the file at `path`, make it when it is not there, and bring its schema up to date.

    A new database is made under another name and renamed when it is whole: so an empty or cut file
    under the real name is always damage.

    Raises:
        DatabaseDamagedError: The file is not a whole database.
        DatabaseNewerError: A newer version wrote it.
        DatabaseForeignError: Its migrations are not ours.
        LibraryTooOldError: SQLite is too old.
        NetworkFilesystemError: The directory is on a network filesystem.
    """
    check_library(options)
    _check_filesystem(path)
    if not path.exists():
        _create(path, migrations, options)
    else:
        _check_whole(path)
        _migrate_existing(path, migrations, options)
    _lengthen_log(path, options.log_bytes)


def connect_writer(path: Path, *, options: OpenOptions) -> Db:
    """Return the one connection that writes."""
    db = _connect(path, options)
    # The log stays when the last connection closes: its blocks are already allocated.
    _keep_log(db)
    _pragma(db, "synchronous", options.synchronous)
    _pragma(db, "foreign_keys", "ON")
    _pragma(db, "cell_size_check", "ON")
    _pragma(db, "temp_store", "MEMORY")
    _pragma(db, "cache_size", "-16384")
    db.wal_autocheckpoint(0)
    return db


def close_writer(db: Db, path: Path) -> None:
    """Copy the log into the database and close; then mark the log as empty.

    The mark spares the next start from reading the log again, and tells it that all went well.
    """
    try:
        length, copied = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        db.close()
    except apsw.Error:
        return  # the log stays as it is, and is read at the next start
    if length == copied:
        with suppress(OSError), _log_of(path).open("r+b") as log:
            log.write(bytes(_LOG_HEAD_BYTES))


def lock_file(path: Path) -> BinaryIO:
    """Return a lock that keeps other processes from opening the same database.

    Raises:
        DatabaseInUseError: Another process has it.
    """
    lock = os.fdopen(os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600), "rb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        lock.close()
        raise DatabaseInUseError(
            f"`{path.name}` is in use by another process", hint="stop the other Skep first: `skep status`"
        ) from exc
    return lock


def connect_reader(path: Path, *, options: OpenOptions) -> Db:
    """Return a connection that cannot write."""
    db = _connect(path, options)
    _pragma(db, "query_only", "ON")
    _pragma(db, "temp_store", "MEMORY")
    db.wal_autocheckpoint(0)
    return db


def filesystem_of(path: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the filesystem that holds `path`, or `None` where that cannot be read."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = os.path.realpath(path)
    found: tuple[int, str | None] = (-1, None)
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = fields[4].encode().decode("unicode_escape").rstrip("/")
        if (real == point or real.startswith(point + "/")) and len(point) >= found[0]:
            found = (len(point), after.split()[0])
    return found[1]


def check_library(options: OpenOptions) -> None:
    """Refuse a SQLite whose WAL can corrupt a database.

    Raises:
        LibraryTooOldError: It is older than `MIN_LIBRARY`, and that was not allowed.
    """
    version = options.library or tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < MIN_LIBRARY and not options.allow_old_library:
        need, have = (".".join(map(str, v)) for v in (MIN_LIBRARY, version))
        raise LibraryTooOldError(
            f"SQLite {have} can corrupt a database under load; {need} or newer is needed",
            hint="upgrade the package `apsw`, or set `hive.allow_old_sqlite` and take the risk",
        )


def _check_filesystem(path: Path) -> None:
    kind = filesystem_of(path.parent)
    if kind in _NETWORK:
        raise NetworkFilesystemError(
            f"`{path.name}` would lie on a network filesystem ({kind})",
            hint="set SKEP_HOME to a directory on a local disk",
        )


def _check_whole(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    if head != _MAGIC:
        raise DatabaseDamagedError(
            f"`{path.name}` is not a database: its first bytes are wrong",
            hint="keep the file, and restore a backup: `skep restore`",
        )


def _create(path: Path, migrations: Sequence[Migration], options: OpenOptions) -> None:
    new = path.with_name(path.name + ".new")
    for stale in (new, _log_of(new), _index_of(new), _log_of(path), _index_of(path)):
        # A log without its database belongs to one that somebody removed; it must not reach the new one.
        stale.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    db = connect(new, flags=apsw.SQLITE_OPEN_READWRITE, vfs=options.vfs)
    try:
        _pragma(db, "auto_vacuum", "INCREMENTAL")
        _pragma(db, "journal_mode", "WAL")
        _pragma(db, "synchronous", "OFF")
        _migrate(db, migrations, database=path.name)
    finally:
        db.close()
    _sync(new)
    new.rename(path)
    _sync(path.parent)


def _migrate_existing(path: Path, migrations: Sequence[Migration], options: OpenOptions) -> None:
    db = _connect(path, options)
    try:
        _keep_log(db)
        _pragma(db, "synchronous", "FULL")
        _pragma(db, "foreign_keys", "OFF")
        log = _log_of(path)
        # A log with content means that the last owner did not close well.
        if path.stat().st_size <= CHECK_BYTES or _has_content(log):
            problem = db.execute("PRAGMA quick_check(1)").get
            if problem != "ok":
                raise DatabaseDamagedError(
                    f"`{path.name}` is damaged",
                    hint="keep the file, and restore a backup: `skep restore`",
                )
        _migrate(db, migrations, database=path.name)
    finally:
        db.close()


def _migrate(db: Db, migrations: Sequence[Migration], *, database: str) -> None:
    tables = db.execute("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").get
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'migration'").get is None:
        if tables:
            raise DatabaseForeignError(
                f"`{database}` holds tables that Skep did not make",
                hint="move the file away, or set SKEP_HOME to another directory",
            )
        applied: dict[int, str] = {}
    else:
        applied = dict(db.execute("SELECT number, checksum FROM migration").fetchall())
    for migration in plan(migrations, applied, database=database):
        db.execute("BEGIN IMMEDIATE")
        try:
            if migration.number == 1:
                db.execute(
                    "CREATE TABLE migration("
                    "number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL)"
                )
            db.execute(migration.sql).fetchall()
            db.execute(
                "INSERT INTO migration(number, name, checksum) VALUES(?, ?, ?)",
                (migration.number, migration.name, migration.checksum),
            )
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _lengthen_log(path: Path, size: int) -> None:
    """Give the log its length, once. A log of zeros is an empty one to SQLite."""
    log = _log_of(path)
    if not size or (log.exists() and log.stat().st_size > 0):
        return
    descriptor = os.open(log, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        zeros = bytes(1024 * 1024)
        try:
            for at in range(0, size, len(zeros)):
                os.pwrite(descriptor, zeros[: size - at], at)
        except OSError:
            os.ftruncate(descriptor, 0)  # no room for it: it only makes commits faster
    finally:
        os.close(descriptor)


def _connect(path: Path, options: OpenOptions) -> Db:
    db = connect(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=options.vfs)
    db.set_busy_timeout(5_000)
    # Else a statement that touches a partial index is prepared again each time a parameter changes.
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return db


def _keep_log(db: Db) -> None:
    on = ctypes.c_int(1)
    db.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(on))


def _pragma(db: Db, name: str, value: str) -> None:
    db.execute(f"PRAGMA {name}={value}").fetchall()


def _has_content(log: Path) -> bool:
    try:
        with log.open("rb") as file:
            return any(file.read(_LOG_HEAD_BYTES))
    except FileNotFoundError:
        return False


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _index_of(path: Path) -> Path:
    return path.with_name(path.name + "-shm")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
