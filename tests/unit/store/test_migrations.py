"""skep.store.migrations: which steps run, and which databases are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from skep.store.errors import DatabaseForeignError, DatabaseNewerError
from skep.store.migrations import load_migrations, plan
from skep.store.sqlite.hive import HIVE_MIGRATIONS


def _write(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).write_text(f"-- {name}\nSELECT 1;\n")
    return directory


def test_migrations_come_by_number(tmp_path: Path) -> None:
    """The number in the name is the order."""
    found = load_migrations(_write(tmp_path, "0002_post_tidy.sql", "0001_pre_first.sql"))

    assert [(step.number, step.name) for step in found] == [
        (1, "0001_pre_first.sql"),
        (2, "0002_post_tidy.sql"),
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("0001_pre_a.sql", "0003_pre_b.sql"),
        ("0001_pre_a.sql", "0001_post_b.sql"),
        ("0002_pre_a.sql",),
        ("first.sql",),
        ("0001_during_a.sql",),
    ],
)
def test_misnamed_migrations_are_a_mistake_of_ours(tmp_path: Path, names: tuple[str, ...]) -> None:
    """A gap, a double or another form of name does not load."""
    with pytest.raises(ValueError, match="migration"):
        load_migrations(_write(tmp_path, *names))


def test_plan_is_what_is_missing(tmp_path: Path) -> None:
    """What was applied is not run again."""
    steps = load_migrations(_write(tmp_path, "0001_pre_a.sql", "0002_pre_b.sql"))

    assert plan(steps, {}, database="x.db") == steps
    assert plan(steps, {1: steps[0].checksum}, database="x.db") == steps[1:]


def test_newer_database_is_refused(tmp_path: Path) -> None:
    """A step that we do not know was made by a newer version."""
    steps = load_migrations(_write(tmp_path, "0001_pre_a.sql"))

    with pytest.raises(DatabaseNewerError, match=r"x\.db"):
        plan(steps, {1: steps[0].checksum, 2: "?"}, database="x.db")


def test_changed_migration_is_refused(tmp_path: Path) -> None:
    """A step with another checksum made another schema."""
    steps = load_migrations(_write(tmp_path, "0001_pre_a.sql"))

    with pytest.raises(DatabaseForeignError):
        plan(steps, {1: "other"}, database="x.db")


def test_hive_has_migrations() -> None:
    """The package carries its SQL."""
    assert [step.number for step in HIVE_MIGRATIONS] == list(range(1, len(HIVE_MIGRATIONS) + 1))
