"""skep.providers.report, smoke, embeddings and sdk-free parts, against secrets and providers, sections B2 and B5."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import jsonschema
import msgspec
import pytest

from skep.providers.answers import Answer, Transport
from skep.providers.classify import Case, Kind, classify
from skep.providers.embeddings import cosine, read_vectors
from skep.providers.problems import ProviderError
from skep.providers.report import (
    FORMAT,
    Check,
    Client,
    JsonResult,
    Report,
    Status,
    line_of,
    report_schema,
    verdict_of,
)
from skep.providers.smoke import CHECKS, Plan, check_names, requirements


def _check(name: str, status: Status = "pass", kind: Kind | None = "ok", detail: str = "") -> Check:
    return Check(name=name, status=status, kind=kind, detail=detail)


PASSED = JsonResult(json_mode="json_schema", json_mode_group="response_format", enforced=True)

LINES = {
    "json_response=pass json_mode=response_format/json_schema enforced=true": PASSED,
    "json_response=pass json_mode=response_format/json_schema enforced=false degraded=true": JsonResult(
        json_mode="json_schema", json_mode_group="response_format", enforced=False, degraded=True
    ),
    "json_response=pass json_mode=response_format/json_schema enforced=unknown degraded=true": JsonResult(
        json_mode="json_schema", json_mode_group="response_format", enforced="unknown", degraded=True
    ),
    "json_response=pass json_mode=prompt degraded=true": JsonResult(
        json_mode="prompt", json_mode_group="prompt", enforced=False, degraded=True
    ),
}


@pytest.mark.parametrize(("line", "json"), LINES.items(), ids=LINES.keys())
def test_b5_line_reads_like_the_specification(line: str, json: JsonResult) -> None:
    """One line for people, the same words for scripts."""
    assert line_of(_check("json_response"), json) == line


EXITS: dict[str, tuple[list[Check], dict[str, str | None], str, int]] = {
    "all well": ([_check("chat_completion")], {"chat_completion": None}, "pass", 0),
    "required fails": ([_check("tool_call", "fail", "content")], {"tool_call": None}, "fail", 1),
    "required was skipped": ([_check("tool_call", "skip", None)], {"tool_call": None}, "fail", 1),
    "not required fails": ([_check("tool_call", "fail", "content")], {}, "degraded", 0),
    "usage never fails": ([_check("usage", "fail", "content")], {}, "pass", 0),
    "auth before the rest": (
        [_check("models", "error", "other", "server"), _check("chat_completion", "error", "auth")],
        {},
        "fail",
        20,
    ),
    "model": ([_check("chat_completion", "error", "model")], {}, "fail", 22),
    "network": ([_check("chat_completion", "error", "other", "connection")], {}, "fail", 23),
    "name": ([_check("chat_completion", "error", "other", "name")], {}, "fail", 23),
    "timeout": ([_check("chat_completion", "error", "timeout")], {}, "fail", 24),
    "rate": ([_check("chat_completion", "error", "rate")], {}, "fail", 25),
    "server": ([_check("chat_completion", "error", "other", "server")], {}, "fail", 26),
    "malformed": ([_check("chat_completion", "error", "other", "malformed")], {}, "fail", 27),
    "an error counts though it is not required": ([_check("models", "error", "rate")], {}, "fail", 25),
}


@pytest.mark.parametrize(("checks", "required", "verdict", "code"), EXITS.values(), ids=EXITS.keys())
def test_s1_exit_code(checks: list[Check], required: dict[str, str | None], verdict: str, code: int) -> None:
    """The table, and the first of its order where several hold."""
    assert verdict_of(checks, None, required=required) == (verdict, code)


@pytest.mark.parametrize(
    ("mode", "wanted", "code"),
    [
        ("json_schema", "json_schema", 0),
        ("json_object", "json_schema", 1),
        ("prompt", "json_object", 1),
        ("json_schema", "prompt", 0),
        ("none", "prompt", 1),
    ],
)
def test_b5_mode_that_is_required(mode: Any, wanted: str, code: int) -> None:
    """A better mode than the one required does, a lesser does not."""
    json = JsonResult(json_mode=mode)

    assert verdict_of([_check("json_response")], json, required={"json_response": wanted})[1] == code


def test_b5_report_fits_its_schema() -> None:
    """The file that ships beside the code."""
    report = Report(
        format=FORMAT,
        base_url_host="x:1",
        model="m",
        api="openai",
        started_at="2026-01-01T00:00:00+00:00",
        client=Client(skep="0", httpx="0"),
        checks=(_check("models"), _check("usage", "skip", None)),
        json=PASSED,
        verdict="pass",
        exit_code=0,
    )
    fields: dict[str, Any] = json.loads(msgspec.json.encode(report))

    jsonschema.validate(fields, report_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**fields, "verdict": "fine"}, report_schema())


def test_b1_names_of_checks() -> None:
    """Long, short, and with a dash."""
    assert check_names("chat, json,wrong-key,streaming") == {
        "chat_completion",
        "json_response",
        "wrong_key",
        "streaming",
    }
    assert requirements("json=json_schema,tools") == {"json_response": "json_schema", "tool_call": None}


@pytest.mark.parametrize("text", ["colour", "json=yaml", "tools=auto"])
def test_b1_unknown_names_are_refused(text: str) -> None:
    """A requirement that nobody checks would always hold."""
    with pytest.raises(ProviderError):
        requirements(text)


def test_b5_what_is_asked_for_must_pass() -> None:
    """By default each check that is not only informative; a probe and a threshold make more of them count."""
    assert set(Plan().must_pass) == {"chat_completion", "json_response", "tool_call", "streaming"}
    assert set(Plan(checks=frozenset(CHECKS), probe_tokens=5, max_total_ms=5).must_pass) == set(CHECKS) - {
        "models",
        "usage",
        "sdk_chat",
    }


def _rows(*vectors: object, order: tuple[int, ...] | None = None) -> dict[str, Any]:
    numbers = order or tuple(range(len(vectors)))
    return {"data": [{"index": at, "embedding": vector} for at, vector in zip(numbers, vectors, strict=True)]}


def test_b2_vectors_are_read_in_the_order_of_their_inputs() -> None:
    """By index, not by place; the packed form gives the same numbers."""
    packed = [base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in ([1, 2], [3, 4])]

    assert read_vectors(_rows([3, 4], [1, 2], order=(1, 0)), count=2) == [[1, 2], [3, 4]]
    assert read_vectors(_rows(*packed), count=2, packed=True) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (_rows([1.0]), "wrong_count"),
        (_rows([1.0], [1.0, 2.0]), "lengths_differ"),
        (_rows([1.0], [True]), "not_numbers"),
        (_rows([1.0], ["1"]), "not_numbers"),
        (_rows([1.0], [float("inf")]), "not_numbers"),
        (_rows([1.0], []), "not_numbers"),
        ({"data": "x"}, "wrong_count"),
        (None, "wrong_count"),
    ],
)
def test_b2_what_is_no_vector(value: object, word: str) -> None:
    """Counted, finite, of one length."""
    assert read_vectors(value, count=2) == word


def test_b2_cosine() -> None:
    """The same direction is 1, a vector without one is 0."""
    assert cosine([1, 2], [2, 4]) == pytest.approx(1)
    assert cosine([1, 0], [0, 1]) == 0
    assert cosine([0, 0], [1, 1]) == 0


@pytest.mark.parametrize(
    ("transport", "kind", "detail"),
    [
        ("connect_timeout", "timeout", "connect"),
        ("read_timeout", "timeout", "read"),
        ("total_timeout", "timeout", "total"),
        ("connection", "other", "connection"),
        ("tls", "other", "tls"),
        ("name", "other", "name"),
    ],
)
def test_b4_1_no_answer(transport: Transport, kind: str, detail: str) -> None:
    """Why there is none, and never a fallback."""
    verdict = classify(Case(answer=Answer(transport=transport), subject="json", rung="json_schema"))

    assert (verdict.kind, verdict.detail, verdict.fallback) == (kind, detail, False)
