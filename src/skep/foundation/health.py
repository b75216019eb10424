"""Findings: what is wrong, and the command that mends it.

`status`, `doctor` and the dashboard share this one shape, so that they never disagree.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["SEVERITY_ORDER", "Finding", "Severity", "causes"]

Severity = Literal["broken", "soon", "look"]
"""`broken` now, broken `soon`, or `look` when there is time."""

SEVERITY_ORDER: dict[Severity, int] = {"broken": 0, "soon": 1, "look": 2}


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is not as it should be.

    Attributes:
        id: `<area>.<what>`; never changes its meaning.
        problem: What is wrong and why, in one line.
        fix: The command (or act) that mends it.
        depends_on: Ids of findings that explain this one.
    """

    id: str
    severity: Severity
    problem: str
    fix: str = ""
    depends_on: tuple[str, ...] = ()


def causes(findings: list[Finding]) -> list[tuple[Finding, int]]:
    """Return the findings that no other one explains, worst first, each with how many it explains."""
    present = {finding.id for finding in findings}
    explained: dict[str, int] = {}
    roots: list[Finding] = []
    for finding in findings:
        reasons = [cause for cause in finding.depends_on if cause in present]
        if reasons:
            for cause in reasons:
                explained[cause] = explained.get(cause, 0) + 1
        else:
            roots.append(finding)
    roots.sort(key=lambda finding: (SEVERITY_ORDER[finding.severity], finding.id))
    return [(finding, explained.get(finding.id, 0)) for finding in roots]
