"""`skep config show`."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from skep.cli.output import make_app, print_json, run_app
from skep.foundation.settings import default_home, origins

__all__ = ["run"]

app = make_app("Look at the settings.\n\nExample: skep config show")


@app.callback()
def config() -> None:
    """Look at the settings."""


@app.command("show")
def show(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program")] = False
) -> None:
    """Show each setting, its value, and where it came from.

    Example: skep config show --json
    """
    home = default_home()
    rows = [(name, _shown(name, value), origin) for name, value, origin in origins(home)]
    if as_json:
        settings = [{"name": name, "value": value, "origin": origin} for name, value, origin in rows]
        print_json({"home": str(home.root), "settings": settings})
        return
    typer.echo(f"{'home':<28} {home.root}")
    for name, value, origin in rows:
        typer.echo(f"{name:<28} {'-' if value is None else value!s:<28} {origin}")


def run(name: str, words: list[str]) -> int:
    """Run `skep config`."""
    return run_app(app, name, words)


def _shown(name: str, value: object) -> object:
    """A key is named by where it lies (`env:`, `file:`); one that was written out is not shown."""
    if name == "memory.key" and isinstance(value, str) and not value.startswith(("env:", "file:")):
        return "***"
    if name.startswith("provider.") and isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {key: _shown("memory.key", item) if key == "key" else item for key, item in fields.items()}
    return value
