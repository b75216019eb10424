"""Notice that a secret file has changed under a running process; restart nothing.

Source: secrets and providers, section A5.9. Who read a secret file keeps its stamp, looks again every
`LOOK_EVERY_S`, and reports `changed_finding`; only `on_change = "restart"` asks for more than a report.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from skep.foundation.health import Finding

__all__ = ["LOOK_EVERY_S", "Stamp", "changed_finding", "stamp_of"]

LOOK_EVERY_S: Final = 60.0


class Stamp(NamedTuple):
    """What tells one content of a file from the next without reading it."""

    device: int
    inode: int
    mtime_ns: int
    size_bytes: int


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of `path`; `None` when it is not there."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return Stamp(about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size)


def changed_finding(path: Path, *, used_by: str, restart: str) -> Finding:
    """Return the health item of a secret file that has changed since `used_by` read it."""
    return Finding(
        id="secret.changed",
        severity="look",
        problem=f"`{path}` has changed; {used_by} still has the old content",
        fix=restart,
    )
