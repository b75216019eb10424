"""skep.broker under SIGKILL at random instants; hive, st-02, and reliability, M1."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.broker import open_desk
from support.waiting import MS

ROUNDS = int(os.environ.get("SKEP_TEST_KILLS", "6"))
"""200 at release length."""


def _kill_once(directory: Path, after_s: float) -> None:
    """Let the worker start, work for a while, and kill it."""
    journal = directory / "journal"
    before = journal.stat().st_size if journal.exists() else 0
    worker = subprocess.Popen([sys.executable, str(Path(__file__).with_name("killed.py")), str(directory)])
    try:
        deadline = time.monotonic() + 20_000 * MS
        while not (journal.exists() and journal.stat().st_size > before):
            assert worker.poll() is None, "the worker ended by itself"
            assert time.monotonic() < deadline, "the worker did not start"
            time.sleep(0.005)
        time.sleep(after_s)
        assert worker.poll() is None, "the worker ended by itself"
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()


@pytest.mark.timeout(600)
async def test_st_02_what_was_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    """Every acknowledged send is there, what was done is done, no lane has a gap, the file is whole."""
    seed = random.SystemRandom().randrange(1 << 32)
    dice = random.Random(seed)
    for _ in range(ROUNDS):
        _kill_once(tmp_path, dice.uniform(0.0, 0.25))
    acts = [line.split() for line in (tmp_path / "journal").read_text().splitlines() if line.count(" ") == 1]
    sent = {int(what) for act, what in acts if act == "sent"}
    done = {int(what) for act, what in acts if act == "done"}
    epochs = [int(what) for act, what in acts if act == "up"]
    assert len(sent) > ROUNDS, f"seed {seed}: nothing was sent"

    async with open_desk(tmp_path, agents=()) as desk:
        states = dict(await desk.rows("SELECT id, state FROM delivery"))
        places = await desk.rows(
            "SELECT lane, count(lane_seq), max(lane_seq), (SELECT next_seq FROM lane WHERE id = delivery.lane) "
            "FROM delivery GROUP BY lane"
        )
        whole = await desk.rows("PRAGMA integrity_check")
        answers = await desk.rows(
            "SELECT count(*) FROM message WHERE idem LIKE 'r:%' GROUP BY in_reply_to HAVING count(*) > 1"
        )

        halves = await desk.rows(
            "SELECT d.id FROM message r JOIN delivery d ON d.message = r.in_reply_to "
            "WHERE r.idem LIKE 'r:%' AND d.state <> 'done'"
        )

    assert sent - states.keys() == set(), f"seed {seed}: acknowledged and lost"
    assert {key for key in done if states[key] != "done"} == set(), f"seed {seed}: done and not done"
    assert [row for row in places if not row[1] == row[2] == row[3] - 1] == [], f"seed {seed}: a gap"
    assert answers == [], f"seed {seed}: answered twice"
    assert halves == [], f"seed {seed}: answered and not done"
    assert whole == [("ok",)]
    assert epochs == sorted(set(epochs))
