"""The vector files hold, each case a test of its own; and the script that runs them tells the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import vectors

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
FILES = ("relay_tokens", "session_keys", "frames", "dial_urls", "response_format_errors")
SCRIPT = Path(vectors.__file__)


def _outcomes() -> list[vectors.Outcome]:
    return [
        outcome
        for name in FILES
        for outcome in vectors.run(json.loads((VECTORS / f"{name}.json").read_text()), name=name)
        if not outcome.skipped
    ]


@pytest.mark.parametrize("outcome", [pytest.param(outcome, id=outcome.name) for outcome in _outcomes()])
def test_vector_holds(outcome: vectors.Outcome) -> None:
    """What the released client did, or what the connector must do where that is too lenient."""
    assert outcome.problem is None


def test_script_runs_files_that_it_has_never_seen(tmp_path: Path) -> None:
    """A file is known by its keys; the last line counts, and the exit code is 0."""
    cases = json.loads((VECTORS / "session_keys.json").read_text())["cases"][:3]
    unseen = tmp_path / "anything.json"
    unseen.write_text(json.dumps({"cases": cases}))

    result = _run(unseen)

    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "3 passed, 0 failed")


def test_script_fails_on_a_case_that_does_not_hold(tmp_path: Path) -> None:
    """One wrong key among good ones: counted, named, exit code 1."""
    cases = json.loads((VECTORS / "session_keys.json").read_text())["cases"][:3]
    cases[1]["session_key"] = "agent:main:discord:dm:somebody-else"
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"cases": cases}))

    result = _run(wrong)

    assert (result.returncode, result.stdout.splitlines()[-1]) == (1, "2 passed, 1 failed")
    assert "sk-002" in result.stdout


def test_script_skips_kinds_that_it_does_not_run(tmp_path: Path) -> None:
    """An unknown kind is said, with its reason, and counts neither way."""
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"cases": [{"colour": "blue"}]}))

    result = _run(other)

    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "0 passed, 0 failed")
    assert "skipped other.json: cases: 1 cases of a kind not run here" in result.stdout


def _run(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, files)], capture_output=True, text=True, check=False
    )
