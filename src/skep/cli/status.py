"""`skep status`: one screen, one deadline."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
import typer

from skep.cli import client
from skep.cli.output import NotReachableError, make_app, print_json, run_app, run_async
from skep.foundation.errors import SkepError
from skep.foundation.health import Finding, causes
from skep.foundation.paths import Home
from skep.foundation.settings import default_home
from skep.wire.control import connector, operator
from skep.wire.control.base import NoArgs

__all__ = ["Part", "Report", "run"]

Word = Literal["ok", "degraded", "down", "not checked"]

app = make_app("Show how each part is.\n\nExample: skep status")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the screen."""

    name: str
    state: Word
    detail: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole screen."""

    home: str
    parts: list[Part]
    findings: list[Finding]


@app.command()
def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program")] = False
) -> int:
    """Show the connector, the hive, the gateway, each agent, the store and the dashboard, and what needs you.

    Exit code: 0 all is well, 1 something is not, 3 the hive does not answer.

    Example: skep status
    """
    home = default_home()
    report = run_async(_report(home))
    if as_json:
        print_json(report)
    else:
        _show(report)
    if any(part.state == "down" for part in report.parts if part.name == "hive"):
        return NotReachableError.exit_code
    return 0 if all(part.state == "ok" for part in report.parts) and not report.findings else 1


def run(name: str, words: list[str]) -> int:
    """Run `skep status`."""
    return run_app(app, name, words)


async def _report(home: Home) -> Report:
    edge, hive, web = await asyncio.gather(_ask_connector(home), _ask_daemon(home), _ask_dashboard(home))
    parts: list[Part] = []
    findings: list[Finding] = []
    if isinstance(edge, connector.ConnectorStatus):
        live = sum(gateway.connected for gateway in edge.gateways)
        detail = f"{edge.chat_url}, {live} of {len(edge.gateways)} gateways connected"
        parts.append(Part(name="connector", state="ok", detail=detail))
        findings += edge.findings
    else:
        parts.append(Part(name="connector", state="down", detail=edge))
    if isinstance(hive, operator.Status):
        parts += _hive_parts(hive)
        findings += hive.findings
    else:
        parts.append(Part(name="hive", state="down", detail=hive))
        unknown = "the hive would know"
        parts += [
            Part(name=name, state="not checked", detail=unknown) for name in ("gateway", "agents", "store")
        ]
    parts.append(web)
    # What may be looked at some day is `skep doctor`'s: a healthy system has a quiet screen.
    urgent = [finding for finding, _ in causes(findings) if finding.severity != "look"]
    return Report(home=str(home.root), parts=parts, findings=urgent)


def _hive_parts(hive: operator.Status) -> list[Part]:
    parts = [
        Part(name="hive", state="ok", detail=f"build {hive.build}, start {hive.boot_epoch}, pid {hive.pid}")
    ]
    if not hive.gateway_attached:
        parts.append(Part(name="gateway", state="down", detail="not attached to the hive"))
    for relay in hive.relays if hive.gateway_attached else ():
        state: Word = "ok" if relay.state == "connected" else "degraded"
        detail = f"relay {relay.relay} {relay.state}" + (f": {relay.detail}" if relay.detail else "")
        if relay.state == "connected":
            detail += f" with {len(relay.platforms)} platform{'s' if len(relay.platforms) != 1 else ''}"
        parts.append(Part(name="gateway", state=state, detail=detail))
    for row in hive.agents:
        healthy = row.state == "up"
        waiting = f", {row.queue} waiting" if row.queue else ""
        busy = f", in {row.busy} turn{'s' if row.busy != 1 else ''}" if row.busy else ""
        word: Word = "ok" if healthy else ("degraded" if row.state in ("starting", "draining") else "down")
        parts.append(Part(name=f"agent {row.name}", state=word, detail=f"{row.state}{busy}{waiting}"))
    parts.append(Part(name="store", state="ok" if hive.store == "ok" else "degraded", detail=hive.store))
    return parts


async def _ask_connector(home: Home) -> connector.ConnectorStatus | str:
    try:
        async with asyncio.timeout(client.PROBE_S), client.connector(home) as caller:
            return await caller.call(connector.STATUS_GET, NoArgs())
    except (SkepError, TimeoutError) as error:
        return _why(error)


async def _ask_daemon(home: Home) -> operator.Status | str:
    try:
        async with asyncio.timeout(client.PROBE_S), client.daemon(home) as caller:
            return await caller.call(operator.STATUS_GET, NoArgs())
    except (SkepError, TimeoutError) as error:
        return _why(error)


async def _ask_dashboard(home: Home) -> Part:
    try:
        return Part(name="dashboard", state="ok", detail=await client.dashboard(home))
    except SkepError as error:
        return Part(name="dashboard", state="down", detail=_why(error))


def _why(error: SkepError | TimeoutError) -> str:
    if isinstance(error, NotReachableError):
        return f"not running; {error.hint}"
    return error.problem if isinstance(error, SkepError) else f"no answer within {client.PROBE_S:g} s"


def _show(report: Report) -> None:
    typer.echo(f"Skep in {report.home}")
    for part in report.parts:
        typer.echo(f"  {part.name:<18} {part.state:<12} {part.detail}")
    for finding in report.findings:
        typer.echo(f"\n{finding.problem}")
        if finding.fix:
            typer.echo(f"  fix: {finding.fix}")
