"""Mail under SIGKILL of a random process: senders, readers, the daemon; reliability, M1, M3, M4 and M5."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.lengths import IS_RELEASE, at_length, new_seed, record
from faults.mail_history import MailHistory, Stored, read_store
from support.waiting import MS, eventually_sync

HERE = Path(__file__).parent
AGENTS = ("a1", "a2", "a3", "a4")
SENDERS = tuple(f"s{number}" for number in range(8))
KILLS = int(os.environ.get("SKEP_TEST_KILLS") or at_length(merge=50, release=500))
PAUSE_S = (0.2, 2.0) if IS_RELEASE else (0.0, 0.25)
"""How long work goes on before the next kill."""

pytestmark = pytest.mark.timeout(1_800)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left behind."""

    seed: int
    history: MailHistory
    store: Stored


class _Processes:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """Start each of them; `hive` is the daemon."""
        for name in names:
            kind = "sender" if name in SENDERS else "reader"
            words = (
                [str(HERE / "mail_daemon.py"), str(self._root), *AGENTS]
                if name == "hive"
                else [str(HERE / "mail_worker.py"), kind, name, str(self._root), *AGENTS]
            )
            with (self._root / f"{name}.err").open("ab") as errors:
                self._running[name] = subprocess.Popen([sys.executable, *words], stderr=errors)

    def kill(self, name: str) -> None:
        """`kill -9`."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def kill_all(self) -> None:
        """`kill -9` of what still runs."""
        for name in list(self._running):
            self.kill(name)

    def wait_for_work(self) -> None:
        """Wait until readers get something done."""
        before = self.noted()
        eventually_sync(lambda: self.noted() > before, within=15_000 * MS)

    def noted(self) -> int:
        """Return how much the readers have noted."""
        return sum(path.stat().st_size for name in AGENTS for path in self._root.glob(f"{name}.jsonl"))


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Kill for a while, let the readers read what is left, and stop."""
    seed = new_seed("mail_kills")
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="skep-mail-") as folder:
        root = Path(folder)
        processes = _Processes(root)
        try:
            processes.start("hive", *AGENTS, *SENDERS)
            for _ in range(KILLS):
                processes.wait_for_work()
                time.sleep(chance.uniform(*PAUSE_S))
                victim = chance.choice(("hive",) * 6 + AGENTS + SENDERS)
                processes.kill(victim)
                processes.start(victim)
            for name in SENDERS:
                processes.kill(name)
            _wait_until_read(processes)
        finally:
            processes.kill_all()
        facts = [
            {"who": path.stem, **json.loads(line)}
            for path in root.glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        record("mail_kills", seed, "".join(json.dumps(fact) + "\n" for fact in facts))
        yield Run(seed, MailHistory(facts), read_store(root / "hive.db"))


def _wait_until_read(processes: _Processes) -> None:
    noted, since = -1, time.monotonic()
    while time.monotonic() - since < 2.0:
        if (now := processes.noted()) != noted:
            noted, since = now, time.monotonic()
        time.sleep(0.05)


def test_m1_acknowledged_mail_is_never_lost(run: Run) -> None:
    """What the daemon acknowledged comes to a turn, whoever was killed in between."""
    assert len(run.history.sent) > KILLS
    assert run.history.lost(run.store) == []


def test_m3_a_repeat_is_marked_and_the_answer_is_one(run: Run) -> None:
    """A turn that died is run again with its mark; what was handled has exactly one answer."""
    assert run.history.unmarked() == []
    assert run.history.answered(run.store) == []


def test_m4_delivered_means_that_a_turn_has_seen_it(run: Run) -> None:
    """Nothing is taken off the queue without a turn."""
    assert run.history.delivered_unread(run.store) == []


def test_m5_order_is_kept_in_each_lane(run: Run) -> None:
    """Nothing overtakes what stands before it in its lane; one sender's messages keep their order."""
    assert run.history.inversions() == []
