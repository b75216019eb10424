"""Who may do what. Denials about what belongs to others look like `not_found`.

Source: hive, section 9. Each check is made at the act itself, from the authenticated principal.
"""

from __future__ import annotations

from typing import Final

import msgspec

from skep.broker.errors import NotAllowedError, NotFoundError
from skep.broker.types import Actor
from skep.store.ports import HiveTx, Row

__all__ = [
    "may_broadcast",
    "may_cancel_delivery",
    "may_close_ask",
    "may_handle_dead",
    "may_interrupt",
    "may_send_to_agent",
    "may_send_to_person",
    "missing",
    "owns",
    "sees_message",
]

_TRUSTED: Final = ("operator", "manager", "system", "reminder")


def may_send_to_agent(tx: HiveTx, actor: Actor, agent: Row) -> None:
    """Refuse an agent outside the sender's list, and a person whom the agent does not admit."""
    name, _, _, people, _ = agent
    if actor.role == "person" and not _admits(people, actor.principal):
        raise NotAllowedError(f"`{name}` takes no messages from this person")
    if actor.role == "agent":
        own = tx.one("agent", actor.principal[6:])
        if own is None or not _admits(own[4], name):
            raise NotAllowedError(f"this agent may not write to `{name}`")


def may_send_to_person(tx: HiveTx, actor: Actor, person: int) -> None:
    """Refuse an agent that has no session with the person."""
    if actor.role in _TRUSTED:
        return
    if actor.role == "agent" and tx.one("agent_knows_person", person, actor.principal):
        return
    raise NotAllowedError("this person has not written to this agent")


def may_interrupt(actor: Actor) -> None:
    """Refuse agents; a person interrupts only their own session, which the door has named."""
    if actor.role == "agent":
        raise NotAllowedError("an agent may not interrupt")


def may_broadcast(actor: Actor) -> None:
    """Refuse people."""
    if actor.role == "person":
        raise NotAllowedError("a person may not broadcast")


def missing() -> NotFoundError:
    """Return the one refusal for what is not there and for what is another's: nobody can tell them apart."""
    return NotFoundError("there is no such id")


def sees_message(tx: HiveTx, actor: Actor, message: Row, *, chat: int | None = None) -> bool:
    """Return whether the actor may read (and so reply to) this message."""
    message_id, _, sender, addressed_to, _, _, message_chat, *_ = message
    if actor.role in ("operator", "system"):
        return True
    if actor.principal in (sender, addressed_to):
        return True
    if actor.role == "person":
        return chat is not None and message_chat == chat
    return tx.one("message_received_in", message_id, actor.principal) is not None


def owns(actor: Actor, owner: str) -> None:
    """Refuse everybody but the owner and operators, as if it were not there."""
    if actor.role not in ("operator", "system") and actor.principal != owner:
        raise missing()


def may_close_ask(actor: Actor, asker: str) -> None:
    """Refuse everybody but the asker and operators."""
    owns(actor, asker)


def may_cancel_delivery(actor: Actor, sender: str, recipient: str) -> None:
    """Refuse all but operators, the sender, and the manager between workers."""
    if actor.role == "manager" and sender.startswith("agent:") and recipient.startswith("agent:"):
        return
    owns(actor, sender)


def may_handle_dead(actor: Actor, sender: str, recipient: str) -> None:
    """Refuse all but operators, and the manager between workers."""
    if actor.role in ("operator", "system"):
        return
    if actor.role != "manager":
        raise missing()
    if not (sender.startswith("agent:") and recipient.startswith("agent:")) or actor.principal in (
        sender,
        recipient,
    ):
        raise missing()


def _admits(setting: str, who: str) -> bool:
    """Return whether `all`, `none` or a JSON list of names admits `who`."""
    if setting == "all":
        return True
    if setting == "none":
        return False
    return who in msgspec.json.decode(setting, type=list[str])
