"""skep.cli.main: the first word, and what is printed on the way."""

from __future__ import annotations

import subprocess
import sys

import pytest

from skep.cli.main import COMMANDS, SERVICES, help_text, run

HEAVY = ("aiohttp", "apsw", "asyncio", "httpx", "mcp", "msgspec", "rich", "structlog", "typer", "uvloop")


def test_help_has_a_line_for_each_command() -> None:
    """What is there is listed, each with what it does."""
    text = help_text()

    for command in (*COMMANDS, *SERVICES):
        assert f"  {command.name} " in text
        assert command.summary in text


def test_help_imports_nothing_heavy() -> None:
    """A help text costs little more than an empty Python."""
    script = f"""
import sys
from skep.cli.main import run
run(["--help"])
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert printed.stderr.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_each_command_has_help_with_an_example(
    command: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`skep COMMAND --help` goes to stdout and shows how it is used."""
    assert run([command[0], "--help"]) == 0

    printed = capsys.readouterr()
    assert "Example: skep" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["stauts"], "did you mean `skep status`?"),
        (["xyzzy"], "see `skep --help`"),
        (["status", "--jsn"], "see `skep status --help`"),
        (["agent", "lst"], "see `skep agent --help`"),
        (["harness", "run"], "run `skep harness run NAME`"),
        (["hive", "start"], "run `skep hive serve`"),
    ],
)
def test_a_wrong_word_is_two_and_a_hint(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typo costs one look at the next line."""
    assert run(words) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert f"hint: {hint}" in printed.err
    assert "code: cli." in printed.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """One line."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("skep ")
