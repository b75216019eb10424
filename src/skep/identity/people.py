"""People in strict mode: an account is (platform, namespace, id), never the id alone.

Source: identity, section 15; control protocol, sections 4 and 5.2.
The account comes from the event as the connector saw it; a name that somebody gives decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from skep.wire.relay.event import SessionSource

__all__ = ["Account", "PeopleTx", "Person", "account_of", "resolve"]

_SCOPED: Final = frozenset({"slack", "wecom"})
"""Platforms whose user ids are unique in their scope only (platforms, section 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who somebody is on one platform.

    Attributes:
        namespace: Where `user_id` is unique; empty where it is unique on the platform.
    """

    platform: str
    namespace: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One person, however many accounts they have.

    Attributes:
        principal: `person:<n>`, stable.
        is_blocked: Nothing of theirs is taken.
    """

    id: int
    is_blocked: bool = False

    @property
    def principal(self) -> str:
        """How the person is addressed."""
        return f"person:{self.id}"


class PeopleTx(Protocol):
    """What a transaction of the hive's store knows of people."""

    def person_of(self, platform: str, namespace: str, user_id: str) -> int | None:
        """Return the person to whom this account belongs."""
        ...

    def add_person(self, platform: str, namespace: str, user_id: str, *, name: str | None, at: int) -> int:
        """Add a person with this one account; return the person's number."""
        ...


def account_of(source: SessionSource) -> Account | None:
    """Return the account that wrote, or `None` when the event names no author."""
    if not source.user_id:
        return None
    namespace = source.user_ns
    if namespace is None:
        namespace = source.scope_id if source.platform in _SCOPED else None
    return Account(platform=source.platform, namespace=namespace or "", user_id=source.user_id)


def resolve(tx: PeopleTx, account: Account, *, name: str | None, at: int) -> Person:
    """Return the person of `account`; an account that was never seen is a new person.

    Args:
        name: What to call a new person; it is shown, and never compared.
        at: Now, UTC milliseconds.
    """
    number = tx.person_of(account.platform, account.namespace, account.user_id)
    if number is None:
        number = tx.add_person(account.platform, account.namespace, account.user_id, name=name, at=at)
    return Person(id=number)
