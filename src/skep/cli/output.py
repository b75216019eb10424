"""What every command prints the same way: errors, JSON, and typer set up once.

stdout is the answer, stderr everything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import typer

from skep.foundation.errors import SettingError, SkepError

__all__ = [
    "NotReachableError",
    "json_text",
    "make_app",
    "print_error",
    "print_json",
    "run_app",
    "run_async",
]

T = TypeVar("T")


class NotReachableError(SkepError):
    """The process that could answer is not running: exit 3."""

    code = "cli.not_reachable"
    exit_code = 3


def make_app(help_text: str) -> typer.Typer:
    """Return a typer application with our manners."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        no_args_is_help=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def run_app(app: typer.Typer, name: str, words: list[str]) -> int:
    """Run `app` as `skep NAME` and return the exit code."""
    hook = sys.excepthook
    try:
        result = app(words, prog_name=f"skep {name}", standalone_mode=False)
    except typer.Abort:
        return 130
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        # typer brings its parser's errors along without exporting them; each can tell itself.
        tell = getattr(error, "format_message", None)
        if tell is None:
            raise
        problem = str(tell()).rstrip(".")
        usage = SettingError(
            problem[:1].lower() + problem[1:], hint=f"see `skep {name} --help`", code="cli.usage"
        )
        print_error(usage)
        return usage.exit_code
    finally:
        sys.excepthook = hook  # typer puts its own in the place of one that may know what is secret
    return result if isinstance(result, int) else 0


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end on a fast loop."""
    import uvloop

    return uvloop.run(work)


def print_json(value: object) -> None:
    """Print `value`, an object, with the version of its shape."""
    sys.stdout.write(json_text(value))


def json_text(value: object) -> str:
    """Return what `print_json` prints."""
    fields = {"schema": 1, **_plain(value)}
    return json.dumps(fields, ensure_ascii=False, indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Return structs as objects with all their fields: a program should not have to guess a default."""
    import msgspec

    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: _plain(getattr(value, field.name))
            for field in msgspec.structs.fields(type(value))
        }
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value


def print_error(error: SkepError) -> None:
    """Print what failed, what to do, and the code, on stderr."""
    lines = [f"error: {error.problem}"]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    lines.append(f"code: {error.code}")
    sys.stderr.write("\n".join(lines) + "\n")
