"""Documents: what they point to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from scripts import decisions

ROOT: Final = Path(__file__).resolve().parents[3]
LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMED: Final = re.compile(r"\bdocs/[\w/.-]+\.(?:md|svg|png)\b")
FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def _files(*patterns: str) -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [path for name in names if (path := ROOT / name).is_file()]


def _anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of `page`, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+?)\s*$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _broken_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in _anchors(file)):
            yield f"{page.relative_to(ROOT)}: {target}"


def test_links_resolve() -> None:
    """Every link from a page to a file or a heading of ours leads somewhere."""
    assert [link for page in _files("*.md") for link in _broken_links(page)] == []


def test_named_documents_exist() -> None:
    """Every document that code or a page names by its path is there."""
    broken = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in _files("*.md", "src/*.py", "scripts/*", "bench/*.py", "Makefile")
        for name in NAMED.findall(file.read_text())
        if not (ROOT / name).is_file()
    }

    assert sorted(broken) == []


def test_the_index_of_decisions_is_fresh() -> None:
    """docs/decisions/README.md lists what is there."""
    assert (decisions.FOLDER / "README.md").read_text() == decisions.index()


def test_reference_pages_are_fresh() -> None:
    """Each command, setting, error code, log event and control method is in docs/reference/, as it is."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/reference.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""


def test_a_decision_without_its_parts_is_refused(tmp_path: Path) -> None:
    """A page that is not in the form of a decision is named, with what it lacks."""
    page = tmp_path / "0001-bees.md"
    page.write_text("# 0001 Bees\n\nStatus: accepted\n\n## Context\n\n## Decision\n\n## Consequences\n")

    with pytest.raises(ValueError, match=re.escape("0001-bees.md: no section `## Revisions`")):
        decisions.index(tmp_path)
