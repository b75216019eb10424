"""How long the fault tests run, from which seed, and where they leave what they recorded.

`SKEP_TEST_FAULTS=release` is the length of a release; without it, that of a merge: a tenth, at most.
`SKEP_TEST_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

__all__ = ["IS_RELEASE", "at_length", "new_seed", "record"]

IS_RELEASE: Final = os.environ.get("SKEP_TEST_FAULTS") == "release"
_RECORDS: Final = Path(__file__).resolve().parents[2] / "test-results" / "faults"


def at_length(*, merge: int, release: int) -> int:
    """Return how often to do it."""
    return release if IS_RELEASE else merge


def new_seed(name: str) -> int:
    """Return the seed of this run, and print it: pytest shows it when the test fails."""
    given = os.environ.get("SKEP_TEST_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(1 << 32)
    os.write(1, f"{name}: SKEP_TEST_SEED={seed}\n".encode())
    return seed


def record(name: str, seed: int, history: str) -> Path:
    """Keep the history of a run, so that it can be looked at and judged again."""
    _RECORDS.mkdir(parents=True, exist_ok=True)
    path = _RECORDS / f"{name}-{seed}.jsonl"
    path.write_text(history)
    return path
