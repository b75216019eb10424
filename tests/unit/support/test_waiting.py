"""support.waiting: a wait ends when it can, and says why when it cannot."""

from __future__ import annotations

import re

import pytest

from support.waiting import MS, eventually, eventually_sync


async def test_eventually_returns_what_became_true() -> None:
    """A check that raises or says `False` is tried again."""
    answers = iter([AssertionError("no"), False, OSError("no"), 7])

    async def check() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await eventually(check) == 7


async def test_eventually_says_the_last_reason() -> None:
    """The failure names the check and why the last try was not enough."""

    def queue_is_empty() -> None:
        raise AssertionError("3 are left")

    with pytest.raises(AssertionError, match=re.escape("`queue_is_empty` did not come true")) as raised:
        await eventually(queue_is_empty, within=5 * MS)

    assert "3 are left" in str(raised.value)


def test_eventually_sync_does_not_wait_on_a_mistake() -> None:
    """A programming error ends the wait at once."""

    def check() -> None:
        raise KeyError("typo")

    with pytest.raises(KeyError):
        eventually_sync(check, within=60)
