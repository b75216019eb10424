"""A running dashboard for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skep.foundation.clock import ManualClock
from skep.foundation.paths import Home
from skep.wire.control.operator import AgentRow, AgentRows, CancelResult
from support.dashboard import NOW_MS, Running, running_dashboard
from support.fake_daemon import FakeDaemon


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A prepared home."""
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
async def running(home: Home) -> AsyncIterator[Running]:
    """A dashboard with a daemon that has one agent."""
    agents = AgentRows(agents=(AgentRow(name="scribe", role="agent", runtime="rehearsal", state="up"),))
    daemon = FakeDaemon({"agent.list": agents, "ask.cancel": CancelResult(state="cancelled")})
    async with running_dashboard(home, daemon, clock=ManualClock(now_ms=NOW_MS)) as dashboard:
        yield dashboard
