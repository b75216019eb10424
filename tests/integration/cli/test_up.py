"""`skep up` when something is not as it should be; control protocol, section 11."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installation import Installation, installed
from support.waiting import TIME_FACTOR, eventually_sync

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """An installation that does not run yet."""
    installation = Installation(tmp_path / "home")
    installation.home.mkdir(mode=0o700)
    try:
        yield installation
    finally:
        installation.end()


def gateway_part(installation: Installation) -> tuple[str, str]:
    """Return state and detail of the gateway, as `skep status` tells them."""
    report = json.loads(installation.run("status", "--json").stdout)
    part = next(part for part in report["parts"] if part["name"] == "gateway")
    return part["state"], part["detail"]


def complaints(installation: Installation) -> list[str]:
    """Return why the gateway said that it is not connected, a line each."""
    lines = (installation.home / "logs" / "gateway.log").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [event["why"] for event in events if event["event"] == "relay_not_connected"]


@pytest.mark.parametrize(
    ("url", "state", "why"),
    [
        ("ws://127.0.0.1:1", "connecting", "127.0.0.1:1 cannot be reached"),
        ("ws://[", "connecting", "the relay address is not an address"),
        ("nonsense", "connecting", "the relay address is not an address"),
    ],
)
def test_gw_07_a_wrong_relay_address_is_said_and_the_hive_goes_on(
    installation: Installation, url: str, state: str, why: str
) -> None:
    """Everything starts; the gateway says once what is wrong, and `status` says it too."""
    (installation.home / "skep.toml").write_text(f'[gateway]\nrelay_url = "{url}"\n')
    keys = installation.home / "keys"
    keys.mkdir(mode=0o700)
    (keys / "gateway.env").touch(mode=0o600)
    (keys / "gateway.env").write_text(f"GATEWAY_RELAY_ID=gw\nGATEWAY_RELAY_SECRET={'0' * 64}\n")
    installation.start()

    def says_why() -> None:
        assert gateway_part(installation) == ("degraded", f"relay local {state}: {why}")

    eventually_sync(says_why, within=10 * TIME_FACTOR)
    agents = json.loads(installation.run("agent", "list", "--json").stdout)["agents"]
    assert {agent["state"] for agent in agents} == {"up"}
    time.sleep(2.5)  # two more tries to dial
    assert complaints(installation) == [why]


def test_gw_07_a_relay_without_credentials_is_said(installation: Installation) -> None:
    """Another connector's address without a pair for it: off, and why."""
    (installation.home / "skep.toml").write_text('[gateway]\nrelay_url = "wss://relay.example"\n')
    installation.start()

    assert gateway_part(installation) == ("degraded", "relay local off: no credentials")
    assert complaints(installation) == ["no credentials"]


def test_gw_07_a_connector_that_is_away_is_said_and_comes_back(tmp_path: Path) -> None:
    """What is sent when it is back is answered; nothing had to be started again by hand."""
    with installed(tmp_path / "home") as installation:
        os.kill(installation.up_pid, signal.SIGSTOP)
        installation.kill("connector")

        def is_away() -> None:
            state, detail = gateway_part(installation)
            assert (state, detail.startswith("relay local connecting: ")) == ("degraded", True)

        eventually_sync(is_away, within=10 * TIME_FACTOR)
        os.kill(installation.up_pid, signal.SIGCONT)
        eventually_sync(lambda: installation.run("status").returncode == 0, within=40 * TIME_FACTOR)
        assert "concierge" in installation.run("chat", "hello").stdout


def test_an_agent_that_cannot_start_does_not_keep_the_others(installation: Installation) -> None:
    """The banner comes; the agent is named, with its own error."""
    (installation.home / "agents.toml").write_text(
        'default = "scribe"\n[agent.scribe]\n[agent.broken]\nruntime = "command"\ncommand = ["true"]\n'
    )
    began = time.monotonic()
    installation.start()

    assert time.monotonic() - began < 15 * TIME_FACTOR
    said = (installation.home.parent / "home-up.err").read_text()
    assert "agent `broken` is not up: runtime `command` is not there" in said
    assert "scribe" in installation.run("chat", "hello").stdout


def test_a_terminal_that_is_closed_stops_everything(installation: Installation) -> None:
    """SIGHUP stops, though nobody can be told any more."""
    ours, its = pty.openpty()
    up = subprocess.Popen(
        [sys.executable, "-m", "skep", "up", "--chat-port", "0", "--dashboard-port", "0"],
        env=installation.env,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown = b""
    while b"Stop:" not in shown:
        shown += os.read(ours, 4_096)
    os.close(ours)
    up.send_signal(signal.SIGHUP)
    try:
        assert up.wait(timeout=12) == 0
    finally:
        up.kill()
        up.wait()
    installation.wait_until_empty(limit_s=1)


@pytest.mark.parametrize("after_s", [0.35, 0.7, 1.2, 1.8])
def test_ctrl_c_while_it_starts_leaves_nothing_behind(installation: Installation, after_s: float) -> None:
    """However far it had come."""
    up = subprocess.Popen(
        [sys.executable, "-m", "skep", "up", "--chat-port", "0", "--dashboard-port", "0"],
        env=installation.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(after_s * TIME_FACTOR)
    up.send_signal(signal.SIGINT)
    _, errors = up.communicate(timeout=12)

    installation.wait_until_empty(limit_s=1)
    assert up.returncode in (0, 130)
    assert "Traceback" not in errors


def test_a_second_ctrl_c_stops_now(tmp_path: Path) -> None:
    """Though a turn runs that would be waited for; what was accepted is answered at the next start."""
    with installed(tmp_path / "home") as installation:
        began = subprocess.Popen(
            [sys.executable, "-m", "skep", "chat", "slow"],
            env=installation.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        agents = "agent list --json".split()
        eventually_sync(
            lambda: any(row["busy"] for row in json.loads(installation.run(*agents).stdout)["agents"]),
            within=10 * TIME_FACTOR,
        )
        os.kill(installation.up_pid, signal.SIGINT)
        time.sleep(0.3)
        asked = time.monotonic()
        assert installation.stop() == 0
        assert time.monotonic() - asked < 2 * TIME_FACTOR
        installation.wait_until_empty(limit_s=10)
        began.wait()
