"""The checkout itself: what may be in it, and what may not."""

from __future__ import annotations

import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

# Written so that this file does not hold what it looks for.
SECRETS: Final = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY" + r"-----(?:\\n|\s)*(?:Proc-Type|[A-Za-z0-9+/]{40})",
    "age key": r"AGE-SECRET-KEY-1[0-9A-Z]{50,}",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{60,}",
    "Slack token": r"\bxox[abeprs]-\d{8,}-[\w-]{10,}",
    "Telegram token": r"\b\d{8,10}:AA[\w-]{33}\b",
    "Discord token": r"\b[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,}\b",
    "AWS key": r"\bAKIA[0-9A-Z]{16}\b",
    "model key": r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_]{32,}\b",
}
PLACES: Final = {
    "home folder": r"(?<!\w)/(?:root|(?:home|Users)/(?!skep\b|agent\b|you\b|providers\b)[a-z][\w-]*)/",
    "registry": r"(?:--|\bUV_|\bPIP_)(?:(?:extra|default)[-_])?index[-_]url|/simple/|artifactory"
    r"|(?:registry\.npmjs|files\.pythonhosted)\.",
}


def _tracked() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def _texts() -> Iterator[tuple[str, str]]:
    for path in _tracked():
        if path == Path(__file__):
            continue
        try:
            yield str(path.relative_to(ROOT)), path.read_text()
        except UnicodeDecodeError:
            continue


def _found(patterns: dict[str, str]) -> list[str]:
    regexes = {what: re.compile(pattern) for what, pattern in patterns.items()}
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}"
        for name, text in _texts()
        for what, regex in regexes.items()
        if (match := regex.search(text))
    ]


def test_no_file_holds_a_secret() -> None:
    """Nothing that looks like a key or a token of the real world is in the tree."""
    assert _found(SECRETS) == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    """The tree works anywhere: no home folder, no package registry, not where it stands."""
    here = {"this checkout": re.escape(str(ROOT)) + r"\b"}

    assert _found({**PLACES, **here}) == []


def test_whitespace_is_clean() -> None:
    """No trailing blanks, no blank lines at an end, no conflict marks: `git diff --check` over every file."""
    done = subprocess.run(
        ["git", "diff", "--check", EMPTY_TREE], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stdout == ""


def test_python_compiles_without_warnings() -> None:
    """Every Python file is read by this Python as it is, with no deprecated syntax."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in _tracked():
            if path.suffix == ".py":
                compile(path.read_bytes(), str(path), "exec", dont_inherit=True)


def test_shell_scripts_parse() -> None:
    """Every shell script is read by its shell, and may be started."""
    for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]:
        if path.is_file() and path.read_bytes().startswith(b"#!"):
            shell = "bash" if b"bash" in path.read_bytes().splitlines()[0] else "sh"
            subprocess.run([shell, "-n", str(path)], check=True)
            assert path.stat().st_mode & 0o111, f"{path.name} cannot be started"
