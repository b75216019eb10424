"""A hive in which nothing runs, for what is told of a running one."""

from __future__ import annotations

from skep.hive.ports import RunningTurn
from skep.hive.supervisor import View
from skep.wire.control import operator

__all__ = ["Still"]


class Still:
    """A message half in which nothing runs."""

    def running_turns(self, name: str | None = None) -> tuple[RunningTurn, ...]:
        return ()

    def relays(self) -> tuple[operator.RelayRow, ...]:
        return ()

    def gateway_attached(self) -> bool:
        return False

    def view(self, name: str) -> View:
        return View(state="up")
