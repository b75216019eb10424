"""What turns envelopes into answers: one module per kind."""

from __future__ import annotations

from skep.foundation.errors import SettingError
from skep.harness.turn import Runtime

__all__ = ["make_runtime"]


def make_runtime(kind: str) -> Runtime:
    """Return a runtime of this kind.

    Raises:
        SettingError: There is no such kind.
    """
    if kind == "rehearsal":
        from skep.harness.runtimes.rehearsal import Rehearsal

        return Rehearsal()
    raise SettingError(
        f"runtime `{kind}` is not there",
        hint='set `runtime = "rehearsal"` in agents.toml',
        code="agent.no_runtime",
    )
