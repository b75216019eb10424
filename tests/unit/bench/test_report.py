"""bench.report and bench.measure: what a reader is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench.measure import Row, percentile, ratio_of
from bench.report import as_json, as_text, write_readme


def a_row(**changes: Any) -> Row:
    """Return a row whose bar is 2."""
    facts: dict[str, Any] = {
        "name": "case",
        "what": "a thing",
        "beside": "a peer",
        "ratio": ratio_of([4.0, 6.0, 9.0], [2.0, 2.0, 2.0]),
        "bar": 2,
        "goal": 4,
        "moonshot": 8,
    }
    return Row(**{**facts, **changes})


VERDICTS = {
    "more is better": ([(1.0, "below"), (2.0, "bar"), (4.0, "goal"), (8.0, "moonshot")], False),
    "less is better": ([(9.0, "below"), (8.0, "bar"), (4.0, "goal"), (2.0, "moonshot")], True),
}


@pytest.mark.parametrize(("cases", "is_less_better"), VERDICTS.values(), ids=VERDICTS.keys())
def test_verdict_is_the_highest_mark_reached(cases: list[tuple[float, str]], is_less_better: bool) -> None:  # noqa: FBT001
    """A mark that is met exactly is reached."""
    marks = (8, 4, 2) if is_less_better else (2, 4, 8)
    for value, verdict in cases:
        row = a_row(
            ratio=ratio_of([value]),
            bar=marks[0],
            goal=marks[1],
            moonshot=marks[2],
            is_less_better=is_less_better,
        )
        assert row.verdict == verdict


def test_ratio_is_taken_round_by_round() -> None:
    """The median is of ratios, not a ratio of medians."""
    ratio = ratio_of([1.0, 10.0, 3.0], [1.0, 2.0, 1.0])

    assert (ratio.median, ratio.least, ratio.most) == (3.0, 1.0, 5.0)


def test_percentile_is_one_of_the_values() -> None:
    """p99 of a hundred values is the one above ninety-nine others."""
    assert percentile(list(range(100)), 99) == 99
    assert percentile([7.0], 50) == 7.0


def test_what_was_not_measured_says_why() -> None:
    """A missing peer is a row with its reason, in every form of the table."""
    row = a_row(ratio=None, note="it is not installed")

    assert row.verdict == "not measured"
    assert "it is not installed" in as_text([row])
    assert json.loads(as_json([row]))["rows"][0]["ratio"] is None


def test_readme_gets_the_table_between_its_marks(tmp_path: Path) -> None:
    """What stands around the block stays; a second run replaces the first."""
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")

    write_readme(readme, [a_row()])
    write_readme(readme, [a_row()])

    text = readme.read_text()
    assert text.startswith("before\n<!-- bench -->\nMeasured ")
    assert text.endswith("<!-- /bench -->\nafter\n")
    assert "old" not in text
    assert text.count("| a thing | a peer | 3.00 | ≥ 2 / ≥ 4 | bar |") == 1
