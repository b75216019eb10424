"""A kill at every sync of the disk; reliability, M3; control protocol, do-04 and rp-01."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).with_name("sync_sweep.py")


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What was broken by a kill before or after any sync."""
    root = tmp_path_factory.mktemp("sweep")
    swept = subprocess.run(
        [sys.executable, str(SWEEP), str(root)], capture_output=True, text=True, timeout=110, check=False
    )
    assert swept.returncode == 0, swept.stdout + swept.stderr
    *problems, rounds = swept.stdout.splitlines()
    assert int(rounds.removeprefix("rounds ")) > 20
    return problems


@pytest.mark.timeout(120)
def test_do_04_an_event_is_one_envelope_though_its_answer_was_never_sent(problems: list[str]) -> None:
    """Killed between the commit and the answer, the repeat of the event makes no second envelope."""
    assert [problem for problem in problems if "envelopes" in problem] == []


@pytest.mark.timeout(120)
def test_rp_01_reply_and_done_are_one_whatever_sync_is_the_last(problems: list[str]) -> None:
    """Killed before or after any sync, the message is unanswered and waits, or is answered and done."""
    assert problems == []
