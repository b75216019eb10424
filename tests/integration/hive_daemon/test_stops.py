"""A person stops what the agents that ship do for them; control protocol, sections 4 and 6.2."""

from __future__ import annotations

from typing import Any

from skep.broker.types import BrokerSettings
from skep.hive.daemon import harness_command
from support.daemon import RunningDaemon, open_daemon
from support.hive import person_event
from support.waiting import MS, eventually


async def test_a_slow_reminder_is_stopped_from_its_chat() -> None:
    """`/stop` reaches the turn that it began: it ends `(stopped)`, and its result is never said."""
    async with open_daemon(command=harness_command, limits=BrokerSettings(reminder_min_ms=100)) as daemon:
        await daemon.all_up()
        gateway = await daemon.gateway()

        await gateway.accept(person_event("remind me in 1 second to count slowly", message_id="m-1"))
        promised = (await gateway.heard()).envelopes[0].body
        begun = (await gateway.heard(wait_ms=5_000)).envelopes[0].body
        await gateway.accept(person_event("/stop", message_id="m-2"))
        answered = (await gateway.heard()).envelopes[0].body
        await eventually(lambda: _ends(daemon), within=5_000 * MS)

        assert "in 1 second to count slowly" in promised
        assert begun.startswith("You asked me to remind you to count slowly. I can do that myself")
        assert answered == "Stopping."
        (recorded,) = await _ends(daemon)
        assert recorded.startswith("This answer takes its time")
        assert recorded.endswith("\n(stopped)")
        assert await gateway.take(wait_ms=0) == []


async def _ends(daemon: RunningDaemon) -> list[str]:
    """Return what is recorded of the ends of turns that reminders began."""
    reminders: list[dict[str, Any]] = [
        row for row in await daemon.query("threads") if row["opening"].startswith("Remind ")
    ]
    return [
        row["body"]
        for reminder in reminders
        for row in await daemon.query("thread", id=reminder["id"])
        if row["from"] == "agent:concierge"
    ]
