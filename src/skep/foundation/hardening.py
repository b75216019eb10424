"""Keep the memory of a process that holds secrets out of files and of other programs.

Source: secrets and providers, section S2.4.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

__all__ = ["forbid_core_dumps"]

_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """Write no core dump when this process dies, and let no other of the same user read its memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
