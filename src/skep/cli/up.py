"""`skep up`: everything on this machine, from nothing.

Source: control protocol, section 11. Each step can be repeated; the first minute needs no
account, no key and no file.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from skep import __version__
from skep.cli.children import Child, LifePipe, last_words
from skep.cli.output import make_app, run_app, run_async
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.errors import SettingError, SkepError
from skep.foundation.logfiles import rotate
from skep.foundation.paths import Home
from skep.foundation.rpc import Caller, connect
from skep.foundation.settings import Settings, default_home, load, parse_listen, relay_environment
from skep.wire.control import connector, operator
from skep.wire.control.base import NoArgs

__all__ = ["run"]

STOP_LIMIT_S: Final = 10.0
_ROTATE_EVERY_S: Final = 30.0

app = make_app("Start everything on this machine.\n\nExample: skep up --chat-port 8080")


@app.command()
def up(
    *,
    chat_port: Annotated[
        int | None, typer.Option(help="Port of the chat; 0 picks a free one", min=0, max=65_535)
    ] = None,
    dashboard_port: Annotated[
        int | None, typer.Option(help="Port of the dashboard; 0 picks a free one", min=0, max=65_535)
    ] = None,
) -> int:
    """Start connector, gateway, daemon and dashboard, and print where to find them.

    Everything listens on this machine only. State is kept in SKEP_HOME.

    Example: skep up --chat-port 0 --dashboard-port 0
    """
    home = default_home()
    home.prepare()
    settings = load(home)
    return run_async(_Up(home, settings, chat_port, dashboard_port).run())


def run(name: str, words: list[str]) -> int:
    """Run `skep up`."""
    return run_app(app, name, words)


class _Up:
    def __init__(
        self, home: Home, settings: Settings, chat_port: int | None, dashboard_port: int | None
    ) -> None:
        self._home = home
        self._settings = settings
        self._chat = _with_port(parse_listen(settings.connector.listen, "connector.listen"), chat_port)
        self._web = _with_port(parse_listen(settings.web.listen, "web.listen"), dashboard_port)
        self._stop = asyncio.Event()
        self._life = LifePipe()
        self._children: dict[str, Child] = {}
        self._log_sizes: dict[Path, int] = {}
        self._is_stopping = False
        relay_url = relay_environment().get("GATEWAY_RELAY_URL") or settings.gateway.relay_url
        self._is_own_connector = not relay_url

    async def run(self) -> int:
        with _lock(self._home.up_lock):
            self._chat = _free_port(self._chat, "--chat-port")
            self._web = _free_port(self._web, "--dashboard-port")
            with suppress(FileNotFoundError):
                self._home.ports.unlink()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._asked_to_stop)
            starting = loop.create_task(self._start())
            stopping = loop.create_task(self._stop.wait())
            try:
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    await starting
                    await self._watch()
                return 0
            finally:
                starting.cancel()
                stopping.cancel()
                await self._stop_all()
                self._life.close()

    async def _start(self) -> None:
        home = self._home
        self._log_sizes = {log: log.stat().st_size for log in home.logs.glob("harness-*.log")}
        _tell("Starting the connector")
        edge = await self._child("connector", "connector", "serve")
        await edge.wait_until(lambda: _answers(home.connector_socket))
        if self._is_own_connector:
            await _ensure_gateway(home)
        _tell("Starting the hive and its agents")
        hive = await self._child("hive", "hive", "serve")
        await hive.wait_until(lambda: _answers(home.cli_socket))
        _tell("Starting the gateway and the dashboard")
        gateway = await self._child("gateway", "gateway", "run")
        web = await self._child("web", "web", "serve")
        await web.wait_until(lambda: '"dashboard"' in _text(home.ports))
        await gateway.wait_until(self._is_ready)
        await self._banner()

    async def _child(self, name: str, *words: str) -> Child:
        child = Child(
            name,
            words,
            home=self._home,
            life=self._life,
            clock=SYSTEM_CLOCK,
            extra_env={
                "SKEP_CONNECTOR_LISTEN": f"{self._chat[0]}:{self._chat[1]}",
                "SKEP_WEB_LISTEN": f"{self._web[0]}:{self._web[1]}",
            },
            tell=_tell,
        )
        self._children[name] = child
        await child.start()
        return child

    async def _is_ready(self) -> bool:
        """Whether the gateway is attached (and connected, to our own connector) and the agents are up.

        An agent that has ended while starting is not waited for: it must not keep the others.
        """
        try:
            caller = await connect(self._home.cli_socket, role="cli", timeout_s=2)
        except SkepError:
            return False
        try:
            status = await caller.call(operator.STATUS_GET, NoArgs(), timeout_s=2)
        except SkepError:
            return False
        finally:
            caller.close()
        connected = any(relay.state == "connected" for relay in status.relays)
        connected = connected or not self._is_own_connector
        settled = all(
            agent.state not in ("defined", "starting") or agent.note is not None for agent in status.agents
        )
        return status.gateway_attached and connected and settled

    async def _banner(self) -> None:
        async with _calling(self._home.connector_socket) as edge:
            chat = await edge.call(connector.WEB_CODE, connector.WebCodeArgs())
        async with _calling(self._home.cli_socket) as hive:
            code = await hive.call(operator.AUTH_CODE, operator.AuthCodeArgs())
            agents = (await hive.call(operator.AGENT_LIST, NoArgs())).agents
        names = ", ".join(agent.name for agent in agents)
        for agent in agents:
            if agent.state != "up":
                log = self._home.log_file(f"harness-{agent.name}")
                why = last_words(log, since=self._log_sizes.get(log, 0)).get(
                    "error", agent.note or agent.state
                )
                _tell(f"agent `{agent.name}` is not up: {why}; see {log}")
        rehearsing = all(agent.runtime == "rehearsal" for agent in agents)
        sys.stdout.write(
            f"Skep {__version__}\n"
            f"Chat:       {chat.url}   (signs you in, once)\n"
            f"Dashboard:  http://localhost:{self._web[1]}/#once={code.code}\n"
            f"Agents:     {names}{' (they answer without a model)' if rehearsing else ''}\n"
            f"State:      {_short(self._home.root)} (kept)\n"
            "Stop:       Ctrl-C\n"
        )
        sys.stdout.flush()

    async def _watch(self) -> None:
        """Keep the children running until asked to stop."""
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(child.keep(self._stop)) for child in self._children.values()]
            await self._rotate_logs()
            for task in watching:
                task.cancel()

    async def _rotate_logs(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_ROTATE_EVERY_S):
                    await self._stop.wait()
            for name in self._children:
                rotate(self._home.log_file(name))

    def _asked_to_stop(self) -> None:
        if self._is_stopping:
            _tell("Stopping now")
            for child in self._children.values():
                child.kill()
            return
        self._is_stopping = True
        self._stop.set()
        _tell("Stopping: running turns get 5 s; Ctrl-C again stops now")

    async def _stop_all(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_LIMIT_S - 0.5
        for names in (("gateway", "web"), ("hive",), ("connector",)):
            children = [self._children[name] for name in names if name in self._children]
            left_s = end - loop.time()
            await asyncio.gather(*(child.stop(limit_s=left_s) for child in children))
        if self._is_stopping:
            _tell("Stopped; state is kept")


async def _ensure_gateway(home: Home) -> None:
    """Make sure that gateway and connector share a live secret."""
    found = _read_env(home.gateway_env)
    secret = found.get("GATEWAY_RELAY_SECRET")
    have = hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else None
    async with _calling(home.connector_socket) as edge:
        made = await edge.call(
            connector.GATEWAY_ENSURE,
            connector.GatewayEnsureArgs(gateway_id="gw-local", tenant="local", have=have),
        )
    if made.secret is not None:
        _write_private(home.gateway_env, f"GATEWAY_RELAY_ID=gw-local\nGATEWAY_RELAY_SECRET={made.secret}\n")


def _read_env(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in _text(path).splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _write_private(path: Path, text: str) -> None:
    """Write `path`, 0600, in one step: the old file or the new one, never another."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


class _calling:  # noqa: N801 - reads as a verb: `async with _calling(socket) as caller`
    def __init__(self, path: Path) -> None:
        self._path = path
        self._caller: Caller | None = None

    async def __aenter__(self) -> Caller:
        self._caller = await connect(self._path, role="up")
        return self._caller

    async def __aexit__(self, *_: object) -> None:
        if self._caller is not None:
            self._caller.close()


async def _answers(path: Path) -> bool:
    try:
        caller = await connect(path, role="up", timeout_s=1)
    except SkepError:
        return False
    caller.close()
    return True


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the data directory; the second `skep up` is told who has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            pid = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            raise SettingError(
                f"`skep up` already runs on `{path.parent.parent}` (pid {pid})",
                hint="stop it, or set SKEP_HOME to another directory",
                code="up.already_running",
            ) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _with_port(listen: tuple[str, int], port: int | None) -> tuple[str, int]:
    return listen if port is None else (listen[0], port)


def _free_port(listen: tuple[str, int], flag: str) -> tuple[str, int]:
    """Return `listen` with a port that can be bound now; 0 becomes the one that was picked."""
    host, port = listen
    address = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as exc:
            raise SettingError(
                f"port {port} of {host} cannot be used: {os.strerror(exc.errno or 0).lower()}",
                hint=f"start with `skep up {flag} PORT` (0 picks a free one)",
                code="up.port_taken",
            ) from exc
        return host, probe.getsockname()[1]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _short(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)


def _tell(line: str) -> None:
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except OSError:  # the terminal is gone: that is no reason not to stop
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
