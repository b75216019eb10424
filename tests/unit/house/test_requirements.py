"""docs/requirements.md: every requirement once, and what is said to prove it is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
PAGE: Final = ROOT / "docs" / "requirements.md"
COUNTS: Final = {0: 61, 1: 24, 2: 93, 3: 36, 4: 72, 5: 3}
ROW: Final = re.compile(r"^\| (\d\.\d\d) \| (.+) \| (.+) \|$", re.MULTILINE)
NAMED: Final = re.compile(r"`([\w-]+/[^`]+)`")


def _rows() -> list[tuple[str, str]]:
    """Return (id, proof) of each row."""
    return [(number, proof) for number, _, proof in ROW.findall(PAGE.read_text())]


@cache
def _functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_bytes())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def _is_there(name: str) -> bool:
    file, _, function = name.partition("::")
    path = ROOT / file
    return path.is_file() and (not function or function in _functions(path))


def test_every_requirement_is_there_once() -> None:
    """The list is whole, and in order."""
    wanted = [f"{group}.{number:02}" for group, count in COUNTS.items() for number in range(1, count + 1)]

    assert [number for number, _ in _rows()] == wanted


def test_every_proof_is_there() -> None:
    """A test or page that is named exists under that name."""
    missing = [
        f"{number}: {name}"
        for number, proof in _rows()
        for name in NAMED.findall(proof)
        if not _is_there(name)
    ]

    assert missing == []


def test_every_row_is_proven_or_says_that_it_is_not() -> None:
    """No row leaves open how things stand."""
    silent = [
        number for number, proof in _rows() if not proof.startswith("not yet") and not NAMED.search(proof)
    ]

    assert silent == []
