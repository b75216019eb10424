"""skep.connector.http: names that the port answers to."""

from __future__ import annotations

import pytest

from skep.connector.http import Site
from skep.foundation.errors import SettingError


def test_loopback_site() -> None:
    """One name, with its port; no prefix for the cookie on plain http."""
    site = Site.of(host="127.0.0.1", port=7433, public_url=None)
    assert site.hosts == {"127.0.0.1:7433": "http://127.0.0.1:7433"}
    assert (site.url, site.cookie) == ("http://127.0.0.1:7433", "skep_chat")


def test_public_site_also_answers_on_this_machine() -> None:
    """The gateway and the terminal beside it dial loopback."""
    site = Site.of(host="0.0.0.0", port=7433, public_url="https://Chat.Example/")
    assert site.hosts == {
        "127.0.0.1:7433": "http://127.0.0.1:7433",
        "chat.example": "https://chat.example",
    }
    assert (site.url, site.cookie) == ("https://chat.example", "__Host-skep_chat")


def test_address_of_this_machine_is_a_name() -> None:
    """Without the port that needs no mention."""
    site = Site.of(host="192.0.2.7", port=80, public_url=None)
    assert set(site.hosts) == {"192.0.2.7", "127.0.0.1"}


def test_ipv6_address_is_bracketed() -> None:
    """As browsers write it."""
    assert "[::1]:7433" in Site.of(host="::1", port=7433, public_url=None).hosts


@pytest.mark.parametrize("url", ["chat.example", "ftp://chat.example", "https://", "https://chat.example/x"])
def test_bad_public_url_is_refused(url: str) -> None:
    """Scheme and host, nothing more."""
    with pytest.raises(SettingError):
        Site.of(host="127.0.0.1", port=7433, public_url=url)
