"""docs/spec/: what code and tests cite is there, and each part says how far it is built."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[3]
SPEC: Final = ROOT / "docs" / "spec"
PAGES: Final = {
    "control protocol": "control.md",
    "hive": "hive.md",
    "relay contract": "relay.md",
    "platforms": "platforms.md",
    "identity": "identity.md",
    "reliability": "reliability.md",
    "secrets and providers": "secrets-and-providers.md",
}
NUMBER: Final = r"[A-Z]?\d+(?:\.\d+)*"
CITED: Final = re.compile(
    rf"\b({'|'.join(PAGES)}),\s+sections?\s+({NUMBER}(?:(?:,| to| and)\s+{NUMBER})*)", re.IGNORECASE
)
PROMISED: Final = re.compile(r"`([a-z]{2,3})-(\d\d)`(?:\s*(?:…|\.\.)\s*`\1-(\d\d)`)?")


def _sections(page: str) -> set[str]:
    """Return the numbers of a page: of its headings, its numbered paragraphs, and lists in a section."""
    found: set[str] = set()
    heading = ""
    for line in (SPEC / page).read_text().splitlines():
        if match := re.match(rf"#+ ({NUMBER})\.? ", line):
            heading = match[1]
            found.add(heading)
        elif match := re.match(r"#+ ([A-Z])\. ", line):
            heading = ""
            found.add(match[1])
        elif match := re.match(r"\**(\d+\.\d+)(?: |$)", line):
            found.add(match[1])
        elif heading and (match := re.match(r"(\d+)\. ", line)):
            found.add(f"{heading}.{match[1]}")
    return found


def _citations() -> Iterator[tuple[str, str, str]]:
    """Return (file, page, section) of each section that code or a test names."""
    names = subprocess.run(
        ["git", "ls-files", "--", "src", "tests", "bench", "scripts", "web"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        path = ROOT / name
        if path.suffix not in {".py", ".sql", ".ts", ".svelte"} or not path.is_file():
            continue
        text = re.sub(r"\n\s*(?:#|--|//|\*)?\s*", " ", path.read_text())
        for spec, numbers in CITED.findall(text):
            for number in re.findall(NUMBER, numbers):
                yield name, PAGES[spec.lower()], number


def test_every_cited_section_exists() -> None:
    """Whoever follows a docstring to the specification finds what it names."""
    known = {page: _sections(page) for page in PAGES.values()}

    wrong = {f"{name}: {page} {number}" for name, page, number in _citations() if number not in known[page]}

    assert sorted(wrong) == []


def test_citations_are_found() -> None:
    """The search above sees what it should."""
    found = {(page, number) for _, page, number in _citations()}

    assert {("control.md", "6.2"), ("hive.md", "5.3"), ("relay.md", "9")} <= found


@pytest.mark.parametrize("page", sorted(PAGES.values()))
def test_a_page_says_how_far_it_is_built(page: str) -> None:
    """Nobody takes a promise for what is there."""
    assert "*Status" in (SPEC / page).read_text()


def _promised(page: Path) -> set[str]:
    """Return the ids of tests that a page names, ranges spelled out."""
    return {
        f"{kind}-{number:02}"
        for kind, first, last in PROMISED.findall(page.read_text())
        for number in range(int(first), int(last or first) + 1)
    }


def _named_in_tests() -> set[str]:
    """Return the ids that stand in the name of a test, or in the docstring of a module of tests."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        found |= {f"{kind}-{number}" for kind, number in re.findall(r"`?\b([a-z]{2,3})-(\d\d)\b", text[:400])}
        for name in re.findall(r"def (test_\w+)", text):
            found |= {
                f"{kind}-{number}" for kind, number in re.findall(r"(?=_([a-z]{2,3})_(\d\d)(?:_|$))", name)
            }
    return found


def test_every_promised_test_is_there_or_said_not_to_be() -> None:
    """No page names a test that nobody wrote, but for those that its index says are missing."""
    promised = {name for page in PAGES.values() for name in _promised(SPEC / page)}

    assert sorted(promised - _named_in_tests() - _promised(SPEC / "README.md")) == []
