"""skep.wire.relay.token, against relay contract, sections 2.3 and 9, beyond the vectors."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from skep.wire.relay import token
from skep.wire.relay.token import Verdict, check_token, mint_token, peek_gateway_id

NOW = 1_790_000_000
SECRET = "a" * 64


def _verdict(minted: str, *, secrets: tuple[str, ...] = (SECRET,), upgrade: bool = False) -> Verdict:
    return check_token(minted, secrets=secrets, now_s=NOW, upgrade=upgrade).verdict


def test_expired_is_told_from_refused_only_with_a_good_signature() -> None:
    """Rule 2 before rule 3: an expired token with a wrong signature is nobody's."""
    old = mint_token("gw", secret=SECRET, now_s=NOW - 1000)

    assert _verdict(old) is Verdict.EXPIRED
    assert _verdict(old, secrets=("b" * 64,)) is Verdict.REFUSED
    assert check_token(old, secrets=("b" * 64,), now_s=NOW).gateway_id == ""


@pytest.mark.parametrize("ttl_s", [0, 24 * 3600 + 1, 10**9])
def test_upgrade_lane_wants_an_end_within_a_day(ttl_s: int) -> None:
    """A token for ever, or for long, is malformed there and good elsewhere."""
    minted = mint_token("gw", secret=SECRET, now_s=NOW, ttl_s=ttl_s)

    assert _verdict(minted) is Verdict.VALID
    assert _verdict(minted, upgrade=True) is Verdict.REFUSED


@pytest.mark.parametrize("ttl_s", [1, 300, 24 * 3600])
def test_upgrade_lane_takes_short_tokens(ttl_s: int) -> None:
    """What a client mints for a dial."""
    assert _verdict(mint_token("gw", secret=SECRET, now_s=NOW, ttl_s=ttl_s), upgrade=True) is Verdict.VALID


def test_upgrade_lane_tells_an_expired_token() -> None:
    """A slow clock gets its own answer there too."""
    assert _verdict(mint_token("gw", secret=SECRET, now_s=NOW - 1000), upgrade=True) is Verdict.EXPIRED


@pytest.mark.parametrize("secrets", [(), ("",), ("0" * 64,)[:0]])
def test_nobody_has_a_token(secrets: tuple[str, ...]) -> None:
    """Without a secret nothing is valid, not even what the stand-in would sign."""
    stand_in = mint_token("gw", secret="0" * 64, now_s=NOW)

    assert _verdict(stand_in, secrets=secrets) is Verdict.REFUSED


def test_peek_finds_the_record_and_proves_nothing() -> None:
    """Colons belong to the id; long ids and junk name nobody."""
    assert peek_gateway_id(mint_token("a:b:c", secret="x", now_s=NOW)) == "a:b:c"
    assert peek_gateway_id(mint_token("x" * 129, secret="x", now_s=NOW)) is None
    assert peek_gateway_id("%%%") is None


def test_invariant_24_only_hmac_and_hashlib() -> None:
    """Channel authentication stands on the standard library alone."""
    imported = {
        name.name.split(".")[0] if isinstance(node, ast.Import) else (node.module or "").split(".")[0]
        for node in ast.walk(ast.parse(Path(token.__file__).read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }

    assert imported <= sys.stdlib_module_names
    assert {"hmac", "hashlib"} <= imported
