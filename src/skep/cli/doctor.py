"""`skep doctor`: looks at this machine, this installation and what runs; reads only."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from skep.cli import client
from skep.cli.output import NotReachableError, make_app, print_json, run_app, run_async
from skep.foundation.errors import SkepError
from skep.foundation.health import Finding, causes
from skep.foundation.paths import Home
from skep.foundation.settings import default_home, load
from skep.wire.control import connector, operator
from skep.wire.control.base import NoArgs

__all__ = ["Diagnosis", "run"]

_LOW_SPACE_BYTES: Final = 256 << 20
_LOGS: Final = {"hive": "hive", "connector": "connector", "dashboard": "web"}
"""Processes that are asked, and the name of the log of each."""
_SECRET_FILES: Final = ("connector.key", "gateway.env")

app = make_app("Look for what is wrong and say what mends it.\n\nExample: skep doctor --only home")


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and what was looked at without finding anything."""

    findings: list[Finding]
    passed: list[str]
    not_checked: list[str]


@app.command()
def doctor(
    *,
    only: Annotated[str | None, typer.Option(help="Only checks whose id begins like this")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend, then look again")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program")] = False,
) -> int:
    """Look at this machine, the data directory and what runs.

    Exit code: 0 nothing found, 1 something found.

    Example: skep doctor --fix
    """
    home = default_home()
    if fix:
        _mend(home)
    found = _only(run_async(_examine(home)), only or "")
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 1 if any(finding.severity != "look" for finding in found.findings) else 0


def run(name: str, words: list[str]) -> int:
    """Run `skep doctor`."""
    return run_app(app, name, words)


async def _examine(home: Home) -> Diagnosis:
    findings: list[Finding] = []
    passed: list[str] = []
    for check_id, check in _CHECKS.items():
        got = list(check(home))
        findings += got
        if not got:
            passed.append(check_id)
    running, not_checked = await _ask_running(home)
    findings += running.findings
    passed += running.passed
    not_checked += running.not_checked
    return Diagnosis(
        findings=[finding for finding, _ in causes(findings)],
        passed=sorted(passed),
        not_checked=sorted(not_checked),
    )


async def _ask_running(home: Home) -> tuple[operator.Findings, list[str]]:
    """Ask each process, and the daemon and the connector for their own findings, all at once."""
    hive, edge, web = await asyncio.gather(_ask(_hive(home)), _ask(_connector(home)), _ask(_dashboard(home)))
    findings: list[Finding] = []
    passed: list[str] = []
    unknown: list[str] = []
    silent: dict[str, SkepError] = {}
    for name, answer in (("hive", hive), ("connector", edge), ("dashboard", web)):
        if isinstance(answer, SkepError):
            silent[name] = answer
            unknown.append(name)
            continue
        passed += [f"{name}.running", *answer.passed]
        findings += answer.findings
        unknown += answer.not_checked
    if len(silent) == len(_LOGS):
        fix = "start it with `skep up`"
        findings.append(Finding(id="hive.running", severity="look", problem="nothing runs", fix=fix))
    else:
        findings += [
            Finding(
                id=f"{name}.running",
                severity="broken",
                problem=error.problem,
                fix=f"`skep up` starts it again; see {home.log_file(_LOGS[name])}",
            )
            for name, error in silent.items()
        ]
    return operator.Findings(findings=tuple(findings), passed=tuple(passed)), unknown


async def _ask(asking: Awaitable[operator.Findings]) -> operator.Findings | SkepError:
    try:
        async with asyncio.timeout(client.PROBE_S):
            return await asking
    except TimeoutError:
        return NotReachableError(f"no answer within {client.PROBE_S:g} s")
    except SkepError as error:
        return error


async def _hive(home: Home) -> operator.Findings:
    async with client.daemon(home) as caller:
        return await caller.call(operator.HEALTH_LIST, NoArgs())


async def _connector(home: Home) -> operator.Findings:
    async with client.connector(home) as caller:
        return operator.Findings(findings=(await caller.call(connector.STATUS_GET, NoArgs())).findings)


async def _dashboard(home: Home) -> operator.Findings:
    await client.dashboard(home)
    return operator.Findings()


def _sandbox(_home: Home) -> Iterator[Finding]:
    if shutil.which("bwrap") is None:
        yield Finding(
            id="machine.sandbox",
            severity="look",
            problem="bubblewrap is not installed: agents with tools of their own will not start without it",
            fix="apt-get install bubblewrap",
        )


def _sqlite(_home: Home) -> Iterator[Finding]:
    from skep.store.sqlite.files import OpenOptions, check_library

    try:
        check_library(OpenOptions())
    except SkepError as error:
        yield Finding(id="machine.sqlite", severity="broken", problem=error.problem, fix=error.hint)


def _web_pages(_home: Home) -> Iterator[Finding]:
    for page in ("chat", "dashboard"):
        if not resources.files("skep").joinpath("_web", page, "index.html").is_file():
            yield Finding(
                id=f"web.{page}",
                severity="soon",
                problem=f"the {page} page is not built; the terminal chat works without it",
                fix="make web",
            )


def _settings(home: Home) -> Iterator[Finding]:
    try:
        load(home)
    except SkepError as error:
        yield Finding(id="home.settings", severity="broken", problem=error.problem, fix=error.hint)


def _modes(home: Home) -> Iterator[Finding]:
    for path, wanted in _private(home):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Finding(
                id="home.modes",
                severity="broken",
                problem=f"`{path}` can be read by others (mode {mode:04o})",
                fix=f"chmod {wanted:o} {path}",
            )


def _space(home: Home) -> Iterator[Finding]:
    place = home.root if home.root.exists() else home.root.parent
    if place.exists() and (free := shutil.disk_usage(place).free) < _LOW_SPACE_BYTES:
        yield Finding(
            id="home.space",
            severity="soon",
            problem=f"only {free >> 20} MiB are free where `{home.root}` lies",
            fix="make room, or move SKEP_HOME",
        )


_CHECKS: Final[dict[str, Callable[[Home], Iterator[Finding]]]] = {
    "machine.sandbox": _sandbox,
    "machine.sqlite": _sqlite,
    "web.pages": _web_pages,
    "home.settings": _settings,
    "home.modes": _modes,
    "home.space": _space,
}


def _private(home: Home) -> list[tuple[Path, int]]:
    """Return what nobody else may read, with the mode that it should have."""
    wanted = [(home.root, 0o700), (home.keys, 0o700)]
    wanted += [(home.keys / name, 0o600) for name in _SECRET_FILES]
    wanted += [(path, 0o600) for path in (home.connector_db, home.hive_db, home.memory_db, home.telemetry_db)]
    return [(path, mode) for path, mode in wanted if path.exists()]


def _mend(home: Home) -> None:
    for path, mode in _private(home):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(mode)
            typer.echo(f"mended: chmod {mode:o} {path}")


def _only(found: Diagnosis, prefix: str) -> Diagnosis:
    return Diagnosis(
        findings=[finding for finding in found.findings if finding.id.startswith(prefix)],
        passed=[check for check in found.passed if check.startswith(prefix)],
        not_checked=[check for check in found.not_checked if check.startswith(prefix)],
    )


def _show(found: Diagnosis) -> None:
    for finding in found.findings:
        typer.echo(f"{finding.severity:<7} {finding.problem}\n        fix: {finding.fix}  ({finding.id})")
    typer.echo(f"ok      {', '.join(found.passed) or 'nothing'}")
    if found.not_checked:
        typer.echo(f"not checked: {', '.join(found.not_checked)}")
