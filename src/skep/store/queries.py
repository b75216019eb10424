"""Named SQL: blocks of a `.sql` file, each with one line of purpose.

A block starts with `-- name: insert_message`; the comment line under it says what it is for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

__all__ = ["QUERIES_DIR", "load_queries"]

QUERIES_DIR: Final = Path(__file__).with_suffix("")
"""Directory `queries/` beside this module; one directory in it per database."""

_BLOCK: Final = re.compile(r"^-- name: ([a-z][a-z0-9_]*)\n-- .+\n", re.MULTILINE)


def load_queries(database: str, *, directory: Path = QUERIES_DIR) -> Mapping[str, str]:
    """Return the statements of all files of `database`, by name, without comments.

    Raises:
        ValueError: A file has text before its first block, a name occurs twice, or a block is empty.
    """
    statements: dict[str, str] = {}
    for path in sorted((directory / database).glob("*.sql")):
        parts = _BLOCK.split(path.read_text(encoding="utf-8"))
        if any(line and not line.startswith("--") for line in parts[0].splitlines()):
            raise ValueError(f"`{path.name}` has SQL before its first `-- name:` block")
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            lines = (line.split("-- ")[0].strip() for line in text.splitlines())
            statement = " ".join(line for line in lines if line).rstrip(";")
            if name in statements or not statement:
                raise ValueError(f"block `{name}` of `{path.name}` is empty or named twice")
            statements[name] = statement
    return MappingProxyType(statements)
