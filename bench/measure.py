"""Figures of one run: repeated, interleaved with what they are compared to, summed up by their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["Effort", "Ratio", "Row", "Verdict", "percentile", "ratio_of", "timed"]

Verdict = Literal["moonshot", "goal", "bar", "below", "not measured"]
TIE: Final = 1.3
"""Gaps under this are ties on shared machines. Design, section 11."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: How often each side is measured, in turn.
        span_s: How long each side of a round runs, where it runs for a time.
        scale: Sizes are multiplied by it.
    """

    rounds: int = 5
    span_s: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A median, and between what the rounds lay."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: Case, for `--only`: several rows may have one.
        what: What was measured, and in which unit when it is no ratio.
        beside: What it is divided by, with the figure of this run; empty for a plain figure.
        ratio: `None`: not measured; `note` says why.
        bar, goal, moonshot: What must hold, where we are going, what is near the limit.
        is_less_better: Whether a small figure is a good one.
        rate: Our own rate or time, for the reader.
        cpu: CPU per unit, by process.
    """

    name: str
    what: str
    beside: str
    ratio: Ratio | None
    bar: float
    goal: float
    moonshot: float
    is_less_better: bool = False
    rate: str = ""
    cpu: str = ""
    note: str = ""
    details: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def verdict(self) -> Verdict:
        """Return the highest mark that the median reaches."""
        if self.ratio is None:
            return "not measured"
        sign = -1 if self.is_less_better else 1
        value = self.ratio.median * sign
        if value >= self.moonshot * sign:
            return "moonshot"
        if value >= self.goal * sign:
            return "goal"
        return "bar" if value >= self.bar * sign else "below"


def ratio_of(ours: Sequence[float], theirs: Sequence[float] | None = None) -> Ratio:
    """Return `ours` ÷ `theirs` round by round, or `ours` alone."""
    each = list(ours) if theirs is None else [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(median=statistics.median(each), least=min(each), most=max(each))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of `values` lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class timed:  # noqa: N801 - reads as a word: `with timed() as took`
    """Wall time of a block, in seconds."""

    def __enter__(self) -> timed:
        self._from = time.perf_counter()
        self.s = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.s = time.perf_counter() - self._from
