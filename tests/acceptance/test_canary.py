"""Nothing that a person wrote, and no secret, is in what Skep says about itself."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from support.installation import Installation
from support.waiting import MS, eventually_sync

MARK: Final = "canary7f31"
"""In every text below; a log line that quotes any of them holds it."""
SAID: Final = (
    f"hello {MARK}",
    f"remind me in 10 seconds to feed the {MARK}",
    f"ask scribe to count the words in: one {MARK}",
    f"ask nobody about {MARK}",
    f"tell everybody the {MARK} is loose",
    f"@scribe hello {MARK}",
    f"/agent {MARK}",
    f"/help {MARK}",
)


@pytest.fixture
def talkative(tmp_path: Path) -> Iterator[Installation]:
    """An installation that logs all that it can."""
    installation = Installation(tmp_path / "home", extra_env={"SKEP_LOG_LEVEL": "debug"})
    try:
        installation.start()
        yield installation
    finally:
        installation.end()


def test_the_canary_is_in_no_log_and_no_error(talkative: Installation) -> None:
    """A whole conversation at debug level: asks, a reminder, a refusal, a kill, wrong codes, a text too long."""
    codes = [talkative.chat_once, talkative.dashboard_once]
    for text in SAID:
        assert talkative.run("chat", text).returncode == 0
    talkative.kill("hive")
    assert talkative.run("chat", f"again {MARK}").returncode == 0
    shown = [
        talkative.run("chat", MARK * 10_000),  # over 64 KiB
        talkative.run("chat", "--account", "nobody", f"hello {MARK}"),
        talkative.run("status"),
        talkative.run("status", "--json"),
        talkative.run("doctor"),
        talkative.run("agent", "list"),
        talkative.run("config", "show"),
    ]
    eventually_sync(
        lambda: "0 open reminders" in talkative.run("chat", "what is waiting").stdout, within=20_000 * MS
    )
    with suppress(ProcessLookupError):
        talkative.kill("connector")
    assert talkative.stop() in (0, -signal.SIGINT)

    secrets = [*codes, *_secrets(talkative.home)]
    errors = [run.stdout + run.stderr for run in shown]
    logs = {path.name: path.read_text() for path in (talkative.home / "logs").iterdir()}
    logs["up"] = (talkative.home.parent / "home-up.err").read_text()

    assert shown[0].returncode != 0
    assert len(secrets) >= 4
    assert {"connector.log", "gateway.log", "hive.log", "web.log", "harness-concierge.log"} <= logs.keys()
    assert "event_accepted" in logs["hive.log"]  # it did speak at debug level
    for where, text in [*logs.items(), *(("output", text) for text in errors)]:
        found = [mark for mark in (MARK, *secrets) if mark in text]
        assert found == [], f"{where}: {_line_with(found[0], text)}"


def _secrets(home: Path) -> list[str]:
    """Return what must not be told: the gateway's secret, and the connector's key in both forms."""
    pairs = dict(line.split("=", 1) for line in (home / "keys/gateway.env").read_text().splitlines())
    key = (home / "keys/connector.key").read_bytes()
    return [pairs["GATEWAY_RELAY_SECRET"], key.hex(), repr(key)[2:-1]]


def _line_with(mark: str, text: str) -> str:
    return next(line for line in text.splitlines() if re.search(re.escape(mark), line))[:300]
