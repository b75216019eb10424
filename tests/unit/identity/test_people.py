"""skep.identity.people, against identity, section 15: whose account wrote."""

from __future__ import annotations

import pytest

from skep.identity.people import Account, account_of
from skep.wire.relay.event import SessionSource

ACCOUNTS = {
    "telegram has one namespace": (
        {"platform": "telegram", "user_id": "7", "scope_id": "s"},
        Account(platform="telegram", namespace="", user_id="7"),
    ),
    "discord in two guilds is one": (
        {"platform": "discord", "user_id": "7", "scope_id": "guild"},
        Account(platform="discord", namespace="", user_id="7"),
    ),
    "slack by its team": (
        {"platform": "slack", "user_id": "U7", "scope_id": "T1"},
        Account(platform="slack", namespace="T1", user_id="U7"),
    ),
    "wecom by its corporation": (
        {"platform": "wecom", "user_id": "u", "scope_id": "c"},
        Account(platform="wecom", namespace="c", user_id="u"),
    ),
    "the connector's namespace goes first": (
        {"platform": "slack", "user_id": "U7", "scope_id": "T1", "user_ns": "E9"},
        Account(platform="slack", namespace="E9", user_id="U7"),
    ),
    "web by its site": (
        {"platform": "web", "user_id": "owner", "scope_id": "local", "user_ns": "local"},
        Account(platform="web", namespace="local", user_id="owner"),
    ),
    "names decide nothing": (
        {"platform": "web", "user_id": "7", "user_name": "owner", "user_id_alt": "owner", "profile": "owner"},
        Account(platform="web", namespace="", user_id="7"),
    ),
    "no author": ({"platform": "web", "user_name": "owner"}, None),
    "empty author": ({"platform": "web", "user_id": ""}, None),
}


@pytest.mark.parametrize(("facts", "account"), ACCOUNTS.values(), ids=ACCOUNTS.keys())
def test_account_of(facts: dict[str, str], account: Account | None) -> None:
    """The key is (platform, namespace, id), and nothing else of the event."""
    assert account_of(SessionSource(**facts)) == account
