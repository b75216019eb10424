"""Commands of people: what is said back, and what changes in their chat.

Source: control protocol, section 4. The words after a command are never a prompt.
"""

from __future__ import annotations

from skep.broker import people
from skep.broker.types import Chat
from skep.hive.door.text import COMMANDS, Command
from skep.hive.ports import AgentCard, Agents
from skep.identity.people import Person
from skep.store.ports import HiveTx

__all__ = ["admits", "agent_of_chat", "run_command"]


def run_command(
    tx: HiveTx, command: Command, *, agents: Agents, chat: Chat, person: Person, name: str | None, runs: bool
) -> str:
    """Do what `command` says, and return the answer.

    Args:
        name: What the platform calls the person.
        runs: Whether a turn of this conversation runs; whoever calls stops it after the commit.
    """
    if command.name == "stop":
        return "Stopping." if runs else "Nothing is running here."
    if command.name == "agents":
        return _list(agents, chat, person)
    if command.name == "whoami":
        called = f", called {name}" if name else ""
        return (
            f"You are `{person.principal}`{called}, on {chat.platform}. "
            f"**{agent_of_chat(agents, chat)}** answers in this chat."
        )
    if command.name == "agent":
        return _bind(tx, command.words, agents=agents, chat=chat, person=person)
    return _help(agents, chat)


def agent_of_chat(agents: Agents, chat: Chat) -> str:
    """Return who answers in `chat` when nobody else is named."""
    if chat.agent is not None and agents.get(chat.agent) is not None:
        return chat.agent
    return agents.default


def admits(card: AgentCard, person: Person) -> bool:
    """Return whether `person` may write to the agent."""
    if isinstance(card.people, tuple):
        return person.principal in card.people
    return card.people == "all"


def _list(agents: Agents, chat: Chat, person: Person) -> str:
    here = agent_of_chat(agents, chat)
    lines: list[str] = []
    for name in agents.names():
        card = agents.get(name)
        if card is not None and admits(card, person):
            mark = ", answers here" if name == here else ""
            lines.append(f"- **{name}**: {agents.state(name)}{mark}")
    return "\n".join(["Agents you can write to:", "", *lines]) if lines else "There is no agent for you here."


def _bind(tx: HiveTx, words: str, *, agents: Agents, chat: Chat, person: Person) -> str:
    wanted = words.split(maxsplit=1)[0].removeprefix("@").lower() if words else ""
    if not wanted:
        return f"**{agent_of_chat(agents, chat)}** answers in this chat. `/agent NAME` chooses another."
    card = agents.get(wanted)
    if card is None or not admits(card, person):
        return "There is no such agent for you. `/agents` lists those you can write to."
    people.bind_agent(tx, chat.id, card.name)
    return f"**{card.name}** answers in this chat from now on."


def _help(agents: Agents, chat: Chat) -> str:
    lines = [
        f"- {text}" if text.startswith("`") else f"- `/{name}`: {text}" for name, text in COMMANDS.items()
    ]
    here = agent_of_chat(agents, chat)
    first = f"What you write here goes to **{here}**. Begin with `@NAME` to write to another agent."
    return "\n".join([first, "", *lines])
