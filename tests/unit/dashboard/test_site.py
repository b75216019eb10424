"""skep.dashboard.site, against reliability, section 3.2."""

from __future__ import annotations

import pytest

from skep.dashboard.site import HEADERS, Site
from skep.foundation.errors import SettingError

PLAIN = Site.at("localhost", 7434)
PUBLIC = Site.at("localhost", 7434, public_url="https://Hive.example")

HOSTS = {
    "own name": (PLAIN, "localhost:7434", True),
    "case does not count": (PLAIN, "LocalHost:7434", True),
    "the chat's name": (PLAIN, "127.0.0.1:7434", False),
    "another port": (PLAIN, "localhost:7433", False),
    "no port": (PLAIN, "localhost", False),
    "a name that was bound to us": (PLAIN, "evil.example:7434", False),
    "a name that ends in ours": (PLAIN, "evil.localhost:7434", False),
    "none": (PLAIN, "", False),
    "public name": (PUBLIC, "hive.example", True),
    "public name with its port": (PUBLIC, "hive.example:443", True),
    "public name, other port": (PUBLIC, "hive.example:8443", False),
}
ORIGINS: dict[str, tuple[dict[str, str], bool]] = {
    "the browser says same origin": ({"Sec-Fetch-Site": "same-origin"}, True),
    "another port is same site": ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:7434"}, False),
    "another site": ({"Sec-Fetch-Site": "cross-site"}, False),
    "typed into the address bar": ({"Sec-Fetch-Site": "none"}, False),
    "an old browser, own origin": ({"Origin": "http://localhost:7434"}, True),
    "an old browser, other scheme": ({"Origin": "https://localhost:7434"}, False),
    "an old browser, other port": ({"Origin": "http://localhost:7433"}, False),
    "an opaque origin": ({"Origin": "null"}, False),
    "neither": ({}, False),
}
NOT_ADDRESSES = {
    "other scheme": "ftp://hive.example",
    "no scheme": "hive.example",
    "no host": "https://",
    "bad port": "https://hive.example:no",
    "with a user": "https://me@hive.example",
}


@pytest.mark.parametrize(("site", "host", "is_ours"), HOSTS.values(), ids=HOSTS.keys())
def test_host_is_one_of_the_configured_names(*, site: Site, host: str, is_ours: bool) -> None:
    """Only an exact name and port is ours."""
    assert site.is_host(host) is is_ours


@pytest.mark.parametrize(("headers", "is_ours"), ORIGINS.values(), ids=ORIGINS.keys())
def test_only_our_own_page_is_same_origin(*, headers: dict[str, str], is_ours: bool) -> None:
    """What the browser says decides; without it the origin does; with neither the answer is no."""
    assert PLAIN.is_same_origin(headers) is is_ours


def test_cookie_has_the_host_prefix_on_tls_only() -> None:
    """Browsers refuse the prefix on plain loopback."""
    assert (PLAIN.cookie, PLAIN.is_tls) == ("skep_dashboard", False)
    assert (PUBLIC.cookie, PUBLIC.is_tls) == ("__Host-skep_dashboard", True)


@pytest.mark.parametrize("address", NOT_ADDRESSES.values(), ids=NOT_ADDRESSES.keys())
def test_public_url_that_is_none_is_refused(address: str) -> None:
    """The operator is told before anything listens."""
    with pytest.raises(SettingError, match=r"`web\.public_url`"):
        Site.at("localhost", 7434, public_url=address)


def test_policy_is_the_written_one() -> None:
    """The policy, word by word."""
    assert HEADERS["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "manifest-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
    )
