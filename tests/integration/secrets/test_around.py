"""Secrets and providers, S2 and A5.9: the key of fingerprints, stamps of files, children, and dying loudly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from skep.secrets.fingerprints import KEY_BYTES, fingerprint_key
from skep.secrets.problems import SecretError
from skep.secrets.watching import changed_finding, stamp_of
from skep.secrets.writing import Plan, write

CANARY: Final = "canary-Value/9f3a'\"$x"


def test_s2_the_key_of_fingerprints_is_made_once_and_is_private(tmp_path: Path) -> None:
    """Every run of a host gets the same key; one that others could read is refused."""
    file = tmp_path / "keys" / "fingerprint.key"
    key, is_kept = fingerprint_key(file)

    assert (len(key), is_kept) == (KEY_BYTES, True)
    assert fingerprint_key(file) == (key, True)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in file.parent.iterdir()] == ["fingerprint.key"]
    file.chmod(0o640)
    with pytest.raises(SecretError):
        fingerprint_key(file)


def test_s2_a_key_that_cannot_be_kept_serves_one_run(tmp_path: Path) -> None:
    """Old and new still compare; the report says that other runs do not."""
    (tmp_path / "keys").write_text("a file in the way")

    one, is_kept = fingerprint_key(tmp_path / "keys" / "fingerprint.key")

    assert not is_kept
    assert one != fingerprint_key(tmp_path / "keys" / "fingerprint.key")[0]


def test_a5_9_a_rendered_file_has_a_new_stamp_and_an_unchanged_one_has_not(tmp_path: Path) -> None:
    """What a running process compares changes exactly when the content does."""
    tmp_path.chmod(0o700)
    target = tmp_path / "a.env"
    plan = Plan(
        path=target, mode=0o600, dir_mode=0o700, uid=os.geteuid(), gid=None, create_parent=False, is_dir=False
    )
    assert stamp_of(target) is None
    write(plan, {"": b"one"}, search_path="")
    first = stamp_of(target)
    write(plan, {"": b"one"}, search_path="")
    assert stamp_of(target) == first
    write(plan, {"": b"two"}, search_path="")

    assert stamp_of(target) != first
    finding = changed_finding(target, used_by="agent `scribe`", restart="skep agent restart scribe")
    assert (finding.id, finding.fix) == ("secret.changed", "skep agent restart scribe")


def test_a8_1_children_get_nothing(tmp_path: Path) -> None:
    """Git, which is asked whether the target is ignored, sees neither a value nor a credential."""
    tmp_path.chmod(0o700)
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} > {tmp_path}/child.log\nexit 0\n')
    program.chmod(0o755)
    (tmp_path / ".git").mkdir()
    (tmp_path / "m.toml").write_text(
        '[store.ci]\nkind = "env"\n[[target]]\npath = "a.env"\ndialect = "shell"\n'
        'key = [{ env = "ONE", ref = "/:ONE" }]\n'
    )
    subprocess.run(
        [sys.executable, "-m", "skep", "secret", "pull", "m.toml"],
        cwd=tmp_path,
        env={
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "SKEP_HOME": str(tmp_path / "home"),
            "ONE": CANARY,
            "INFISICAL_TOKEN": CANARY,
        },
        check=True,
        capture_output=True,
    )

    said = (tmp_path / "child.log").read_text()
    assert "check-ignore" in said
    assert "canary" not in said
    assert "canary" in (tmp_path / "a.env").read_text()


DYING: Final = """
import asyncio, logging, sys, threading, warnings
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
value = sys.stdin.read()
redactor = Redactor()
redactor.add(Secret("k", value))
redactor.install()
logging.basicConfig(level=0)
logging.getLogger("x").warning("sent %r", value, extra={"more": value})
try:
    raise ValueError(value)
except ValueError:
    logging.getLogger("x").exception("failed with %s", value)
warnings.warn(value)
thread = threading.Thread(target=lambda: (_ for _ in ()).throw(ValueError(value)))
thread.start(); thread.join()
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(redactor.loop_handler)
    loop.call_soon(lambda: (_ for _ in ()).throw(ValueError(value)))
    await asyncio.sleep(0)
asyncio.run(main())
raise RuntimeError(f"at last {value}") from KeyError(value)
"""


def test_s2_every_way_to_die_is_scrubbed() -> None:
    """Logs, warnings, threads, the loop and the last exception: five ways out, and none is open."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", DYING], input=CANARY, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "canary" not in done.stderr + done.stdout
    for part in (
        "sent ",
        "failed with ***",
        "UserWarning: ***",
        "ValueError: ***",
        "RuntimeError: at last ***",
    ):
        assert part in done.stderr
    assert done.stderr.count("ValueError: ***") >= 3
