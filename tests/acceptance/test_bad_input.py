"""What foreign gateways, people, disks and clocks do wrong to a running installation.

Each time: a clear error, nothing lost, nothing else disturbed. Ports, directories, damage, two `skep up` and codes
that were used are in `test_up.py`; every kind of bad frame and of expired code is beside the code that reads it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from skep.foundation.paths import Home
from skep.foundation.rpc import connect
from skep.wire.control import connector as control
from skep.wire.relay.token import mint_token
from support.chat_client import ChatClient, History
from support.installation import Installation
from support.parts import missing, need
from support.waiting import MS, eventually_sync

MOST = 64 * 1024
HELLO = b'{"type":"hello","platform":"relay","botId":"","skep":1}\n'
BAD_LINES = (
    b"this is no JSON\n",
    b"[1, 2, 3]\n",
    b'{"type":"open_the_door"}\n',
    b"{}\n",
    b'{"type":"\xff"}\n',
    b"[" * 100_000 + b"\n",
    b'{"type":"outbound","requestId":7,"action":"send"}\n',
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for the tests that leave it as it was."""
    installation = Installation(tmp_path_factory.mktemp("bad") / "home")
    try:
        installation.start()
        yield installation
    finally:
        installation.end()


def still_works(installation: Installation) -> bool:
    """Return whether a message is answered, and all parts are well."""
    answer = installation.run("chat", "hello")
    return "concierge" in answer.stdout and installation.run("status").returncode == 0


async def _dial(installation: Installation, *, secret: str | None = None) -> tuple[int | None, str]:
    """Dial as another gateway, and say everything wrong; return how the line ended, and what was heard."""
    caller = await connect(Home(installation.home).connector_socket, role="test")
    try:
        args = control.GatewayEnsureArgs(gateway_id="gw-other", tenant="local")
        given = (await caller.call(control.GATEWAY_ENSURE, args)).secret
    finally:
        caller.close()
    assert given is not None
    token = mint_token("gw-other", secret=secret or given, now_s=int(time.time()))
    heard = ""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        http.ws_connect(f"{installation.chat_url}/relay") as socket,
    ):
        if secret is None:
            for line in BAD_LINES:
                await socket.send_bytes(line)
            await socket.send_bytes(HELLO)
            heard = (await socket.receive_str(timeout=5)).strip()
            with suppress(ConnectionError):  # it is closed before all of it is sent
                await socket.send_bytes(b"x" * (9 << 20))
        async for _ in socket:
            pass
        return socket.close_code, heard


@pytest.mark.timeout(120)
def test_bad_frames_end_nothing_and_one_too_long_ends_its_line(running: Installation) -> None:
    """Lines that are no frames are passed over; a message over 8 MiB closes the connection that sent it, alone."""
    code, heard = asyncio.run(_dial(running))

    assert json.loads(heard)["type"] == "descriptor"
    assert code in (aiohttp.WSCloseCode.MESSAGE_TOO_BIG, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
    assert still_works(running)


def test_a_gateway_with_a_wrong_token_is_refused_and_told_nothing(running: Installation) -> None:
    """4401, no descriptor; the gateway that is there goes on."""
    assert asyncio.run(_dial(running, secret="00" * 32)) == (4401, "")
    assert still_works(running)


def test_64_kib_are_taken_and_one_byte_more_is_not(running: Installation) -> None:
    """The longest message is answered; a longer one is refused with both figures, and nothing of it is stored."""
    fits = running.run("chat", stdin="x" * MOST)
    over = running.run("chat", stdin="x" * (MOST + 1))

    assert fits.returncode == 0, fits.stderr
    assert "1 word" in fits.stdout
    assert over.returncode != 0
    assert f"error: the text has {MOST + 1} bytes, {MOST} are the most" in over.stderr
    assert "code: web.too_large" in over.stderr
    assert still_works(running)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a small filesystem at `path`."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        missing("no small disk can be mounted here; run as root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def test_a_full_data_directory_is_told_before_anything_is_made(tmp_path: Path) -> None:
    """No room at the first start: the error says so; with room, the same directory starts."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        installation = Installation(disk / "home")
        try:
            up = installation.run("up", "--chat-port", "0", "--dashboard-port", "0")
            assert up.returncode != 0
            assert "disk is full" in up.stderr
            assert "hint: " in up.stderr
            subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
            installation.start()
            assert still_works(installation)
        finally:
            installation.end()


@pytest.mark.timeout(180)
def test_a_disk_that_fills_while_people_chat_refuses_and_recovers(tmp_path: Path) -> None:
    """Whoever writes is told that it was not stored; what was stored stays, and with room the chat goes on."""

    async def fill(installation: Installation) -> tuple[list[str], str]:
        person = ChatClient(installation.chat_url, name="p", history=History())
        await person.sign_in(installation.chat_once)
        conversation = await person.conversation("full")
        codes: list[str] = []
        while not codes:
            with suppress(TimeoutError):
                await person.send(conversation, "x" * 60_000, limit_s=2)
            codes = [event.facts["code"] for event in person.history.events if event.what == "error"]
        await person.close()
        return [event.facts["message"] for event in person.history.events if event.what == "stored"], codes[0]

    with small_disk(tmp_path / "disk", "256m") as disk:
        installation = Installation(disk / "home", extra_env={"SKEP_CONNECTOR_WEB_PER_MINUTE": "100000"})
        try:
            installation.start()
            used = int(subprocess.check_output(["du", "-sm", str(disk)]).split()[0])
            subprocess.run(["mount", "-o", f"remount,size={used + 4}m", str(disk)], check=True)
            stored, code = asyncio.run(fill(installation))
            assert code == "store.unavailable"
            subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
            eventually_sync(lambda: still_works(installation), within=60_000 * MS)
            assert installation.stop() == 0
            assert set(stored) <= _messages(installation.home / "connector.db")
        finally:
            installation.end()


def _messages(path: Path) -> set[str]:
    script = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
        "assert db.execute('PRAGMA integrity_check').fetchall() == [('ok',)]; "
        "print(*(row[0] for row in db.execute('SELECT message FROM web_message')))"
    )
    return set(subprocess.check_output([sys.executable, "-c", script, str(path)], text=True).split())


@pytest.mark.timeout(120)
def test_a_clock_that_is_set_back_loses_nothing(tmp_path: Path) -> None:
    """Connector, daemon and gateway run on while the wall clock jumps an hour and a month back, and forward again."""
    installation = Installation(tmp_path / "home")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    preload = subprocess.check_output([need("faketime"), "-f", "+0", "printenv", "LD_PRELOAD"], text=True)
    try:
        installation.start()
        assert installation.run("chat", "before").returncode == 0
        assert installation.stop() == 0
        env = {
            **installation.env,
            "LD_PRELOAD": preload.strip(),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "SKEP_CONNECTOR_LISTEN": f"127.0.0.1:{installation.chat_port}",
        }
        parts = [
            subprocess.Popen(
                [sys.executable, "-m", "skep", *words],
                env=env,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for words in (("connector", "serve"), ("hive", "serve"), ("gateway", "run"))
        ]
        try:
            eventually_sync(lambda: installation.run("chat", "hello").returncode == 0, within=30_000 * MS)
            for jump in ("-1h", "-30d", "+0", "+1h", "-1h"):
                clock.write_text(jump)
                answer = installation.run("chat", f"now {jump}", timeout_s=40)
                assert answer.returncode == 0, f"{jump}: {answer.stderr}"
            shown = installation.run("chat", "show my messages").stdout
        finally:
            for part in reversed(parts):
                part.terminate()
            for part in parts:
                part.wait(timeout=15)
        order = [shown.find(f"now {jump}") for jump in ("-1h", "-30d", "+0", "+1h")]
        assert -1 not in order
        assert order == sorted(order)
    finally:
        installation.end()
