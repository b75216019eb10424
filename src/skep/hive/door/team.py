"""Which agents people can choose from, as gateways are told.

Source: control protocol, section 4; relay contract, section 16. An agent that only some people may write to is told
to nobody here: a gateway knows accounts, not persons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from skep.broker.broker import Broker
from skep.hive.ports import Agents
from skep.wire.control.door import AgentsHere
from skep.wire.relay.team import AgentHere

__all__ = ["team_of"]


async def team_of(broker: Broker, agents: Agents, *, is_busy: Callable[[str], bool]) -> AgentsHere:
    """Return the agents that anybody may write to, the default first, and how each is now."""
    names = sorted(agents.names(), key=lambda name: (name != agents.default, name))
    cards = [card for card in map(agents.get, names) if card is not None and card.people == "all"]
    waiting = await broker.waiting([f"agent:{card.name}" for card in cards])
    return AgentsHere(
        agents=tuple(
            AgentHere(
                name=card.name,
                role=card.role,
                state=_state(agents, card.name, is_busy=is_busy(card.name)),
                waiting=waiting[f"agent:{card.name}"],
            )
            for card in cards
        )
    )


def _state(agents: Agents, name: str, *, is_busy: bool) -> Literal["idle", "busy", "away"]:
    if agents.state(name) != "up":
        return "away"
    return "busy" if is_busy else "idle"
