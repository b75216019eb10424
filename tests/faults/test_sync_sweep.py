"""A kill at every sync of the disk: one answer, never half of one; reliability, M3; control protocol, rp-01."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).with_name("sync_sweep.py")


@pytest.mark.timeout(120)
def test_rp_01_reply_and_done_are_one_whatever_sync_is_the_last(tmp_path: Path) -> None:
    """Killed before or after any sync, the message is unanswered and waits, or is answered and done."""
    swept = subprocess.run(
        [sys.executable, str(SWEEP), str(tmp_path)], capture_output=True, text=True, timeout=110, check=False
    )
    *problems, rounds = swept.stdout.splitlines() or [""]

    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert problems == []
    assert int(rounds.removeprefix("rounds ")) > 20
