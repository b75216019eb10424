"""requirements/: each package by version and hash, and no address of any registry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[3]
LOCKS: Final = sorted((ROOT / "requirements").glob("*.lock"))


def _versions(lock: Path) -> set[str]:
    return set(re.findall(r"^[\w.-]+==\S+", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_address(lock: Path) -> None:
    """A lock works behind any mirror."""
    text = lock.read_text()

    assert "://" not in text
    assert re.findall(r"^--.*", text, re.MULTILINE) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_has_hashes(lock: Path) -> None:
    """Nothing is installed that was not seen when the lock was written."""
    blocks = re.split(r"^(?=[\w.-]+==)", lock.read_text(), flags=re.MULTILINE)[1:]

    assert blocks
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_a_package_has_one_version_everywhere() -> None:
    """What is tested is what is run."""
    assert _versions(ROOT / "requirements/base.lock") <= _versions(ROOT / "requirements/test.lock")


def test_the_web_lock_names_no_address() -> None:
    """Npm takes the packages from wherever npm is told to, and checks each one's hash."""
    lock = json.loads((ROOT / "web/package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name and not entry.get("link")}

    assert packages
    assert [name for name, entry in packages.items() if "resolved" in entry] == []
    assert [name for name, entry in packages.items() if "integrity" not in entry] == []
