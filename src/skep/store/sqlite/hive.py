"""The hive's tables in SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from skep.store.migrations import load_migrations
from skep.store.ports import Signal
from skep.store.queries import load_queries
from skep.store.sqlite.driver import Db, Row

__all__ = ["HIVE_MIGRATIONS", "SqliteHiveTx"]

HIVE_MIGRATIONS: Final = load_migrations(Path(__file__).parent / "migrations" / "hive")
_SQL: Final = dict(load_queries("hive"))


class SqliteHiveTx:
    """Named statements over one connection."""

    __slots__ = ("_changes", "_execute", "_execute_many", "_rowid", "memo", "signals")

    def __init__(self, db: Db) -> None:
        # One cursor for all: each statement is read to its end before the next. A new one each time costs more.
        cursor = db.cursor()
        self._execute: Final = cursor.execute
        self._execute_many: Final = cursor.executemany
        self._changes: Final = db.changes
        self._rowid: Final = db.last_insert_rowid
        self.signals: list[Signal] = []
        self.memo: dict[Any, Any] = {}

    def forget(self) -> None:
        """Read everything again when it is needed."""
        self.memo.clear()

    def one(self, name: str, *args: object) -> Row | None:
        """Return the first row of a statement."""
        rows = self._execute(_SQL[name], args).fetchall()
        return rows[0] if rows else None

    def all(self, name: str, *args: object) -> list[Row]:
        """Return all rows of a statement."""
        return self._execute(_SQL[name], args).fetchall()

    def run(self, name: str, *args: object) -> int:
        """Run a statement without rows; return how many rows it changed."""
        self._execute(_SQL[name], args)
        return self._changes()

    def many(self, name: str, rows: Sequence[Sequence[object]]) -> list[Row]:
        """Run a statement once for each of `rows`; return all rows that come of it, in order."""
        if len(rows) == 1:
            return self._execute(_SQL[name], rows[0]).fetchall()
        return self._execute_many(_SQL[name], rows).fetchall() if rows else []

    def insert(self, name: str, *args: object) -> int:
        """Run an insert; return the number that the new row was given."""
        self._execute(_SQL[name], args)
        return self._rowid()
