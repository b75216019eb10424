"""`skep`: find the command and hand over to its module.

Nothing else is imported on the way to a help text, so that it is there at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final, NamedTuple

from skep import __version__

__all__ = ["COMMANDS", "SERVICES", "Command", "main"]


class Command(NamedTuple):
    """A word after `skep`: what it does, and the module of `skep.cli` that knows how."""

    name: str
    summary: str
    module: str


COMMANDS: Final = (
    Command("up", "Start everything on this machine and print where to find it", "up"),
    Command("chat", "Write to an agent from the terminal", "chat"),
    Command("status", "Show how each part is", "status"),
    Command("doctor", "Look for what is wrong and say what mends it", "doctor"),
    Command("agent", "List the agents", "agent"),
    Command("secret", "Fetch secrets from a store into files that programs read", "secret"),
    Command("provider", "Set up endpoints of language models, and find out what they can do", "provider"),
    Command("config", "Show the settings and where each came from", "config"),
    Command("web", "Serve the dashboard, or make a sign-in link for it", "web"),
)
SERVICES: Final = (
    Command("connector", "The edge: platforms on one side, gateways on the other", "serve"),
    Command("gateway", "The door's carrier: dials the connector", "serve"),
    Command("hive", "The daemon: people, agents, the broker", "serve"),
    Command("harness", "The process of one agent", "serve"),
)
_BY_NAME: Final = {command.name: command for command in (*COMMANDS, *SERVICES)}

_FIRST_LINES: Final = """\
Skep: a home for a team of AI agents.

Usage: skep COMMAND [OPTIONS]

Commands:
"""
_SERVICE_LINES: Final = """
Processes (`skep up` starts them; a service manager may instead):
"""
_LAST_LINES: Final = """
Options:
  --version   Print the version
  --help      Print this text, or that of a command

Examples:
  skep up                 start, then open the printed address
  skep chat "hello"       ask from the terminal
  skep status --json      how it is, for a program
"""


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run `skep` with `words` and return the exit code."""
    first = words[0] if words else "--help"
    if first in ("--help", "-h", "help"):
        if len(words) > 1 and words[1] in _BY_NAME:
            return _hand_over(_BY_NAME[words[1]], ["--help"])
        sys.stdout.write(help_text())
        return 0
    if first in ("--version", "-V"):
        sys.stdout.write(f"skep {__version__}\n")
        return 0
    command = _BY_NAME.get(first)
    if command is None:
        return _unknown(first)
    return _hand_over(command, words[1:])


def help_text() -> str:
    """Return what `skep --help` prints."""
    return (
        _FIRST_LINES
        + "".join(f"  {command.name:<11} {command.summary}\n" for command in COMMANDS)
        + _SERVICE_LINES
        + "".join(f"  {command.name:<11} {command.summary}\n" for command in SERVICES)
        + _LAST_LINES
    )


def _hand_over(command: Command, words: list[str]) -> int:
    module = import_module(f"skep.cli.{command.module}")
    try:
        return int(module.run(command.name, words) or 0)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from skep.cli.output import print_error
        from skep.foundation.errors import SkepError

        if not isinstance(error, SkepError):
            raise
        print_error(error)
        return error.exit_code


def _unknown(word: str) -> int:
    import difflib

    near = difflib.get_close_matches(word, _BY_NAME, n=3, cutoff=0.5)
    hint = f"did you mean `skep {'`, `skep '.join(near)}`?" if near else "see `skep --help`"
    sys.stderr.write(f"error: no command `{word}`\nhint: {hint}\ncode: cli.unknown_command\n")
    return 2
