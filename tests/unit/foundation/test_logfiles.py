"""skep.foundation.logfiles."""

from __future__ import annotations

from pathlib import Path

from skep.foundation.logfiles import MAX_BYTES, rotate


def test_three_files_are_kept_and_who_writes_goes_on(tmp_path: Path) -> None:
    """The newest generation is `.1`; the writer's own file is the one that was emptied."""
    log = tmp_path / "log"
    with log.open("ab") as writer:
        log.chmod(0o600)
        for generation in range(5):
            writer.truncate(MAX_BYTES + 1)
            rotate(log)
            writer.write(b"%d" % generation)
            writer.flush()
            assert log.read_bytes() == b"%d" % generation

    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert [(tmp_path / f"log.{number}").read_bytes()[:1] for number in (1, 2)] == [b"3", b"2"]
    assert (tmp_path / "log.1").stat().st_mode & 0o777 == 0o600


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    """So is one that is not there."""
    log = tmp_path / "log"
    rotate(log)
    log.write_bytes(b"x" * MAX_BYTES)
    rotate(log)

    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_disk_that_refuses_ends_nobody(tmp_path: Path) -> None:
    """Rotating is done in the loop that keeps everything alive."""
    log = tmp_path / "log"
    (tmp_path / "log.1").touch()
    (tmp_path / "log.2" / "in the way").mkdir(parents=True)
    log.write_bytes(b"x" * (MAX_BYTES + 1))
    rotate(log)

    assert log.stat().st_size == MAX_BYTES + 1
