"""A disk that is full refuses; it corrupts nothing and claims nothing; reliability, M9."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from faults.lengths import at_length
from skep.broker.errors import StaleLeaseError
from skep.store.errors import StoreUnavailableError
from skep.store.sqlite.engine import OpenOptions
from support.broker import Desk, open_desk
from support.parts import missing

WRITES_MAX = at_length(merge=250, release=2_000)


class _File(apsw.VFSFile):
    def __init__(self, layer: _FullLayer, name: Any, flags: list[int]) -> None:
        self._layer = layer
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - the driver's name
        self._layer.count()
        super().xWrite(data, offset)  # pyright: ignore[reportUnknownMemberType] - the driver's type


class _FullLayer(apsw.VFS):
    """The file layer of the system on a disk that is full from its n-th write on, until it is healed."""

    def __init__(self, first_bad: int) -> None:
        self.writes = 0
        self.first_bad: int | None = first_bad
        self.was_full = False
        super().__init__("full", base="")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - the driver's name
        return _File(self, name, flags)

    def count(self) -> None:
        """Refuse, if it is time."""
        self.writes += 1
        if self.first_bad is not None and self.writes >= self.first_bad:
            self.was_full = True
            raise apsw.FullError


@contextmanager
def filling(first_bad: int) -> Iterator[_FullLayer]:
    """Give a file layer that fills up."""
    layer = _FullLayer(first_bad)
    try:
        yield layer
    finally:
        layer.unregister()


async def _work(desk: Desk, acked: list[int], *, rounds: int) -> None:
    """Send and handle; note what was acknowledged."""
    for number in range(rounds):
        sent = await desk.send("scribe", f"{number}" * 500)
        acked.extend(sent.delivery_ids)
        for lease in (await desk.broker.take(("agent:scribe",), holder="h")).leases:
            await desk.end(lease, await desk.begin(lease), reply="done")


async def _kept(directory: Path) -> set[int]:
    async with open_desk(directory, agents=()) as desk:
        assert await desk.rows("PRAGMA integrity_check") == [("ok",)]
        return {row[0] for row in await desk.rows("SELECT id FROM delivery")}


@pytest.mark.timeout(300)
async def test_m9_full_at_any_write(tmp_path: Path) -> None:
    """Full from the n-th write on, for each n: refused, whole, and going on when there is room again."""
    async with open_desk(tmp_path):
        pass  # what making the file costs is not counted
    most, told = 0, set[str]()
    for first_bad in range(1, WRITES_MAX):
        directory = tmp_path / f"{first_bad}"
        directory.mkdir()
        shutil.copyfile(tmp_path / "hive.db", directory / "hive.db")
        acked: list[int] = []
        with filling(first_bad) as layer:
            try:
                async with open_desk(directory, options=OpenOptions(log_bytes=0, vfs="full")) as desk:
                    try:
                        await _work(desk, acked, rounds=3)
                    except (StoreUnavailableError, StaleLeaseError) as error:
                        # A lease is told before its commit: one that was not stored has ended.
                        told.add(error.problem)
                        layer.first_bad = None
                        await desk.broker.end_leases(holder="h")
                        await desk.send("scribe", "there is room again")
                        lease = await desk.take()
                        await desk.end(lease, await desk.begin(lease))
            except StoreUnavailableError:
                assert acked == []  # not even opened
                layer.first_bad = None
        assert set(acked) <= await _kept(directory), f"full at write {first_bad}: acknowledged and lost"
        most = max(most, len(acked))
        if not layer.was_full:
            break
    assert most > 1, "no disk was full in the middle of the work"
    assert told == {"cannot write `hive.db`: the disk is full", "the lease has ended"}


@pytest.mark.timeout(120)
async def test_m9_a_small_disk_that_fills_while_many_write(tmp_path: Path) -> None:
    """A real tmpfs: senders in parallel until it refuses; nothing acknowledged is missing, and it recovers."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        missing("no small disk can be mounted here; run as root")
    try:
        acked: list[int] = []
        refused = 0

        async def send(desk: Desk, name: str) -> None:
            nonlocal refused
            for number in range(400):
                try:
                    sent = await desk.send(name, f"{number} " * 200)
                except StoreUnavailableError:
                    refused += 1
                    if refused > 20:
                        return
                else:
                    acked.extend(sent.delivery_ids)

        async with open_desk(small) as desk:
            async with asyncio.TaskGroup() as tasks:
                for name in ("concierge", "scribe", "tester"):
                    tasks.create_task(send(desk, name))
            assert acked
            assert refused
            assert {row[0] for row in await desk.rows("SELECT id FROM delivery")} >= set(acked)
            subprocess.run(["mount", "-o", "remount,size=16m", str(small)], check=True)
            acked.extend((await desk.send("scribe", "there is room again")).delivery_ids)
        assert set(acked) <= await _kept(small)
    finally:
        subprocess.run(["umount", str(small)], check=False)
