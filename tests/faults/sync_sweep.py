"""One chat, killed before and after every single sync of the disk: `python sync_sweep.py DIRECTORY`.

Prints what was broken, one line each. Each round is a child that opens the store, lets a person write, an agent answer
and a gateway say it, and is killed at the n-th sync; then this process opens what is left, judges it, and goes on
where the child stopped. Ends with the first round that no kill could reach.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import apsw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec

from skep.broker.types import Lease
from skep.hive.door.accept import Arrival, accept_all, intake_key
from skep.store.sqlite.engine import OpenOptions
from skep.wire.relay.event import decode_event
from skep.wire.relay.session_key import session_key
from support.broker import Desk, open_desk
from support.hive import Team, person_event

__all__: list[str] = []

ROUNDS_MAX = 200


class _KillingFile(apsw.VFSFile):
    def __init__(self, vfs: _KillingLayer, name: Any, flags: list[int]) -> None:
        self._layer = vfs
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - the driver's name
        self._layer.synced(is_before=True)
        super().xSync(flags)
        self._layer.synced(is_before=False)


class _KillingLayer(apsw.VFS):
    """The file layer of the system, which ends this process at one sync."""

    def __init__(self, number: int, *, is_before: bool) -> None:
        self._left = number
        self._is_before = is_before
        super().__init__("killing", base="")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - the driver's name
        return _KillingFile(self, name, flags)

    def synced(self, *, is_before: bool) -> None:
        """Count, and die."""
        if is_before:
            self._left -= 1
        if self._left == 0 and is_before == self._is_before:
            os.kill(os.getpid(), signal.SIGKILL)


class Platform:
    """Where answers are said; it knows a repeat by its key. Kept in a file, so that it outlives everybody."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def calls(self) -> list[str]:
        """Keys of all calls, in order, each with whether it was marked as a repeat."""
        return self._path.read_text().splitlines() if self._path.exists() else []

    def say(self, lease: Lease) -> str:
        """Say it; a repeat with the same key changes nothing."""
        envelope = lease.envelopes[0]
        with self._path.open("a") as calls:
            calls.write(f"{envelope.reply_key} {envelope.redelivered}\n")
        return f"p-{envelope.reply_key}"


async def arrive(desk: Desk) -> None:
    """Hand in what the person wrote, as the gateway does until it is told that it is stored."""
    raw = msgspec.Raw(json.dumps(person_event("hello")).encode())
    event = decode_event(raw)
    arrival = Arrival(
        relay="local",
        key=intake_key("local", event, buffer_id="b-1"),
        raw=raw,
        event=event,
        session=session_key(event.source),
        command=None,
        runs=False,
        quiet_ms=0,
    )
    await desk.broker.transact_each(partial(accept_all, desk.broker.rules, Team()), arrival)


async def talk(desk: Desk, directory: Path, *, is_new: bool) -> None:
    """Do what is left of one chat."""
    await arrive(desk)
    if is_new:
        (directory / "acknowledged").touch()
    platform = Platform(directory / "platform")
    while (granted := await desk.broker.take(("agent:concierge",), holder="h")).leases:
        lease = granted.leases[0]
        turn = await desk.begin(lease)
        await desk.end(lease, turn, reply="hello yourself")
    while (granted := await desk.broker.take(("door:local",), holder="g")).leases:
        lease = granted.leases[0]
        turn = await desk.begin(lease)
        await desk.end(lease, turn, ids=(platform.say(lease),))


async def judge(directory: Path) -> list[str]:
    """Open what a killed child left, look at it, finish the chat, and look again."""
    problems: list[str] = []
    async with open_desk(directory) as desk:
        rows = await desk.rows(
            "SELECT d.state, (SELECT count(*) FROM message r WHERE r.in_reply_to = m.id) "
            "FROM message m JOIN delivery d ON d.message = m.id WHERE m.sender LIKE 'person:%'"
        )
        if (directory / "acknowledged").exists() and not rows:
            problems.append("the message was acknowledged and is gone")
        problems += [
            f"the message is `{state}` and has {answers} answers"
            for state, answers in rows
            if answers != (1 if state == "done" else 0)
        ]
        before = Platform(directory / "platform").calls
        await talk(desk, directory, is_new=False)
        calls = Platform(directory / "platform").calls
        asked = await desk.rows("SELECT count(*) FROM message WHERE sender LIKE 'person:%'")
        if asked != [(1,)]:
            problems.append(f"the repeated event made {asked[0][0]} envelopes")
        keys = Counter(call.split()[0] for call in calls)
        if len(keys) != 1:
            problems.append(f"{len(keys)} answers were said")
        problems += [
            f"said again without a mark: {call}" for call in calls[max(1, len(before)) :] if "False" in call
        ]
        left = await desk.rows("SELECT state FROM delivery WHERE state != 'done'")
        if left:
            problems.append(f"{len(left)} deliveries are left")
        if await desk.rows("PRAGMA integrity_check") != [("ok",)]:
            problems.append("the store is damaged")
    return problems


def attempt(directory: Path, number: int, *, is_before: bool) -> bool:
    """Chat in a child that dies at its n-th sync; return whether it did."""
    child = os.fork()
    if child == 0:
        layer = _KillingLayer(number, is_before=is_before)

        async def run() -> None:
            async with open_desk(directory, options=OpenOptions(log_bytes=0, vfs="killing")) as desk:
                await talk(desk, directory, is_new=True)

        asyncio.run(run())
        layer.unregister()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the child ended with {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)


def main(root: Path) -> None:
    """Go through all syncs."""
    rounds = 0
    for is_before in (True, False):
        for number in range(1, ROUNDS_MAX):
            directory = root / f"{number}-{is_before}"
            directory.mkdir()
            died = attempt(directory, number, is_before=is_before)
            for problem in asyncio.run(judge(directory)):
                print(f"sync {number}, {'before' if is_before else 'after'}: {problem}")  # noqa: T201
            shutil.rmtree(directory)
            rounds += 1
            if not died:
                break
    print(f"rounds {rounds}")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
