"""`skep up`, as a person runs it; against the control protocol, section 11."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from support.chat_client import ChatClient, History
from support.installation import Installation, installed, processes_of
from support.waiting import MS, eventually_sync

STATE_FILES = {
    "keys/connector.key",
    "keys/gateway.env",
    "connector.db",
    "hive.db",
    "telemetry.db",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation that all read-only tests share."""
    with installed(tmp_path_factory.mktemp("up") / "home") as installation:
        yield installation


def test_the_banner_says_where_everything_is(running: Installation) -> None:
    """Six lines: version, chat, dashboard, agents, state, stop."""
    names = [line.split(":")[0].split()[0] for line in running.banner.splitlines()]

    assert names == ["Skep", "Chat", "Dashboard", "Agents", "State", "Stop"]
    assert "concierge, scribe" in running.banner
    assert str(running.home) in running.banner


def test_skep_chat_answers(running: Installation) -> None:
    """The terminal goes the same way as the browser, and prints the answer alone."""
    answer = running.run("chat", "hello")

    assert answer.returncode == 0, answer.stderr
    assert "concierge" in answer.stdout
    assert answer.stderr == ""


def test_skep_chat_reads_stdin_and_prints_json(running: Installation) -> None:
    """A program can ask too."""
    answer = running.run("chat", "--json", stdin="who am I\n")

    fields = json.loads(answer.stdout)
    assert fields["schema"] == 1
    assert "person:" in fields["answer"]["text"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("who am I", "`person:"),
        ("ask scribe to count the words in: the bees came home", "4 words"),
        ("tell everybody the kettle is on", "1 other agent"),
        ("what is waiting", "scribe: up"),
        ("show my messages", "show my messages"),
        ("@scribe hello", "scribe"),
        ("/whoami", "person:"),
        ("/agents", "scribe"),
        ("/help", "/stop"),
    ],
)
def test_the_built_in_agents_understand(running: Installation, words: str, part: str) -> None:
    """Each plain request goes through the broker and comes back."""
    answer = running.run("chat", words)

    assert part in answer.stdout, answer.stderr


def test_a_reminder_comes_by_itself(running: Installation) -> None:
    """`remind me in 10 s` is told in the same conversation, not before its time."""

    async def talk() -> float:
        history = History()
        once = running.run("chat", "--link").stdout.strip().partition("#once=")[2]
        person = ChatClient(running.chat_url, name="p", history=history)
        await person.sign_in(once)
        try:
            conversation = await person.conversation("reminders")
            asked = await person.send(conversation, "remind me in 10 s to stretch")
            began = time.monotonic()
            await person.answered(asked)
            await person.until(
                lambda: any(
                    "stretch" in m["text"] and not m.get("answers") and m["from"]["kind"] == "agent"
                    for m in person.messages.values()
                ),
                limit_s=30,
            )
            return time.monotonic() - began
        finally:
            await person.close()

    assert 9.5 < asyncio.run(talk()) < 25


def test_status_and_doctor_find_all_well(running: Installation) -> None:
    """A healthy installation says so, for people and for programs."""
    text = running.run("status")
    fields = json.loads(running.run("status", "--json").stdout)

    assert text.returncode == 0, text.stdout + text.stderr
    assert {part["name"]: part["state"] for part in fields["parts"]} == {
        "connector": "ok",
        "hive": "ok",
        "gateway": "ok",
        "agent concierge": "ok",
        "agent scribe": "ok",
        "store": "ok",
        "dashboard": "ok",
    }
    assert "hive.running" in json.loads(running.run("doctor", "--json").stdout)["passed"]


def test_agent_list(running: Installation) -> None:
    """The agents, with role and state."""
    rows = json.loads(running.run("agent", "list", "--json").stdout)["agents"]

    assert {(row["name"], row["role"], row["state"]) for row in rows} == {
        ("concierge", "manager", "up"),
        ("scribe", "agent", "up"),
    }


def test_bo_01_files_and_modes(running: Installation) -> None:
    """What lies in the data directory is ours alone."""
    files = {str(path.relative_to(running.home)) for path in running.home.rglob("*") if path.is_file()}

    assert files >= STATE_FILES
    private = [running.home, *(path for path in running.home.rglob("*") if not path.is_symlink())]
    for path in private:
        # An agent's own `state` may be looked into by who may enter the data directory: hive, section 12.
        allowed = 0o755 if "agents" in path.relative_to(running.home).parts[:1] else 0o700
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode & ~allowed == 0, f"{path} has mode {mode:04o}"
    assert json.loads((running.home / "run/ports.json").read_text()) == {
        "chat": running.chat_port,
        "dashboard": running.dashboard_port,
    }


def test_bo_06_port_0_picks_free_ports_and_prints_them(running: Installation) -> None:
    """Whoever names no port gets two that work, and reads which."""

    async def health() -> list[str]:
        async with aiohttp.ClientSession() as http:
            found: list[str] = []
            for url in (running.chat_url, running.dashboard_url):
                async with http.get(f"{url}/healthz") as answer:
                    found.append((await answer.text()).replace(" ", ""))
            return found

    assert 0 not in {running.chat_port, running.dashboard_port}
    assert all(text.startswith('{"ok":true') for text in asyncio.run(health()))


def test_bo_03_a_second_up_is_told_who_runs(running: Installation) -> None:
    """Two `skep up` on one data directory: the second names the first, and harms nothing."""
    second = running.run("up", "--chat-port", "0", "--dashboard-port", "0")

    assert second.returncode == 2
    assert f"(pid {running.up_pid})" in second.stderr
    assert "code: up.already_running" in second.stderr
    assert running.run("chat", "hello").returncode == 0


def test_a_taken_port_names_its_flag(tmp_path: Path) -> None:
    """The ports are tried before anything starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flag in ("--chat-port", "--dashboard-port"):
            up = Installation(tmp_path / "home").run("up", *_free_ports_but(flag), flag, port)
            assert up.returncode == 2
            assert f"skep up {flag} PORT" in up.stderr
    assert not (tmp_path / "home/hive.db").exists()


def test_bo_01_a_second_start_changes_no_file(tmp_path: Path) -> None:
    """Keys stay, answers stay, nothing is made anew."""
    installation = Installation(tmp_path / "home")
    try:
        installation.start()
        assert installation.run("chat", "hello").returncode == 0
        keys = {path: path.read_bytes() for path in (installation.home / "keys").iterdir()}
        assert installation.stop() == 0
        assert not (installation.home / "run/ports.json").exists()
        installation.start()
        assert {path: path.read_bytes() for path in (installation.home / "keys").iterdir()} == keys
        told = json.loads(installation.run("chat", "--json", "hello again").stdout)
        assert told["answer"]["text"]
    finally:
        installation.end()


@pytest.mark.parametrize(
    "lost", [("connector.db", "keys/connector.key"), ("keys/gateway.env",), ("hive.db",)]
)
def test_bo_02_what_is_lost_heals(tmp_path: Path, lost: tuple[str, ...]) -> None:
    """Deleting the edge's state, the gateway's pair or the hive is healed by the next start."""
    installation = Installation(tmp_path / "home")
    try:
        installation.start()
        assert installation.run("chat", "hello").returncode == 0
        installation.stop()
        for name in lost:
            for path in (installation.home / name).parent.glob(f"{(installation.home / name).name}*"):
                path.unlink()
        installation.start()
        assert installation.run("chat", "hello again").returncode == 0
    finally:
        installation.end()


def test_bo_02_a_key_missing_beside_its_database_is_refused(tmp_path: Path) -> None:
    """A key is never made anew over secrets that it cannot open."""
    installation = Installation(tmp_path / "home")
    try:
        installation.start()
        installation.stop()
        (installation.home / "keys/connector.key").unlink()
        up = installation.run("up", "--chat-port", "0", "--dashboard-port", "0")
        assert up.returncode != 0
        assert "connector.key" in up.stderr
        assert not (installation.home / "keys/connector.key").exists()
    finally:
        installation.end()


def test_bo_04_kill_9_of_up_leaves_no_process(tmp_path: Path) -> None:
    """The end of `skep up`, however it comes, is the end of all that it started."""
    installation = Installation(tmp_path / "home")
    try:
        installation.start()
        os.kill(installation.up_pid, signal.SIGKILL)
        installation.wait_until_empty(limit_s=10)
        installation.end()
        installation.start()
        assert installation.run("chat", "hello").returncode == 0
    finally:
        installation.end()


def test_ctrl_c_stops_within_ten_seconds_with_a_turn_running(tmp_path: Path) -> None:
    """A running turn gets its moment; what is cut off is answered after the next start."""
    installation = Installation(tmp_path / "home")
    try:
        installation.start()
        chat = subprocess.Popen(
            [sys.executable, "-m", "skep", "chat", "slow"],
            env=installation.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually_sync(lambda: _busy(installation) == 1, within=10_000 * MS)
        began = time.monotonic()
        assert installation.stop() == 0
        assert time.monotonic() - began < 10.5
        assert processes_of(installation.home).keys() <= {chat.pid}
        chat.wait(timeout=10)
        installation.start()
        eventually_sync(lambda: _busy(installation) == 1, within=10_000 * MS)
    finally:
        installation.end()


def test_bo_05_a_harness_is_adopted_after_kill_9_of_the_daemon(tmp_path: Path) -> None:
    """The daemon comes back, the harness is the same process, and the message is answered once."""
    installation = Installation(tmp_path / "home")
    try:
        installation.start()
        before = installation.pids("harness")
        installation.kill("hive")
        eventually_sync(lambda: installation.run("status").returncode == 0, within=30_000 * MS)
        assert sorted(installation.pids("harness")) == sorted(before)
        assert "concierge" in installation.run("chat", "hello").stdout
    finally:
        installation.end()


def test_bo_07_two_names_two_cookie_jars(running: Installation) -> None:
    """Each listener answers to its own name only."""

    async def statuses() -> list[int]:
        found: list[int] = []
        async with aiohttp.ClientSession() as http:
            for url, host in (
                (running.chat_url, f"localhost:{running.chat_port}"),
                (running.dashboard_url, f"127.0.0.1:{running.dashboard_port}"),
                (running.chat_url, "evil.example"),
                (running.dashboard_url, "evil.example"),
            ):
                async with http.get(f"{url}/", headers={"Host": host}) as answer:
                    found.append(answer.status)
        return found

    assert asyncio.run(statuses()) == [421, 421, 421, 421]


def test_bo_07_a_sign_in_code_works_once(running: Installation) -> None:
    """A wrong, a used and a misplaced code are refused."""
    code = running.run("chat", "--link").stdout.strip().partition("#once=")[2]

    async def outcomes() -> list[int]:
        found: list[int] = []
        async with aiohttp.ClientSession(running.chat_url) as http:
            for body in (
                {"once": code, "bearer": True},
                {"once": code, "bearer": True},
                {"once": "x" * 22, "bearer": True},
            ):
                async with http.post("/api/session", json=body) as answer:
                    found.append(answer.status)
            fresh = running.run("chat", "--link").stdout.strip().partition("#once=")[2]
            async with http.post(f"/api/session?once={fresh}", json={"bearer": True}) as answer:
                found.append(answer.status)
        return found

    first, *others = asyncio.run(outcomes())
    assert first == 200
    assert all(400 <= status < 500 for status in others)


def test_an_unwritable_data_directory_is_named(tmp_path: Path) -> None:
    """Who cannot write there learns which path, and what to set instead."""
    (tmp_path / "home").write_text("in the way")
    up = Installation(tmp_path / "home").run("up")

    assert up.returncode == 2
    assert str(tmp_path / "home") in up.stderr
    assert "SKEP_HOME" in up.stderr


@pytest.mark.parametrize("name", ["hive.db", "connector.db"])
def test_a_damaged_database_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    """Damage is told; the file is never made anew over what may be rescued."""
    installation = Installation(tmp_path / "home")
    try:
        installation.start()
        installation.stop()
        database = installation.home / name
        database.write_bytes(b"\0" * 8192)
        up = installation.run("up", "--chat-port", "0", "--dashboard-port", "0")
        assert up.returncode != 0
        assert f"`{name}` is not a database" in up.stderr
        assert "code: store.damaged" in up.stderr
        assert database.read_bytes() == b"\0" * 8192
    finally:
        installation.end()


def test_commands_without_a_running_system_say_so(tmp_path: Path) -> None:
    """Exit 3, and how to start it."""
    installation = Installation(tmp_path / "home")
    for words in (("status",), ("chat", "hello"), ("agent", "list")):
        answer = installation.run(*words)
        assert answer.returncode == 3
        assert "skep up" in answer.stdout + answer.stderr


def _busy(installation: Installation) -> int:
    answer = installation.run("agent", "list", "--json")
    if answer.returncode != 0:
        return -1
    return sum(row.get("busy", 0) for row in json.loads(answer.stdout)["agents"])


def _free_ports_but(flag: str) -> list[str]:
    other = "--dashboard-port" if flag == "--chat-port" else "--chat-port"
    return [other, "0"]
