"""make, and the scripts under it: what they say when they cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from scripts import parts, suites

ROOT: Final = Path(__file__).resolve().parents[3]


def _run(*command: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _tools(folder: Path, *, python: str) -> Path:
    """Make a PATH that holds a shell, what a script needs least, and a `python3` that does `python`."""
    folder.mkdir()
    for name in ("bash", "env", "mkdir", "rm", "sh"):
        (folder / name).symlink_to(shutil.which(name) or name)
    _program(folder / "python3", python)
    return folder


def test_make_help_lists_what_there_is() -> None:
    """The two commands of the README are in the list, each with what it does."""
    done = _run("make", "help")

    assert done.returncode == 0
    for target in ("run", "test", "check", "clean"):
        assert f"  make {target:<8} " in done.stdout


def test_a_path_with_a_space_is_refused_at_once(tmp_path: Path) -> None:
    """Make cannot handle one, so it says so before it does anything."""
    folder = tmp_path / "my bees"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)

    done = _run("make", "help", cwd=folder)

    assert done.returncode == 2
    assert "has a space in it" in done.stderr
    assert list(folder.iterdir()) == [folder / "Makefile"]


def test_venv_without_its_debian_package_says_what_to_install(tmp_path: Path) -> None:
    """The half-made folder that Debian's Python leaves behind is removed."""
    tools = _tools(tmp_path / "bin", python='case "$*" in *venv*) mkdir -p "$3/bin"; exit 1;; esac')
    _program(tools / "id", "echo 1000")
    folder = tmp_path / "venv"

    done = _run(str(ROOT / "scripts/venv"), str(folder), PATH=str(tools), PYTHON="python3")

    assert done.returncode == 1
    assert "hint: run `apt-get install -y python3-venv` as root" in done.stderr
    assert not folder.exists()


def test_venv_with_an_old_python_says_so(tmp_path: Path) -> None:
    """A Python that is too old is named before anything is made."""
    tools = _tools(tmp_path / "bin", python="exit 1")

    done = _run(str(ROOT / "scripts/venv"), str(tmp_path / "venv"), PATH=str(tools), PYTHON="python3")

    assert done.returncode == 1
    assert "Skep needs Python 3.11 or newer" in done.stderr


def test_install_takes_pip_where_uv_fails(tmp_path: Path) -> None:
    """Uv reads no settings of pip: behind some mirrors only pip gets through."""
    (tmp_path / "bin").mkdir()
    _program(tmp_path / "bin/uv", "exit 2")
    _program(tmp_path / "bin/python", 'echo "pip: $*"')

    done = _run(str(ROOT / "scripts/install"), str(tmp_path), "requirements/base.lock")

    assert done.returncode == 0
    assert "pip: -m pip install -q --disable-pip-version-check --require-hashes" in done.stdout


def test_a_step_is_one_line_until_it_fails() -> None:
    """A step that works says its name and its time; one that fails also says what it said."""
    step = str(ROOT / "scripts/step")

    well = _run(step, "bees", "echo", "many words")
    ill = _run(step, "bees", "sh", "-c", "echo why; exit 3")

    assert (well.returncode, well.stderr) == (0, "")
    assert well.stdout.split()[0] == "bees"
    assert "many words" not in well.stdout
    assert ill.returncode == 3
    assert "failed" in ill.stdout
    assert ill.stderr == "why\n"


def test_a_missing_part_is_an_error_only_in_ci(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part that is not there is named with the way to get it; in CI that is a failure."""
    monkeypatch.setenv("PATH", "/nowhere")  # no apt-get either
    monkeypatch.delenv("SKEP_TEST_CHROMIUM", raising=False)
    monkeypatch.setenv("SKEP_CI", "0")

    assert parts.main() == 0
    assert (
        "chromium     missing: the browser suite; get it: apt-get install -y chromium"
        in capsys.readouterr().out
    )

    monkeypatch.setenv("SKEP_CI", "1")
    assert parts.main() == 1


COUNTED = {
    "pytest": ("1 failed, 10 passed, 2 skipped in 0.50s", 10, 1),
    "pytest errors": ("9 passed, 2 errors in 1.00s", 9, 2),
    "vitest": (" Test Files  3 passed (3)\n      Tests  1 failed | 41 passed (42)\n   Duration  1.2s", 41, 1),
    "nothing": ("Segmentation fault", 0, 0),
}


@pytest.mark.parametrize(("output", "passed", "failed"), COUNTED.values(), ids=COUNTED.keys())
def test_results_are_counted(output: str, passed: int, failed: int) -> None:
    """The closing line of each runner is understood, whatever follows it."""
    counts = suites.count(output)

    assert (counts["passed"], counts["failed"]) == (passed, failed)


def test_a_suite_that_hangs_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite has a limit, and what it started ends with it."""
    monkeypatch.setattr(suites, "RESULTS", tmp_path)
    suite = suites.Suite(name="hangs", commands=(("sh", "-c", "sleep 60 & wait"),), limit_s=0.2)

    counts, output = suites.run(suite)

    assert (counts["passed"], counts["failed"]) == (0, 1)
    assert "stopped after 0 s" in output
