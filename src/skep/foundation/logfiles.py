"""Log files of child processes: bounded, whoever writes to them.

Source: control protocol, section 11.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["MAX_BYTES", "rotate"]

MAX_BYTES: Final = 10 << 20
_FILES: Final = 3


def rotate(log: Path) -> None:
    """Empty `log` when it is too long; what was in it is `.1`, what was there before `.2`.

    The process goes on writing to the same file. Never raises: a log is no reason to stop, and on a
    full disk it stays as it is.
    """
    with suppress(OSError):
        if log.stat().st_size <= MAX_BYTES:
            return
        for number in range(_FILES - 1, 1, -1):
            with suppress(FileNotFoundError):
                _numbered(log, number - 1).replace(_numbered(log, number))
        shutil.copy2(log, _numbered(log, 1))
        os.truncate(log, 0)


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
