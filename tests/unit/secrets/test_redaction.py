"""skep.foundation.secret and skep.foundation.redaction, against secrets and providers, section S2."""

from __future__ import annotations

import ast
import base64
import copy
import json
import logging
import pickle
import shlex
import textwrap
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from skep.foundation.redaction import MASK, Redactor, is_secret_like, redact
from skep.foundation.secret import Secret

VALUE = "canary 'both' \"quotes\" $x \\ +/é&=end"
FORMS: dict[str, Callable[[str], str]] = {
    "itself": str,
    "percent": lambda text: urllib.parse.quote(text, safe=""),
    "percent, path": urllib.parse.quote,
    "percent, form": urllib.parse.quote_plus,
    "json": json.dumps,
    "json, unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 in a sentence": lambda text: base64.b64encode(b"ab" + text.encode() + b"cd").decode(),
    "base64, url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "shell": shlex.quote,
    "shell, backslash": lambda text: "'" + text.replace("'", "'\\''") + "'",
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "lines": lambda text: "\n".join(text[start : start + 7] for start in range(0, len(text), 7)),
    "lines, indented": lambda text: "\n    ".join(
        text[start : start + 5] for start in range(0, len(text), 5)
    ),
}
SHAPES = {
    "bearer": "authorization: Bearer abcdefghijklmnop",
    "openai": "Incorrect API key: sk-proj-abcdefghijkl",
    "openai, starred": "Incorrect API key: sk-abc***********wxyz",
    "openai, dots": "given sk-...8aSP12",
    "vault": "token hvs.CAESIJabcdefgh",
    "infisical": "st.abcdefgh.ijklmnop.qrstuvwx",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "age": "AGE-SECRET-KEY-1QQQQQQQQQQ",
    "pem": "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----",
    "hex": "hash 0123456789abcdef0123456789abcdef",
    "base64": "blob QUJDREVGR0hJSktMTU5PUFFSU1RVVldY1234",
    "query": "GET /x?token=abcd1234&y=1",
    "password": '{"password": "hunter2hunter2"}',
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_s2_a_live_value_is_found_in_each_form(form: Callable[[str], str]) -> None:
    """However a program writes the value on its way, it does not get out."""
    redactor = Redactor()
    redactor.add(Secret("k", VALUE))

    said = redactor.known(f"before {form(VALUE)} after")

    assert MASK in said
    assert "canary" not in said
    assert said.startswith("before ")
    assert said.endswith(" after")


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
def test_s2_what_looks_like_a_secret_is_masked_unknown(text: str) -> None:
    """A server may repeat a key that is not ours."""
    said = redact(text)

    assert MASK in said
    for part in ("abcdefgh", "wxyz", "8aSP", "hunter2", "QUJDREVG", "0123456789abcdef", "QQQQ", "abcd1234"):
        assert part not in said


@pytest.mark.parametrize(
    "text", ["the model `gemma4:31b-cloud` is not there", "/home-platform/providers/KEY"]
)
def test_s2_ordinary_words_stay(text: str) -> None:
    """A report stays readable."""
    assert redact(text) == text


def test_s2_short_values_are_not_looked_for() -> None:
    """A value of a few letters would blank ordinary words."""
    redactor = Redactor()
    redactor.add(Secret("k", "error"))

    assert redactor.known("error: x") == "error: x"
    assert Secret("k", "error").is_short


def test_s2_a_secret_shows_its_name_alone() -> None:
    """Every ordinary way to text gives the name, and the ways to copies are closed."""
    secret = Secret("NAME", VALUE)

    assert {str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s" % secret} == {"<secret NAME>"}  # noqa: UP031
    for copying in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, iter, len, hash):
        with pytest.raises(TypeError):
            copying(secret)  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert secret == Secret("OTHER", VALUE)
    assert secret != Secret("NAME", VALUE + "x")
    assert not hasattr(secret, "__dict__")


def test_s2_a_fingerprint_needs_the_key_of_the_host() -> None:
    """Without the key a fingerprint says nothing about the value."""
    secret = Secret("k", VALUE)

    assert secret.fingerprint(b"1" * 32) != secret.fingerprint(b"2" * 32)
    assert secret.fingerprint(b"1" * 32) == Secret("l", VALUE).fingerprint(b"1" * 32)
    assert len(secret.fingerprint(b"1" * 32)) == 8


def test_s2_log_records_are_rewritten(capsys: pytest.CaptureFixture[str]) -> None:
    """A library that logs the value logs a mask."""
    redactor = Redactor()
    redactor.add(Secret("k", VALUE))
    factory = logging.getLogRecordFactory()
    make = redactor._record_factory(factory)  # pyright: ignore[reportPrivateUsage]  # installing would outlive the test
    try:
        raise ValueError(VALUE)
    except ValueError as error:
        about = (type(error), error, error.__traceback__)
    record = make("name", 30, "file", 1, "sent %s", (VALUE,), about)

    said = logging.Formatter("%(message)s").format(record)

    assert "canary" not in said
    assert said.startswith("sent ***")


@pytest.mark.parametrize(
    "word", ["sk-proj-abcdefghijkl", "hvs.CAESIJabcdefgh", "AGE-SECRET-KEY-1ABC", "eyJhbGciOi.eyJzdWIi.c2ln"]
)
def test_a_key_on_the_command_line_is_seen(word: str) -> None:
    """Others read the arguments of a program."""
    assert is_secret_like(word)
    assert not is_secret_like("/home-platform/providers/**")


MAY_REVEAL = {
    "foundation/redaction.py": "looks for it",
    "secrets/dialects.py": "the renderer",
    "secrets/infisical.py": "the header, and the body of the login",
    "secrets/vault.py": "the header, and the body of the login",
    "secrets/local.py": "the identity that decrypts",
}


def test_s2_reveal_is_called_in_few_places() -> None:
    """The text of a secret comes out in the renderer and in the maker of a header."""
    source = Path(__file__).resolve().parents[3] / "src" / "skep"
    callers = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }

    of_secrets = {caller for caller in callers if caller.split("/")[0] in {"foundation", "secrets", "cli"}}
    assert of_secrets == set(MAY_REVEAL)


def test_wrapped_values_are_found_in_a_narrow_terminal() -> None:
    """A report that is wrapped to a width splits a value in the middle."""
    redactor = Redactor()
    redactor.add(Secret("k", "abcdefghijklmnopqrstuvwxyz"))

    assert "fghij" not in redactor.known("\n".join(textwrap.wrap("x abcdefghijklmnopqrstuvwxyz", 9)))
