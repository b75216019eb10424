"""People in strict mode: an account is (platform, namespace, id), never the id alone.

Source: identity, section 15; control protocol, sections 4 and 5.2.
The account comes from the event as the connector saw it; a name that somebody gives decides nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from skep.store.ports import HiveTx
from skep.wire.relay.event import SessionSource

__all__ = ["Account", "Person", "account_of", "resolve"]

_SCOPED: Final = frozenset({"slack", "wecom"})
"""Platforms whose user ids are unique in their scope only (platforms, section 4)."""
_NAME_MAX: Final = 200
_HEARD_EVERY_MS: Final = 60_000


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who somebody is on one platform.

    Attributes:
        namespace: Where `user_id` is unique; empty where it is unique on the platform.
    """

    platform: str
    namespace: str
    user_id: str


class _Heard(msgspec.Struct, frozen=True):
    """An account as it was written down last, and when (UTC milliseconds)."""

    person: Person
    shown: str
    at: int


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """One person, however many accounts they have.

    Attributes:
        is_blocked: Nothing of theirs is taken.
    """

    id: int
    is_blocked: bool = False

    @property
    def principal(self) -> str:
        """How the person is addressed: `person:<n>`, stable."""
        return f"person:{self.id}"


def account_of(source: SessionSource) -> Account | None:
    """Return the account that wrote, or `None` when the event names no author."""
    if not source.user_id:
        return None
    namespace = source.user_ns
    if namespace is None and source.platform in _SCOPED:
        namespace = source.scope_id
    return Account(platform=source.platform, namespace=namespace or "", user_id=source.user_id)


def resolve(tx: HiveTx, account: Account, *, name: str | None, at: int) -> Person:
    """Return the person of `account`; an account that was never seen is a new person.

    That somebody was heard from is written once a minute, or when they are called otherwise than before.

    Args:
        name: What the platform calls them; it is shown, and never compared.
        at: Now, UTC milliseconds.
    """
    shown = (name or account.user_id)[:_NAME_MAX]
    heard: _Heard | None = tx.memo.get(account)
    if heard is not None and heard.shown == shown and at - heard.at < _HEARD_EVERY_MS:
        return heard.person
    person = _resolve(tx, account, shown=shown, at=at)
    tx.memo[account] = _Heard(person, shown, at)
    return person


def _resolve(tx: HiveTx, account: Account, *, shown: str, at: int) -> Person:
    row = tx.one("account_heard", account.platform, account.namespace, account.user_id, at, shown)
    if row is not None:
        return Person(id=row[0], is_blocked=row[1] == "blocked")
    (person,) = _returned(tx.one("person_insert", shown, None, at))
    tx.one("account_insert", person, account.platform, account.namespace, account.user_id, shown, at)
    return Person(id=person)


def _returned(row: tuple[int, ...] | None) -> tuple[int, ...]:
    assert row is not None
    return row
