"""ps-01: the web process gets nothing but its own static files and its socket (hive, section 11)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

import skep
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.paths import Home
from support.dashboard import SAME_ORIGIN, Running
from support.fake_daemon import FakeDaemon
from support.waiting import MS, eventually

NOBODY = 65534

# The web process with a recorder: each file that Python opens, then what is imported.
WATCHED = """
import asyncio, json, sys
opened, is_on = [], False
def hook(event, args):
    if is_on and event in ("open", "os.listdir", "os.scandir", "sqlite3.connect"):
        opened.append(str(args[0]))
sys.addaudithook(hook)
from pathlib import Path
from skep.dashboard import run_dashboard
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.paths import Home
from skep.foundation.settings import Settings, WebSettings
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, stop.set)
    await run_dashboard(Settings(web=WebSettings(listen="localhost:0")), Home(Path(sys.argv[1])), SYSTEM_CLOCK, stop)
is_on = True
asyncio.run(main())
is_on = False
print(json.dumps({"opened": opened, "modules": sorted(sys.modules)}))
"""

# What a taken-over web process would try.
TRY_TO_OPEN = """
import json, sys
got = []
for path in json.load(sys.stdin):
    try:
        open(path, "rb").close()
    except PermissionError:
        continue
    got.append(path)
print(json.dumps(got))
"""


@pytest.fixture
def outside_home() -> Iterator[Home]:
    """A home where only its own modes are in the way: everybody may walk up to it."""
    top = Path(tempfile.mkdtemp(prefix="skep-ps01-"))
    top.chmod(0o755)
    home = Home(top / "home")
    home.prepare()
    for path in (home.hive_db, home.connector_db, home.memory_db, home.telemetry_db, home.connector_key):
        path.write_bytes(b"secret")
        path.chmod(0o600)
    for directory in (home.agent_state("scribe"), home.agent_harness("scribe"), home.shared):
        directory.mkdir(parents=True)
        (directory / "note").write_text("private")
    yield home
    shutil.rmtree(top)


def test_ps_01_another_uid_opens_nothing_under_the_data_directory(outside_home: Home) -> None:
    """As the web user: every file of the home, the agents' too, and /etc/shadow, are refused."""
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0 or setpriv is None:
        pytest.skip("another uid needs root and setpriv; rootless, all uids are equal")
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    files = [str(path) for path in outside_home.root.rglob("*") if path.is_file()]
    wanted = [*files, str(outside_home.root), "/etc/shadow"]
    command = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]

    done = subprocess.run(
        [*command, str(python), "-I", "-c", TRY_TO_OPEN],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert done.returncode == 0, done.stderr
    assert len(files) >= 8
    assert json.loads(done.stdout) == []


async def test_ps_01_running_it_opens_its_static_files_and_no_other(home: Home) -> None:
    """Through sign-in, a call, an event stream and a page: no file of the home, and no store is even imported."""
    daemon = FakeDaemon({"agent.list": {"agents": []}})
    daemon.expires_at = SYSTEM_CLOCK.now_ms() + 3_600_000
    await daemon.start(home.web_socket)
    with subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            port = await eventually(
                lambda: int(json.loads(home.ports.read_text())["dashboard"]), within=10_000 * MS
            )
            await _use(home, daemon, port)
            output, _ = await asyncio.to_thread(process.communicate, b"stop\n", 10)
        finally:
            process.kill()
            await daemon.stop()

    told = json.loads(output.splitlines()[-1])
    package = Path(skep.__file__).parent
    under_home = {Path(name).name for name in told["opened"] if Path(name).is_relative_to(home.root)}
    under_package = {
        Path(name).relative_to(package).parts[0]
        for name in told["opened"]
        if Path(name).is_relative_to(package) and not name.endswith((".py", ".pyc"))
    }
    # The port that it listens on is told in `run/`; that it is seen here proves that the recorder works.
    assert under_home == {"ports.json", f".ports-{process.pid}.json"}
    assert under_package <= {"_web"}
    forbidden = {
        "apsw",
        "sqlite3",
        "skep.store",
        "skep.broker",
        "skep.identity",
        "skep.hive",
        "skep.connector",
    }
    assert forbidden.isdisjoint(told["modules"])


async def _use(home: Home, daemon: FakeDaemon, port: int) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        running = Running(home=home, daemon=daemon, port=port, http=http)
        await running.sign_in()
        assert (await running.ask("POST", "/api/call/agent.list", json={}))[0] == 200
        assert (await running.ask("GET", "/../hive.db"))[0] == 404
        assert (await running.ask("GET", "/"))[0] in {200, 503}
        async with http.get(f"{running.origin}/api/events", headers=SAME_ORIGIN) as events:
            assert events.status == 200
