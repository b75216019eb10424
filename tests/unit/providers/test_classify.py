"""skep.providers.classify, against secrets and providers, section B4."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import pytest

from skep.providers.answers import Answer, Rung, Subject, Transport
from skep.providers.classify import RULES, Case, classify
from unit.providers.cases import MORE

FILE = Path(__file__).resolve().parents[2] / "vectors" / "response_format_errors.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text())["cases"]
TRANSPORTS: dict[str, Transport] = {
    "ConnectError": "connection",
    "ConnectTimeout": "connect_timeout",
    "ReadTimeout": "read_timeout",
}


def _case(vector: dict[str, Any]) -> Case:
    return Case(
        answer=Answer(
            status=vector["status"],
            transport=TRANSPORTS.get(vector.get("transport", "")),
            content_type=vector["content_type"] or "",
            body=(vector["body"] or "").encode(),
        ),
        subject=cast("Subject", vector["feature"]),
        rung=cast("Rung", vector["sent"]),
        word="skep",
    )


def _ask(status: int, body: str, *, rung: Rung = "json_schema") -> Case:
    is_page = body.startswith("<")
    content_type = "text/html" if is_page else "application/json"
    answer = Answer(status=status, content_type=content_type, body=body.encode())
    return Case(answer=answer, subject="json", rung=rung, word="skep")


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["id"]) for vector in VECTORS])
def test_b4_vector_has_its_class_detail_and_fallback(vector: dict[str, Any]) -> None:
    """The shared cases, to the last word."""
    verdict = classify(_case(vector))

    assert (verdict.kind, verdict.detail, verdict.fallback) == (
        vector["expect"]["class"],
        vector["expect"]["detail"],
        vector["expect"]["fallback"],
    )


@pytest.mark.parametrize(("kind", "fallback", "status", "body"), MORE.values(), ids=MORE.keys())
def test_b4_holds_for_cases_that_are_in_no_file(kind: str, fallback: bool, status: int, body: str) -> None:  # noqa: FBT001
    """The rule, not the table."""
    verdict = classify(_ask(status, body))

    assert (verdict.kind, verdict.fallback) == (kind, fallback)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_b7_5_no_rule_can_go(rule: Any) -> None:
    """Without any one of the rules at least one vector is read wrongly."""
    rest = tuple(other for other in RULES if other is not rule)

    wrong = [
        vector["id"]
        for vector in VECTORS
        if (verdict := classify(_case(vector), rules=rest)).kind != vector["expect"]["class"]
        or verdict.fallback != vector["expect"]["fallback"]
    ]

    assert wrong


@pytest.mark.parametrize(
    "vector",
    [pytest.param(vector, id=vector["id"]) for vector in VECTORS if vector["expect"]["class"] != "ok"],
)
def test_b3_the_last_rung_has_no_fallback(vector: dict[str, Any]) -> None:
    """After `prompt` there is nothing to try."""
    assert not classify(_case({**vector, "sent": "prompt"})).fallback


@pytest.mark.parametrize("status", [401, 402, 403, 408, 429, 502, 503, 504, 524, 529])
def test_b4_no_words_turn_a_fault_into_a_fallback(status: int) -> None:
    """Whatever is said with such a status, it is not about the JSON mode."""
    body = (
        '{"error": {"message": "response_format json_schema is not supported", "param": "response_format"}}'
    )

    assert not classify(_ask(status, body)).fallback


def test_b3_a_fence_is_taken_on_the_last_rung_only() -> None:
    """One fence around the whole text is what models write when nothing holds them."""
    content = '```json\n{"ok": true, "word": "skep"}\n```'
    body = json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})

    native, prompt = classify(_ask(200, body)), classify(_ask(200, body, rung="prompt"))

    assert (native.kind, native.detail) == ("content", "fenced")
    assert (prompt.kind, prompt.detail) == ("ok", "fenced")


@pytest.mark.parametrize(
    "content",
    [
        'Here it is: {"ok": true, "word": "skep"}',
        '{"ok": true, "word": "skep"} {"ok": true, "word": "skep"}',
        '{"ok": true, "word": "skep", "ok": false}',
        '{"ok": 1, "word": "skep"}',
        '{"ok": true, "word": "skep", "more": 1}',
        '{"ok": NaN, "word": "skep"}',
        '```json\n{"ok": true, "word": "skep"}\n```\nI hope this helps',
        "[" * 10_000,
    ],
)
def test_b3_nothing_else_conforms(content: str) -> None:
    """Strictly: one object, each name once, nothing around it."""
    body = json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})

    assert classify(_ask(200, body, rung="prompt")).kind == "content"


HARD = {
    "a key that is is is": "api key " + "is " * 6000,
    "words of a key": "auth" * 5000,
    "models": "model " * 3300,
    "parameters": "unsupported parameter:::" * 800,
    "places": "loc: (" * 3300,
    "formats": "response_format not " * 1000,
    "fields": "missing required field " * 870,
    "one long word": "a" * 20_000,
    "braces": "{'" * 10_000,
}


@pytest.mark.parametrize("text", HARD.values(), ids=HARD.keys())
def test_b7_4_no_text_takes_long_to_read(text: str) -> None:
    """A server that means no good cannot make a rule search for ever."""
    start = time.monotonic()

    verdict = classify(_ask(400, json.dumps({"error": {"message": text}})))

    assert not verdict.fallback
    assert time.monotonic() - start < 3
