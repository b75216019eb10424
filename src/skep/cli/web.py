"""`skep web serve` and `skep web link`."""

from __future__ import annotations

import typer

from skep.cli import client, serve
from skep.cli.output import make_app, run_app, run_async
from skep.foundation.paths import Home
from skep.foundation.settings import default_home
from skep.wire.control import operator

__all__ = ["dashboard_link", "run"]

app = make_app("Serve the dashboard, or make a sign-in link for it.\n\nExample: skep web link")


@app.callback()
def web() -> None:
    """Serve the dashboard, or make a sign-in link for it."""


@app.command("link")
def link() -> None:
    """Print a link that signs you in to the dashboard, once.

    Example: skep web link
    """
    typer.echo(run_async(dashboard_link(default_home())))


@app.command("serve")
def serve_web() -> int:
    """Serve the dashboard; `skep up` does it for you.

    Example: skep web serve
    """
    return serve.run("web", ["serve"])


def run(name: str, words: list[str]) -> int:
    """Run `skep web`; the process itself goes round typer."""
    if words[:1] == ["serve"] and "--help" not in words:
        return serve.run("web", words)
    return run_app(app, name, words)


async def dashboard_link(home: Home) -> str:
    """Return a one-time address of the dashboard."""
    async with client.daemon(home) as caller:
        made = await caller.call(operator.AUTH_CODE, operator.AuthCodeArgs())
    host, port = client.dashboard_address(home)
    return f"http://{host}:{port}/#once={made.code}"
