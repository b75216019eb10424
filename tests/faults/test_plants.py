"""Planted bugs: each promise has one that its test must catch; reliability, section 1.

A plant is a patch in `plants/`, made against this source. It is applied to a copy of `src`, and the test that it names
is run on that copy: it must fail, and say what was broken. A plant that no longer applies fails here: mend or move it.

    Caught by: the test, as pytest names it
    Says: a part of what the test prints when it fails
    With: NAME=VALUE …        environment of that run, where it needs one
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.parts import need

ROOT = Path(__file__).resolve().parents[2]
PLANTS = Path(__file__).with_name("plants")


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug."""

    path: Path
    caught_by: str
    says: str
    environment: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Plant:
        """Read the lines above the patch."""
        head = path.read_text().partition("\n--- ")[0]
        fields = {
            name: value.strip() for name, value in re.findall(r"^(\w[\w ]*): (.+)$", head, re.MULTILINE)
        }
        pairs = (pair.partition("=") for pair in fields.get("With", "").split())
        return cls(path, fields["Caught by"], fields["Says"], {name: value for name, _, value in pairs})


ALL = [Plant.read(path) for path in sorted(PLANTS.glob("*.patch"))]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("plant", ALL, ids=[plant.path.stem for plant in ALL])
def test_the_planted_bug_is_caught(plant: Plant, tmp_path: Path) -> None:
    """The test that guards this promise fails where the promise is broken."""
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "_web"))
    applied = subprocess.run(
        [need("git"), "apply", "-p1", "--verbose", str(plant.path)],
        cwd=tmp_path,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, f"{plant.path.name} no longer applies:\n{applied.stderr}"

    caught = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", plant.caught_by],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", **plant.environment},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert caught.returncode == 1, f"not caught by {plant.caught_by}:\n{caught.stdout[-4000:]}{caught.stderr}"
    assert plant.says in caught.stdout, caught.stdout[-4000:]


def test_every_promise_of_this_suite_has_a_plant() -> None:
    """M1 to M5, M9 and R1, and what the control protocol asks for."""
    planted = {plant.path.stem.partition("_")[0] for plant in ALL}

    assert planted >= {"m1", "m2", "m3", "m4", "m5", "m9", "r1", "do01", "rp01"}
