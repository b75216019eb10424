"""skep.foundation.exits, against secrets and providers, section S1."""

from __future__ import annotations

from typing import get_args

import pytest

from skep.foundation.exits import EXIT_CODES, ClassifiedError, Outcome, exit_code, worst

# Copied by hand from the table of section S1.
TABLE = {
    "ok": 0,
    "unchanged": 0,
    "check_failed": 1,
    "usage": 2,
    "would_change": 10,
    "auth": 20,
    "permission": 21,
    "not_found": 22,
    "model": 22,
    "network": 23,
    "timeout": 24,
    "rate": 25,
    "server": 26,
    "malformed": 27,
    "not_encodable": 28,
    "unsafe_target": 30,
    "write_failed": 31,
    "busy": 32,
}
ORDER: list[Outcome] = [
    "usage",
    "auth",
    "permission",
    "not_found",
    "malformed",
    "rate",
    "timeout",
    "network",
    "server",
    "not_encodable",
    "unsafe_target",
    "write_failed",
]


def test_each_class_has_the_code_of_the_table() -> None:
    """The table has one home, and it says what the specification says."""
    assert dict(EXIT_CODES) == TABLE
    assert set(EXIT_CODES) == set(get_args(Outcome))


def test_the_first_in_order_decides() -> None:
    """Of several failures the one that has to be mended first gives the exit code."""
    for place, outcome in enumerate(ORDER):
        assert worst(reversed(ORDER[place:])) == outcome
        assert exit_code([*ORDER[place:], "unchanged", "check_failed"]) == TABLE[outcome]


def test_nothing_wrong_is_0() -> None:
    """No outcome at all, or only good ones, is well."""
    assert exit_code([]) == 0
    assert exit_code(["unchanged", "ok"]) == 0


def test_an_error_is_one_object_with_the_fields_of_both_shapes() -> None:
    """A program reads the class and the code from the same object."""
    error = ClassifiedError("auth", "refused", area="secret", where="main", subject="/a:B", http_status=403)

    assert error.as_json() == {
        "ok": False,
        "code": "secret.auth",
        "problem": "refused",
        "hint": "",
        "class": "auth",
        "where": "main",
        "subject": "/a:B",
        "retryable": False,
        "http_status": 403,
    }
    assert error.exit_code == 20


@pytest.mark.parametrize("length", [0, 300, 301, 10_000])
def test_a_server_speaks_300_characters_at_most(length: int) -> None:
    """What a server says is cut, however long it is."""
    assert len(ClassifiedError("server", "x", area="secret", detail="y" * length).detail) == min(length, 300)
