"""The one table: as text, as JSON, and as the block of the README."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.measure import Ratio, Row

__all__ = ["as_json", "as_text", "heading", "write_readme"]

_BLOCK: Final = re.compile(r"(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)


def heading() -> str:
    """Return when this was measured, and on what."""
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return (
        f"{day}, {os.cpu_count()} processors, {memory_gb:.0f} GB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}"
    )


def as_text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    head = ("case", "÷", "median", "least … most", "bar / goal / moonshot", "verdict", "ours", "CPU per unit")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    text = [heading(), ""]
    text += ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    text += [f"  {row.what}: {row.note}" for row in rows if row.note]
    text.append("Ratios are medians of rounds run in turn; gaps under 1.3 are ties on a shared machine.")
    return "\n".join(text) + "\n"


def as_json(rows: Sequence[Row]) -> str:
    """Return everything, for a program."""
    found = [
        {
            "case": row.name,
            "what": row.what,
            "beside": row.beside,
            "ratio": None if row.ratio is None else row.ratio.median,
            "least": None if row.ratio is None else row.ratio.least,
            "most": None if row.ratio is None else row.ratio.most,
            "bar": row.bar,
            "goal": row.goal,
            "moonshot": row.moonshot,
            "is_less_better": row.is_less_better,
            "verdict": row.verdict,
            "note": row.note,
            "details": row.details,
        }
        for row in rows
    ]
    return (
        json.dumps({"schema": 1, "measured": heading(), "rows": found}, indent=2, ensure_ascii=False) + "\n"
    )


def write_readme(path: Path, rows: Sequence[Row]) -> None:
    """Put the table between the marks in the README."""
    lines = [
        f"Measured {heading()}. Each figure is a ratio to something measured in the same run (`make bench`).",
        "",
        "| case | ÷ | median | bar / goal | reached |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        beside = row.beside or "plain"
        marks = f"{_marked(row, row.bar)} / {_marked(row, row.goal)}"
        value = "" if row.ratio is None else _number(row.ratio.median)
        reached = row.verdict if row.ratio is not None else f"not measured: {row.note}"
        lines.append(f"| {row.what} | {beside} | {value} | {marks} | {reached} |")
    block = "\n".join(lines) + "\n"
    text = path.read_text(encoding="utf-8")
    path.write_text(_BLOCK.sub(lambda found: found[1] + block + found[2], text), encoding="utf-8")


def _cells(row: Row) -> tuple[str, ...]:
    marks = " / ".join(_marked(row, mark) for mark in (row.bar, row.goal, row.moonshot))
    return (
        row.what,
        row.beside,
        "" if row.ratio is None else _number(row.ratio.median),
        "" if row.ratio is None else _span(row.ratio),
        marks,
        row.verdict,
        row.rate,
        row.cpu,
    )


def _marked(row: Row, mark: float) -> str:
    return f"{'≤' if row.is_less_better else '≥'} {mark:g}"


def _span(ratio: Ratio) -> str:
    return "" if ratio.least == ratio.most else f"{_number(ratio.least)} … {_number(ratio.most)}"


def _number(value: float) -> str:
    """Return `value` with three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"
