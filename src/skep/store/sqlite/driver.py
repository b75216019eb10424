"""What we use of an apsw connection, typed.

apsw's own annotations leave parts unknown to a strict checker; these say the same without gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import apsw

__all__ = ["Cursor", "Db", "Row", "connect"]

Row = tuple[Any, ...]


class Cursor(Protocol):
    """A running statement. It has begun when it is returned, and rows are stepped as they are asked for."""

    @property
    def get(self) -> Any:
        """The one value of a one-column row, the row as a tuple, a list of rows if many; `None` for none."""
        ...

    def execute(self, statements: str, bindings: Sequence[object] = (), /) -> Cursor:
        """Run SQL, in place of what ran before."""
        ...

    def executemany(self, statements: str, bindings: Iterable[Sequence[object]], /) -> Cursor:
        """Run SQL once for each of `bindings`; the rows of all of them come one after the other."""
        ...

    def fetchone(self) -> Row | None:
        """Return the next row."""
        ...

    def fetchall(self) -> list[Row]:
        """Return all rows that are left."""
        ...

    def close(self) -> None:
        """End the statement."""
        ...

    def __iter__(self) -> Iterator[Row]: ...


class Db(Protocol):
    """One connection. Statements are kept prepared by their text."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def execute(self, statements: str, bindings: Sequence[object] = (), /) -> Cursor:
        """Run SQL with positional parameters."""
        ...

    def cursor(self) -> Cursor:
        """Return a cursor that can be used again."""
        ...

    def changes(self) -> int:
        """Return how many rows the last statement changed."""
        ...

    def last_insert_rowid(self) -> int:
        """Return the rowid of the last insert."""
        ...

    def set_busy_timeout(self, milliseconds: int, /) -> None:
        """Wait that long for a lock of another process."""
        ...

    def set_wal_hook(self, callable: Callable[[Any, str, int], int] | None, /) -> None:  # noqa: A002
        """Call with the length of the log in pages after each commit."""
        ...

    def wal_autocheckpoint(self, n: int, /) -> None:
        """Copy the log by itself above `n` pages; 0 for never."""
        ...

    def wal_checkpoint(self, dbname: str | None = None, mode: int = 0) -> tuple[int, int]:
        """Copy the log into the database; return its length and how much is copied."""
        ...

    def file_control(self, dbname: str, op: int, pointer: int, /) -> bool:
        """Call the file layer."""
        ...

    def config(self, op: int, *args: int) -> int:
        """Set an option of the connection."""
        ...

    def close(self, force: bool = False, /) -> None:  # noqa: FBT001, FBT002 - the driver's signature
        """Close it."""
        ...


def connect(path: Path, *, flags: int, vfs: str | None) -> Db:
    """Return a new connection to the file at `path`."""
    return cast("Db", apsw.Connection(str(path), flags=flags, vfs=vfs, statementcachesize=256))
