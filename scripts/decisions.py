"""The index of docs/decisions/: one row per decision, written from the pages themselves.

`--check` writes nothing and fails when the index is stale.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

__all__ = ["Decision", "index", "main", "read_decision"]

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "decisions"
SECTIONS: Final = ("Context", "Decision", "Consequences", "Revisions")
STATUS: Final = ("proposed", "accepted", "replaced by ")

HEAD: Final = """# Decisions

Why Skep is as it is, one page per decision. A page is revised when its decision is, not answered by another.
This index is written by `make docs`.

| | decision | status |
| --- | --- | --- |
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One page of docs/decisions/."""

    number: str
    title: str
    status: str
    file: str


def read_decision(path: Path) -> Decision:
    """Return what the index needs of the page at `path`.

    Raises:
        ValueError: The page has not the form of a decision; says what is wrong.
    """
    text = path.read_text()
    number = path.name[:4]
    title = re.match(rf"# {number} (\S.*)\n", text)
    if title is None:
        raise ValueError(f"{path.name}: the first line is not `# {number} Title`")
    status = re.search(r"^Status: (.+)$", text, re.MULTILINE)
    if status is None or not status[1].startswith(STATUS):
        raise ValueError(f"{path.name}: no line `Status: accepted`, `proposed` or `replaced by NNNN`")
    missing = [name for name in SECTIONS if f"\n## {name}\n" not in text]
    if missing:
        raise ValueError(f"{path.name}: no section `## {missing[0]}`")
    return Decision(number=number, title=title[1], status=status[1], file=path.name)


def index(folder: Path = FOLDER) -> str:
    """Return the page that lists the decisions in `folder`.

    Raises:
        ValueError: A page has not the form of a decision, or two have one number.
    """
    decisions = [read_decision(path) for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.md"))]
    for one, other in pairwise(decisions):
        if one.number == other.number:
            raise ValueError(f"{one.file} and {other.file} have one number")
    return HEAD + "".join(f"| {d.number} | [{d.title}]({d.file}) | {d.status} |\n" for d in decisions)


def main(arguments: list[str]) -> int:
    """Write the index, or check it; return the exit code."""
    page = FOLDER / "README.md"
    try:
        wanted = index()
    except ValueError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    if page.is_file() and page.read_text() == wanted:
        return 0
    if "--check" in arguments:
        print("error: docs/decisions/README.md is stale\nhint: run `make docs`", file=sys.stderr)
        return 1
    page.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
