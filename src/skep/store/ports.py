"""What the domain asks of a store: named statements inside a transaction.

The names are those of the blocks in `queries/`; each engine has its own text for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["HiveTx", "Row", "Signal"]

Row = tuple[Any, ...]
Signal = str | tuple[Any, ...]
"""Name of a doorbell to ring, or (kind, values …) of a change to tell."""


class HiveTx(Protocol):
    """One transaction over the hive's tables.

    Attributes:
        signals: What to tell once it is durable.
        memo: What was read and is still true, for as long as this object does all the writing. It is
            emptied whenever work is undone; who changes rows behind it calls `forget`.
    """

    signals: list[Signal]
    memo: dict[Any, Any]

    def forget(self) -> None:
        """Read everything again when it is needed."""
        ...

    def one(self, name: str, *args: object) -> Row | None:
        """Return the first row of a statement."""
        ...

    def all(self, name: str, *args: object) -> list[Row]:
        """Return all rows of a statement."""
        ...

    def run(self, name: str, *args: object) -> int:
        """Run a statement without rows; return how many rows it changed."""
        ...

    def many(self, name: str, rows: Sequence[Sequence[object]]) -> list[Row]:
        """Run a statement once for each of `rows`; return all rows that come of it, in order."""
        ...

    def insert(self, name: str, *args: object) -> int:
        """Run an insert; return the number that the new row was given."""
        ...
