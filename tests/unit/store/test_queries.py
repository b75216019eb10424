"""skep.store.queries: named blocks of SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from skep.store.queries import load_queries


def _load(directory: Path, text: str) -> dict[str, str]:
    (directory / "db").mkdir()
    (directory / "db" / "a.sql").write_text(text)
    return dict(load_queries("db", directory=directory))


def test_blocks_become_statements(tmp_path: Path) -> None:
    """Name, one line of purpose, then the statement; comments are left out."""
    text = (
        "-- a file\n\n-- name: one\n-- The first.\nSELECT 1,  -- why\n  2;\n\n"
        "-- name: two\n-- The second.\nSELECT 3;\n"
    )

    assert _load(tmp_path, text) == {"one": "SELECT 1, 2", "two": "SELECT 3"}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;\n",
        "-- name: one\n-- Empty.\n",
        "-- name: one\n-- A.\nSELECT 1;\n-- name: one\n-- B.\nSELECT 2;\n",
    ],
)
def test_wrong_files_do_not_load(tmp_path: Path, text: str) -> None:
    """Stray SQL, an empty block and a name used twice are mistakes of ours."""
    with pytest.raises(ValueError, match=r"SQL before|empty or named twice"):
        _load(tmp_path, text)


def test_every_statement_of_the_hive_prepares(tmp_path: Path) -> None:
    """Each named block fits the schema that the migrations make."""
    from skep.store.sqlite.driver import connect
    from skep.store.sqlite.files import OpenOptions, prepare_file
    from skep.store.sqlite.hive import HIVE_MIGRATIONS

    path = tmp_path / "hive.db"
    prepare_file(path, migrations=HIVE_MIGRATIONS, options=OpenOptions(log_bytes=0))
    db = connect(path, flags=2, vfs=None)
    for name, statement in load_queries("hive").items():
        parameters = max((number for number in range(1, 30) if f"?{number}" in statement), default=0)
        try:
            db.execute(f"EXPLAIN {statement}", (None,) * parameters).fetchall()
        except Exception as exc:  # noqa: BLE001 - say which one
            pytest.fail(f"`{name}`: {exc}")
    db.close()
