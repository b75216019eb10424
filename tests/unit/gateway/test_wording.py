"""skep.gateway.wording, against control protocol, sections 5 and 7, and relay contract, section 7."""

from __future__ import annotations

import re

import pytest

from skep.gateway.outbox import outcome_of
from skep.gateway.wording import draft_id, plain_text, prompt_id
from skep.wire.relay.actions import Result

PLAIN = {
    "emphasis": ("**bold** and *slanted* and ~~gone~~", "bold and slanted and gone"),
    "code": ("run `make` now", "run make now"),
    "fence": ("before\n```python\nx = 2 * 3 * 4\n```\nafter", "before\nx = 2 * 3 * 4\nafter"),
    "heading": ("## Title\ntext #1", "Title\ntext #1"),
    "link": ("see [the page](https://x.example/a_b)", "see the page (https://x.example/a_b)"),
    "image": ("![alt](https://x.example/i.png)", "alt (https://x.example/i.png)"),
    "no marks": ("2 * 3 * 4 = 24, snake_case, __init__", "2 * 3 * 4 = 24, snake_case, init"),
    "list": ("* one\n* two", "* one\n* two"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("markdown", "text"), PLAIN.values(), ids=PLAIN.keys())
def test_plain_text_has_the_words_without_the_marks(markdown: str, text: str) -> None:
    """For a platform that refused the form."""
    assert plain_text(markdown) == text


def test_draft_id_is_52_bits_of_the_key() -> None:
    """Stable over restarts, and exact in any JSON reader."""
    assert draft_id("r:in-1") == 0xC3FB0CD054D43  # by sha256sum
    assert 0 <= draft_id("r:other") < 2**52


@pytest.mark.parametrize(("delivery_id", "tail"), [(0, "0"), (35, "z"), (36, "10"), (10**9, "gjdgxs")])
def test_prompt_id_names_relay_and_delivery(delivery_id: int, tail: str) -> None:
    """Of the alphabet and length that a callback token allows."""
    made = prompt_id("local", delivery_id)

    assert made == f"25bf.{tail}"  # 25bf: by sha256sum
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", made)


OUTCOMES = {
    "success": (Result(success=True), "success"),
    "success beats a code": (Result(success=True, code="unknown"), "success"),
    "code": (Result(code="forbidden", error="network"), "forbidden"),
    "temporary words": (Result(error="aiohttp ConnectionReset by peer"), "transient"),
    "timed out": (Result(error="relay outbound timed out"), "unknown_outcome"),
    "other words": (Result(error="nope"), "unknown"),
    "nothing": (Result(), "unknown"),
}


@pytest.mark.parametrize(("result", "outcome"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_outcome_is_the_code_or_read_from_the_words(result: Result, outcome: str) -> None:
    """A connector without codes steers by its words, as it steers a released client."""
    assert outcome_of(result) == outcome
