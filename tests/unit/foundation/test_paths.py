"""skep.foundation.paths, against the control protocol, section 2."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from skep.foundation.errors import SettingError
from skep.foundation.paths import MAX_SOCKET_PATH, Home


@pytest.fixture
def long_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory whose path has some 200 characters."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / ("deep" * 50)


def test_cp_07_a_long_home_has_short_sockets(long_root: Path) -> None:
    """A socket can be bound whatever the path of the data directory is."""
    home = Home(long_root)
    home.prepare()
    home.prepare()

    path = home.pump_socket("a" * 32)
    path.parent.mkdir()
    assert len(os.fsencode(path)) <= MAX_SOCKET_PATH
    assert home.run.is_symlink()

    async def bind() -> None:
        server = await asyncio.start_unix_server(lambda _r, _w: None, str(path))
        server.close()

    asyncio.run(bind())
    path.unlink(missing_ok=True)
    path.parent.rmdir()


def test_cp_07_a_squatted_directory_is_refused(long_root: Path) -> None:
    """What another put in the way is not used, and not removed."""
    home = Home(long_root)
    home.prepare()
    short = home.run.readlink()
    (short / "agents").rmdir()
    short.rmdir()
    short.symlink_to("/etc")
    try:
        with pytest.raises(SettingError) as raised:
            Home(long_root).prepare()
        assert raised.value.code == "home.squatted"
    finally:
        short.unlink()


def test_directories_are_private(tmp_path: Path) -> None:
    """Nobody else looks in."""
    home = Home(tmp_path / "skep")
    home.prepare()

    for directory in (home.root, home.keys, home.logs, home.run):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    """The operator learns which path is meant."""
    (tmp_path / "skep").write_text("")
    with pytest.raises(SettingError) as raised:
        Home(tmp_path / "skep").prepare()

    assert raised.value.code == "home.not_directory"
    assert str(tmp_path / "skep") in raised.value.problem
