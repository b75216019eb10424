"""Numbered migrations with checksums, and the rules by which they are applied.

Files: `NNNN_pre_what.sql` (safe under the old code) and `NNNN_post_what.sql` (after the upgrade).
Pure: an engine reads which are applied, asks `plan`, and runs what it returns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skep.store.errors import DatabaseForeignError, DatabaseNewerError

__all__ = ["Migration", "load_migrations", "plan"]

_NAME: Final = re.compile(r"(\d{4})_(?:pre|post)_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of a schema.

    Attributes:
        number: From 1, without gaps.
        name: The file's name.
        sql: Its statements.
        checksum: SHA-256 of the file, as hex.
    """

    number: int
    name: str
    sql: str
    checksum: str


def load_migrations(directory: Path) -> tuple[Migration, ...]:
    """Return the migrations in `directory` by number.

    Raises:
        ValueError: A file is misnamed, or a number is missing or used twice.
    """
    found: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"migration `{path.name}` is not named NNNN_pre_what.sql or NNNN_post_what.sql")
        data = path.read_bytes()
        found.append(
            Migration(
                number=int(match[1]),
                name=path.name,
                sql=data.decode(),
                checksum=hashlib.sha256(data).hexdigest(),
            )
        )
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations in `{directory.name}` are not numbered 1, 2, 3 …")
    return tuple(found)


def plan(
    migrations: Sequence[Migration], applied: Mapping[int, str], *, database: str
) -> tuple[Migration, ...]:
    """Return the migrations that are still to run.

    Args:
        migrations: All that this version knows.
        applied: Number and checksum of each that the database has had.
        database: Name of the file, for the error.

    Raises:
        DatabaseNewerError: The database has had a migration that this version does not know.
        DatabaseForeignError: An applied migration is not the one we know under its number.
    """
    known = {migration.number: migration for migration in migrations}
    for number, checksum in sorted(applied.items()):
        if number not in known:
            raise DatabaseNewerError(
                f"`{database}` was written by a newer Skep: it has migration {number}, this version knows "
                f"{len(migrations)}",
                hint="upgrade Skep, or restore the backup taken before the upgrade",
            )
        if known[number].checksum != checksum:
            raise DatabaseForeignError(
                f"migration {number} of `{database}` is not the one that this version knows",
                hint="install the version of Skep that made this database",
            )
    return tuple(migration for migration in migrations if migration.number not in applied)
