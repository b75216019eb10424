"""`skep status` and `skep doctor` while parts of a real installation are dead, or hang."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.installation import Installation
from support.waiting import TIME_FACTOR, eventually_sync

DEADLINE_S = 3.0 + 1.5 * TIME_FACTOR
"""All probes together have three seconds; the rest is Python's start."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for all of it."""
    installation = Installation(tmp_path_factory.mktemp("half") / "home")
    try:
        installation.start()
        yield installation
    finally:
        installation.end()


@contextmanager
def nothing_is_restarted(installation: Installation) -> Iterator[None]:
    """Stop `skep up` itself, so that what is dead stays dead; all is well again afterwards."""
    os.kill(installation.up_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(installation.up_pid, signal.SIGCONT)
        eventually_sync(lambda: _asked(installation, "status")[0] == 0, within=40 * TIME_FACTOR)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kinds", "code", "words", "found"),
    [
        (("web",), 1, {"dashboard": "down", "hive": "ok", "connector": "ok"}, {"dashboard.running"}),
        (("gateway",), 1, {"gateway": "down", "dashboard": "ok"}, {"gateway.away"}),
        (("connector", "web"), 1, {"connector": "down", "hive": "ok"}, {"connector.running"}),
        (
            ("hive", "gateway"),
            3,
            {"hive": "down", "gateway": "not checked", "connector": "ok"},
            {"hive.running"},
        ),
    ],
    ids=["web", "gateway", "connector and web", "hive and gateway"],
)
def test_what_is_dead_is_said_in_time(
    running: Installation, kinds: tuple[str, ...], code: int, words: dict[str, str], found: set[str]
) -> None:
    """Each dead part is named, by `status` and by `doctor`, within the deadline."""
    with nothing_is_restarted(running):
        for kind in kinds:
            running.kill(kind)
        eventually_sync(lambda: words.items() <= _words(running).items())

        exit_code, _ = _asked(running, "status")
        _, diagnosis = _asked(running, "doctor")

    assert exit_code == code
    broken = {finding["id"] for finding in diagnosis["findings"] if finding["severity"] == "broken"}
    assert found <= broken


@pytest.mark.timeout(120)
def test_what_hangs_is_said_in_time(running: Installation) -> None:
    """Three processes that take connections and never answer cost three seconds together."""
    pids = [running.pids(kind)[0] for kind in ("connector", "hive", "web")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        code, report = _asked(running, "status")
        _, diagnosis = _asked(running, "doctor")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    states = {part["name"]: part["state"] for part in report["parts"]}
    assert code == 3
    assert (states["connector"], states["hive"], states["dashboard"]) == ("down", "down", "down")
    assert {"connector", "hive", "dashboard"} <= set(diagnosis["not_checked"])


def test_nothing_runs(tmp_path: Path) -> None:
    """That nothing runs is one line, not a list of what is broken."""
    still = Installation(tmp_path / "still")
    code, report = _asked(still, "status")
    _, diagnosis = _asked(still, "doctor", "--only", "hive")

    assert code == 3
    assert {part["state"] for part in report["parts"]} == {"down", "not checked"}
    assert [finding["problem"] for finding in diagnosis["findings"]] == ["nothing runs"]


def _words(installation: Installation) -> dict[str, str]:
    _, report = _asked(installation, "status")
    return {part["name"]: part["state"] for part in report["parts"]}


def _asked(installation: Installation, *words: str) -> tuple[int, dict[str, Any]]:
    """Return exit code and JSON of a reading command, which must keep its deadline."""
    began = time.monotonic()
    done = installation.run(*words, "--json", timeout_s=20)
    took_s = time.monotonic() - began
    assert took_s < DEADLINE_S, f"`skep {words[0]}` took {took_s:.1f} s"
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)
