"""Secrets and providers, A5, A7 and A8.4, A8.7: targets on a real file system."""

from __future__ import annotations

import fcntl
import grp
import os
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from skep.secrets import writing
from skep.secrets.problems import SecretError
from skep.secrets.writing import Plan, clean, look, owner_ids, write

PATH: Final = os.environ["PATH"]
SOME_GROUP: Final = next(
    (entry.gr_gid for entry in grp.getgrall() if entry.gr_gid != os.getegid()), os.getegid()
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that only we may write."""
    made = tmp_path / "etc"
    made.mkdir(mode=0o755)
    return made


def _plan(path: Path, **more: object) -> Plan:
    plan = Plan(
        path=path, mode=0o600, dir_mode=0o700, uid=os.geteuid(), gid=None, create_parent=False, is_dir=False
    )
    return replace(plan, **more)


def _write(plan: Plan, data: bytes = b"new") -> bool:
    return write(plan, {"": data}, search_path=PATH)[1]


def _look(plan: Plan) -> bool:
    return look(plan, search_path=PATH).exists


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """Sets the umask until the test ends."""
    before = os.umask(0o022)

    def change(mask: int) -> None:
        os.umask(mask)

    yield change
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("before", [None, 0o400, 0o600, 0o440, 0o640, 0o644, 0o666, 0o777])
def test_a8_4_the_mode_is_exact(
    folder: Path, umask: Callable[[int], None], mask: int, before: int | None
) -> None:
    """Whatever the umask and whatever was there: the file has the mode that was asked for."""
    for mode, content in product((0o400, 0o600, 0o440, 0o640), (b"new", b"old")):
        target = folder / "a.env"
        target.unlink(missing_ok=True)
        if before is not None:
            target.write_bytes(b"old")
            target.chmod(before)
        umask(mask)

        changed = _write(_plan(target, mode=mode), content)

        assert _mode(target) == mode
        assert target.read_bytes() == content
        assert changed == (before != mode or content != b"old")


def test_a5_a_parent_is_made_one_level_deep(folder: Path, umask: Callable[[int], None]) -> None:
    """Its mode is exact too, and two levels are refused."""
    for mask, mode in product((0, 0o077), (0o700, 0o750, 0o711)):
        umask(mask)
        target = folder / f"{mask:o}-{mode:o}" / "a.env"
        assert look(_plan(target, create_parent=True), search_path=PATH).exists is False
        _write(_plan(target, create_parent=True, dir_mode=mode))
        assert _mode(target.parent) == mode
    with pytest.raises(SecretError) as raised:
        _write(_plan(folder / "x" / "y" / "a.env", create_parent=True))
    assert raised.value.outcome == "unsafe_target"
    assert not (folder / "x").exists()


def _link(target: Path) -> None:
    (target.parent / "real").write_text("x")
    target.symlink_to("real")


def _dangling(target: Path) -> None:
    target.symlink_to("nowhere")


def _hard_link(target: Path) -> None:
    (target.parent / "real").write_text("x")
    os.link(target.parent / "real", target)


def _parent_writable(target: Path) -> None:
    target.parent.chmod(0o777)


def _parent_missing(target: Path) -> None:
    target.parent.rmdir()


def _parent_link(target: Path) -> None:
    target.parent.rename(target.parent.parent / "real")
    target.parent.symlink_to("real")


def _parent_file(target: Path) -> None:
    target.parent.rmdir()
    target.parent.write_text("x")


def _in_git(target: Path) -> None:
    subprocess.run(["git", "init", "-q", target.parent], check=True)


def _tracked(target: Path) -> None:
    _in_git(target)
    target.write_text("x")
    git = ("git", "-C", str(target.parent))
    subprocess.run([*git, "add", target.name], check=True)
    (target.parent / ".gitignore").write_text("*\n")


def _foreign(target: Path) -> None:
    target.write_text("x")
    os.chown(target, 12345, 12345)


UNSAFE: Final[dict[str, Callable[[Path], object]]] = {
    "symlink": _link,
    "dangling symlink": _dangling,
    "hard link": _hard_link,
    "directory": lambda target: target.mkdir(),
    "FIFO": os.mkfifo,
    "parent others can write": _parent_writable,
    "parent missing": _parent_missing,
    "parent is a symlink": _parent_link,
    "parent is a file": _parent_file,
    "git work tree, not ignored": _in_git,
    "git work tree, tracked": _tracked,
    "owned by another": _foreign,
}


@pytest.mark.parametrize("make", UNSAFE.values(), ids=UNSAFE.keys())
def test_a7_an_unsafe_target_is_refused_and_left_alone(folder: Path, make: Callable[[Path], None]) -> None:
    """Nothing is followed, replaced or created, not even by a dry run."""
    if make is _foreign and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    target = folder / "a.env"
    make(target)
    before = _tree(folder.parent)

    for act in (_look, _write):
        with pytest.raises(SecretError) as raised:
            act(_plan(target))
        assert raised.value.outcome == "unsafe_target"
        assert raised.value.exit_code == 30
        assert _tree(folder.parent) == before


def test_a5_an_ignored_file_in_a_work_tree_is_written(folder: Path) -> None:
    """What git would never take along may lie there; without git nobody can say, so it may not."""
    _in_git(folder / "a.env")
    (folder / ".gitignore").write_text("*.env\n")

    assert _write(_plan(folder / "a.env"))
    with pytest.raises(SecretError):
        write(_plan(folder / "a.env"), {"": b"x"}, search_path="/nowhere")


def test_a8_7_a_second_render_touches_nothing(folder: Path) -> None:
    """Inode and times are as before."""
    target = folder / "a.env"
    assert _write(_plan(target))
    before = target.stat()

    assert not _write(_plan(target))
    assert target.stat() == before


def test_a5_leftovers_of_this_target_alone_are_removed(folder: Path) -> None:
    """A file of another name is somebody's."""
    (folder / ".a.env.0123456789abcdef.tmp").write_text("x")
    (folder / ".b.env.0123456789abcdef.tmp").write_text("x")
    (folder / ".a.env.swp").write_text("x")

    assert clean(folder / "a.env") == 1
    assert sorted(path.name for path in folder.iterdir()) == [".a.env.swp", ".b.env.0123456789abcdef.tmp"]
    assert clean(folder / "none" / "a.env") == 0


def test_a7_two_renders_at_once_take_turns(folder: Path) -> None:
    """The result is that of one of them."""
    target = folder / "a.env"
    contents = [bytes([65 + number]) * 100_000 for number in range(4)]
    threads = [threading.Thread(target=_write, args=(_plan(target), content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert target.read_bytes() in contents
    assert [path.name for path in folder.iterdir()] == ["a.env"]


def test_a7_a_lock_that_is_held_ends_the_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the wait it is `busy`, and nothing was written."""
    monkeypatch.setattr(writing, "LOCK_WAIT_S", 0.05)
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(SecretError) as raised:
            _write(_plan(folder / "a.env"))
    finally:
        os.close(fd)

    assert raised.value.exit_code == 32
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to a group it is not in")
def test_a5_owner_and_group_are_set(folder: Path) -> None:
    """0640 with a group is what a host agent reads."""
    target = folder / "a.env"
    _write(_plan(target, mode=0o640, gid=SOME_GROUP, uid=0))
    assert (target.stat().st_uid, target.stat().st_gid, _mode(target)) == (0, SOME_GROUP, 0o640)

    assert _write(_plan(target, mode=0o640, gid=SOME_GROUP, uid=12345))
    assert target.stat().st_uid == 12345
    assert not _write(_plan(target, mode=0o640, gid=SOME_GROUP, uid=12345))


def test_a7_an_unknown_owner_or_group_is_a_usage_fault() -> None:
    """The names are looked up before anything is fetched."""
    for owner, group in (("no-such-user-x", None), (None, "no-such-group-x")):
        with pytest.raises(SecretError) as raised:
            owner_ids(owner, group)
        assert raised.value.outcome == "usage"


def test_a5_an_inherited_access_list_is_refused(folder: Path) -> None:
    """A folder that hands on an ACL would let others in past the mode."""
    entries = [(0x01, 6, -1), (0x02, 6, 12345), (0x04, 4, -1), (0x10, 6, -1), (0x20, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(folder, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("this file system has no access lists")
    with pytest.raises(SecretError) as raised:
        _write(_plan(folder / "a.env", mode=0o640))

    assert raised.value.outcome == "unsafe_target"
    assert list(folder.iterdir()) == []


def test_the_folder_dialect_is_replaced_whole(folder: Path) -> None:
    """Files that are no longer named are gone, and foreign ones stop the write."""
    plan = _plan(folder / "creds", is_dir=True, mode=0o640)
    write(plan, {"A": b"1", "B": b"2"}, search_path=PATH)
    assert not write(plan, {"A": b"1", "B": b"2"}, search_path=PATH)[1]
    place, changed = write(plan, {"A": b"1", "C": b"3"}, search_path=PATH)

    assert changed
    assert place.files == {"A": b"1", "B": b"2"}
    assert {path.name: path.read_bytes() for path in plan.path.iterdir()} == {"A": b"1", "C": b"3"}
    assert (_mode(plan.path), _mode(plan.path / "A")) == (0o750, 0o640)
    assert [path.name for path in folder.iterdir()] == ["creds"]
    (plan.path / "notes.txt").write_text("x")
    with pytest.raises(SecretError) as raised:
        write(plan, {"A": b"1"}, search_path=PATH)
    assert raised.value.outcome == "unsafe_target"


FULL: Final = """
import os, sys
from pathlib import Path
from skep.secrets.writing import Plan, write
from skep.secrets.problems import SecretError
words = dict(mode=0o600, dir_mode=0o700, uid=os.geteuid(), gid=None, create_parent=False, is_dir=False)
plan = Plan(path=Path(sys.argv[1]), **words)
try:
    write(plan, {"": b"x" * 900_000}, search_path="/usr/bin:/bin")
except SecretError as error:
    print(error.outcome)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a7_a_full_or_read_only_disk_keeps_the_old_file(folder: Path, kind: str) -> None:
    """The old file is as it was, and nothing is left beside it."""
    mount = f"mount -t tmpfs -o size=256k,mode=0755 none {folder} && printf old > {folder}/a.env"
    if kind == "read-only":
        mount += f" && mount -o remount,ro {folder}"
    script = f'{mount} || exit 77; "$0" -c "$1" {folder}/a.env; cat {folder}/a.env; ls -A {folder}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, FULL],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mounts here")

    assert done.stdout == "write_failed\nolda.env\n", done.stderr


def _tree(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mode, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if ".git/" not in str(path) and path.name != ".git"
    }
