"""What is acknowledged is on stable storage: the order of system calls, and disks that refuse; reliability, M2.

A kill loop cannot see this: what the kernel holds survives it. So the calls of a real daemon are watched, and failed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from faults.lengths import at_length
from faults.mail_history import read_store
from faults.mail_worker import Line, RefusedError
from support.parts import need
from support.waiting import MS, eventually_sync

HERE = Path(__file__).parent
MESSAGES = at_length(merge=20, release=200)
CALLS = "fdatasync,fsync,read,recvfrom,recvmsg,write,writev,sendto,sendmsg"

_SYNCED = re.compile(r"^\d+ +(?:f(?:data)?sync\(\d+\)|<\.\.\. f(?:data)?sync resumed>\)) += 0")
_FAILED = re.compile(r"^(\d+) .*f(?:data)?sync.* = -1 E\w+ .*\(INJECTED\)")


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory with a short path."""
    with TemporaryDirectory(prefix="skep-m2-") as folder:
        yield Path(folder)


@contextmanager
def watched(root: Path, *flags: str) -> Iterator[Path]:
    """Run a daemon under strace with `flags`; yield what it writes down."""
    trace = root / "trace"
    command = [need("strace"), "-f", "-qq", "-s", "160", "-o", str(trace), *flags]
    command += [sys.executable, str(HERE / "mail_daemon.py"), str(root), "a1"]
    with (root / "daemon.err").open("wb") as errors:
        daemon = subprocess.Popen(command, stderr=errors)
    try:
        eventually_sync(lambda: Line(root / "run/door.sock", "gateway").close(), within=20_000 * MS)
        yield trace
    finally:
        for pid in _children(daemon.pid):  # the daemon, not strace, which then ends by itself
            subprocess.run(["kill", "-9", str(pid)], check=False)
        daemon.wait(timeout=10)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def say(line: Line, number: int) -> str:
    """Hand in one message; return its id."""
    source = {"platform": "web", "chat_id": "c", "chat_type": "dm", "user_id": "u", "scope_id": "local"}
    event = {"text": f"@a1 {number}", "message_type": "text", "message_id": f"m{number}", "source": source}
    return line.call("door.accept", relay="local", event=event, received_at=1)["message_id"]


@pytest.mark.timeout(300)
def test_m2_the_sync_returns_before_the_answer_leaves(root: Path) -> None:
    """Between the request and its answer on the socket, a sync has come back."""
    with watched(root, "-e", f"trace={CALLS}") as trace:
        line = Line(root / "run/door.sock", "gateway")
        for number in range(MESSAGES):
            say(line, number)
        line.close()
    calls = trace.read_text(errors="replace").splitlines()
    asked = [at for at, call in enumerate(calls) if r"\"m\": \"door.accept\"" in call]
    answered = [
        at
        for at, call in enumerate(calls)
        if re.search(r"(?:write|send)\w*\(.*\\\"outcome\\\":\\\"stored", call)
    ]

    assert len(asked) == len(answered) == MESSAGES
    for request, answer in zip(asked, answered, strict=True):
        assert request < answer
        assert any(map(_SYNCED.match, calls[request:answer])), "\n".join(calls[request : answer + 1])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_m2_a_sync_that_fails_acknowledges_nothing(root: Path, error: str) -> None:
    """From the first failed sync on nothing is acknowledged; what was before it is there; then work goes on."""
    first_bad = 5 + _most_syncs_of_a_start(root / "first")
    second = root / "second"
    second.mkdir()
    acked: list[str] = []
    refused: Counter[str] = Counter()
    inject = f"inject=fdatasync,fsync:error={error}:when={first_bad}+"
    with watched(second, "-e", f"trace={CALLS}", "-e", inject) as trace:
        line = Line(second / "run/door.sock", "gateway")
        for number in range(first_bad + 10):
            try:
                acked.append(say(line, number))
            except RefusedError as problem:
                refused[str(problem)] += 1
        line.close()
    calls = trace.read_text(errors="replace").splitlines()
    failed_at = next(at for at, call in enumerate(calls) if _FAILED.match(call))
    after = [call for call in calls[failed_at:] if re.search(r"\\\"outcome\\\":\\\"stored", call)]

    assert acked, "nothing was stored before the disk failed"
    assert refused.keys() == {"unavailable"}
    assert after == []
    with watched(second, "-e", "trace=none"):
        line = Line(second / "run/door.sock", "gateway")
        again = [say(line, number) for number in range(first_bad + 10)]
        line.close()
    stored = read_store(second / "hive.db")
    assert stored.is_whole
    assert again[: len(acked)] == acked, "what was acknowledged is known again"
    assert set(again) == set(stored.states)


def _most_syncs_of_a_start(root: Path) -> int:
    """Return how many syncs one thread makes before the daemon answers: strace counts by thread."""
    root.mkdir()
    with watched(root, "-e", "trace=fdatasync,fsync") as trace:
        pass
    by_thread = Counter(call.split()[0] for call in trace.read_text().splitlines() if "sync" in call)
    return max(by_thread.values(), default=0)
