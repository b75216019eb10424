"""docs/runbooks/systemd/: the units are what systemd reads them as."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from skep.cli.main import SERVICES

ROOT: Final = Path(__file__).resolve().parents[2]
UNITS: Final = ROOT / "docs" / "runbooks" / "systemd"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return copies that start a `skep` which is there."""
    program = tmp_path / "skep"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS.iterdir():
        text = unit.read_text()
        for place in ("%h/skep/.venv/bin/skep", "/opt/skep/.venv/bin/skep"):
            text = text.replace(place, str(program))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def _verify(*words: str, runtime: Path) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", *words],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_systemd_finds_nothing_wrong_with_the_machines_units(units: Path) -> None:
    """No unknown key, no unit that is wanted and not there, no program that cannot be started."""
    files = [str(path) for path in sorted(units.iterdir()) if path.name.startswith("skep-")]

    assert len(files) == 4
    assert _verify("verify", str(units / "skep.target"), *files, runtime=units) == ""


def test_systemd_finds_nothing_wrong_with_the_users_unit(units: Path) -> None:
    """The same for the unit of one user."""
    assert _verify("--user", "verify", str(units / "skep.service"), runtime=units) == ""


def test_every_process_has_a_unit_with_its_command() -> None:
    """A process that is added fails here until it has a unit; harnesses are the daemon's."""
    started = {
        line.partition("/skep ")[2]
        for unit in UNITS.glob("skep-*.service")
        for line in unit.read_text().splitlines()
        if line.startswith("ExecStart=")
    }
    verbs = {"connector": "serve", "gateway": "run", "hive": "serve", "web": "serve"}

    assert started == {f"{name} {verb}" for name, verb in verbs.items()}
    assert {command.name for command in SERVICES} | {"web"} == {*verbs, "harness"}
