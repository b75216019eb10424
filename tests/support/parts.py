"""Real programs for a test: `need` returns one, or skips; where CI runs, a missing one is a failure."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest
from scripts.parts import PARTS

__all__ = ["missing", "need"]


def need(name: str) -> str:
    """Return the path of the part `name` of scripts/parts.py; skip the test without it, or fail it in CI."""
    part = next(part for part in PARTS if part.name == name)
    path = part.find()
    if path is None:
        missing(f"{name} is not here; get it: apt-get install -y {part.package}")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test that wants a part; fail it where `SKEP_CI=1` says that every part must be there."""
    if os.environ.get("SKEP_CI") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
