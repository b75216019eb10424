"""skep.gateway.identity, against relay contract, section 12."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skep.foundation.errors import SettingError
from skep.foundation.paths import Home
from skep.foundation.settings import GatewaySettings
from skep.gateway.identity import Identity, RelayIdentity

PINNED = {"GATEWAY_RELAY_ID": "gw-pinned", "GATEWAY_RELAY_SECRET": "s-pinned"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a prepared home."""
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def _identity(home: Home, env: dict[str, str] | None = None, **settings: str) -> RelayIdentity:
    return RelayIdentity(GatewaySettings(**settings), home, env=env or {})


def _enrol(home: Home, *, mode: int = 0o600) -> None:
    home.gateway_env.write_text(
        "# made by enrol\nGATEWAY_RELAY_ID=gw-file\nexport GATEWAY_RELAY_SECRET='s-file'\n"
    )
    home.gateway_env.chmod(mode)


def test_gw_01_each_source_wins_over_those_below_it(home: Home) -> None:
    """Pinned pair, enrolled pair, nothing."""
    nothing = _identity(home).credentials()
    _enrol(home)
    enrolled = _identity(home).credentials()
    pinned = _identity(home, PINNED).credentials()

    assert nothing is None
    assert enrolled is not None
    assert pinned is not None
    assert [(pair.gateway_id, pair.secret.reveal()) for pair in (enrolled, pinned)] == [
        ("gw-file", "s-file"),
        ("gw-pinned", "s-pinned"),
    ]


def test_half_a_pinned_pair_is_none(home: Home) -> None:
    """Both or none: the enrolled pair stays in force."""
    _enrol(home)

    pair = _identity(home, {"GATEWAY_RELAY_ID": "gw-pinned"}).credentials()

    assert pair is not None
    assert pair.gateway_id == "gw-file"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_secret_that_others_can_read_stops_the_start(home: Home, mode: int) -> None:
    """With the exact command that mends it."""
    _enrol(home, mode=mode)

    with pytest.raises(SettingError) as raised:
        _identity(home).credentials()

    assert raised.value.hint == f"chmod 600 {home.gateway_env}"
    assert "s-file" not in raised.value.problem


def test_address_is_the_environment_then_the_setting_then_our_own_connector(home: Home) -> None:
    """Blanks and a last slash are taken off; an empty variable counts as unset."""
    home.ports.write_text(json.dumps({"chat": 7433}))

    assert _identity(
        home, {"GATEWAY_RELAY_URL": " https://a.example/ "}, relay_url="https://b.example"
    ).url() == ("https://a.example")
    assert (
        _identity(home, {"GATEWAY_RELAY_URL": ""}, relay_url="https://b.example/").url()
        == "https://b.example"
    )
    assert _identity(home).url() == "http://127.0.0.1:7433"


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"chat":"x"}', '{"dashboard":1}'])
def test_no_address_without_a_connector(home: Home, text: str | None) -> None:
    """Nothing told, or nonsense: no address, no error."""
    if text is not None:
        home.ports.write_text(text)

    assert _identity(home).url() is None


IDENTITIES: dict[str, tuple[dict[str, str], tuple[Identity, ...]]] = {
    "nothing": ({}, (Identity(platform="relay"),)),
    "several, in order": (
        {
            "GATEWAY_RELAY_PLATFORMS": "Discord, telegram,,slack,discord",
            "GATEWAY_RELAY_BOT_IDS": '{"telegram":{"botId":"T"}}',
        },
        (Identity(platform="discord"), Identity(platform="telegram", bot_id="T"), Identity(platform="slack")),
    ),
    "bad JSON": (
        {"GATEWAY_RELAY_PLATFORMS": "discord", "GATEWAY_RELAY_BOT_IDS": "{oops"},
        (Identity(platform="discord"),),
    ),
    "odd JSON": (
        {
            "GATEWAY_RELAY_PLATFORMS": "discord",
            "GATEWAY_RELAY_BOT_IDS": '{"discord":"x","slack":{"botId":null}}',
        },
        (Identity(platform="discord"),),
    ),
    "bug 22: singular names": (
        {"GATEWAY_RELAY_PLATFORM": "discord", "GATEWAY_RELAY_BOT_ID": "B"},
        (Identity(platform="discord", bot_id="B"),),
    ),
    "plural wins": (
        {"GATEWAY_RELAY_PLATFORM": "discord", "GATEWAY_RELAY_PLATFORMS": "slack"},
        (Identity(platform="slack"),),
    ),
}


@pytest.mark.parametrize(("env", "identities"), IDENTITIES.values(), ids=IDENTITIES.keys())
def test_identities_come_from_the_environment(
    home: Home, env: dict[str, str], identities: tuple[Identity, ...]
) -> None:
    """First is the default; bad JSON means empty ids."""
    assert _identity(home, env).identities == identities
