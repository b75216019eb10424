"""Write a target so that its readers see the old content or the new, and nobody else sees either.

Source: secrets and providers, section A5. One order of work: open the parent without following a link,
lock it, look at the target, write a temporary file whose owner and mode are right before its content is,
sync, rename, sync. Whatever fails leaves the old file byte for byte.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import stat
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skep.secrets.problems import SecretError, usage

__all__ = ["LOCK_WAIT_S", "Place", "Plan", "clean", "is_same", "look", "owner_ids", "write"]

LOCK_WAIT_S: Final = 10.0
_LOCK_PAUSE_S: Final = 0.02
_DIR_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTRY: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_RENAME_EXCHANGE: Final = 2
_ACL: Final = "system.posix_acl_access"
_MAX_OLD_BYTES: Final = 16 * 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a target is to be.

    Attributes:
        mode: Of each file; a folder gets the search bits that belong to it.
        uid: Owner; ours when none was named.
        gid: Group; `None` leaves what the system gives.
        is_dir: The target is a folder of one file a key.
    """

    path: Path
    mode: int
    dir_mode: int
    uid: int
    gid: int | None
    create_parent: bool
    is_dir: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How a target is now; `files` are its contents, and empty when it is not there."""

    files: Mapping[str, bytes]
    exists: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    has_right_modes: bool = True


def owner_ids(owner: str | None, group: str | None) -> tuple[int, int | None]:
    """Return the ids of `owner` (ours without one) and `group`.

    Raises:
        SecretError: `usage`: there is no such user or group.
    """
    import grp
    import pwd

    try:
        uid = pwd.getpwnam(owner).pw_uid if owner is not None else os.geteuid()
    except KeyError as exc:
        raise usage(f"there is no user `{owner}`") from exc
    try:
        gid = grp.getgrnam(group).gr_gid if group is not None else None
    except KeyError as exc:
        raise usage(f"there is no group `{group}`") from exc
    return uid, gid


def look(plan: Plan, *, search_path: str) -> Place:
    """Return how the target is now, and refuse what `write` would refuse; changes nothing.

    Args:
        search_path: `PATH`, to find git.

    Raises:
        SecretError: `unsafe_target` or `write_failed`.
    """
    with _errors_of(plan.path):
        try:
            parent = _open_parent(plan.path.parent)
        except FileNotFoundError:
            if not plan.create_parent or not plan.path.parent.parent.is_dir():
                raise _unsafe(
                    plan.path, "its folder is not there", hint=f"make it: mkdir -m 0700 {plan.path.parent}"
                ) from None
            _refuse_in_git(plan.path, search_path)
            return Place(files={})
        try:
            place = _look_at(parent, plan)
        finally:
            os.close(parent)
        _refuse_in_git(plan.path, search_path)
        return place


def write(plan: Plan, files: Mapping[str, bytes], *, search_path: str) -> tuple[Place, bool]:
    """Make the target hold `files`; return how it was, and whether anything had to be written.

    Raises:
        SecretError: `unsafe_target`, `write_failed` or `busy`; the old content is still there.
    """
    with _errors_of(plan.path):
        parent = _opened_parent(plan)
        try:
            _lock(parent, plan.path)
            _remove_leftovers(parent, plan.path.name)
            place = _look_at(parent, plan)
            _refuse_in_git(plan.path, search_path)
            if is_same(place, plan, files):
                return place, False
            if plan.is_dir:
                _write_folder(parent, plan, files, exists=place.exists)
            else:
                _write_file(parent, plan, files[""])
            os.fsync(parent)
            return place, True
        finally:
            os.close(parent)


def clean(path: Path) -> int:
    """Remove what an interrupted write left beside `path`; return how many."""
    with _errors_of(path):
        try:
            parent = _open_parent(path.parent)
        except FileNotFoundError:
            return 0
        try:
            _lock(parent, path)
            return _remove_leftovers(parent, path.name)
        finally:
            os.close(parent)


# --- the folder it lies in --------------------------------------------------------------------------


def _open_parent(path: Path) -> int:
    """Open `path`, no part of which may be a link, and which only root and we may write."""
    fd = _walk(path)
    try:
        about = os.fstat(fd)
        if about.st_uid not in {0, os.geteuid()}:
            raise _unsafe(path, "the folder belongs to somebody else")
        if about.st_mode & 0o022:
            mode = stat.S_IMODE(about.st_mode)
            raise _unsafe(
                path, f"the folder has mode {mode:04o}: others can write it", hint=f"chmod go-w {path}"
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _walk(path: Path) -> int:
    if not path.is_absolute() or ".." in path.parts:
        raise _unsafe(path, "the path is not a plain absolute one")
    fd = os.open("/", _DIR_FLAGS)
    for number, part in enumerate(path.parts[1:], start=2):
        # On the way a folder need not be readable, only the last one is read, locked and synced.
        flags = _DIR_FLAGS if number == len(path.parts) else _DIR_FLAGS | os.O_PATH
        try:
            inner = os.open(part, flags, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


def _opened_parent(plan: Plan) -> int:
    folder = plan.path.parent
    try:
        return _open_parent(folder)
    except FileNotFoundError:
        if not plan.create_parent:
            raise _unsafe(
                plan.path, "its folder is not there", hint=f"make it: mkdir -m 0700 {folder}"
            ) from None
    above = _walk(folder.parent)
    try:
        with suppress(FileExistsError):
            os.mkdir(folder.name, 0o700, dir_fd=above)
            made = os.open(folder.name, _DIR_FLAGS, dir_fd=above)
            try:
                os.fchmod(made, plan.dir_mode)
            finally:
                os.close(made)
        os.fsync(above)
    finally:
        os.close(above)
    return _open_parent(folder)


def _lock(parent: int, path: Path) -> None:
    ends = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(parent, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > ends:
                raise SecretError(
                    "busy",
                    f"another process has been writing beside `{path}` for {LOCK_WAIT_S:g} s",
                    where=str(path),
                ) from None
            time.sleep(_LOCK_PAUSE_S)


def _remove_leftovers(parent: int, name: str) -> int:
    pattern = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.tmp")
    found = [entry for entry in os.listdir(parent) if pattern.fullmatch(entry)]
    for entry in found:
        _remove(parent, entry)
    return len(found)


def _remove(parent: int, name: str) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    inner = os.open(name, _DIR_FLAGS, dir_fd=parent)
    try:
        for entry in os.listdir(inner):
            os.unlink(entry, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=parent)


# --- the target as it is ----------------------------------------------------------------------------


def _look_at(parent: int, plan: Plan) -> Place:
    try:
        about = os.stat(plan.path.name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return Place(files={})
    if plan.is_dir:
        return _look_into(parent, plan, about)
    _refuse_kind(plan.path, about, plan)
    return Place(
        files={"": _content(parent, plan.path.name, plan.path)},
        exists=True,
        mode=stat.S_IMODE(about.st_mode),
        uid=about.st_uid,
        gid=about.st_gid,
    )


def _look_into(parent: int, plan: Plan, about: os.stat_result) -> Place:
    if not stat.S_ISDIR(about.st_mode):
        raise _unsafe(plan.path, "it is not a folder, as the dialect `dir` needs")
    if about.st_uid not in {0, os.geteuid(), plan.uid}:
        raise _unsafe(plan.path, "it belongs to somebody else")
    inner = os.open(plan.path.name, _DIR_FLAGS, dir_fd=parent)
    try:
        files: dict[str, bytes] = {}
        all_right = stat.S_IMODE(about.st_mode) == _searchable(plan.mode)
        for name in sorted(os.listdir(inner)):
            entry = os.stat(name, dir_fd=inner, follow_symlinks=False)
            if not _ENTRY.fullmatch(name):
                raise _unsafe(
                    plan.path, "it holds files that are not ours", hint="name a folder for secrets alone"
                )
            _refuse_kind(plan.path / name, entry, plan)
            files[name] = _content(inner, name, plan.path)
            all_right &= _has_wanted_modes(entry, plan)
    finally:
        os.close(inner)
    return Place(
        files=files,
        exists=True,
        mode=plan.mode if all_right else stat.S_IMODE(about.st_mode),
        uid=about.st_uid,
        gid=about.st_gid,
        has_right_modes=all_right,
    )


def _refuse_kind(path: Path, about: os.stat_result, plan: Plan) -> None:
    if stat.S_ISLNK(about.st_mode):
        raise _unsafe(
            path, "it is a symbolic link", hint=f"name the file itself, or remove the link: rm {path}"
        )
    if not stat.S_ISREG(about.st_mode):
        raise _unsafe(path, "it is not a regular file")
    if about.st_nlink > 1:
        raise _unsafe(path, "it has another name too (a hard link)", hint=f"rm {path}")
    if about.st_uid not in {0, os.geteuid(), plan.uid}:
        raise _unsafe(path, "it belongs to somebody else")


def _content(folder: int, name: str, path: Path) -> bytes:
    fd = os.open(name, _READ_FLAGS, dir_fd=folder)
    try:
        parts: list[bytes] = []
        size = 0
        while part := os.read(fd, 1 << 20):
            parts.append(part)
            size += len(part)
            if size > _MAX_OLD_BYTES:
                raise _unsafe(path, "it is far larger than any file of secrets")
        return b"".join(parts)
    finally:
        os.close(fd)


def is_same(place: Place, plan: Plan, files: Mapping[str, bytes]) -> bool:
    """Return whether the target is already as it is to be."""
    return (
        place.exists
        and place.files == files
        and place.mode == plan.mode
        and place.uid == plan.uid
        and plan.gid in {None, place.gid}
        and place.has_right_modes
    )


def _has_wanted_modes(about: os.stat_result, plan: Plan) -> bool:
    return (
        stat.S_IMODE(about.st_mode) == plan.mode
        and about.st_uid == plan.uid
        and plan.gid in {None, about.st_gid}
    )


def _refuse_in_git(path: Path, search_path: str) -> None:
    """Refuse a target that the next commit could take along."""
    tree = next((folder for folder in path.parents if (folder / ".git").exists()), None)
    if tree is None:
        return
    ignored = False
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(
            [
                *("git", "-c", "core.fsmonitor=false", "-C", str(tree)),
                *("check-ignore", "-q", "--", str(path)),
            ],
            env={"PATH": search_path, "HOME": os.path.expanduser("~"), "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
        )
        ignored = asked.returncode == 0
    if not ignored:
        raise _unsafe(
            path,
            f"it lies in the git work tree {tree} and is not ignored there",
            hint="write it elsewhere, or add it to .gitignore (and `git rm --cached` it)",
        )


# --- writing ----------------------------------------------------------------------------------------


def _write_file(parent: int, plan: Plan, data: bytes) -> None:
    name = _temporary(plan)
    try:
        _write_new(parent, name, plan, data)
        os.rename(name, plan.path.name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=parent)
        raise


def _write_folder(parent: int, plan: Plan, files: Mapping[str, bytes], *, exists: bool) -> None:
    """Make a new folder and put it in the place of the old one in one step."""
    name = _temporary(plan)
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
        inner = os.open(name, _DIR_FLAGS, dir_fd=parent)
        try:
            for entry, data in files.items():
                _write_new(inner, entry, plan, data)
            _own(inner, plan)
            os.fchmod(inner, _searchable(plan.mode))
            os.fsync(inner)
        finally:
            os.close(inner)
        if exists:
            _exchange(parent, name, plan.path.name)
        else:
            os.rename(name, plan.path.name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with suppress(OSError):
            _remove(parent, name)
        raise
    if exists:
        _remove(parent, name)


def _write_new(folder: int, name: str, plan: Plan, data: bytes) -> None:
    """Write a new file: its owner and mode first, then its content, then a look at what came of it."""
    fd = os.open(name, _NEW_FLAGS, 0o600, dir_fd=folder)
    try:
        _own(fd, plan)
        os.fchmod(fd, plan.mode)
        _refuse_wide_acl(fd, plan.path)
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
        about = os.fstat(fd)
        if not _has_wanted_modes(about, plan) or about.st_size != len(data):
            raise SecretError(
                "write_failed", f"`{plan.path}` did not become what it should be", where=str(plan.path)
            )
    finally:
        os.close(fd)


def _own(fd: int, plan: Plan) -> None:
    about = os.fstat(fd)
    if about.st_uid != plan.uid or plan.gid not in {None, about.st_gid}:
        os.fchown(fd, plan.uid, -1 if plan.gid is None else plan.gid)


def _refuse_wide_acl(fd: int, path: Path) -> None:
    """Refuse an inherited access list that lets in more than the mode says."""
    try:
        raw = os.getxattr(fd, _ACL)
    except OSError as exc:
        if exc.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return
        raise
    entries = [(tag, bits) for tag, bits, _ in struct.iter_unpack("<HHI", raw[4:])]
    mask = next((bits for tag, bits in entries if tag == 0x10), 7)
    if any(tag in {0x02, 0x08} and bits & mask for tag, bits in entries):
        raise _unsafe(
            path, "its folder hands on an access list (ACL) that lets others in", hint="setfacl -k FOLDER"
        )


def _exchange(parent: int, one: str, other: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(parent, one.encode(), parent, other.encode(), _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _temporary(plan: Plan) -> str:
    return f".{plan.path.name}.{secrets.token_hex(8)}.tmp"


def _searchable(mode: int) -> int:
    """Return the mode of a folder whose files have `mode`: who may read may also search, its owner write."""
    return 0o700 | mode | ((mode & 0o444) >> 2)


# --- errors -----------------------------------------------------------------------------------------


def _unsafe(path: Path, why: str, *, hint: str = "") -> SecretError:
    return SecretError("unsafe_target", f"`{path}` is not written: {why}", where=str(path), hint=hint)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT}:
            raise _unsafe(
                path, "a part of its path is a link, or no folder", hint=f"realpath -m {path}"
            ) from exc
        raise SecretError(
            "write_failed",
            f"`{path}` cannot be written: {os.strerror(exc.errno or errno.EIO)}",
            where=str(path),
        ) from exc
