"""Secrets and providers, A8.2: `skep secret pull` is killed, or refused by the disk, at every system call.

After each the target holds the old bytes or the new, no file was ever open to more than it should be, at
most one temporary file is left, and the next run removes it and succeeds.
"""

from __future__ import annotations

import grp
import os
import re
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from support.parts import need

ROOT: Final = Path(__file__).resolve().parents[2]
CALLS: Final = (
    "openat",
    "write",
    "fsync",
    "fchmod",
    "fchown",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
)
FAULTS: Final = {"killed": "signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
OLD: Final = "old-canary-value-1"
NEW: Final = "new-canary-value-22"
LEFT: Final = ".target.0123456789abcdef.tmp"


@dataclass
class Place:
    """A manifest with one target, and what the target may hold."""

    folder: Path
    dialect: str
    contents: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "skep", "secret", "pull", str(self.folder / "m.toml")]

    def environ(self, value: str) -> dict[str, str]:
        home = str(self.folder / "home")
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SKEP_HOME": home,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "FIRST": value,
            "SECOND": value * 2,
        }

    def pull(self, value: str, strace: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*strace, *self.command()],
            env=self.environ(value),
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )

    def content(self) -> dict[str, bytes]:
        target = self.out / "target"
        if target.is_dir():
            return {entry.name: entry.read_bytes() for entry in target.iterdir()}
        return {"": target.read_bytes()}

    def reset(self) -> None:
        """Put the old content back, and a file that an earlier kill has left."""
        for entry in self.out.iterdir():
            _remove(entry)
        subprocess.run(["cp", "-a", self.folder / "before", self.out / "target"], check=True)
        if self.dialect != "dir":
            (self.out / LEFT).write_text("left")
            (self.out / LEFT).chmod(0o600)

    def left(self) -> list[str]:
        return [entry.name for entry in self.out.iterdir() if entry.name not in {"target", LEFT}]


CASES: Final = [("portable", fault) for fault in FAULTS] + [
    ("dir", fault) for fault in FAULTS if fault == "killed" or os.environ.get("SKEP_TEST_FAULTS") == "release"
]


def _place(tmp_path: Path, dialect: str) -> Place:
    """Return a target that was written once, and its two contents."""
    made = Place(folder=tmp_path, dialect=dialect)
    group = _group()
    (tmp_path / "m.toml").write_text(
        f"""
        [store.ci]
        kind = "env"
        [[target]]
        path = "out/target"
        dialect = "{dialect}"
        mode = "0640"
        group = "{group}"
        key = [{{ env = "FIRST", ref = "/:FIRST" }}, {{ env = "SECOND", ref = "/:SECOND" }}]
        """
    )
    made.out.mkdir(mode=0o700)
    for value in (NEW, OLD):
        done = made.pull(value)
        assert done.returncode == 0, done.stderr
        made.contents[value] = made.content()
    subprocess.run(["cp", "-a", made.out / "target", tmp_path / "before"], check=True)
    return made


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("dialect", "fault"), CASES)
def test_a8_2_old_or_new_at_every_system_call(dialect: str, fault: str, tmp_path: Path) -> None:
    """Whatever the moment: the old file or the new one, never another."""
    strace = need("strace")
    place = _place(tmp_path, dialect)
    points = _points(place, strace, tmp_path)
    assert {"openat", "write", "fsync", "fchmod"} <= points.keys()
    held: Counter[str] = Counter()
    for call, numbers in points.items():
        for number in numbers:
            place.reset()
            inject = f"inject={call}:{FAULTS[fault]}:when={number}"
            with _watched(place.out) as seen:
                done = place.pull(
                    NEW, (strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
                )
            where = f"{fault} at {call} {number}: {done.stderr}"
            content = place.content()
            assert content in place.contents.values(), where
            assert not seen, f"{where}: {seen}"
            assert len(place.left()) <= 1, where
            assert OLD not in done.stderr + done.stdout, where
            assert NEW not in done.stderr + done.stdout, where
            held["old" if content == place.contents[OLD] else "new"] += 1
    again = place.pull(NEW)
    assert again.returncode == 0, again.stderr
    assert place.content() == place.contents[NEW]
    assert place.left() == []
    assert not (place.out / LEFT).exists()
    sys.stdout.write(f"{place.dialect}, {fault}: {held.total()} points, {dict(held)}, 0 violations\n")
    assert held["old"]


def _points(place: Place, strace: str, folder: Path) -> dict[str, range]:
    """Return the numbers of the calls from the first that touches the target's folder to the last."""
    place.reset()
    log = folder / "strace.log"
    chosen = ",".join(CALLS)
    done = place.pull(NEW, (strace, "-f", "-qq", "-o", str(log), "-e", f"trace={chosen}"))
    assert done.returncode == 0, done.stderr
    counts: Counter[str] = Counter()
    begun: dict[str, int] = {}
    main = ""
    for line in log.read_text().splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if match is None or match[1] != (main := main or match[1]) or match[2] not in CALLS:
            continue
        counts[match[2]] += 1
        if begun or 'openat(AT_FDCWD, "/", O_RDONLY' in line:  # the walk to the folder begins at the root
            begun.setdefault(match[2], counts[match[2]])
    whole = os.environ.get("SKEP_TEST_FAULTS") == "release"
    return {call: range(1 if whole else first, counts[call] + 1) for call, first in begun.items()}


@contextmanager
def _watched(folder: Path) -> Iterator[list[str]]:
    """Look at the folder all the time, and note each file that is open to more than its group may read."""
    seen: list[str] = []
    stop = threading.Event()

    def look() -> None:
        is_last = False
        while not is_last:
            is_last = stop.is_set()  # what is left at the end is looked at too
            inside = [Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)]
            for path in inside:
                try:
                    about = path.lstat()
                except OSError:
                    continue
                allowed = 0o750 if stat.S_ISDIR(about.st_mode) else 0o640
                if stat.S_IMODE(about.st_mode) & ~allowed:
                    seen.append(f"{path.name} {stat.S_IMODE(about.st_mode):04o}")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def _group() -> str:
    """Return a group that a file can be given to: another than ours, if there is one."""
    mine = os.getegid()
    allowed = {entry.gr_gid for entry in grp.getgrall()} if os.geteuid() == 0 else set(os.getgroups())
    return grp.getgrgid(next(iter(sorted(allowed - {mine})), mine)).gr_name


def _remove(path: Path) -> None:
    if path.is_dir():
        for entry in path.iterdir():
            entry.unlink()
        path.rmdir()
    else:
        path.unlink()
