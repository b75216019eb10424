"""Runs the examples of a page: each command of each ```console block, and compares what it prints.

A line `$ command` is run (`> ` continues it), the lines after it are what it prints. `…` in a line stands for
anything, a line that is only `…` for any number of lines. A command that prints `error:` fails, and should.
In a block opened with ```console stays, the command goes on running until the page ends, as in a terminal of
its own. All commands of a page share one folder, one environment and one shell; no `SKEP_*` of ours is in it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from support.waiting import MS, eventually_sync

__all__ = ["Block", "Example", "read_blocks", "run_page"]

BLOCK: Final = re.compile(r"^```console( stays)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK: Final = "--- done with"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A command, and the lines that it prints."""

    command: str
    printed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The examples between two fences; `stays` when the last command goes on running."""

    line: int
    stays: bool
    examples: tuple[Example, ...]


def read_blocks(text: str) -> list[Block]:
    """Return the console blocks of a Markdown page."""
    return [
        Block(
            line=text.count("\n", 0, match.start()) + 1,
            stays=match[1] is not None,
            examples=tuple(_read_examples(match[2])),
        )
        for match in BLOCK.finditer(text)
    ]


def run_page(page: Path, *, folder: Path, environ: Mapping[str, str]) -> int:
    """Run every example of `page` in `folder`; return how many there were.

    Raises:
        AssertionError: One printed something else, failed, or did not end; names its line.
    """
    count = 0
    with ExitStack() as stack:
        shell = stack.enter_context(_started(["bash", "--norc"], folder, environ))
        for block in read_blocks(page.read_text()):
            for example in block.examples:
                where = f"{page.name}:{block.line}: $ {example.command}"
                if block.stays:
                    child = stack.enter_context(
                        _started(["bash", "-c", f"exec {example.command}"], folder, environ)
                    )
                    _expect_begin(child, example, where)
                else:
                    _expect(*_run(shell, example.command, where), example, where)
                count += 1
    return count


def _read_examples(text: str) -> Generator[Example]:
    command: str | None = None
    printed: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command is not None:
                yield Example(command=command, printed=tuple(printed))
            command, printed = line[2:], []
        elif line.startswith("> ") and command is not None and not printed:
            command += "\n" + line[2:]
        else:
            printed.append(line.rstrip())
    if command is not None:
        yield Example(command=command, printed=tuple(printed))


class _Program:
    """A running program, and the lines that it has printed so far."""

    def __init__(self, child: subprocess.Popen[str], output: Path) -> None:
        self._child = child
        self._output = output
        self._read = 0

    def say(self, text: str) -> None:
        stdin = self._child.stdin
        assert stdin is not None
        stdin.write(text)
        stdin.flush()

    def new_lines(self) -> list[str]:
        """Return the whole lines printed since the last `forget`."""
        text = self._output.read_bytes()[self._read :].decode(errors="replace")
        return [line.rstrip() for line in text[: text.rfind("\n") + 1].splitlines()]

    def forget(self) -> None:
        self._read = self._output.stat().st_size


@contextmanager
def _started(command: list[str], folder: Path, environ: Mapping[str, str]) -> Generator[_Program]:
    output = folder / f".output-{len(list(folder.glob('.output-*')))}"
    with output.open("wb") as out:
        child = _popen(command, folder, environ, out)
    try:
        yield _Program(child, output)
    finally:
        if child.stdin is not None:
            child.stdin.close()
        _stop(child)


def _popen(
    command: list[str], folder: Path, environ: Mapping[str, str], out: IO[bytes]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["env", "--default-signal=INT", *command],  # whoever started us in the background may ignore Ctrl-C
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("SKEP_")}
        | dict(environ),
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=out,
        text=True,
        start_new_session=True,
    )


def _stop(child: subprocess.Popen[str]) -> None:
    """End a program as Ctrl-C does, then without asking."""
    for number, wait_s in ((signal.SIGINT, 15), (signal.SIGKILL, 5)):
        if child.poll() is not None:
            return
        os.killpg(child.pid, number)
        try:
            child.wait(timeout=wait_s)
        except subprocess.TimeoutExpired:
            continue


def _run(shell: _Program, command: str, where: str) -> tuple[list[str], int]:
    shell.forget()
    shell.say(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %d\\n' '{MARK}' $?\n")

    def ended() -> tuple[list[str], int]:
        lines = shell.new_lines()
        assert lines, f"{where} has printed nothing"
        assert lines[-1].startswith(MARK), f"{where} has not ended; so far:\n" + "\n".join(lines)
        return lines[:-1], int(lines[-1].removeprefix(MARK))

    lines, code = eventually_sync(ended, within=30_000 * MS)
    return lines[:-1] if lines and not lines[-1] else lines, code


def _expect(lines: list[str], code: int, example: Example, where: str) -> None:
    said = "\n".join(lines)
    wanted = "\n".join(example.printed)
    assert re.fullmatch(_pattern(example.printed), said), f"{where} printed:\n{said}\ninstead of:\n{wanted}"
    should_fail = any(line.startswith("error:") for line in example.printed)
    assert (code != 0) == should_fail, f"{where} ended with {code}:\n{said}"


def _expect_begin(child: _Program, example: Example, where: str) -> None:
    def begun() -> None:
        said = "\n".join(child.new_lines())
        wanted = "\n".join(example.printed)
        assert re.match(_pattern(example.printed), said), f"{where} printed:\n{said}\ninstead of:\n{wanted}"

    eventually_sync(begun, within=30_000 * MS)


def _pattern(printed: tuple[str, ...]) -> str:
    """Return a pattern for what is printed: `…` is anything in a line, or any lines."""
    parts: list[str] = []
    for number, line in enumerate(printed):
        last = number == len(printed) - 1
        if line == "…":
            parts.append(r"(?:.*\n)*?.*" if last else r"(?:.*\n)*?")
        else:
            parts.append(".*".join(map(re.escape, line.split("…"))) + ("" if last else r"\n"))
    return "".join(parts)
