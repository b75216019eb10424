"""What a run of the bridge found and did: names, states and fingerprints, never a value."""

from __future__ import annotations

from typing import Literal

import msgspec

from skep.foundation.exits import Outcome
from skep.foundation.health import Finding

__all__ = [
    "CheckReport",
    "CheckRow",
    "CheckState",
    "KeyRow",
    "KeyState",
    "PullReport",
    "SourceRow",
    "TargetRow",
    "WidthRow",
]

KeyState = Literal["same", "new", "changed", "removed", "absent", "failed"]
CheckState = Literal["ok", "describe_only", "denied", "missing", "unread", "failed"]


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    pass


class SourceRow(_Row, frozen=True):
    """Where the credential of a store came from."""

    store: str
    credential: str


class KeyRow(_Row, frozen=True):
    """One variable of a target; fingerprints compare on one host only."""

    env: str
    state: KeyState
    ref: str = ""
    store: str = ""
    version: int | None = None
    old: str | None = None
    new: str | None = None


class TargetRow(_Row, frozen=True):
    """One target, as it was and as it is to be."""

    name: str
    path: str
    dialect: str
    mode_now: str | None
    mode: str
    owner_now: str | None
    owner: str
    outcome: Literal["written", "unchanged", "would_change", "failed"]
    keys: tuple[KeyRow, ...]


class _Report(_Row, frozen=True):
    sources: tuple[SourceRow, ...]
    warnings: tuple[str, ...]
    errors: tuple[dict[str, object], ...]
    outcomes: tuple[Outcome, ...]


class PullReport(_Report, frozen=True):
    """What `pull` or `diff` found and did."""

    dry_run: bool
    targets: tuple[TargetRow, ...]
    findings: tuple[Finding, ...]


class CheckRow(_Row, frozen=True):
    """What the credential may do with one reference."""

    ref: str
    store: str
    state: CheckState


class WidthRow(_Row, frozen=True):
    """A question that should have been refused."""

    store: str
    asked: str
    answer: Literal["refused", "allowed", "unclear"]


class CheckReport(_Report, frozen=True):
    """What `check` found."""

    references: tuple[CheckRow, ...]
    width: tuple[WidthRow, ...]
