"""`skep agent list`."""

from __future__ import annotations

from typing import Annotated

import typer

from skep.cli import client
from skep.cli.output import make_app, print_json, run_app, run_async
from skep.foundation.settings import default_home
from skep.wire.control import operator
from skep.wire.control.base import NoArgs

__all__ = ["run"]

app = make_app("Look at the agents.\n\nExample: skep agent list --json")


@app.callback()
def agent() -> None:
    """Look at the agents."""


@app.command("list")
def list_agents(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program")] = False
) -> None:
    """List the agents, what each does and what waits for it.

    Example: skep agent list
    """
    rows = run_async(_agents())
    if as_json:
        print_json(rows)
        return
    for row in rows.agents:
        doing = f"in {row.busy} turn{'s' if row.busy != 1 else ''}" if row.busy else row.state
        mark = " (default)" if row.is_default else ""
        typer.echo(f"{row.name:<16} {row.role:<8} {row.runtime:<10} {doing:<12} {row.queue} waiting{mark}")


def run(name: str, words: list[str]) -> int:
    """Run `skep agent`."""
    return run_app(app, name, words)


async def _agents() -> operator.AgentRows:
    async with client.daemon(default_home()) as caller:
        return await caller.call(operator.AGENT_LIST, NoArgs())
